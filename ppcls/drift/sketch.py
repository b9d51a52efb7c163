"""What an export keeps of the images it was calibrated on, so that others can be held against them.

Of each image that is where its features lie along a few axes, the score of its first class, which
class that is, and how it looks: some 50 kB for all, whatever the network is. It holds no image.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ppcls.inference.calibration import AGAIN, FILE, LEAST, Calibration, principal
from ppcls.inference.looks import LOOKS
from ppcls.utils.errors import UserError

SEED = 0
BYTES = 53_000  # of a sketch, at most
MOST = 1000  # images in it
AXES = 16
LEAST_AXES = 2
APART = 1 / 3  # the share of the images that the axes are found on; they are not in the sketch …
MOST_APART = 1000  # … nor are these
FINE = 16  # steps of a deviation, in int8
FLOOR = 1e-6  # a probability below it counts as that much: what is there is rounding
PIECE = 1 << 18
MOST_ROWS = 64
NAMES = ("axes", "offsets", "factors", "places", "scores", "classes", "looks")
KINDS = ("places", "scores", "classes", "looks")  # of rows
PREFIX = "sketch_"  # of their names in the file of arrays
LATEST = "looks"  # of these; a sketch without it is of an older ppcls
Of = Literal["features", "scores"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What is kept of images.

    Attributes:
        places: along the axes, in steps of 1 / FINE deviations, int8 [N, K].
        scores: the network's own of the likeliest class, float32 [N].
        classes: that class, int64 [N].
        looks: as `ppcls.inference.looks` has them, float16 [N, LOOKS].
    """

    places: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    looks: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, which: np.ndarray | slice) -> "Rows":
        return Rows(*(getattr(self, kind)[which] for kind in KINDS))

    @classmethod
    def joined(cls, *parts: "Rows") -> "Rows":
        return cls(*(np.concatenate([getattr(one, kind) for one in parts]) for kind in KINDS))


