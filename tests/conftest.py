"""A small set of photos, a small recipe, and the command line in this process."""

import pytest
from photos import write_photo

from ppcls.cli import main  # importing ppcls before paddle sets the threads that paddle takes

RECIPE = """
model: {name: EfficientNetLite0, num_classes: 2}
data: {train: photos/train, eval: photos/eval, workers: 0}
preprocess: {resize: 36, crop: 32}
task: {loss: {smoothing: 0.1}}
train:
  epochs: 2
  batch_size: 4
  log_every: 1
  optimizer: {kind: momentum, weight_decay: 1e-4}
  schedule: {lr: 0.005, warmup: 1 steps}
output: runs/small
"""


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A working directory with 12 photos to train on, 6 to evaluate, and `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)
    for part, count in (("train", 6), ("eval", 3)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                seed = 100 * label + i + (50 if part == "eval" else 0)
                write_photo(tmp_path / "photos" / part / name / f"{i}.png", seed)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line in this process: `code, out, err = run("train", "-c", …)`."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
