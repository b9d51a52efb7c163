"""The commands of docs/deploy.md run as they stand there, on a few small images."""

import io
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pages
import pytest
import small_network
from photos import scene

from ppcls.cli import main
from ppcls.export import Form, export

COMMANDS = pages.commands(pages.text_of("docs/deploy.md"))
EASIER = {
    "quantize": ("--budget", "1"),  # noise
    "bench": ("--rounds", "1", "--seconds", "0.01", "--engines", "onnxruntime"),
}


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
    made = export(small_network.trained(), workdir / "exported/small", [], form)
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
    assert len(COMMANDS) == 18
    for line in COMMANDS:
        before, _, command = line.rpartition("| ")
        if before:
            found = subprocess.run(before.strip(), shell=True, capture_output=True, check=True)
            monkeypatch.setattr(sys, "stdin", Piped(found.stdout))
        easier = command.replace("--resize 256 --crop 224", "--resize 36 --crop 32")
        words = pages.arguments(easier)
        code = main([*words, *EASIER.get(words[0], ())])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, ""), line
        if "net.onnx" in line:
            assert "ameise 0." in captured.out
    assert (place / "frames.csv").read_text().count("#t=") == 2 * 5
    parts = [(place / f"part-{number}.csv").read_text().splitlines() for number in (1, 2)]
    assert [len(lines) for lines in parts] == [1 + 3 * 2] * 2
    assert len(list((place / "seen").rglob("*.jpg"))) == 6
    assert len((place / "nearest.csv").read_text().splitlines()) == 1 + 3
    assert (place / "nearest.png").stat().st_size > 1000
