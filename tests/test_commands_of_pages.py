"""The commands of docs/training.md, weights.md and ssld.md run as they stand there, shortened."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from photos import write_photo

TRAINING = pages.text_of("docs/training.md")
WEIGHTS = pages.commands(pages.text_of("docs/weights.md"))
SOLAR_CELLS = pages.commands(pages.section(TRAINING, "A real task in minutes"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone with eight images to train on and four to evaluate."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "deploy", "ppcls", "tools"):
        (tmp_path / name).symlink_to(pages.ROOT / name)
    for i, place in enumerate(("train/ants", "train/bees", "val/ants", "val/bees")):
        for j in range(4 if i < 2 else 2):
            write_photo(tmp_path / "photos" / place / f"{j}.jpg", 10 * i + j, (80, 100, 3))


def execute(run, commands, side):
    easier = ("train.epochs=1", "data.workers=0")
    sizes = (f"preprocess.resize={side}", f"preprocess.crop={side}")
    said = ""
    for line in commands:
        words = pages.arguments(line)
        short = ("-o", *easier, *sizes) if words[0] == "train" else ()
        code, out, err = run(*words, *short)
        assert (code, err) == (0, ""), line
        said += out
    return said


@pytest.mark.slow
def test_a_run_and_its_weights(folder, run):
    commands = pages.commands(pages.section(TRAINING, "A run"))
    assert [pages.arguments(line)[0] for line in commands] == [
        *("train", "train", "eval", "export", "predict")
    ]
    execute(run, commands, side=32)
    assert len(Path("results.csv").read_text().splitlines()) == 1 + 2 * 4
    said = execute(run, WEIGHTS, side=32)
    assert "palace" in said
    assert Path("own_photos.npz").is_file()


@pytest.mark.slow
def test_ssld_in_small(folder, run):
    commands = pages.commands(pages.section(pages.text_of("docs/ssld.md"), "In small"))
    assert len(commands) == 3
    execute(run, commands, side=8)
    assert Path("data/ssld_digits.txt").is_file()


@pytest.mark.slow
def test_training_for_int8(folder, run):
    Path("photos.yaml").write_text(
        "model: {name: EfficientNetLite0}\n"
        "data: {train: photos/train, eval: photos/val}\n"
        "train: {epochs: 1, batch_size: 4, schedule: {lr: 0.01}}\n"
        "output: runs/photos\n"
    )
    before = ["python tools/train.py -c photos.yaml"]
    commands = pages.commands(pages.section(pages.text_of("docs/int8.md"), "Training for it"))
    assert len(commands) == 3
    said = execute(run, [*before, *commands[:2], f"{commands[2]} --budget 1"], side=32)
    assert "quantization-aware: 7-bit weights and 8-bit inputs of layers" in said
    assert "best.safetensors was scored as INT8 in training (train.qat); this is in float" in said
    assert "exported/photos-qat in int8 for onnxruntime" in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_solar_cells_reach_what_the_page_says(folder):
    (line,) = SOLAR_CELLS
    words = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"top-1 (\S+) %", done.stdout)[-1]) >= 85.5
