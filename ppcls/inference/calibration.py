"""What an export knows of its answers: calibrated scores, sets of classes, what is unlike all.

`ppcls.calibrate` makes it from labelled images that the network has not learnt from. It stands in
`inference.yml`; arrays stand beside that in a file of their own, whose digest it names.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ppcls.config.node import Count, Positive, Share
from ppcls.utils.errors import UserError
from ppcls.utils.files import hash_of, read_file
from ppcls.utils.text import plural

KEY = "calibration"  # of the part of inference.yml that ppcls alone reads
FILE = "calibration.safetensors"
PICTURE = "calibration.png"
AGAIN = "copy the folder again, or make it anew with ppcls calibrate"
State = Literal["sure", "unsure", "unknown"]
Method = Literal["lac", "aps", "raps"]
# What is measured of an image to tell whether it is unlike all; the larger, the stranger.
Measure = Literal["confidence", "entropy", "distance"]
NEIGHBOUR = 5  # the nearest of the images kept whose distance counts
LEAST = float(np.finfo(np.float32).tiny)  # a probability that was rounded to 0
ROUNDING = 1e-9  # share of a cost below which another one is the same
COSTS = "costs"  # their name in FILE
CHECKED = ConfigDict(extra="ignore")  # later versions may say more

# A threshold is infinite where there were too few images for one: then all classes are in a set.
Threshold = Annotated[float, Field(strict=True)]


@pydantic_dataclass(config=CHECKED, frozen=True, kw_only=True)
class Sets:
    """Sets of classes that hold the right one as often as `coverage` says.

    A class is in the set where its score of `nonconformity` is at most its threshold.

    Attributes:
        method: lac (least ambiguous sets, arXiv:1609.00451), aps (adaptive sets,
            arXiv:2006.02544) or raps (regularized ones, arXiv:2009.14193).
        coverage: from 0 to 1.
        thresholds: one for all classes, or each one's own (Mondrian sets).
        penalty, free: of raps, what each class adds behind the first `free` of a set.
    """

    method: Method
    coverage: Share
    thresholds: tuple[Threshold, ...]
    penalty: Annotated[float, Field(ge=0)] = 0.0
    free: Annotated[int, Field(ge=0)] = 0

    @property
    def per_class(self) -> bool:
        return len(self.thresholds) > 1

    def hold(self, probabilities: np.ndarray, ranks: "Ranks | None" = None) -> np.ndarray:
        """Which classes are in each image's set: bool [N, classes] of float [N, classes]."""
        scores = nonconformity(probabilities, self.method, self.penalty, self.free, ranks)
        return scores <= np.array(self.thresholds)


@pydantic_dataclass(config=CHECKED, frozen=True, kw_only=True)
class Unknown:
    """From when on an image is unlike all that the classes know.

    Attributes:
        measure: confidence (the likeliest class's, arXiv:1610.02136), entropy of the
            probabilities, or distance of the features from all classes' (arXiv:1807.03888) and
            from other images'.
        threshold: images that measure more are unknown.
        false_alarms: the share of images of the classes that are called unknown, all the same.
    """

    measure: Measure
    threshold: Threshold
    false_alarms: Share


@pydantic_dataclass(config=CHECKED, frozen=True, kw_only=True)
class MadeFrom:
    """What a calibration was made from.

    Attributes:
        images: how many.
        data: what was named.
        digest: of the images' names, labels and order.
        network: of the contents of the network's files, by name.
        assumption: what the guarantee rests on, in words.
    """

    images: Count
    classes: Count
    data: str
    digest: str
    network: dict[str, str]
    assumption: str


