"""An exported model: the files of its folder, whether they are whole, and how a folder is replaced.

`.pdiparams` files: what is where, and whether all is there.

Paddle itself loads one that is cut short without a word.
"""

import math
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from hashlib import sha256
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from ppcls.config.node import place_of
from ppcls.data.class_names import read_class_names, renamed
from ppcls.data.preprocess import Preprocess
from ppcls.inference import calibration, manifest, onnx_metadata
from ppcls.inference.manifest import Manifest
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import hash_of, staged_folder, writing
from ppcls.utils.log import say
from ppcls.utils.text import at_most

# Bytes of a number, by Paddle's code of its type: bool, int16/32/64, float16/32/64, (u)int8, bf16.
BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2}

MOST_DIMENSIONS = 32  # of a tensor; Paddle has no more than 9


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's numbers are in the file."""

    dims: tuple[int, ...]
    bytes_each: int
    start: int

    @property
    def bytes(self) -> int:
        return self.bytes_each * math.prod(self.dims)


def check_params(path: Path) -> None:
    """Refuse a file that ends inside a tensor, or holds none.

    Raises:
        UserError: so it is.
    """
    size = path.stat().st_size
    end = 0
    for tensor in walk(path):
        if tensor is None:
            return  # Paddle may know it
        end = tensor.start + tensor.bytes
    if not size or end != size:
        raise UserError(f"{path}: cut short, {size} bytes are there; export it or copy it again")


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a whole file, in its order."""
    for tensor in walk(path):
        if tensor is None:
            raise UserError(f"{path}: has a kind of tensor that is not known here")
        yield tensor


def walk(path: Path) -> Iterator[Tensor | None]:
    """The tensors in order, of which the last may end after the file; None, and no more, where one
    is of a kind not known here.
    """
    end = 0
    size = path.stat().st_size
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            tensor = next_tensor(file)
            yield tensor
            if tensor is None:
                return
            end = tensor.start + tensor.bytes


def next_tensor(file: BinaryIO) -> Tensor | None:
    """The tensor that starts here; None for one of an unknown kind.

    It is: uint32 0, uint64 0 (no sequences), uint32 0, int32 length of its description, that
    description (a protocol buffer: 1 is its type, 2 its dimensions), its numbers.
    """
    head = file.read(20)
    if len(head) < 20:
        return Tensor((1,), 1, file.tell())  # ends after the file does
    version, sequences, tensor_version, length = struct.unpack("<IQIi", head)
    if version or sequences or tensor_version or not 0 <= length < 1 << 16:
        return None
    kind = None
    dims = []
    message = file.read(length)
    if len(message) < length:
        return Tensor((1,), 1, file.tell())
    for field, value in numbers(message):
        if field == 1:
            kind = value
        elif field == 2:
            dims.append(value)
        if len(dims) > MOST_DIMENSIONS:
            return None
    return Tensor(tuple(dims), BYTES[kind], file.tell()) if kind in BYTES else None


def numbers(message: bytes) -> Iterator[tuple[int, int]]:
    """(field, value) of a protocol buffer of plain and packed numbers."""
    place = 0
    while place < len(message):
        key, place = number(message, place)
        if key & 7 == 2:  # packed
            length, place = number(message, place)
            end = min(place + length, len(message))
            while place < end:
                value, place = number(message, place)
                yield key >> 3, value
        else:
            value, place = number(message, place)
            yield key >> 3, value


def number(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value = value | (byte & 127) << shift
        shift = shift + 7
        place = place + 1
        if byte < 128 or shift > 63:  # it has ten bytes at most
            break
    return value, place


# --------------------------------------------------------------------------
# A folder with an exported network: ppcls's, PaddleClas's or PaddleX's

NAME = "inference"
PROGRAMS = (f"{NAME}.json", f"{NAME}.pdmodel")  # Paddle 3's form, and the older one
PARAMS, ONNX, OPENVINO, OPENVINO_DATA = (
    f"{NAME}.{suffix}" for suffix in ("pdiparams", "onnx", "xml", "bin")
)
# PaddleClas's network in INT8, which it takes where there is one.
INT8 = f"{NAME}_int8"
INT8_PROGRAMS = tuple(f"{INT8}.{suffix}" for suffix in ("json", "pdmodel"))
INT8_PARAMS = f"{INT8}.pdiparams"
ONNX_DATA = f"{ONNX}.data"  # weights that do not fit into an ONNX file
NAMES = (*INT8_PROGRAMS, INT8_PARAMS, *PROGRAMS, PARAMS)
NAMES += (ONNX, ONNX_DATA, OPENVINO, OPENVINO_DATA)
CACHE = "engine_cache"
FIELD = re.compile(r'\b(offset|size)="([0-9]{1,18})"')  # of a tag of OpenVINO's
PREPROCESS = tuple(field.name for field in dataclass_fields(Preprocess))


@dataclass(frozen=True)
class ExportedModel:
    """What is there; of `program` (with `params` beside it), `onnx` and `openvino` at least one."""

    path: Path
    manifest: Manifest
    program: Path | None = None
    onnx: Path | None = None
    openvino: Path | None = None

    @property
    def params(self) -> Path:
        """The weights of `program`."""
        return self.program.with_suffix(".pdiparams") if self.program else self.path / PARAMS

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

    def digest(self) -> str:
        """Of the contents of the network's files, 16 hexadecimal digits."""
        return hash_of(*self.files).hexdigest()[:16]

    def cache(self) -> Path:
        """A folder for what engines make of the network: beside it or, where that cannot be
        written, in ppcls's own cache. What belongs to other files of the network is left alone.
        """
        beside = self.path / CACHE
        home = environment.home() / "engines"
        kept = beside if beside.exists() else self.path
        places = [beside, home] if os.access(kept, os.W_OK) else [home]
        for own in places:
            place = own / self.fingerprint()
            try:
                place.mkdir(parents=True, exist_ok=True)
                return place
            except OSError as error:  # a file of that name, for one
                problem = f"{place}: cannot be made ({error.strerror or error})"
        raise UserError(f"{problem}; set PPCLS_HOME to a folder")


