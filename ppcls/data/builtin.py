"""Data sets that come with pip packages, written out as ordinary folders one can look at."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ppcls.data.datasets import split
from ppcls.data.samples import Dataset, Paths
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded, write_bytes, writing
from ppcls.utils.text import did_you_mean

FIX = "--to FOLDER, or make room"
SEED = 2018  # of the split; a written folder never depends on a run's own seed


class MadeImage(NamedTuple):
    """One image to write: its file name, class, the group it is split within, how to save it."""

    file: str
    name: str
    stratum: str
    save: Callable[[Path], object]


@dataclass(frozen=True)
class BuiltIn:
    """What a data set is, and whence; `images()` yields all of them, `size` of them in number."""

    description: str
    size: int
    split: str
    holdout: float
    licence: str
    source: str
    package: str
    images: Callable[[], list[MadeImage]]


def write(name: str, to: str | PathLike) -> Path:
    """Write a data set as TO/train/CLASS/PHOTO.png, TO/eval/CLASS/PHOTO.png and TO/README.txt.

    Always the same images on both sides. A complete folder is returned as it is; the folder
    appears whole or not at all. Raises UserError for an unknown name, a missing pip package, and a
    folder that is incomplete or holds something else.
    """
    known = lookup(name)
    to = Path(expanded(to))
    if is_complete(name, to):
        return to
    refuse_other(name, to)
    images = known.images()
    make(to.parent)
    with (
        writing(str(to), FIX),
        tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as temporary,
    ):
        fresh = Path(temporary) / to.name
        write_parts(name, images, fresh)
        try:
            fresh.rename(to)
        except OSError:
            # Another process may have been first; then its folder is as good as ours.
            if not is_complete(name, to):
                raise
    return to


def describe(name: str) -> str:
    """What the data set is, its licence, source and pip package, one line each."""
    known = lookup(name)
    return (
        f"{name}: {known.description}\n"
        f"Licence: {known.licence}\n"
        f"Source: {known.source}\n"
        f"Package: {known.package} (pip install {known.package})"
    )


def sample_images() -> list[Path]:
    """scikit-learn's two photographs (CC BY 2.0), china.jpg and flower.jpg, in its package."""
    folder = package_folder("sklearn", "scikit-learn") / "datasets/images"
    return [folder / "china.jpg", folder / "flower.jpg"]


def copy_sample_images(to: str | PathLike) -> list[Path]:
    """Copy the two photographs into a folder; UserError where a file there is another image."""
    to = Path(expanded(to))
    make(to)
    for image in sample_images():
        data = image.read_bytes()
        copy = to / image.name
        if copy.exists() and copy.read_bytes() != data:
            raise UserError(f"{copy} is another image; name another folder or move it away")
        write_bytes(copy, data, fix=FIX)
    return [to / image.name for image in sample_images()]


def make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); --to FOLDER") from None


def lookup(name: str) -> BuiltIn:
    """The table's row; UserError for a name that is not in it."""
    if name not in TABLE:
        known = " and ".join(NAMES)
        raise UserError(f"no built-in data set {name!r}, only {known}{did_you_mean(name, NAMES)}")
    return TABLE[name]


def is_complete(name: str, to: Path) -> bool:
    """True for a folder that `write` made and that still has every image."""
    return is_ours(name, to) and image_count(to) == TABLE[name].size


def is_ours(name: str, to: Path) -> bool:
    """True where the folder's README begins as `write` begins it."""
    readme = to / "README.txt"
    return readme.is_file() and readme.read_bytes().startswith(title(name).encode())


def refuse_other(name: str, to: Path) -> None:
    """UserError where `to` is anything but absent or an empty folder."""
    if is_ours(name, to):
        found = f"has {image_count(to)} of the {TABLE[name].size} images of {name!r}"
        raise UserError(f"{to} {found}; delete the folder, and it is written anew")
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(f"{to} holds something else than {name!r}; name another folder for it")


def image_count(to: Path) -> int:
    """Images in TO/train/*/ and TO/eval/*/."""
    return sum(1 for part in ("train", "eval") for _ in to.glob(f"{part}/*/*.png"))


def write_parts(name: str, images: list[MadeImage], to: Path) -> None:
    """Write train/ and eval/, divided within each stratum, and the README."""
    known = TABLE[name]
    strata = sorted({image.stratum for image in images})
    groups = np.array([strata.index(image.stratum) for image in images], np.int64)
    files = Paths([image.file for image in images])
    place = {image.file: image for image in images}
    parts = split(Dataset(files, groups, (), name), known.holdout, SEED)
    for part, samples in zip(("train", "eval"), parts, strict=True):
        for image in map(place.__getitem__, samples.paths):
            folder = to / part / image.name
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / image.file)
    sizes = f"train/ has {len(parts[0])} images, eval/ has {len(parts[1])}."
    text = f"{title(name)}\n\n{describe(name)}\nSplit: {known.split} {sizes}\n"
    (to / "README.txt").write_text(text, encoding="utf-8")


def title(name: str) -> str:
    """The first line of a written folder's README, by which it is known again."""
    return f"Written by ppcls: the data set {name}"


def digits() -> list[MadeImage]:
    """scikit-learn's handwritten digits, grey values 0..16 stretched to 0..255."""
    package_folder("sklearn", "scikit-learn")
    from sklearn.datasets import load_digits  # a slow import that only this function needs

    values, labels = load_digits(return_X_y=True)
    pixels = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return [
        MadeImage(f"digit{i:04}.png", str(label), str(label), Image.fromarray(image).save)
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True))
    ]


def solar_cells() -> list[MadeImage]:
    """The package's own files; split within class and cell type (mono- or polycrystalline)."""
    folder = package_folder("elpv_dataset", "elpv-dataset") / "data"
    images = []
    for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        file, probability, cell_type = line.split()
        name = "defective" if float(probability) >= 0.5 else "functional"
        save = partial(shutil.copyfile, folder / file)
        images.append(MadeImage(Path(file).name, name, f"{name} {cell_type}", save))
    return images


def package_folder(module: str, package: str) -> Path:
    """Where an installed module lies, without importing it; UserError where it is not installed."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{package} is not installed; run: pip install {package}")
    return Path(spec.submodule_search_locations[0])


TABLE = {
    "digits": BuiltIn(
        description="1,797 handwritten digits, 8x8 pixels, grey (values 0..16 stretched to 0..255)",
        size=1797,
        split="80/20 within each digit, shuffled with a fixed seed (the writers are not known).",
        holdout=0.2,
        licence="as distributed with scikit-learn (BSD 3-Clause)",
        source="UCI Optical Recognition of Handwritten Digits, test part; Alpaydin and Kaynak 1998",
        package="scikit-learn",
        images=digits,
    ),
    "solar_cells": BuiltIn(
        description=(
            "2,624 electroluminescence photographs of solar cells, 300x300 pixels, grey; "
            "defective where the experts' defect probability is 2/3 or 1, functional where 0 or 1/3"
        ),
        size=2624,
        split=(
            "75/25 within each class and cell type (mono- or polycrystalline), shuffled with a "
            "fixed seed; as many for training as in Deitsch et al., not the very same images."
        ),
        holdout=0.25,
        licence="CC BY-NC-SA 4.0 (no commercial use)",
        source="Deitsch et al. 2019, arXiv:1807.02894; github.com/zae-bayern/elpv-dataset",
        package="elpv-dataset",
        images=solar_cells,
    ),
}
NAMES = tuple(TABLE)
