"""A folder with an exported network: ppcls's, PaddleClas's or PaddleX's."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

from ppcls import environment
from ppcls.data.class_names import read_class_names, renamed
from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError
from ppcls.inference import manifest, params
from ppcls.inference.manifest import Manifest
from ppcls.log import say

NAME = "inference"
PROGRAMS = (f"{NAME}.json", f"{NAME}.pdmodel")  # Paddle 3's form, and the older one
PARAMS, ONNX, OPENVINO, OPENVINO_DATA = (
    f"{NAME}.{suffix}" for suffix in ("pdiparams", "onnx", "xml", "bin")
)
ONNX_DATA = f"{ONNX}.data"  # weights that do not fit into an ONNX file
CACHE = "engine_cache"


@dataclass(frozen=True)
class Folder:
    """What is there; of `program` (with `params` beside it), `onnx` and `openvino` at least one."""

    path: Path
    manifest: Manifest
    program: Path | None = None
    onnx: Path | None = None
    openvino: Path | None = None

    @property
    def params(self) -> Path:
        return self.path / PARAMS

    @property
    def files(self) -> list[Path]:
        """The network's files."""
        found = [self.program, self.program and self.params, self.onnx, self.openvino]
        found += [self.path / OPENVINO_DATA] if self.openvino else []
        large = self.path / ONNX_DATA
        found += [large] if self.onnx and large.is_file() else []
        return [path for path in found if path]

    def size(self) -> int:
        """Bytes of the largest form of the network."""
        return max(path.stat().st_size for path in self.files)

    def fingerprint(self) -> str:
        """Changes with the network's files; tells nothing of their contents."""
        states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in self.files]
        return sha256(repr(states).encode()).hexdigest()[:16]

    def cache(self) -> Path:
        """A folder for what engines make of the network: beside it or, where that cannot be
        written, in ppcls's own cache. What belongs to other files of the network is left alone.
        """
        beside = self.path / CACHE
        kept = beside if beside.exists() else self.path
        own = beside if os.access(kept, os.W_OK) else environment.home() / "engines"
        place = own / self.fingerprint()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{place}: cannot be made ({error.strerror}); set PPCLS_HOME to a folder"
            ) from None
        return place


def open_folder(path: Path, given: dict[str, Any] | None = None) -> Folder:
    """Look at a folder.

    Args:
        given: instead of, or in place of parts of, `inference.yml`: fields of `Preprocess`, and
            `labels`, a file of class names, `imagenet` or a sequence of them, and `threshold`.
            Without that file at least `crop` is needed.

    Raises:
        UserError: no such folder, or no whole network in it.
    """
    about = describe(path, given or {})
    program = next((path / name for name in PROGRAMS if (path / name).is_file()), None)
    if program and not (path / PARAMS).is_file():
        raise UserError(f"{path}: {program.name} is there and {PARAMS} is not; copy it again")
    onnx, openvino = (path / name for name in (ONNX, OPENVINO))
    found = Folder(
        path,
        about,
        program,
        onnx if onnx.is_file() else None,
        openvino if openvino.is_file() else None,
    )
    if not found.files:
        raise UserError(
            f"{path}: no {PROGRAMS[0]} and {PARAMS}, nor {ONNX} or {OPENVINO}; "
            "make them with tools/export.py"
        )
    check(found)
    return found


def describe(path: Path, given: dict[str, Any]) -> Manifest:
    """The folder's manifest with what is given in its place."""
    fields = {key: value for key, value in given.items() if value is not None}
    labels, threshold = fields.pop("labels", None), fields.pop("threshold", None)
    if (path / manifest.FILE).is_file() or not (path.is_dir() and "crop" in fields):
        if path.is_dir() and not (path / manifest.FILE).is_file() and network_files(path):
            raise UserError(
                f"{path}: has no {manifest.FILE}; say how photos are prepared: "
                "--resize 256 --crop 224, and --mean, --std, --interpolation, --labels if needed"
            )
        about = manifest.read(path)
    else:
        about = Manifest(path.resolve().name, Preprocess(), output=None)
    try:
        preprocess = replace(about.preprocess, **fields)
    except ValueError as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise UserError(f"{path}: how photos are prepared: {reason}") from None
    if threshold is not None:
        if about.task != "multilabel" and about.default is None:
            raise UserError(
                f"{path}: is no multi-label network, in it one class wins: no threshold"
            )
        about = replace(about, threshold=float(threshold))
    names = about.labels if labels is None else names_given(labels, about)
    return replace(about, preprocess=preprocess, labels=names)


def names_given(labels: str | PathLike[str] | Sequence[str], about: Manifest) -> tuple[str, ...]:
    """Class names in place of those that the manifest has; UserError where they do not fit."""
    if not isinstance(labels, (str, PathLike)):
        return renamed(about.labels, [str(name) for name in labels], "labels", manifest.FILE)[0]
    own, given = about.labels, read_class_names(labels)
    source, trained_here = f"--labels {labels}", bool(about.about)
    names, note = renamed(own, given, source, manifest.FILE, numbers=trained_here)
    if note:
        say(note)
    return names


def network_files(path: Path) -> list[Path]:
    """All files of exported networks that are in a folder."""
    names = (*PROGRAMS, PARAMS, ONNX, ONNX_DATA, OPENVINO, OPENVINO_DATA)
    return [path / name for name in names if (path / name).is_file()]


def check(folder: Folder) -> None:
    """Refuse files that are cut short or are not those that were exported."""
    sizes = folder.manifest.about.get("files") or {}
    if not isinstance(sizes, dict):
        raise UserError(f"{folder.path / manifest.FILE}: ppcls.files: should be sizes by name")
    for path in folder.files:
        if not path.is_file():
            raise UserError(f"{path}: should be there, too; copy it again")
        expected, found = sizes.get(path.name), path.stat().st_size
        if expected not in (None, found):
            raise UserError(
                f"{path}: has {found} bytes, {manifest.FILE} says {expected}; "
                "it is cut short or of another export: export it or copy it again"
            )
        if not found:
            raise UserError(f"{path}: is empty; export it or copy it again")
    if folder.program:
        params.check(folder.params)
    if folder.openvino:
        check_openvino(folder.openvino)


def check_openvino(path: Path) -> None:
    """OpenVINO maps its weights into memory; one that reaches past their end would crash."""
    data = path.with_suffix(".bin")
    text = path.read_text(encoding="utf-8", errors="replace")
    parts = re.findall(r'<data [^>]*offset="(\d+)"[^>]*size="(\d+)"', text)
    end = max((int(offset) + int(size) for offset, size in parts), default=0)
    if data.stat().st_size < end:
        raise UserError(f"{data}: cut short, {end} bytes are needed; copy it again")