def open_exported(
    path: Path, given: dict[str, Any] | None = None, calibrated: bool = True
) -> ExportedModel:
    """Look at a folder.

    An ONNX file alone is one, too: what is known of it then, it carries in itself, or is given. Of
    a checkpoint of ours, or a run's folder, one is made where `exporter` can.

    Args:
        given: instead of, or in place of parts of, `inference.yml`: fields of `Preprocess`, and
            `labels`, a file of class names, `imagenet` or a sequence of them, and `threshold`.
            Without that file at least `crop` is needed.
        calibrated: False leaves its calibration out, whatever its state is.

    Raises:
        UserError: no such folder, or no whole network in it.
    """
    if path.suffix.lower() == ".onnx" and path.is_file():
        return open_onnx(path, given or {}, calibrated)
    checkpoint = checkpoint_in(path)
    if checkpoint and exporter:
        path = exported_of(checkpoint, exporter)
    refuse_others(path)
    about = describe(path, given or {}, calibrated)
    names = (*INT8_PROGRAMS, *PROGRAMS)
    program = next((path / name for name in names if (path / name).is_file()), None)
    if program and not program.with_suffix(".pdiparams").is_file():
        params = f"{program.stem}.pdiparams"
        raise UserError(f"{path}: {program.name} is there and {params} is not; copy it again")
    if program and program.name in INT8_PROGRAMS:
        found = ExportedModel(path, replace(about, precision="int8"), program)
        check_graph(found)
        return with_calibration(found)
    onnx, openvino = (path / name for name in (ONNX, OPENVINO))
    found = ExportedModel(
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
    check_graph(found)
    return with_calibration(found)


def open_onnx(path: Path, given: dict[str, Any], calibrated: bool = True) -> ExportedModel:
    """An ONNX file: that of an exported folder, or one that stands for itself."""
    beside = path.with_name(manifest.FILE)
    if path.name == ONNX and beside.is_file():
        found = ExportedModel(path.parent, describe(path.parent, given, calibrated), onnx=path)
    else:
        found = ExportedModel(path, describe(path, given), onnx=path)
    check_graph(found)
    return with_calibration(found)


def with_calibration(found: ExportedModel) -> ExportedModel:
    """With the arrays of its calibration; UserError where that is another network's."""
    about = found.manifest
    if about.calibration is None:
        return found
    files = {path.name: path for path in found.files}
    opened = about.calibration.opened(found.path, files, about.features)
    return replace(found, manifest=replace(about, calibration=opened))


# What writes the exported folder of a checkpoint: the whole of ppcls, which prediction does without
# (see `ppcls/prediction.py`).
Exporter = Callable[[Path, Path], None]
exporter: Exporter | None = None
BEST = ("best.safetensors", "latest.safetensors")  # of a run's folder, the first that is there
RECORD = "ppcls"  # what a checkpoint of ours has in its metadata


def checkpoint_in(path: Path) -> Path | None:
    """The checkpoint of ours that a path, or a run's folder, is; None for all else."""
    if path.is_dir() and not is_exported(path):
        path = next((path / name for name in BEST if (path / name).is_file()), path)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            return path if RECORD in (file.metadata() or {}) else None
    except (OSError, SafetensorError):
        return None


def exported_of(checkpoint: Path, exporter: Exporter) -> Path:
    """The exported folder of a checkpoint, in ppcls's own folder; made where it is not there."""
    try:
        digest = hash_of(checkpoint)
    except OSError as error:
        raise UserError(f"{checkpoint}: cannot be read ({error.strerror or error})") from None
    digest.update(sys.modules["ppcls"].__version__.encode())
    run = checkpoint.resolve().parent.name or "checkpoint"
    folder = environment.home() / "exported" / f"{run}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        with suppress(UserError):  # else it is made anew
            return open_exported(folder).path
    if find_spec("paddle") is None:
        raise UserError(
            f"{checkpoint}: predicting with a checkpoint needs paddlepaddle, once; install it, or "
            f"elsewhere {to_export(checkpoint)}"
        )
    exporter(checkpoint, folder)
    return folder


CHECKPOINTS = (".safetensors", ".pdparams", ".pdopt", ".pth", ".pt", ".ckpt", ".h5", ".npz")


def refuse_others(path: Path) -> None:
    """UserError that says what is there in place of an exported folder, and what to do."""
    try:
        if path.is_dir():
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        elif path.exists():
            entries = []
        else:
            raise UserError(f"{path}: does not exist{name_hint(path)}")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror or error})") from None
    if path.is_dir():
        if not is_exported(path):
            raise UserError(f"{path}: has no {manifest.FILE}{folder_hint(entries)}")
        return
    checkpoint = path.suffix.lower() in CHECKPOINTS
    if checkpoint:
        raise UserError(f"{path}: is a checkpoint; {to_export(path)}")
    known = path.suffix in (".json", ".pdmodel", ".pdiparams", ".xml", ".bin", ".yml")
    what = f"is a file of one; give its folder, {path.parent}" if known else "is a file"
    raise UserError(f"{path}: is no exported folder: it {what}")


