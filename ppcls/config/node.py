"""What a configuration node is: a frozen, typed dataclass that refuses unknown keys.

A stateless thing (a transform, a schedule) is its own node and is called; a stateful one has a
`build(...)`. Where several kinds may stand, they form a union told apart by `kind` (or `op`).
"""

import re
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform

from ppcls.utils.files import expanded
from ppcls.utils.text import MOST_DIGITS, decimal

Class = TypeVar("Class")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def node(cls: type[Class]) -> type[Class]:
    """Make a class a configuration node."""
    config = ConfigDict(extra="forbid")
    return pydantic_dataclass(config=config, frozen=True, kw_only=True)(cls)  # type: ignore


def without_kind(kind: str) -> BeforeValidator:
    """Of a union told apart by `kind`: a value that names none is of this one."""
    return BeforeValidator(
        lambda value: {"kind": kind, **value} if isinstance(value, dict) else value
    )


# What no run has, and no machine could hold or finish, is a slip of the pen and said as one.
MOST = 10**9
MANY = 10**6
WIDEST = 8192
FEW = 1000
LARGEST_SEED = 2**63 - 1

Int = Annotated[int, Field(strict=True, ge=-MOST, le=MOST)]
Count = Annotated[int, Field(strict=True, gt=0, le=MOST)]
Classes = Annotated[int, Field(strict=True, gt=0, le=MANY)]
Side = Annotated[int, Field(strict=True, gt=0, le=WIDEST)]  # pixels
Margin = Annotated[int, Field(strict=True, ge=0, le=WIDEST)]  # pixels
Times = Annotated[int, Field(strict=True, gt=0, le=FEW)]  # that something is done to an image
Folds = Annotated[int, Field(strict=True, ge=2, le=100)]  # each is a whole run
Workers = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Seed = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEED)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
BelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Byte = Annotated[Int, Field(ge=0, le=255)]

# --------------------------------------------------------------------------
# Sizes of images: a number for both sides, or [height, width]

# How a value may be written where several ways are allowed; errors' places name it, too.
NUMBER = "a number"
LIST = "a list"
MAPPING = "a mapping"


def written_as(value: Any) -> str:
    """Which of the ways a value is written in."""
    if isinstance(value, list | tuple):
        return LIST
    return MAPPING if isinstance(value, dict) or is_dataclass(value) else NUMBER


def number_or_list(value: Any) -> str:
    return LIST if isinstance(value, list | tuple) else NUMBER


def two(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(value) != 2:
        raise ValueError("a size is one number, or two: [height, width]")
    return value


def square(value: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """Two equal sides are said by one."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


Pair = Annotated[tuple[Side, ...], AfterValidator(two)]  # height and width, pixels
SideOrPair = Annotated[
    Annotated[Side, Tag(NUMBER)] | Annotated[Pair, Tag(LIST)], Discriminator(number_or_list)
]
Sides = Annotated[SideOrPair, AfterValidator(square)]  # [224, 224] is 224


def place_of(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where pydantic found a mistake, without the ways values are written in."""
    return tuple(part for part in loc if part not in (NUMBER, LIST, MAPPING))


PathText = Annotated[str, AfterValidator(expanded)]  # a file, a folder or several; ~ is home's


@dataclass(frozen=True)
class Span:
    """A length of training: epochs, steps or percent of the run."""

    amount: float
    unit: str  # "epochs", "steps" or "percent"

    def steps(self, epoch_steps: int, total_steps: int) -> int:
        """The span in steps, rounded to the nearest."""
        return round(self.exact(epoch_steps, total_steps))

    def exact(self, epoch_steps: int, total_steps: int) -> float:
        """The span in steps and parts of one."""
        per_unit = {"epochs": epoch_steps, "steps": 1, "percent": total_steps / 100}[self.unit]
        return self.amount * per_unit

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount}%" if self.unit == "percent" else f"{amount} {self.unit}"


LONGEST_SPAN = 30  # characters of its number
UNITS = {"": "epochs", "ep": "epochs", "steps": "steps", "%": "percent"}
UNITS |= {"epoch": "epochs", "epochs": "epochs", "step": "steps"}


def parse_span(value: Any) -> Span:
    """Read 5, "5 epochs", "5ep", "500 steps" or "10%"."""
    if isinstance(value, Span):
        return value
    match = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*([a-z%]*)", written(value))
    amount = decimal(match[1]) if match else None
    beyond = match and (len(match[1]) > LONGEST_SPAN or (amount or 0) > MOST)
    if beyond or (isinstance(value, int) and value > MOST):
        raise ValueError(f"a duration is at most {MOST} epochs or steps")
    if not match or amount is None or match[2] not in UNITS:
        raise ValueError('a duration is a number of epochs, or like "5 epochs", "500 steps", "10%"')
    return Span(amount, UNITS[match[2]])


def written(value: Any) -> str:
    """A number or text as text; "" for what is neither, and for more digits than mean anything."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MOST_DIGITS
    return str(value).strip() if whole or isinstance(value, float | str) else ""


Duration = Annotated[Span, BeforeValidator(parse_span), PlainSerializer(str)]
