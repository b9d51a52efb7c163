"""The commands of docs/deploy.md on predicting run as they stand there, on a few small images."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_network
from photos import scene

from ppcls.cli import main
from ppcls.export import Form, export

PAGE = (Path(__file__).parent.parent / "docs/deploy.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
            for line in block.splitlines()]  # fmt: skip
NAMES = {"export.py": "export", "predict.py": "predict", "similar.py": "similar"}


@pytest.fixture
def place(trained, workdir, monkeypatch):
    """The folders and files that the page names."""
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    (workdir / "runs/small").rename(workdir / "runs/own_photos")
    shutil.rmtree(workdir / "photos")
    for part in ("train", "val"):
        for label, name in enumerate(("ant", "bee")):
            folder = workdir / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                image = scene(10 * label + number + len(part), 40, 50)
                assert cv2.imwrite(str(folder / f"{number}.jpg"), image)
    form = Form(("paddle", "onnx"), features=True)
    made = export(small_network.trained(), workdir / "exported/own_photos", [], form)
    shutil.copy(made / "inference.onnx", workdir / "net.onnx")
    (workdir / "names.txt").write_text("ameise\nbiene\n")
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for number in range(25):
        writer.write(np.full((48, 64, 3), 9 * number, np.uint8))
    writer.release()
    return workdir


class Piped:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)
        self.isatty = lambda: False


@pytest.mark.slow
def test_every_command_runs_in_order(place, monkeypatch, capsys):
    assert len(COMMANDS) == 11
    for line in COMMANDS:
        before, _, command = line.rpartition("| ")
        if before:
            found = subprocess.run(before.strip(), shell=True, capture_output=True, check=True)
            monkeypatch.setattr(sys, "stdin", Piped(found.stdout))
        words = shlex.split(command.replace("--resize 256 --crop 224", "--resize 36 --crop 32"))
        assert words[0] == "python"
        code = main([NAMES[Path(words[1]).name], *words[2:]])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, ""), line
        if "net.onnx" in line:
            assert "ameise 0." in captured.out
    assert (place / "frames.csv").read_text().count("#t=") == 2 * 5
    assert len(list((place / "seen").rglob("*.jpg"))) == 6
    assert len((place / "nearest.csv").read_text().splitlines()) == 1 + 3
    assert (place / "nearest.png").stat().st_size > 1000