def name_hint(path: Path) -> str:
    """What to say of a path where nothing is; it may be meant as a network's name."""
    if len(path.parts) != 1 or path.suffix in CHECKPOINTS:
        return f"; make such a folder with tools/export.py: {to_export(Path('CHECKPOINT'))}"
    return (
        "; if a network's name is meant, export it first: ppcls export "
        f"-c configs/{path}.yaml --weights imagenet --output exported/{path}"
    )


def to_export(checkpoint: Path) -> str:
    """The command; only ppcls's own checkpoints know their network."""
    recipe = "" if checkpoint.suffix in ("", ".safetensors") else "-c RECIPE.yaml "
    return f"export it first: ppcls export {recipe}--weights {checkpoint} --output exported/NAME"


def folder_hint(entries: Sequence[Path]) -> str:
    """What to say of a folder that is no exported one."""
    if not entries:
        return "; make such a folder with tools/export.py (this one is empty)"
    checkpoints = [entry for entry in entries if entry.suffix.lower() in CHECKPOINTS]
    if checkpoints:
        best = next((entry for entry in checkpoints if entry.stem == "best"), checkpoints[-1])
        return f"; it has checkpoints, {to_export(best)}"
    below = [entry for entry in entries if entry.is_dir() and is_exported(entry)]
    if below:
        return f"; exported folders are in it, give one of them: {at_most(list(map(str, below)))}"
    kinds = (".pdmodel", ".pdiparams", ".onnx", ".xml")
    others = [entry.name for entry in entries if entry.suffix in kinds]
    if others:
        file = ", or give the .onnx file itself" if any(n.endswith(".onnx") for n in others) else ""
        return f"; {at_most(others)}: a network's files should be named {NAME}.*{file}"
    return "; make such a folder with tools/export.py"


