"""A data set as tar shards, from folders, lists or parquet files.

Images in parquet files, as the Hugging Face hub has them; read to make shards of.

A column `image` of {bytes, path} or bytes, and a column `label` of integers, whose class names
stand in the schema's metadata. An image can be had only with its whole group of rows, often 1,000:
so files are not trained from directly, and are shuffled by groups.
"""

import glob
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.data import datasets, decode
from ppcls.data.class_names import NUMBERED, read_class_names
from ppcls.data.samples import Dataset, Paths
from ppcls.data.shards import NAMES, SUFFIX
from ppcls.utils.errors import UserError
from ppcls.utils.files import locked, read_file, write_text
from ppcls.utils.log import Progress, say
from ppcls.utils.text import at_most, composed, from_json, is_broken, plural, to_json, visible

if TYPE_CHECKING:  # pyarrow is an extra
    from pyarrow.parquet import ParquetFile


PARQUET = ".parquet"
WINDOW = 1 << 28  # bytes of row groups, about, among which images are mixed


def is_parquet(path: str | PathLike) -> bool:
    return str(path).lower().endswith(PARQUET)


@dataclass(eq=False)
class Tables:
    """Open parquet files.

    `starts` (int64 [groups + 1]) is each row group's first image, `sizes` (int64 [groups]) its
    bytes, `places` its (file, number there); groups of equal `windows` (int64 [groups]) are mixed.
    """

    samples: Dataset
    files: list["ParquetFile"]
    places: list[tuple[int, int]]
    starts: np.ndarray
    sizes: np.ndarray
    windows: np.ndarray
    held: dict[int, Any] = field(default_factory=dict)

    def shuffled(self, rng: np.random.Generator, window: int = WINDOW) -> np.ndarray:
        """Every image once, int64 [N]: groups in random order, mixed within `window` bytes."""
        order = rng.permutation(len(self.places))
        self.windows[order] = np.cumsum(self.sizes[order]) // window
        mixed = []
        for number in np.unique(self.windows):
            groups = order[self.windows[order] == number]
            spans = [np.arange(*self.starts[group : group + 2]) for group in groups]
            mixed.append(rng.permutation(np.concatenate(spans)))
        return np.concatenate(mixed)

    def read(self, index: int) -> bytes:
        """The bytes of an image; the groups of a window are kept until the next one's are read."""
        group = int(np.searchsorted(self.starts, index, "right")) - 1
        if group not in self.held:
            if any(self.windows[other] != self.windows[group] for other in self.held):
                self.held.clear()
            file, number = self.places[group]
            self.held[group] = self.files[file].read_row_group(number, ["image"])["image"]
        value = self.held[group][index - int(self.starts[group])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if not data:
            raise UserError(f"{self.samples.where(index)}: a row without an image's bytes")
        return data


def open_parquet(pattern: str, labels: str | PathLike | None = None) -> Tables:
    """The images of `data/train-*.parquet`, in the order of the files' names.

    Args:
        pattern: a file, or several by `*`.
        labels: a label file in place of the names in the metadata.

    Raises:
        UserError: no such files, not parquet, other columns, rows without a label; needs pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(f"{pattern}: needs pyarrow: pip install 'ppcls[parquet]'") from None
    names = read_class_names(labels) if labels is not None else ()
    found = sorted(glob.glob(pattern))
    if not found:
        raise UserError(f"{pattern}: no such files")
    files = []
    numbers = []
    texts = []
    for path in found:
        try:
            file = parquet.ParquetFile(path)
            check_columns(path, file)
            numbers.append(label_column(path, file))
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: not a parquet file, or damaged ({reason})") from None
        names = names or class_names(file)
        texts += [f"{path}:{row}" for row in range(len(numbers[-1]))]
        files.append(file)
    samples = Dataset(Paths(texts), np.concatenate(numbers), names, pattern)
    places = [(i, k) for i, file in enumerate(files) for k in range(file.num_row_groups)]
    groups = [files[file].metadata.row_group(number) for file, number in places]
    starts = np.cumsum([0] + [group.num_rows for group in groups])
    sizes = np.array([group.total_byte_size for group in groups], np.int64)
    return Tables(samples, files, places, starts, sizes, np.zeros_like(sizes))


def label_column(path: str, file: "ParquetFile") -> np.ndarray:
    """The labels, int64 [rows]; UserError for a row without one."""
    column = file.read(["label"])["label"].to_pylist()
    lost = [row for row, label in enumerate(column) if label is None or label < 0]
    if lost:
        raise UserError(f"{path}:{lost[0]}: a row without a label (none, or below 0)")
    return np.array(column, np.int64)


def check_columns(path: str, file: "ParquetFile") -> None:
    """UserError for other columns than those of images with one label each."""
    schema = file.schema_arrow
    if not {"image", "label"} <= set(schema.names):
        raise UserError(
            f"{path}: expected the columns image and label, found {', '.join(schema.names)}"
        )
    kind = str(schema.field("label").type)
    if "int" not in kind:
        raise UserError(f"{path}: labels are integers, found {kind}")


def class_names(file: "ParquetFile") -> tuple[str, ...]:
    """The label's names in the metadata that the hub's `datasets` library writes, () without."""
    metadata = file.schema_arrow.metadata or {}
    try:
        about = from_json(metadata[b"huggingface"])
        return tuple(about["info"]["features"]["label"]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


# --------------------------------------------------------------------------
# Tar shards from any data set: `ppcls make-shards SOURCE TARGET`


@dataclass
class Record:
    """What shards are made of, and the finished ones: [images, bytes] of each.

    Kept beside them: by it an interrupted run goes on, and other shards are told apart.
    """

    source: str
    photos: int
    digest: str
    seed: int
    shard_size: int
    shards: list[list[int]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The images in the finished shards."""
        return sum(photos for photos, _ in self.shards)


def make_shards(
    source: str,
    target: Path,
    shard_size: int,
    name: str = "train",
    labels: str | PathLike | None = None,
    multilabel: bool = False,
    seed: int = 0,
) -> list[str]:
    """Write the images of `source` into tars of about `shard_size` bytes; returns what to say.

    Their bytes stay as they are. They are shuffled by `seed`; the same call makes the same files,
    also where one before it was interrupted, whose finished shards are kept.

    Args:
        source: folder, list file, tar shards or parquet files, as `open_samples` takes them.
        target: a folder; its `labels.txt` will have the class names, where they are known.
        name: what the shards' names begin with.
        several: whether the lists have `0,1,0` labels.

    Raises:
        UserError: an image that is missing or no image, other shards of that name in the target.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"--name {name}: give a word of letters, digits, - and _")
    source = part_named(source, name)
    samples, order, read = opened(source, labels, multilabel, seed)
    record = Record(source, len(samples), samples.digest(), seed, shard_size)
    try:
        target.mkdir(parents=True, exist_ok=True)
        busy = "wait for it, or end it; another folder or --name writes elsewhere"
        with locked(target / f".{name}.lock", str(target), busy):
            record.shards = finished(target, name, record)
            write_names(samples.names, target / NAMES)
            write_all(samples, order, read, target, name, record)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    last = len(record.shards) - 1
    pattern = f"{name}-{{{0:06}..{last:06}}}{SUFFIX}" if last else f"{name}-{0:06}{SUFFIX}"
    found = f"{plural(len(record.shards), 'shard')} of {plural(record.photos, 'image')}"
    return [f"{found}: data.train={target / pattern}"]


def part_named(source: str, name: str) -> str:
    """The source; of a folder with the parts of a data set, the part that the shards' name says."""
    group = (datasets.TRAIN_PARTS, datasets.EVAL_PARTS)
    wanted = next((parts for parts in group if name.lower() in parts), (name.lower(),))
    part = datasets.part_of(source, [name.lower(), *wanted])
    if part:
        say(f"{source}: holds the parts of a data set: shards are made of {part}, as --name says")
    return part or source


def opened(
    source: str, labels: str | PathLike | None, multilabel: bool, seed: int
) -> tuple[Dataset, np.ndarray, Callable[[int], bytes]]:
    """The data set, the order in which to write its images, and what reads one."""
    rng = np.random.default_rng(seed)
    if is_parquet(source):
        if multilabel:
            raise UserError(f"{source}: parquet files have one label for each image")
        tables = open_parquet(source, labels)
        return tables.samples, tables.shuffled(rng), tables.read
    samples = datasets.open_samples(source, labels=labels, multilabel=multilabel)
    lost = datasets.missing(samples)
    if lost:
        raise UserError(f"images that do not exist: {'; '.join(lost)}")
    return samples, rng.permutation(len(samples)), partial(read_image, samples)


def read_image(samples: Dataset, index: int) -> bytes:
    return decode.read_bytes(samples.paths[index])


def record_file(target: Path, name: str) -> Path:
    return target / f"{name}.shards.json"


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)


