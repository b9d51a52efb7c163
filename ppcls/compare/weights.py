"""Whether the files of two networks hold the same weights, and where they differ."""

import re
from collections.abc import Callable, Mapping
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
LEAST = 16  # numbers of an array that is compared between two forms of files
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
        typical: the median over the arrays of their relative differences.
    """

    arrays: int
    alone: int
    differ: int
    largest: float
    where: str
    normalization: bool = False
    typical: float = 0.0

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
    forms = [forms_of(folder) for folder in folders]
    both = next(([form, form] for form in forms[0] if form in forms[1]), None)
    chosen = both or [next(iter(own)) for own in forms]
    try:
        first, second = (own[form]() for own, form in zip(forms, chosen, strict=True))
    except ImportError:  # of what reads them
        return None
    if first is None or second is None:
        return None
    alike = both and folders[0].manifest.precision == folders[1].manifest.precision
    channels = folders[0].manifest.preprocess.channels
    return by_shape(first, second, 1 if alike else LEAST, channels)


def of_checkpoint(path: Path) -> dict[str, np.ndarray]:
    tensors = files.read(path).tensors
    return {
        name: np.asarray(value) for name, value in tensors.items() if not name.startswith(OTHERS)
    }


def forms_of(folder: ExportedModel) -> dict[str, Callable[[], dict[str, np.ndarray] | None]]:
    """What reads the arrays of each form of an exported network that is there; of arrays in int8
    the numbers that they stand for.
    """
    program, onnx, xml = folder.program, folder.onnx, folder.openvino
    found: dict[str, Callable[[], dict[str, np.ndarray] | None]] = {}
    if program:
        found["paddle"] = lambda: of_program(program, folder.params)
    if onnx:
        found["onnx"] = lambda: of_onnx(onnx)
    if xml:
        found["openvino"] = lambda: of_openvino(xml, folder.manifest.precision)
    return found


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
    tensors = {one.name: one for one in graph.initializer}
    for node in graph.node:  # as paddle2onnx writes them
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    stored = {name: onnx.numpy_helper.to_array(one) for name, one in tensors.items()}
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


def of_openvino(path: Path, precision: str) -> dict[str, np.ndarray] | None:
    if precision == "int8":
        return None
    return {
        node.get_friendly_name(): np.array(node.data)
        for node in openvino_model(path).get_ops()
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
    typical = float(np.median(distances))
    return WeightsDifference(len(pairs), alone, len(far), distances[most], where, pixels, typical)