@pydantic_dataclass(config=CHECKED, frozen=True, kw_only=True)
class Calibration:
    """What an export knows of its answers.

    Attributes:
        temperature: the logits are divided by it (arXiv:1706.04599); 1 where that helps nothing.
        sets: made of the probabilities that the network gives, before the temperature: what is
            guaranteed of them does not depend on it.
        expected: what was found by cross-fitting, for people.
        sketch: what the axes of the sketch of its images lie in (`ppcls.drift.sketch`), None where
            an older ppcls made it, without one.
        costs: the file that what decisions cost was read from, None where nothing was said of
            that; the costs are among the arrays, float64 [classes, classes].
        arrays: digest of FILE, None where there is none.
        values: the arrays in it, by name, and those of `with_products`.
    """

    made_from: MadeFrom
    sets: Sets
    unknown: Unknown
    temperature: Positive = 1.0
    expected: dict[str, Any] = field(default_factory=dict)
    sketch: Literal["features", "scores"] | None = None
    costs: str | None = None
    arrays: str | None = None
    values: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def needs_features(self) -> bool:
        return self.unknown.measure == "distance"

    def scores(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated, float32 [N, classes], of the network's own. No order of classes changes."""
        if self.temperature == 1:
            return probabilities
        return tempered(probabilities, self.temperature)

    def judge(
        self, probabilities: np.ndarray, features: np.ndarray | None
    ) -> tuple[list[int], State]:
        """The classes of an image's set, the likeliest first, and how sure the answer is.

        Sure is an answer whose set has the likeliest class alone. An empty set is one where no
        class is likely enough at this coverage: unsure.

        Args:
            probabilities: the network's own, float32 [classes].
            features: float32 [D], where `needs_features`.
        """
        row = probabilities[None]
        held = np.flatnonzero(self.sets.hold(row)[0])
        held = held[np.argsort(-probabilities[held], kind="stable")].tolist()
        pooled = None if features is None else features[None]
        strange = strangeness(self.unknown.measure, row, pooled, self.values)[0]
        if strange > self.unknown.threshold:
            return held, "unknown"
        return held, "sure" if held == [int(probabilities.argmax())] else "unsure"

    def decide(self, probabilities: np.ndarray) -> int | None:
        """The class that costs least, of the network's own probabilities, float32 [classes]; None
        where nothing is known of costs.
        """
        if self.costs is None:
            return None
        return int(cheapest(self.scores(probabilities[None]), self.values[COSTS])[0])

    def to_plain(self) -> dict[str, Any]:
        """As it stands in inference.yml."""
        plain = TypeAdapter(Calibration).dump_python(self, mode="json", exclude={"values"})
        return {key: value for key, value in plain.items() if value not in (None, {})}

    def digest(self) -> str:
        """Changes with all that answers depend on, 16 hexadecimal digits."""
        parts = (self.temperature, self.sets, self.unknown, self.arrays)
        if self.costs is not None:
            parts = (*parts, self.costs)
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def opened(self, folder: Path, files: Mapping[str, Path], features: int) -> "Calibration":
        """With its arrays, for prediction.

        Args:
            folder: that inference.yml stands in.
            files: the network's, by name.
            features: how many the network gives of an image.

        Raises:
            UserError: it is of another network, or the file of arrays is missing or not its own.
        """
        for name, path in files.items():
            if self.made_from.network.get(name) != digest_of(path):
                raise UserError(
                    f"{folder}: the calibration in inference.yml is of another network than "
                    f"{name}; make it anew with ppcls calibrate, or remove {KEY} there"
                )
        if self.needs_features and not features:
            raise UserError(
                f"{folder}: its calibration needs features, which the network does not give; "
                f"{AGAIN}"
            )
        if self.arrays is None:
            values = {}
        else:
            values = read_arrays(folder / FILE, self.arrays)
        if self.costs is not None:
            require_costs(folder / FILE, values, self.made_from.classes)
        if self.needs_features:
            require_shapes(folder / FILE, values, features)
            values |= with_products(values["means"], values["varies"], values.get("neighbours"))
        return replace(self, values=values)


def read(value: Any) -> Calibration:
    """What stands in inference.yml, checked.

    Raises:
        UserError: it is damaged; the line names the key.
    """
    try:
        return TypeAdapter(Calibration).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([f"ppcls.{KEY}", *map(str, first["loc"])])
        text = first["msg"].replace("Input should", "should")
        raise UserError(f"{place}: {text[0].lower()}{text[1:]}; {AGAIN}") from None


def digest_of(path: Path) -> str:
    """Of a file's contents, 16 hexadecimal digits."""
    return hash_of(path).hexdigest()[:16]


# --------------------------------------------------------------------------
# The file of arrays


def to_file(values: Mapping[str, np.ndarray]) -> tuple[bytes, str]:
    """The content of a file of arrays, and its digest."""
    data = save({name: np.ascontiguousarray(value) for name, value in values.items()})
    return data, sha256(data).hexdigest()[:16]


def read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    """The arrays of a file, by name.

    Raises:
        UserError: it is missing, damaged, or another one than that of this digest.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if sha256(data).hexdigest()[:16] != digest:
        raise UserError(f"{path}: is not the file that inference.yml names; {AGAIN}")
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: is no file of arrays ({error}); {AGAIN}") from None


def require_shapes(path: Path, values: Mapping[str, np.ndarray], features: int) -> None:
    """UserError where the arrays of distance are not there or do not fit together."""
    for name in ("means", "varies", *(name for name in values if name == "neighbours")):
        value = values.get(name)
        if value is None or value.ndim != 2 or value.shape[1] != features or not len(value):
            raise UserError(f"{path}: has no {name} for {features} features; {AGAIN}")


def require_costs(path: Path, values: Mapping[str, np.ndarray], classes: int) -> None:
    """UserError where there are no costs of so many classes."""
    costs = values.get(COSTS)
    if costs is None or costs.shape != (classes, classes) or not np.isfinite(costs).all():
        raise UserError(f"{path}: has no costs for {plural(classes, 'class')}; {AGAIN}")


# --------------------------------------------------------------------------
# What is computed of a network's answers


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of the logits divided by a temperature, float32 [N, classes]."""
    logits = logits_of(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities, float64 [N, classes], but for a number that softmax takes out."""
    return np.log(np.maximum(probabilities.astype(np.float64), LEAST))


def cheapest(probabilities: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The class of each image whose expected cost is lowest, int64 [N].

    Elkan 2001, "The foundations of cost-sensitive learning". Of classes that cost the same the
    likeliest.

    Args:
        probabilities: [N, classes].
        costs: [classes, classes], 0 or more, of each right class (row) what is decided (column).
    """
    # In this thread alone: beside an engine that has all cores, BLAS would wait for its own.
    expected = np.einsum("nt,td->nd", probabilities.astype(np.float64), costs)
    least = expected.min(axis=1, keepdims=True)
    return np.where(expected <= least * (1 + ROUNDING), probabilities, -1).argmax(axis=1)


def nonconformity(
    probabilities: np.ndarray,
    method: str,
    penalty: float = 0.0,
    free: int = 0,
    ranks: "Ranks | None" = None,
) -> np.ndarray:
    """How badly each class would fit an image, float64 [N, classes].

    lac: 1 - its probability. aps: the probabilities of all likelier classes, and a drawn part of
    its own. raps: that, and a penalty for each place behind the first `free`.

    Args:
        probabilities: [N, classes].
        ranks: of these, where they are known.
    """
    if method == "lac":
        return 1 - probabilities.astype(np.float64)
    ranks = ranks or Ranks.of(probabilities)
    scores = ranks.sums
    if method == "raps":
        scores = scores + penalty * np.maximum(0, np.arange(1, scores.shape[1] + 1) - free)
    found = np.empty_like(scores)
    np.put_along_axis(found, ranks.order, scores, axis=1)
    return found


@dataclass(frozen=True, eq=False)
class Ranks:
    """Each image's classes by their probability.

    Attributes:
        order: int64 [N, classes], the likeliest first.
        sums: float64 [N, classes], in that order: the probabilities of all likelier classes, and
            a drawn part of its own.
    """

    order: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray) -> "Ranks":
        """Of probabilities [N, classes]."""
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ordered = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
        return cls(order, np.cumsum(ordered, axis=1) - ordered * drawn(probabilities)[:, None])

    def take(self, places: np.ndarray) -> "Ranks":
        return Ranks(self.order[places], self.sums[places])


def drawn(probabilities: np.ndarray) -> np.ndarray:
    """A number from 0 to below 1 for each image, float64 [N], drawn from its own probabilities.

    So an image has the same set each time, and the sets have the coverage asked for, not more.
    """
    rows = np.ascontiguousarray(probabilities, "<f4")
    return np.array([zlib.crc32(row.tobytes()) for row in rows], np.float64) / 2**32


def strangeness(
    measure: str,
    probabilities: np.ndarray,
    features: np.ndarray | None,
    values: Mapping[str, np.ndarray],
) -> np.ndarray:
    """How unlike all classes images are, float64 [N]; the larger, the stranger.

    Args:
        probabilities: the network's own, [N, classes].
        features: [N, D], of distance.
        values: of distance, as `with_products` gives them.
    """
    rows = probabilities.astype(np.float64)
    if measure == "confidence":
        return 1 - rows.max(axis=1)
    if measure == "entropy":
        rows = np.maximum(rows, LEAST)
        return -(rows * np.log(rows)).sum(axis=1)
    assert features is not None
    return distance(features, values)


def distance(features: np.ndarray, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """How far images are from what is known, float64 [N]: the sum of two squared distances.

    One is from the nearest class, a Mahalanobis distance: of the distance from a class's mean, what
    lies in directions in which images of one class differ anyway is taken out. The other is from
    the NEIGHBOUR-th nearest of the images kept (arXiv:2204.06507). Features are made one long
    before (arXiv:2505.18032).

    Args:
        features: [N, D].
        values: the arrays of `with_products`; those of older versions have no neighbours, and the
            second distance is left out.
    """
    rows = unit(features).astype(np.float32)  # half the time of float64, which is memory's
    within = rows @ values["varies"].T
    # Of r - m, what is left of its square: |r|² - |Vr|² - 2 (m - V'Vm) r + |m|² - |Vm|².
    own = (rows**2).sum(axis=1, dtype=np.float64) - (within**2).sum(axis=1, dtype=np.float64)
    found = own + (values["offsets"] - 2 * rows @ values["left"].T).min(axis=1)
    neighbours = values.get("neighbours")
    if neighbours is None:
        return found
    alike = rows @ neighbours.T
    place = min(NEIGHBOUR, len(neighbours))
    return found + 2 - 2 * np.partition(alike, -place, axis=1)[:, -place]


def with_products(
    means: np.ndarray, varies: np.ndarray, neighbours: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What `distance` needs of the arrays in the file.

    Args:
        means: of the classes, [classes, D].
        varies: [K, D], orthogonal, each at most one long: the longer, the more is taken out.
        neighbours: features of images, each one long, [M, D].
    """
    means, varies = means.astype(np.float64), varies.astype(np.float64)
    left = means - means @ varies.T @ varies
    found = {"varies": varies, "left": left}
    if neighbours is not None:
        found["neighbours"] = neighbours
    found = {name: value.astype(np.float32) for name, value in found.items()}
    return found | {"offsets": (means * left).sum(axis=1)}


def unit(features: np.ndarray) -> np.ndarray:
    """Features [N, D], each one long, float64."""
    rows = features.astype(np.float64)
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / np.maximum(lengths, LEAST)


def principal(rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues of a covariance, largest first, and the first directions [K, D].

    Args:
        rows: [N, D], with mean 0.
        most: directions, of as many as there are.
    """
    count, width = rows.shape
    few = count <= width
    values, vectors = np.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :most].T
    if few:
        lengths = np.sqrt(np.maximum(values[: len(vectors)], LEAST))
        vectors = vectors @ rows / lengths[:, None]
    return values / count, vectors