def finished(target: Path, name: str, record: Record) -> list[list[int]]:
    """The shards that an interrupted run has left; UserError for those of another one."""
    file = record_file(target, name)
    advice = "give another --name or folder, or delete them"
    if not file.exists():
        other = sorted(path.name for path in target.glob(f"{name}-*{SUFFIX}"))
        if other:
            raise UserError(f"{target}: holds other shards, {at_most(other)}; {advice}")
        return []
    try:
        found = Record(**from_json(read_file(file)))
        if not all(map(is_pair, found.shards)):
            raise ValueError(found.shards)
    except (ValueError, TypeError):
        raise UserError(f"{file}: is no record of shards; {advice}") from None
    pairs = zip(asdict(found).items(), asdict(record).values(), strict=True)
    other = [f"{key} {own!r}, not {new!r}" for (key, own), new in pairs if own != new]
    other = [text for text in other if not text.startswith(("source ", "shards "))]
    if other:
        raise UserError(f"{file}: of other shards ({'; '.join(other)}); {advice}")
    kept = []
    for number, (photos, size) in enumerate(found.shards):
        shard = target / shard_name(name, number)
        if not shard.is_file() or shard.stat().st_size != size:
            break
        kept.append([photos, size])
    if kept:
        say(f"{target}: {plural(len(kept), 'shard is', 'shards are')} there already")
    return kept


