"""tools/gpu_check.py without a GPU: its plan, its table, and what it does with pieces that fail."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pages
import pytest

from ppcls.inference.auto import CANDIDATES
from ppcls.inference.engines.base import NOT_ONE

PAGE = pages.text_of("docs/gpu.md")


gpu_check = pages.tool("gpu_check")


def made(name, check, **keys):
    return gpu_check.Piece(name, f"{name} is done.", check, **keys)


@pytest.fixture
def context(tmp_path):
    return gpu_check.Context("gpu", tmp_path, gpus=1)


def here(piece, context, seconds):
    return gpu_check.run_here(piece, context)


def test_the_page_claims_what_the_pieces_check_and_nothing_else():
    _, _, rest = PAGE.partition(gpu_check.BEGIN)
    table, _, _ = rest.partition(gpu_check.END)
    found = [line.split(" | ")[:2] for line in table.splitlines() if line.startswith("| ")][1:]
    wanted = [line.split(" | ")[:2] for line in gpu_check.rows({})[2:]]
    assert found == wanted, "run python tools/gpu_check.py --docs"


def test_every_engine_of_a_gpu_has_its_pieces():
    names = {piece.name for piece in gpu_check.PIECES}
    assert len(names) == len(gpu_check.PIECES)
    for engine in CANDIDATES["gpu"]:
        assert f"{engine}-fp32" in names
    assert {"train-fp32", "train-bf16", "train-fp16", "sync-norms", "nccl", "processes"} <= names
    assert {"recompute", "memory", "tensorrt-cache", "tensorrt-graph"} <= names
    assert {"resume", "accumulate", "train-qat", "file-size", "cuda-libraries"} <= names
    needs = {piece.name: piece.gpus for piece in gpu_check.PIECES}
    assert {name for name, count in needs.items() if count == 2} == {
        *("sync-norms", "processes", "accumulate", "nccl")
    }


def test_without_a_gpu_every_piece_is_impossible(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)
    monkeypatch.setattr(gpu_check, "run_apart", None)  # nothing is started
    assert gpu_check.main(["--output", str(tmp_path / "found")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == [
        f"{piece.name}: impossible here (no CUDA device) [0 s]" for piece in gpu_check.PIECES
    ]
    assert said[-1].startswith(f"0 pass, 0 fail, {len(gpu_check.PIECES)} impossible here; ")
    kept = json.loads((tmp_path / "found/gpu_check.json").read_text())
    assert kept["machine"]["gpus"] == []
    assert set(kept["pieces"]) == {piece.name for piece in gpu_check.PIECES}
    table = (tmp_path / "found/gpu_check.md").read_text().splitlines()
    assert len(table) == 2 + len(gpu_check.PIECES)
    assert all(line.endswith("| impossible here (no CUDA device) |") for line in table[2:])


def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)
    monkeypatch.chdir(tmp_path)
    lines = pages.commands(PAGE)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("python tools/gpu_check.py"), line
        assert gpu_check.main(line.split()[2:]) == 0, line
        assert " 0 fail, " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "gpu_check").iterdir()} == {
        *("gpu_check.json", "gpu_check.md")
    }


def test_what_fails_is_told_and_does_not_stop_the_rest(context):
    def holds(context):
        return gpu_check.Found(True, "as it should be", {"ms": 1.5})

    def differs(context):
        return gpu_check.Found(False, "off by 3")

    def breaks(context):
        raise RuntimeError("CUDA error 719\n  deep inside | there")

    def lacks(context):
        raise gpu_check.Impossible("no TensorRT here")

    told = []
    pieces = [made(check.__name__, check) for check in (breaks, differs, lacks, holds)]
    pieces.append(made("pair", holds, gpus=2))
    found = dict(gpu_check.check_all(pieces, context, 1, here, tell=told.append))
    assert [gpu_check.words_of(one) for one in found.values()] == [
        "fail (RuntimeError: CUDA error 719 deep inside | there)",
        "fail (off by 3)",
        "impossible here (no TensorRT here)",
        "pass: as it should be",
        "impossible here (needs 2 GPUs, 1 is here)",
    ]
    assert len(told) == 5
    assert found["holds"]["figures"] == {"ms": 1.5}


def test_the_time_is_for_all_pieces_together(context):
    now = [0.0]
    given = []

    def slow(piece, context, seconds):
        given.append(seconds)
        now[0] += 50
        return {"status": "pass", "detail": "", "seconds": 50.0, "figures": {}}

    pieces = [made(name, None) for name in "abcd"]
    every = gpu_check.check_all(pieces, context, 2, slow, lambda: now[0], lambda line: None)
    found = dict(every)
    assert given == [120, 70, 20]
    assert found["d"]["status"] == "impossible here"
    assert found["d"]["detail"] == "the 2 minutes were over: --only d"
    assert found["d"]["late"]
    del given[:]
    short = replace(context, piece_seconds=60)
    dict(gpu_check.check_all(pieces[:3], short, 5, slow, lambda: now[0], lambda line: None))
    assert given == [60, 60, 60]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(139)", "fail (its process ended with code 139 (no word))"),
        ("import sys; sys.exit('a\\nlast')", "fail (its process ended with code 1 (last))"),
        ("import time; time.sleep(60)", "impossible here (not done in the 2 s that were left: "),
        ('print(\'gpu_check result: {"status": "pass", "detail": "7"}\')', "pass: 7"),
    ],
)
def test_a_process_that_crashes_or_hangs_is_told(context, tmp_path, monkeypatch, code, words):
    script = tmp_path / "piece.py"
    script.write_text(code)
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    found = gpu_check.run_apart(made("one", None), context, 2)
    assert gpu_check.words_of(found).startswith(words)
    assert found.get("late", False) is ("left" in words)


def test_a_piece_that_takes_all_the_time_of_one_fails(context, tmp_path, monkeypatch):
    script = tmp_path / "piece.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    found = gpu_check.run_apart(made("one", None), replace(context, piece_seconds=1), 1)
    assert gpu_check.words_of(found) == "fail (did not end in 1 s)"
    assert "late" not in found


LAUNCHER = """
import subprocess, sys, time
command = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(command, start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


@pytest.mark.parametrize("by", ["descendants", "descendants_listed"])
def test_processes_in_sessions_of_their_own_are_ended_too(tmp_path, monkeypatch, by):
    monkeypatch.setattr(gpu_check, "descendants", getattr(gpu_check, by))
    told = tmp_path / "pid"
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(told)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (told.is_file() and told.read_text()):
        time.sleep(0.01)
    pid = int(told.read_text())
    os.kill(pid, 0)  # it runs
    gpu_check.end_all(process)
    assert process.returncode == -signal.SIGKILL
    while ended(pid) is False:
        time.sleep(0.01)


def ended(pid):
    """Whether nothing but its entry is left of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_was_found_stays_when_it_is_interrupted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)

    def run(piece, context, seconds):
        if piece.name == "recompute":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return gpu_check.result("pass", "so")

    monkeypatch.setattr(gpu_check.check_all, "__defaults__", (run, lambda: 0.0, print))
    only = ["--only", "train-fp32", "recompute", "nccl"]
    assert gpu_check.main(["--device", "cpu", "--output", str(tmp_path), *only]) == 130
    said = capsys.readouterr().out
    assert "1 pass, 0 fail, 0 impossible here before it was interrupted; " in said
    kept = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
    assert list(kept) == ["train-fp32"]
    assert "| `train-fp32` | pass: so |" in (tmp_path / "gpu_check.md").read_text()


def test_want_of_time_does_not_replace_what_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)
    results = [gpu_check.result("fail", "off by 3"), gpu_check.result("pass", "so")]

    def run(piece, context, seconds):
        return results.pop(0) if results else gpu_check.result("impossible here", "", late=True)

    monkeypatch.setattr(gpu_check.check_all, "__defaults__", (run, lambda: 0.0, print))
    words = ["--device", "cpu", "--output", str(tmp_path), "--only", "train-fp32", "nccl"]
    assert gpu_check.main(words) == 1
    assert gpu_check.main([*words, "recompute"]) == 0
    kept = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
    assert [one["status"] for one in kept.values()] == ["fail", "pass", "impossible here"]
    # With another network, or other batches, nothing of it holds.
    for other in (["--network", "ResNet18"], ["--batch-sizes", "1"]):
        gpu_check.main([*words, *other])
        kept = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
        assert {one["status"] for one in kept.values()} == {"impossible here"}


def cell(error, agrees=True, batch=8):
    return {"batch": batch, "median_ms": 1.5, "relative_error": error, "agrees": agrees}


@pytest.mark.parametrize(
    ("precision", "cells", "said"),
    [
        ("fp32", [cell(3e-5), cell(2e-6)], "pass: N: 1.50 ms at 8, 1.50 ms at 8; relative error 3"),
        ("fp32", [cell(2e-4, agrees=False)], "fail (N: "),
        ("fp16", [cell(1e-3), cell(5e-3)], "pass: N: "),
        ("fp16", [cell(1e-3), cell(0.03)], "fail (N: "),
        ("fp16", [cell(1e-3), cell(math.nan)], "fail (N: "),
        ("fp16", [cell(None)], "fail (N: "),
        ("fp16", [cell(1e-3), cell(2e-6)], "fail (answers as float32 does: nothing was computed"),
    ],
)
def test_what_a_benchmark_says_of_a_precision(precision, cells, said):
    def check(context):
        return gpu_check.judged("N", precision, cells)

    assert gpu_check.words_of(gpu_check.run_here(made("one", check), None)).startswith(said)


def test_a_benchmark_that_breaks_fails(context, monkeypatch):
    said = "measuring\nerror: no room on the disk\n\n"
    monkeypatch.setattr(gpu_check, "execute", lambda *words, **keys: said)
    found = gpu_check.runs_in(context, "paddle", "fp32")
    assert not found.holds
    assert found.detail == "ppcls bench measured nothing: error: no room on the disk"


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ("skipped: too slow", "impossible here (batch 8: skipped: too slow)"),
        ("engine x: pip install y", "impossible here (engine x: pip install y)"),
        ("CUDA error 700", "fail (batch 8: CUDA error 700)"),
    ],
)
def test_what_a_benchmark_could_not_measure(context, monkeypatch, failed, said):
    place = context.folder / "bench_paddle_fp32"
    place.mkdir()
    (place / "benchmark.jsonl").write_text(json.dumps({"batch": 8, "failed": failed}))
    monkeypatch.setattr(gpu_check, "execute", lambda *words, **keys: "")
    (piece,) = [one for one in gpu_check.PIECES if one.name == "paddle-fp32"]
    assert gpu_check.words_of(gpu_check.run_here(piece, context)) == said


class Fake:
    """An engine whose logits are given, for as many images as it gets."""

    def __init__(self, logits, graph=False, why=""):
        self.logits, self.graph, self.why = np.asarray(logits), graph, why

    def run(self, images):
        return self.logits[: len(images)]


LOGITS = [[1.0, -1.0], [0.0, 0.5]] * 4
NO_GRAPH = "no CUDA graph is used"
APART = "logits differ from a CPU's by 2.0e+00 of what tells images apart; "


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        (Fake(LOGITS, why=NOT_ONE), f"impossible here (ResNet18_vd: {NO_GRAPH}: {NOT_ONE})"),
        (Fake(LOGITS, why="stale"), f"fail (ResNet18_vd: {NO_GRAPH}: stale)"),
        (Fake(LOGITS, graph=True), f"fail (ResNet18_vd: {APART}"),
    ],
)
def test_a_graph_that_is_not_there_or_goes_on_answering_its_first_image(
    context, monkeypatch, alone, said
):
    engines = {1: alone, 8: Fake(LOGITS)}  # the last one replays row 0 for each image
    monkeypatch.setattr(gpu_check, "exported", lambda context: Path())
    monkeypatch.setattr(gpu_check, "opened", lambda folder, engine, device, n, *_: engines[n])
    (piece,) = [one for one in gpu_check.PIECES if one.name == "tensorrt-graph"]
    assert gpu_check.words_of(gpu_check.run_here(piece, context)).startswith(said)


def test_a_file_that_tensorrt_has_not_run_fails(context, monkeypatch, tmp_path):
    (tmp_path / "int8").mkdir()
    monkeypatch.setattr(gpu_check, "opened", lambda *words: Fake(LOGITS * 4))
    (piece,) = [one for one in gpu_check.PIECES if one.name == "onnxruntime-tensorrt-int8"]
    found = gpu_check.run_here(piece, context)
    assert gpu_check.words_of(found) == f"fail ({gpu_check.NOTHING_BUILT})"
    (tmp_path / "int8/one_sm80.engine").touch()
    found = gpu_check.run_here(piece, context)
    words = "pass: ResNet18_vd: logits differ by 0.0e+00 of what tells images apart (allowed 2e-01)"
    assert gpu_check.words_of(found) == f"{words} at batches of 1, 8, 32"


def test_differences_are_held_against_how_far_images_are_told_apart():
    expected = np.array([[100.0, 0], [120, 0]])
    assert gpu_check.difference(expected + 1, expected) == pytest.approx(0.1)
    assert gpu_check.difference(expected[:1] + 1, expected) == pytest.approx(0.1)
    assert math.isnan(gpu_check.worst([0.1, math.nan, 0.2]))
    with pytest.raises(RuntimeError, match="tells these images apart by"):
        gpu_check.difference(expected, np.array([[100.0, 0], [101, 0]]))


def test_both_devices_begin_with_the_same_weights(context, monkeypatch, tmp_path):
    """They are drawn once, on a CPU, and the recipe names the file."""
    import ppcls
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.weights import files

    drawn = []

    def execute(command, context):
        drawn.append(command[1:3])
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[2:])
            exec(command[2], {})

    monkeypatch.setattr(gpu_check, "execute", execute)
    paths = [gpu_check.recipe(context) for _ in range(2)]
    assert drawn == [["-c", gpu_check.DRAW]]
    recipe = load(Recipe, paths[0])
    net = ppcls.create_model("ResNet18_vd", 2, weights=recipe.model.weights)
    known = files.read(recipe.model.weights).tensors
    assert known.keys() == net.state_dict().keys()
    again = replace(context, folder=tmp_path / "again")
    again.folder.mkdir()
    gpu_check.recipe(again)
    for name, value in files.read(again.folder / "weights.safetensors").tensors.items():
        np.testing.assert_array_equal(net.state_dict()[name].numpy(), value)


def test_the_environment_of_pieces(context, monkeypatch, tmp_path):
    """Float32 in full, and pip's TensorRT by the names that Paddle loads."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda")
    gpu_check.link_tensorrt(context.folder)  # no such package is here
    own = gpu_check.variables(context.folder)
    assert (own["LD_LIBRARY_PATH"], own["NVIDIA_TF32_OVERRIDE"]) == ("/opt/cuda", "0")
    libraries = tmp_path / "site" / "tensorrt_libs"
    libraries.mkdir(parents=True)
    (libraries / "__init__.py").write_text("raise ImportError('needs CUDA')")
    names = ("libnvinfer.so", "libnvinfer_plugin.so")
    for name in names:
        (libraries / f"{name}.10").write_text(name)
        (libraries / f"{name}.10.13.3").touch()
    monkeypatch.syspath_prepend(libraries.parent)
    gpu_check.link_tensorrt(context.folder)
    links = context.folder / gpu_check.LINKS
    assert {path.name: path.read_text() for path in links.iterdir()} == {n: n for n in names}
    wanted = f"{links}:{libraries}:/opt/cuda"
    assert gpu_check.variables(context.folder)["LD_LIBRARY_PATH"] == wanted
    said = gpu_check.execute(
        [sys.executable, "-c", "import os; print(os.environ['LD_LIBRARY_PATH'])"], context
    )
    assert said.strip() == wanted


def test_the_gpus_are_those_that_cuda_sees(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-aa1, A100, 560.1\necho GPU-bb2, V100, 560.1\n")
    driver.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for asked, names in {
        None: ["A100, 560.1", "V100, 560.1"],
        "1": ["V100, 560.1"],
        "GPU-bb,GPU-aa1": ["V100, 560.1", "A100, 560.1"],
        "0,-1,1": ["A100, 560.1"],
        "MIG-cc3": ["A100, 560.1"],
        "": [],
    }.items():
        if asked is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
        assert gpu_check.machine_of("gpu")["gpus"] == names, asked
    driver.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_check.machine_of("gpu")["gpus"] == []


def test_pieces_of_later_runs_are_added(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)
    results = []

    def run(piece, context, seconds):
        results.append(piece.name)
        figures = {"run": len(results)}
        return gpu_check.result("pass", f"{len(results)} | so", 1.0, figures)

    monkeypatch.setattr(gpu_check.check_all, "__defaults__", (run, lambda: 0.0, print))
    words = ["--device", "cpu", "--output", str(tmp_path)]
    for only in (["train-fp32", "nccl"], ["nccl"]):
        assert gpu_check.main([*words, "--only", *only]) == 0
    assert results == ["train-fp32", "nccl", "nccl"]
    kept = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
    assert {name: one["figures"]["run"] for name, one in kept.items()} == {
        **{"train-fp32": 1, "nccl": 3}
    }
    table = (tmp_path / "gpu_check.md").read_text()
    assert "| `nccl` | pass: 3 \\| so |" in table
    assert "| `memory` | not yet run |" in table
    # Of another device nothing is kept.
    assert gpu_check.main(["--only", "nccl", "--output", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
    assert {name: one["status"] for name, one in kept.items()} == {"nccl": "impossible here"}


def test_the_table_goes_between_the_marks_of_the_page(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(PAGE)
    result = {"status": "pass", "detail": "0.76 ms", "seconds": 1.0, "figures": {}}
    gpu_check.into_page(page, gpu_check.rows({"tensorrt-fp16": result}, "an A100"))
    text = page.read_text()
    assert "| `tensorrt-fp16` | pass: 0.76 ms |" in text
    assert "| claim | piece | an A100 |" in text
    outside = re.compile(f"{gpu_check.BEGIN}.*{gpu_check.END}", re.DOTALL)
    assert outside.sub("", text) == outside.sub("", PAGE)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--only", "train_fp32"], "--only train_fp32: unknown; known are device, train-fp32,"),
        (["--minutes", "0"], "--minutes: should be a number above 0"),
        (["--piece-seconds", "nan"], "--piece-seconds: should be a number above 0"),
        (["--batch-sizes", "1,x"], "--batch-sizes: should be numbers from 1, such as 1,8,32"),
    ],
)
def test_mistakes(words, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(words)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_cpu_can_do_of_it_passes(tmp_path):
    """Whole, by the command: runs, processes, engines and FP16 files, each in its own process."""
    words = ["--device", "cpu", "--network", "PPLCNet_x0_25", "--batch-sizes", "1,2"]
    script = pages.ROOT / "tools" / "gpu_check.py"
    command = [sys.executable, str(script), *words, "--minutes", "60", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())["pieces"]
    able = {piece.name for piece in gpu_check.PIECES if piece.cpu}
    assert {name for name, one in found.items() if one["status"] == "pass"} == able
    rest = {one["detail"] for name, one in found.items() if name not in able}
    assert rest == {"has no form for a CPU"}
