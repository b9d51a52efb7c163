"""`predict-ray` on a cluster on this machine: the rows of one process, whatever happens meanwhile.

Ray is not among what tests install, for it takes 240 MB: `pip install 'ppcls[ray]'` runs these.
"""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pages
import pytest
import small_network
from photos import write_photo

from ppcls.cli import main
from ppcls.export import Form, export

COUNT = 43
ROOT = Path(__file__).parent.parent
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'ppcls[ray]'"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with `exported/own_photos` and 43 images in two folders, one broken."""
    folder = tmp_path_factory.mktemp("ray")
    for number in range(COUNT):
        part = "val" if number < 17 else "val/b"
        write_photo(folder / f"photos/{part}/{number:02}.png", number)
    form = Form(("paddle", "onnx"), features=True)
    export(small_network.trained(), folder / "exported/own_photos", [], form)
    (folder / "photos/val/05.png").write_bytes(b"broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PPCLS_HOME", str(folder / "home"))
        assert main(["predict", *COMMON, "--save", "one.csv", "--features", "one.npz"]) == 0
        patch.setenv("PYTHONPATH", str(ROOT))
        yield folder


COMMON = ("--model-dir", "exported/own_photos", "--engine", "onnxruntime", "--threads", "1",
          "--on-error", "skip", "photos")  # fmt: skip
RAY = ("predict-ray", *COMMON, "--address", "local", "--workers", "2", "--batch-size", "2")


def start(*words):
    """In a process of its own, as Ray's threads would stay in this one."""
    command = [sys.executable, "-m", "ppcls", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words):
    process = start(*words)
    out, err = process.communicate()
    return process.returncode, out, own(err)


def own(err):
    """Without what Ray's C++ says: lines of `[time, process] …`."""
    return "".join(line for line in err.splitlines(True) if not line.startswith("["))


def rows(path):
    """All but the milliseconds and the scores' last digits, which depend on the batches."""
    with Path(path).open(newline="") as file:
        found = list(csv.DictReader(file))
    return [
        (row["path"], row["rank"], row["label"], row["score"] and round(float(row["score"]), 4),
         row["error"])
        for row in found
    ]  # fmt: skip


def test_without_ray_a_line_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*RAY, "--save", "none.csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: ray: not installed; pip install 'ppcls[ray]'"


@needs_ray
@pytest.mark.slow
def test_the_same_rows_and_features_as_one_process(place):
    code, out, err = run(*RAY, "--save", "ray.csv", "--features", "ray.npz")
    assert (code, err) == (0, "")
    assert "engine: onnxruntime (fp32, 1 thread) in 2 workers\n" in out
    assert rows("ray.csv") == rows("one.csv")
    assert [row[0] for row in rows("ray.csv") if row[4]] == ["photos/val/05.png"]
    one, ray = np.load("one.npz"), np.load("ray.npz")
    assert ray["paths"].tolist() == one["paths"].tolist()
    assert len(ray["paths"]) == COUNT - 1
    np.testing.assert_allclose(ray["features"], one["features"], rtol=1e-4, atol=1e-5)
    assert str(ray["about"]) == str(one["about"])


@needs_ray
@pytest.mark.slow
def test_a_broken_image_ends_it_and_it_is_gone_on_with(place):
    """Also by another number of workers, and by `predict`, which knows the record."""
    words = [word for word in RAY if word not in ("--on-error", "skip")]
    code, _, err = run(*words, "--save", "x.jsonl")
    assert code == 2
    (line,) = err.splitlines()
    assert "photos/val/05.png: " in line
    assert "--on-error skip goes on without it" in line
    assert "5 predictions kept in " in line
    again = [*RAY, "--save", "x.jsonl", "--resume"]
    again[again.index("--workers") + 1] = "1"
    code, out, err = run(*again)
    assert (code, err) == (0, "")
    assert "going on behind 5 predictions in " in out
    records = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert [record["path"] for record in records] == list(
        dict.fromkeys(r[0] for r in rows("one.csv"))
    )
    assert [bool(record["error"]) for record in records] == [n == 5 for n in range(COUNT)]


@needs_ray
@pytest.mark.slow
def test_a_part_with_frames_of_a_video_and_odd_names(place):
    import cv2

    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(30):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()
    os.mkdir("odd")
    odd = os.fsdecode(b"odd/\xff\n.png")
    write_photo(Path("odd.png"), 1)
    os.rename("odd.png", odd)
    given = ("gone.jpg", "odd", "clip.avi", "--every", "0.5", "--part", "1/2")
    common = [word for word in COMMON if word != "photos"]
    assert run("predict", *common, *given, "--save", "one.jsonl")[0] == 0
    ray = [word for word in RAY if word != "photos"]
    code, _, err = run(*ray, *given, "--save", "ray.jsonl")
    assert (code, err) == (0, "")
    found = [
        [
            (record["path"], record["labels"], record.get("time"), record["error"])
            for record in map(json.loads, Path(name).read_text().splitlines())
        ]
        for name in ("one.jsonl", "ray.jsonl")
    ]
    assert found[0] == found[1]
    assert [row[2] for row in found[0]] == [None, None, 0.0, 0.5]
    assert found[0][1][0] == odd


@needs_ray
@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(place):
    Path("many.txt").write_text("photos/val/00.png\n" * 3000)
    words = [word for word in RAY if word != "photos"]
    process = start(*words, "--list", "many.txt", "--save", "many.jsonl")
    killed = []

    def kill():
        """The first worker, as soon as there are results of it."""
        while process.poll() is None and not killed:
            grown = Path("many.jsonl.incomplete")
            if grown.exists() and grown.stat().st_size:
                killed.extend(workers_of(process.pid)[:1])
                for number in killed:
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    _, err = process.communicate()
    thread.join()
    assert (process.returncode, own(err)) == (0, "")
    assert len(killed) == 1
    lines = Path("many.jsonl").read_text().splitlines()
    assert len(lines) == 3000
    assert {json.loads(line)["path"] for line in lines} == {"photos/val/00.png"}


def workers_of(driver):
    """The processes that predict, of a cluster that this process started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
            if name.startswith(b"ray::") and b"MapWorker" in name and driver in above(place):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def above(place):
    """The processes that a process comes from."""
    found = []
    number = int(place.name)
    while number > 1:
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(number)
    return found


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1: no Ray cluster answers"),
        (("--workers", "5000"), "5,000 workers asked for, the cluster has "),
        (("--device", "gpu"), "2 workers asked for, the cluster has 0 GPUs: give --device cpu"),
        (("--engine", "tensorrt", "--device", "cpu"), "tensorrt"),
    ],
)
def test_mistakes_are_one_line(place, words, said):
    code, _, err = run(*RAY, *words, "--save", "mistake.csv")
    assert code == 2
    (line,) = err.splitlines()
    assert said in line
    assert not list(Path().glob("mistake*"))


@needs_ray
@pytest.mark.slow
def test_the_commands_of_the_page(place):
    (lines,) = [
        block.splitlines()
        for block in pages.blocks(pages.section(pages.text_of("docs/deploy.md"), "Millions"), "sh")
        if "predict_ray.py" in block
    ]
    Path("photos/val/05.png").rename("05.png")
    try:
        for line in lines:
            program, script, *words = shlex.split(line)
            command = [sys.executable, ROOT / script, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, own(done.stderr)) == (0, ""), line
            assert program == "python"
    finally:
        Path("05.png").rename("photos/val/05.png")
    assert [row for row in rows("one.csv") if not row[4]] == rows("all.csv")
