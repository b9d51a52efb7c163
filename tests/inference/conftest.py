"""Two exports of the same small network, made once."""

import shutil

import numpy as np
import pytest
import small_network
from photos import write_photo
from quick_export import export

from ppcls.export import FORMATS, Form


@pytest.fixture(scope="session")
def small():
    """The network that the exports are of."""
    return small_network.trained()


@pytest.fixture(scope="session")
def exported(small, tmp_path_factory):
    """Every format; float32 [N, 3, 32, 32] in, probabilities out."""
    return make(small, tmp_path_factory.mktemp("exported"), Form(tuple(FORMATS)))


@pytest.fixture(scope="session")
def pixels_in(small, tmp_path_factory):
    """Every format; uint8 pixels of any size in, logits out."""
    form = Form(tuple(FORMATS), "uint8", "logits", dynamic_size=True)
    return make(small, tmp_path_factory.mktemp("pixels_in"), form)


def make(trained, place, form):
    photos = [place / f"{seed}.png" for seed in range(3)]
    for seed, photo in enumerate(photos):
        write_photo(photo, seed)
    return export(trained, place / "small", [str(photo) for photo in photos], form)


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of some files of `exported`, or of all of one form, as PaddleClas leaves it."""

    def copy(*names, source=exported):
        target = tmp_path / "copy"
        target.mkdir(exist_ok=True)
        for name in names or [path.name for path in source.iterdir() if path.is_file()]:
            shutil.copy(source / name, target / name)
        return target

    return copy


@pytest.fixture(scope="session")
def images():
    """uint8 [5, 32, 32, 3], of different colours and contrasts."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 1, (5, 32, 32, 3)) * random.uniform(5, 60, (5, 1, 1, 1))
    return (noise + random.uniform(60, 200, (5, 1, 1, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """ppcls's own folder, where nothing of the user's is."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