def is_exported(path: Path) -> bool:
    return (path / manifest.FILE).is_file() or bool(network_files(path))


def describe(path: Path, given: dict[str, Any], calibrated: bool = True) -> Manifest:
    """The folder's manifest with what is given in its place."""
    fields = {key: value for key, value in given.items() if value is not None}
    labels = fields.pop("labels", None)
    threshold = fields.pop("threshold", None)
    kept = {key: fields[key] for key in PREPROCESS if key in fields}
    text = onnx_metadata.read(path) if path.is_file() else None
    if text is not None:
        about = manifest.read(path, kept, text, calibrated=False)  # no arrays travel with it
    elif path.is_file() and "crop" not in fields:
        raise UserError(
            f"{path}: says nothing of what it expects; say how images are prepared: "
            "--resize 256 --crop 224, and --mean, --std, --interpolation, --labels if needed"
        )
    elif path.is_file():
        about = Manifest(path.stem, Preprocess(), output=None)
    elif (path / manifest.FILE).is_file() or not (path.is_dir() and "crop" in fields):
        if path.is_dir() and not (path / manifest.FILE).is_file() and network_files(path):
            raise UserError(
                f"{path}: has no {manifest.FILE}; say how images are prepared: "
                "--resize 256 --crop 224, and --mean, --std, --interpolation, --labels if needed"
            )
        about = manifest.read(path, kept, calibrated=calibrated)
    else:
        about = Manifest(path.resolve().name, Preprocess(), output=None)
    try:
        preprocess = replace(about.preprocess, **fields)
    except ValidationError as error:
        raise UserError(f"{path}: how images are prepared: {first_of(error)}") from None
    if "resize" in fields and preprocess.fit != "crop":
        raise UserError(
            f"{path}: resize goes with fit crop, and images are fitted by {preprocess.fit} here: "
            "give the size as crop, or fit as crop, too"
        )
    if threshold is not None:
        if about.task != "multilabel" and about.default is None:
            raise UserError(
                f"{path}: is no multi-label network, in it one class wins: no threshold"
            )
        about = replace(about, threshold=float(threshold))
    if about.calibration and preprocess != about.preprocess:
        say(f"note: {path}: prepares images otherwise than for its calibration: left out")
        about = replace(about, calibration=None)
    names = about.labels if labels is None else names_given(labels, about)
    return replace(about, preprocess=preprocess, labels=names)


def names_given(labels: str | PathLike[str] | Sequence[str], about: Manifest) -> tuple[str, ...]:
    """Class names in place of those that the manifest has; UserError where they do not fit."""
    if not isinstance(labels, (str, PathLike)):
        return renamed(about.labels, [str(name) for name in labels], "labels", manifest.FILE)[0]
    own = about.labels
    given = read_class_names(labels)
    source = f"--labels {labels}"
    trained_here = bool(about.about)
    names, note = renamed(own, given, source, manifest.FILE, numbers=trained_here)
    if note:
        say(note)
    return names


def first_of(error: ValidationError) -> str:
    """The first mistake, as `crop: should be greater than 0, not -1`."""
    found = error.errors()[0]
    text = found["msg"].removeprefix("Value error, ").replace("Input should", "should")
    where = ".".join(map(str, place_of(found["loc"])))
    return f"{where}: {text}, not {found['input']!r}" if where else text


def network_files(path: Path) -> list[Path]:
    """All files of exported networks that are in a folder."""
    return [path / name for name in NAMES if (path / name).is_file()]


def check_graph(folder: ExportedModel) -> None:
    """Refuse files that are cut short or are not those that were exported."""
    sizes = folder.manifest.about.get("files") or {}
    if not isinstance(sizes, dict):
        raise UserError(f"{folder.path / manifest.FILE}: ppcls.files: should be sizes by name")
    for path in folder.files:
        if not path.is_file():
            raise UserError(f"{path}: should be there, too; copy it again")
        expected = sizes.get(path.name)
        found = path.stat().st_size
        if expected not in (None, found):
            raise UserError(
                f"{path}: has {found} bytes, {manifest.FILE} says {expected}; "
                "it is cut short or of another export: export it or copy it again"
            )
        if not found:
            raise UserError(f"{path}: is empty; export it or copy it again")
    if folder.program:
        check_params(folder.params)
    if folder.openvino:
        check_openvino(folder.openvino)