@dataclass(frozen=True, eq=False)
class Sketch:
    """The axes, and the rows of the images that others are held against.

    Attributes:
        axes: int8 [K, D].
        offsets, factors: float32 [K]; along an axis an image is (axis · values - offset) * factor
            deviations from the mean.
        rows: of the images.
        of: what the values are: features [D], or the logarithms of the probabilities [classes].
        class_count: of the network.
    """

    axes: np.ndarray
    offsets: np.ndarray
    factors: np.ndarray
    rows: Rows
    of: Of
    class_count: int

    def rows_of(
        self, probabilities: np.ndarray, features: np.ndarray | None, looks: np.ndarray
    ) -> Rows:
        """What is kept of images.

        Args:
            probabilities: the network's own, [N, classes].
            features: [N, D], where `of` is features.
            looks: [N, LOOKS].
        """
        values = values_of(self.of, probabilities, features)
        found = (product(values, self.turned) - self.offsets) * self.factors
        places = np.clip(np.rint(found * FINE), -127, 127).astype(np.int8)
        classes = probabilities.argmax(axis=1)
        scores = probabilities[np.arange(len(probabilities)), classes].astype(np.float32)
        return Rows(places, scores, classes, looks.astype(np.float16))

    @cached_property
    def turned(self) -> np.ndarray:
        """The axes, float32 [D, K]."""
        return np.ascontiguousarray(self.axes.T, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """As they stand in the file of arrays; see `sketch_in`."""
        kind = np.uint16 if self.class_count <= 1 << 16 else np.int32
        rows = replace(self.rows, classes=self.rows.classes.astype(kind))
        own = (self.axes, self.offsets, self.factors, *(getattr(rows, kind) for kind in KINDS))
        return {PREFIX + name: array for name, array in zip(NAMES, own, strict=True)}


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ right, float32 [M, N] of [M, K] and [K, N], in the calling thread alone.

    Beside an engine that has all cores, a BLAS of several threads takes ten times as long for such
    small ones, and takes it from the engine. Pieces of up to PIECE products it leaves in one.
    """
    found = np.zeros((len(left), right.shape[1]), np.float32)
    for row in range(0, len(left), MOST_ROWS):
        part = left[row : row + MOST_ROWS]
        step = max(1, PIECE // max(1, len(part) * right.shape[1]))
        for start in range(0, len(right), step):
            found[row : row + MOST_ROWS] += (
                part[:, start : start + step] @ right[start : start + step]
            )
    return found


def values_of(of: str, probabilities: np.ndarray, features: np.ndarray | None) -> np.ndarray:
    """What the axes lie in, float32 [N, D]."""
    if of == "features":
        assert features is not None
        return features.astype(np.float32)
    logits = np.log(np.maximum(probabilities, np.float32(FLOOR)))
    return logits - logits.mean(axis=1, keepdims=True)


def make_sketch(
    probabilities: np.ndarray, features: np.ndarray | None, looks: np.ndarray
) -> Sketch:
    """Of images that the network has not learnt from: a sample that is the same each time.

    The axes are found on a third of the images, which are left out of the rows: to images that axes
    were fitted to, new ones are never quite alike.

    Args:
        probabilities: the network's own, [N, classes].
        features: [N, D]; None where the network gives none.
        looks: [N, LOOKS].
    """
    count = len(probabilities)
    order = np.random.default_rng(SEED).permutation(count)
    apart = min(max(round(count * APART), 1), MOST_APART)
    empty = find_axes(*at(order[:apart], probabilities, features))
    room = (BYTES - empty.axes.nbytes) // (len(empty.axes) + 4 + 2 + 2 * len(LOOKS))
    kept = np.sort(order[apart:][: min(max(room, 1), MOST)])
    return replace(empty, rows=empty.rows_of(*at(kept, probabilities, features), looks[kept]))


def find_axes(probabilities: np.ndarray, features: np.ndarray | None) -> Sketch:
    """The principal axes of images, as a sketch without rows; arguments as of `make_sketch`."""
    of: Of = "scores" if features is None else "features"
    values = values_of(of, probabilities, features).astype(np.float64)
    width = values.shape[1]
    wanted = min(max(BYTES // 2 // width, LEAST_AXES), AXES, width)
    _, directions = principal(values - values.mean(axis=0), wanted)
    largest = np.maximum(np.abs(directions).max(axis=1, keepdims=True), LEAST)
    axes = np.rint(directions / largest * 127).astype(np.int8)
    along = values @ axes.T.astype(np.float64)
    spread = along.std(axis=0)
    # Along an axis in which nothing varies, nothing is told apart either.
    varies = spread > 1e-6 * np.abs(along).max(initial=1)
    factors = np.where(varies, 1 / np.maximum(spread, LEAST), 0).astype(np.float32)
    nothing = np.zeros(0, np.float32)
    places, looks = np.zeros((0, len(axes)), np.int8), np.zeros((0, len(LOOKS)), np.float16)
    rows = Rows(places, nothing, nothing.astype(np.int64), looks)
    offsets = along.mean(axis=0).astype(np.float32)
    return Sketch(axes, offsets, factors, rows, of, probabilities.shape[1])


def at(
    which: np.ndarray, probabilities: np.ndarray, features: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    return probabilities[which], None if features is None else features[which]


def sketch_in(calibration: Calibration, folder: Path) -> Sketch | None:
    """The sketch that came with a calibration, None with one of an older ppcls.

    Raises:
        UserError: its arrays do not fit together.
    """
    if calibration.sketch is None or PREFIX + LATEST not in calibration.values:
        return None
    found = [calibration.values.get(PREFIX + name) for name in NAMES]
    axes, offsets, factors, places, scores, classes, looks = found
    classes_of_network = calibration.made_from.classes
    try:
        width, count = len(offsets), len(scores)  # type: ignore
        shapes = ((axes, (width, axes.shape[-1])), (offsets, (width,)), (factors, (width,)),  # type: ignore
                  (places, (count, width)), (scores, (count,)), (classes, (count,)),
                  (looks, (count, len(LOOKS))))  # fmt: skip
        whole = count > 0 and all(array.shape == shape for array, shape in shapes)  # type: ignore
        whole = whole and int(classes.max()) < classes_of_network  # type: ignore
        whole = whole and bool(np.isfinite(looks).all())  # type: ignore
    except (AttributeError, TypeError, IndexError):
        whole = False
    if not whole:
        raise UserError(f"{folder / FILE}: has no whole sketch of its images; {AGAIN}")
    rows = Rows(places, scores, classes.astype(np.int64), looks)  # type: ignore
    return Sketch(axes, offsets, factors, rows, calibration.sketch, classes_of_network)  # type: ignore
