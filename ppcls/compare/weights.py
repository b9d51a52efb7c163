"""Whether the files of two networks hold the same weights, and where they differ."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls.inference import exported_model
from ppcls.inference.exported_model import ExportedModel, checkpoint_in
from ppcls.inference.formats import PARAMETER, openvino_model
from ppcls.utils.text import visible
from ppcls.weights import files

SAME = 1e-6  # relative difference of arrays that rounding makes
QUANTIZED = 0.05  # … that 7 or 8 bits make; another training differs by more than 0.5
LEAST = 16  # numbers of an array that is compared between float and int8
OTHERS = ("optimizer/", "ema/")  # of a checkpoint, beside the network

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class WeightsDifference:
    """How the arrays of B differ from those of A.

    Attributes:
        arrays: how many there are of the same shape in both.
        alone: how many have no counterpart.
        differ: how many of `arrays` are not the same.
        largest: the largest relative difference, |b - a| / |a|, and its array in words.
        normalization: whether only what normalises pixels inside of the networks differs.
    """

    arrays: int
    alone: int
    differ: int
    largest: float
    where: str
    normalization: bool = False

    @property
    def same(self) -> bool:
        return not self.differ and not self.alone

    @property
    def quantized(self) -> bool:
        """Whether they differ by no more than INT8 makes of the same weights."""
        return self.arrays > 0 and self.largest <= QUANTIZED


def weights_difference(
    given: tuple[Path, Path], folders: tuple[ExportedModel, ExportedModel]
) -> WeightsDifference | None:
    """Of what was given as A and B, opened as `folders`; None where it cannot be told.

    Checkpoints are compared name by name. Exported folders have names of their own making: there
    the arrays of equal shape that are nearest to each other are held to be the same.
    """
    checkpoints = [checkpoint_in(path) for path in given]
    if all(checkpoints):
        first, second = (of_checkpoint(path) for path in checkpoints if path)
        return by_name(first, second)
    mixed = folders[0].manifest.precision != folders[1].manifest.precision
    found = [of_folder(folder) for folder in folders]
    if found[0] is None or found[1] is None:
        return None
    channels = folders[0].manifest.preprocess.channels
    return by_shape(found[0], found[1], LEAST if mixed else 1, channels)


def of_checkpoint(path: Path) -> dict[str, np.ndarray]:
    tensors = files.read(path).tensors
    return {
        name: np.asarray(value) for name, value in tensors.items() if not name.startswith(OTHERS)
    }


def of_folder(folder: ExportedModel) -> dict[str, np.ndarray] | None:
    """The arrays of an exported network, those in int8 as the numbers that they stand for."""
    if folder.program:
        return of_program(folder.program, folder.params)
    try:
        return of_onnx(folder.onnx) if folder.onnx else of_openvino(folder)
    except ImportError:  # of what reads them
        return None


def of_program(program: Path, params: Path) -> dict[str, np.ndarray] | None:
    tensors = list(exported_model.walk(params))
    names = [str(place) for place in range(len(tensors))]
    if program.suffix == ".json":
        known = sorted(PARAMETER.findall(program.read_text(encoding="utf-8")))
        names = known if len(known) == len(names) else names
    found = {}
    with params.open("rb") as file:
        for name, tensor in zip(names, tensors, strict=True):
            if tensor is None:
                return None
            if tensor.bytes_each == 4:  # others are no weights
                file.seek(tensor.start)
                values = np.frombuffer(file.read(tensor.bytes), np.float32)
                found[name] = values.reshape(tensor.dims)
    return found


def of_onnx(path: Path) -> dict[str, np.ndarray]:
    import onnx

    graph = onnx.load(str(path)).graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    found = {name: a for name, a in stored.items() if a.dtype == np.float32}
    for node in graph.node:
        values = [stored.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and values[0] is not None and values[1] is not None:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [1] * values[0].ndim
            if values[1].size > 1:
                shape[axis] = -1
            zero = values[2] if len(values) > 2 and values[2] is not None else np.zeros(1)
            numbers = values[0].astype(np.float64) - zero.astype(np.float64).reshape(shape)
            found[node.input[0]] = numbers * values[1].reshape(shape)
    return found


def of_openvino(folder: ExportedModel) -> dict[str, np.ndarray] | None:
    if not folder.openvino or folder.manifest.precision == "int8":
        return None
    return {
        node.get_friendly_name(): np.array(node.data)
        for node in openvino_model(folder.openvino).get_ops()
        if node.get_type_name() == "Constant" and node.data.dtype == np.float32
    }


# --------------------------------------------------------------------------- differences


def by_name(first: Arrays, second: Arrays) -> WeightsDifference:
    both = [name for name in first if name in second and first[name].shape == second[name].shape]
    pairs = [(first[name], second[name], visible(name)) for name in both]
    alone = len(first) + len(second) - 2 * len(both)
    return summed(pairs, alone, None)


def by_shape(first: Arrays, second: Arrays, least: int, channels: int) -> WeightsDifference:
    """As `by_name`, of arrays of `least` numbers or more; a matrix may be turned."""
    own, others = (
        [(name, a) for name, a in sorted(arrays.items(), key=natural) if a.size >= least]
        for arrays in (first, second)
    )
    if [a.shape for _, a in own] == [a.shape for _, a in others]:
        pairs = [(a, b, visible(name)) for (name, a), (_, b) in zip(own, others, strict=True)]
        found = summed(pairs, 0, channels)
        if found.largest <= QUANTIZED:
            return found
    pairs = []
    total = len(own) + len(others)
    for name, a in own:
        near = [(distance(a, b), place) for place, (_, b) in enumerate(others)]
        apart, place = min(near, default=(np.inf, 0))
        if np.isfinite(apart):
            pairs.append((a, as_shaped(others.pop(place)[1], a), visible(name)))
    return summed(pairs, total - 2 * len(pairs), channels)


def natural(item: tuple[str, np.ndarray]) -> list[tuple[int, str]]:
    """A name so that conv2d_9 comes before conv2d_10, as the layers do."""
    parts = re.findall(r"\d+|\D+", item[0])
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def as_shaped(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The array, a matrix turned where that makes it the other's shape."""
    return found if found.shape == wanted.shape else found.T


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The relative difference of two arrays; infinite where they cannot be the same one."""
    if a.shape != b.shape and not (a.ndim == b.ndim == 2 and a.shape == b.T.shape):
        return np.inf
    length = float(np.linalg.norm(a))
    apart = float(np.linalg.norm(as_shaped(b, a) - a))
    return apart / length if length else apart


def summed(
    pairs: list[tuple[np.ndarray, np.ndarray, str]], alone: int, channels: int | None
) -> WeightsDifference:
    distances = [distance(a, b) for a, b, _ in pairs]
    far = [place for place, apart in enumerate(distances) if not apart <= SAME]
    if not far:
        return WeightsDifference(len(pairs), alone, 0, max(distances, default=0.0), "")
    most = max(far, key=lambda place: distances[place])
    shape = " x ".join(map(str, pairs[most][0].shape)) or "a number"
    # What a uint8 export normalises pixels with, [1, C, 1, 1]; no layer has arrays of that shape.
    inputs = ((1, channels, 1, 1), (channels, 1, 1))
    pixels = not alone and all(pairs[place][0].shape in inputs for place in far)
    where = f"{pairs[most][2]} [{shape}]"
    return WeightsDifference(len(pairs), alone, len(far), distances[most], where, pixels)