def write_names(names: tuple[str, ...], file: Path) -> None:
    """A label file with numbers, as some classes share a name; UserError if there is another.

    A name a line, or JSON where a line would mean another name.
    """
    if not names:
        return
    broken = [visible(name) for name in names if is_broken(name)]
    if broken:
        raise UserError(
            f"{file}: holds class names as UTF-8, and {at_most(broken)} is none: rename the "
            "folders, as `convmv -f gbk -t utf-8 -r --notest FOLDER` does"
        )
    unfit = [repr(visible(name)) for name in names if name != composed(name.strip())]
    if unfit:
        raise UserError(
            f"{file}: holds class names without spaces at their ends: rename the folders "
            f"{at_most(unfit)}"
        )
    if not file.exists():
        numbered = [f"{number} {name}" for number, name in enumerate(names)]
        fit = all(map(is_one_line_of, numbered, names))
        text = "\n".join(numbered) if fit else to_json(dict(enumerate(names)), indent=1)
        write_text(file, f"{text}\n")
    if read_class_names(file) != names:
        raise UserError(
            f"{file}: has other classes than the source; give another folder, or --labels {file}"
        )


def is_one_line_of(line: str, name: str) -> bool:
    """Whether a line with a number is read as this name."""
    found = NUMBERED.fullmatch(line)
    return bool(found) and found[2] == name and not name.startswith(("'", '"'))


def write_all(
    samples: Dataset,
    order: np.ndarray,
    read: Callable[[int], bytes],
    target: Path,
    name: str,
    record: Record,
) -> None:
    """The shards that are not there yet, each recorded as soon as it is whole."""
    start = record.done
    rest = Progress(order[start:].tolist(), "photos", len(order), start)
    photos = ((index, read(index)) for index in rest)
    held = next(photos, None)
    while held:
        shard = target / shard_name(name, len(record.shards))
        part = shard.with_name(f".{shard.name}.part")
        count = 0
        with part.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                while held and (not count or tar.offset + len(held[1]) <= record.shard_size):
                    add(tar, record.done + count, samples, *held)
                    count += 1
                    held = next(photos, None)
            file.flush()
            os.fsync(file.fileno())
        part.replace(shard)
        record.shards.append([count, shard.stat().st_size])
        text = json.dumps(asdict(record), indent=1) + "\n"
        write_text(record_file(target, name), text)


def add(tar: tarfile.TarFile, number: int, samples: Dataset, index: int, data: bytes) -> None:
    """An image and its label, under the number of its place in the shuffled order."""
    for key, content in members(samples, index, data):
        member = tarfile.TarInfo(f"{number:06}{key}")
        member.size = len(content)
        member.mode = 0o444
        tar.addfile(member, io.BytesIO(content))


def members(samples: Dataset, index: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The endings and contents of an image's members: no time or owner of any makes it differ."""
    ending = decode.kind_of(data[: decode.HEAD])
    if ending not in decode.readable():
        raise UserError(f"{samples.where(index)}: not a {decode.EXPECTED}")
    label = samples.labels[index]
    # In the order of their endings, as WebDataset's own writer.
    pair = (".cls", str(int(label))) if label.ndim == 0 else (".txt", ",".join(map(str, label)))
    return iter(sorted([(ending, data), (pair[0], pair[1].encode())]))


def shard_name(name: str, number: int) -> str:
    return f"{name}-{number:06}{SUFFIX}"
