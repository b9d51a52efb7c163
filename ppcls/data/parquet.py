"""Photos in parquet files, as the Hugging Face hub has them; read to make shards of.

A column `image` of {bytes, path} or bytes, and a column `label` of integers, whose class names
stand in the schema's metadata. A photo can be had only with its whole group of rows, often 1,000:
so files are not trained from directly, and are shuffled by groups.
"""

import glob
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.data.class_names import read_class_names
from ppcls.data.paths import Paths
from ppcls.data.samples import Samples
from ppcls.errors import UserError
from ppcls.utils.text import from_json

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
WINDOW = 1 << 28  # bytes of row groups, about, among which photos are mixed


def is_parquet(path: str | PathLike) -> bool:
    return str(path).lower().endswith(SUFFIX)


@dataclass(eq=False)
class Tables:
    """Open parquet files.

    `starts` (int64 [groups + 1]) is each row group's first photo, `sizes` (int64 [groups]) its
    bytes, `places` its (file, number there); groups of equal `windows` (int64 [groups]) are mixed.
    """

    samples: Samples
    files: list["ParquetFile"]
    places: list[tuple[int, int]]
    starts: np.ndarray
    sizes: np.ndarray
    windows: np.ndarray
    held: dict[int, Any] = field(default_factory=dict)

    def shuffled(self, rng: np.random.Generator, window: int = WINDOW) -> np.ndarray:
        """Every photo once, int64 [N]: groups in random order, mixed within `window` bytes."""
        order = rng.permutation(len(self.places))
        self.windows[order] = np.cumsum(self.sizes[order]) // window
        mixed = []
        for number in np.unique(self.windows):
            groups = order[self.windows[order] == number]
            spans = [np.arange(*self.starts[group : group + 2]) for group in groups]
            mixed.append(rng.permutation(np.concatenate(spans)))
        return np.concatenate(mixed)

    def read(self, index: int) -> bytes:
        """The bytes of a photo; the groups of a window are kept until the next one's are read."""
        group = int(np.searchsorted(self.starts, index, "right")) - 1
        if group not in self.held:
            if any(self.windows[other] != self.windows[group] for other in self.held):
                self.held.clear()
            file, number = self.places[group]
            self.held[group] = self.files[file].read_row_group(number, ["image"])["image"]
        value = self.held[group][index - int(self.starts[group])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if not data:
            raise UserError(f"{self.samples.where(index)}: a row without a photo's bytes")
        return data


def open_parquet(pattern: str, labels: str | PathLike | None = None) -> Tables:
    """The photos of `data/train-*.parquet`, in the order of the files' names.

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
    files, numbers, texts = [], [], []
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
    samples = Samples(Paths(texts), np.concatenate(numbers), names, pattern)
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
    """UserError for other columns than those of photos with one label each."""
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
