"""A small set of images, a small recipe, and the command line in this process."""

import io
from contextlib import redirect_stdout

import pytest
from photos import write_photo

from ppcls.cli import main

RECIPE = """
model: {name: NETWORK, num_classes: 2}
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


def furnish(folder, network="EfficientNetLite0"):
    """12 images to train on, 6 to evaluate, and `recipe.yaml`."""
    for part, count in (("train", 6), ("eval", 3)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                seed = 100 * label + i + (50 if part == "eval" else 0)
                write_photo(folder / "photos" / part / name / f"{i}.png", seed)
    (folder / "recipe.yaml").write_text(RECIPE.replace("NETWORK", network))


def said(folder, *arguments):
    """What a command that succeeds says."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        assert main(list(arguments)) == 0
    return out.getvalue()
