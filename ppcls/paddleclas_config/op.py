"""What the conversions of training ops have in common."""

from dataclasses import dataclass, field
from typing import Any

from ppcls.data.preprocess import READ
from ppcls.errors import UserError
from ppcls.paddleclas_config.page import Section

Op = dict[str, Any]
LOG_ASPECT = "width / height is drawn on a log scale here, as use_log_aspect: True does"
SIZE = " size"  # of an op while the size of training is not known yet


@dataclass
class Train:
    """What the ops have said so far."""

    ops: list[Op] = field(default_factory=list)
    sources: list[Section] = field(default_factory=list)  # of each op
    size: int | None = None  # after the last op that fixes it
    normalize: Section | None = None

    @property
    def hidden(self) -> str:
        """What 0 is: the mean colour once photos are normalised, black before."""
        return "mean" if self.normalize else "constant"


def side(op: Section, default: float | None = None) -> int:
    """An op's size, given as a number or as two; of two that differ the longer."""
    many = isinstance(op.values.get("size"), list)
    sides = op.numbers("size") if many else [op.positive("size", default)]
    if not sides:
        raise UserError(f"{op.place('size')}: {op.name('size')} is empty")
    if len(set(sides)) > 1:
        op.matters("size", f"networks see squares here: {max(sides)} x {max(sides)}")
    return int(max(sides))


def sized(op: Section, train: Train) -> Op:
    """The side an op leaves, for `settle`."""
    train.size = side(op, 224)
    return {SIZE: train.size}


def resampling(op: Section) -> Op:
    """Interpolation and backend; ours are OpenCV and bilinear unless said."""
    backend = str(op.get("backend", "cv2")).lower()
    name = op.get("interpolation", "bicubic" if backend == "pil" else "bilinear")
    ours = "random" if name == "random" else READ.get(str(name).upper())
    if ours is None:
        op.matters("interpolation", f"{name} is not known here: bilinear")
        ours = "bilinear"
    found = {"interpolation": ours} if ours != "bilinear" else {}
    return found | ({"backend": backend} if backend != "cv2" else {})


def maybe(prob: float, ops: list[Op]) -> list[Op]:
    """Ops that are applied with a probability."""
    return ops if prob >= 1 else [{"op": "random_apply", "prob": float(prob), "ops": ops}]


def fraction(op: Section, key: str, default: float) -> float:
    """A number above 0, which PaddleClas lets be written as 1.0/3.0."""
    text = str(op.get(key, default))
    top, _, bottom = text.partition("/")
    try:
        value = round(float(top) / float(bottom or 1), 6)
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not value > 0:
        raise UserError(f"{op.place(key)}: {op.name(key)} should be a number above 0 (got {text})")
    return value