def check_openvino(path: Path) -> None:
    """OpenVINO maps its weights into memory; one that reaches past their end would crash."""
    data = path.with_suffix(".bin")
    text = path.read_text(encoding="utf-8", errors="replace")
    # Found tag by tag: one expression for all would go over a long text again and again.
    tags = (dict(FIELD.findall(tag)) for tag in re.findall("<data ([^<>]*)", text))
    end = max((int(t.get("offset", 0)) + int(t.get("size", 0)) for t in tags), default=0)
    if data.stat().st_size < end:
        raise UserError(f"{data}: cut short, {end} bytes are needed; copy it again")


# --------------------------------------------------------------------------
# The folder that an exported network is written into: whole, and in no other network's place

OWN = (manifest.FILE, *NAMES, CACHE, calibration.FILE, calibration.PICTURE)


@dataclass(frozen=True)
class Origin:
    """What an exported network was made from: two exports of the same may replace each other."""

    model: str
    source: str  # the file of its weights, "" when unknown
    precision: str = "fp32"

    @classmethod
    def of(cls, about: manifest.Manifest) -> "Origin":
        return cls(about.model, str(about.about.get("source", "")), about.precision)

    def same(self, other: "Origin") -> bool:
        if not self.source or not other.source:
            return False
        own, others = (
            (origin.model, origin.precision, os.path.abspath(origin.source))
            for origin in (self, other)
        )
        return own == others

    def __str__(self) -> str:
        source = f" made from {self.source}" if self.source else ""
        return f"{self.model} in {self.precision}{source}"


@contextmanager
def staged(
    output: Path, origin: Origin, overwrite: bool = False, calibrates: bool = False
) -> Iterator[Path]:
    """A folder to write `output`'s files into; it takes the place of `output` when all went well.

    Args:
        origin: what the new export is made from.
        overwrite: replace an export of something else, too.
        calibrates: whether what is written is calibrated next, so that a calibration that is lost
            is no news.

    Raises:
        UserError: `output` is something else than an exported folder, or another network's, or
            cannot be written.
    """
    fix = "--output FOLDER"
    with writing(str(output), fix):
        replaced = check(output, origin, overwrite)
        calibrated = is_calibrated(output) and not calibrates
        clear_rest(output.with_name(f"{output.name}.incomplete"))
    # What is written into the folder meanwhile fails as the folder itself does.
    with writing(str(output), fix), staged_folder(output, manifest.FILE, OWN, fix=fix) as temporary:
        yield temporary
    if replaced:
        say(f"{output}: replaced the export of {replaced} that was there")
    if calibrated:
        say(f"note: {output}: has no calibration any more; make it anew with ppcls calibrate")


def is_calibrated(output: Path) -> bool:
    """Whether the export in a folder has a calibration, whatever its state is."""
    with suppress(UserError):
        return manifest.read(output).calibration is not None
    return (output / calibration.FILE).exists()


def check(output: Path, origin: Origin, overwrite: bool) -> Origin | None:
    """What the export in a folder was made from, None without one."""
    if not output.exists() and not output.is_symlink():
        return None
    if not (output.is_dir() and (is_export(output) or is_rest(output))):
        raise UserError(f"{output} exists and is no exported folder; --output FOLDER")
    if not is_export(output):
        return None
    try:
        found = Origin.of(manifest.read(output))
    except UserError:  # not one that this version can read
        found = Origin("another network", "", "an unknown form")
    if not overwrite and not found.same(origin):
        raise UserError(
            f"{output} already holds an export of {found}: --overwrite replaces it, "
            "--output FOLDER writes elsewhere"
        )
    return found


def is_export(output: Path) -> bool:
    return (output / manifest.FILE).exists()


def is_rest(output: Path) -> bool:
    """Whether nothing but an export's files is there: one was killed while it was replaced."""
    return all(path.name in OWN for path in output.iterdir())


def clear_rest(incomplete: Path) -> None:
    """Remove what earlier versions left beside the folder when they were killed."""
    if incomplete.is_dir() and not incomplete.is_symlink() and is_rest(incomplete):
        shutil.rmtree(incomplete)


def sizes(temporary: Path) -> dict[str, int]:
    """Bytes of the network's files, by name."""
    return {path.name: path.stat().st_size for path in network_files(temporary)}
