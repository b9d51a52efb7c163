"""Unlabelled images in folders, evaluation images, a teacher of four classes and its recipe."""

import shutil

import paddle
import pytest
from photos import scene
from PIL import Image
from small_network import settle
from small_teacher import CLASSES, PHOTOS, RECIPE

from ppcls.api import create_model
from ppcls.weights import files


@pytest.fixture(scope="session")
def whole_place(tmp_path_factory):
    """Made once: the folder that `place` copies."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(PHOTOS):
        path = (
            folder / "wild" / f"part{number % 3}" / f"{number:02d}.{'jpg' if number % 2 else 'png'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(number, 48, 40)).save(path)
    (folder / "scored").mkdir()
    for number in range(CLASSES):
        Image.fromarray(scene(1000 + number)).save(folder / "scored" / f"{number}.png")
    lines = (f"scored/{number}.png {number}\n" for number in range(CLASSES))
    (folder / "eval.txt").write_text("".join(lines))
    (folder / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    (folder / "select.yaml").write_text(RECIPE)
    for seed, name in enumerate(("teacher", "second")):
        paddle.seed(seed)
        net = settle(create_model("MobileNetV3_small_x0_35", CLASSES), seed)
        tensors = {key: value.numpy() for key, value in net.state_dict().items()}
        files.write_safetensors(folder / f"{name}.safetensors", tensors, {})
    return folder


@pytest.fixture
def place(whole_place, tmp_path, monkeypatch):
    """The working directory: `wild` with 23 images, `select.yaml` and what it names."""
    shutil.copytree(whole_place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def select(place, run):
    """Run the command on `wild`: `code, out, err = select("--per-class", 2, …)`."""

    def select(*options, photos="wild", per_class=2):
        command = ["select-unlabeled", "-c", "select.yaml", "--images", photos]
        return run(*command, "--per-class", per_class, "--output", "out.txt", *options)

    return select
