"""tools/gpu_check.py without a GPU: its plan, its table, and what it does with pieces that fail."""

import json
import re
import subprocess
import sys

import pages
import pytest

from ppcls.inference.auto import CANDIDATES

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
    found = gpu_check.check_all(pieces, context, 1, here, tell=told.append)
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
    found = gpu_check.check_all(pieces, context, 2, slow, lambda: now[0], lambda line: None)
    assert given == [120, 70, 20]
    assert found["d"]["status"] == "impossible here"
    assert found["d"]["detail"] == "the 2 minutes were over: --only d"


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


def test_pieces_of_later_runs_are_added(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppcls.inference.engines.table.gpu_driver", lambda: False)
    results = []

    def run(piece, context, seconds):
        results.append(piece.name)
        figures = {"run": len(results)}
        return {
            "status": "pass",
            "detail": f"{len(results)} | so",
            "seconds": 1.0,
            "figures": figures,
        }

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
