"""Narrow floats where the device computes in them; weights and optimizer stay float32.

The network runs under `paddle.amp.auto_cast`, which casts a weight when it is used: the float32
weights are the master copy, and checkpoints are the same at every precision. The loss is float32.
Level O1 casts what is known to gain (matrix products, convolutions), O2 all but a black list.

The loss scale of float16 (arXiv:1710.03740) is our own and not Paddle's GradScaler, which is off on
a CPU, looks into Paddle's own optimizers, and would be one more thing to keep in a checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import paddle
from paddle import Tensor

FIRST_SCALE, LARGEST_SCALE = 2.0**16, 2.0**32
PATIENCE = 2000  # steps without overflow before the scale doubles

Outputs = TypeVar("Outputs")
Kind = Literal["fp32", "bf16", "fp16"]
Level = Literal["O1", "O2"]
NAMES: Mapping[Kind, Literal["float32", "bfloat16", "float16"]]
NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class LossScale:
    """What the loss is multiplied by, so that float16 gradients neither vanish nor overflow."""

    def __init__(self):
        self.value, self.good = FIRST_SCALE, 0

    def settle(self, finite: bool) -> None:
        """After a step: halved when gradients overflowed, doubled when none has for long."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good == PATIENCE:
            self.value, self.good = min(LARGEST_SCALE, self.value * 2), 0

    def state(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def restore(self, state: Mapping[str, float]) -> None:
        self.value, self.good = state["value"], int(state["good"])


class Precision:
    """How a run's network computes; `kind` is fp32 where the device has nothing narrower."""

    def __init__(self, asked: Kind, level: Level):
        self.kind: Kind = asked if supported(asked) else "fp32"
        self.asked: Kind = asked
        self.level: Level = level
        self.scale = LossScale() if self.kind == "fp16" else None

    def note(self) -> str:
        """What to tell of it, if anything."""
        if self.kind != self.asked:
            return (
                f"train.precision: {self.asked} needs a GPU that computes in {NAMES[self.asked]}; "
                "Paddle casts nothing here, so this run is in float32"
            )
        return f"precision {self.kind}, level {self.level}" if self.kind != "fp32" else ""

    def around(self, network: Callable[[Tensor], Outputs]) -> Callable[[Tensor], Outputs]:
        """The network in this precision, with float32 outputs: a tensor, or several."""
        if self.kind == "fp32":
            return network

        def narrow(images: Tensor) -> Outputs:
            with paddle.amp.auto_cast(level=self.level, dtype=NAMES[self.kind]):
                found = network(images)
            return paddle.utils.map_structure(lambda out: out.astype("float32"), found)  # type: ignore

        return narrow


def supported(kind: Kind) -> bool:
    """Whether the current device computes in it; Paddle's autocasting does nothing on a CPU."""
    if kind == "fp32" or not paddle.get_device().startswith("gpu"):
        return kind == "fp32"
    check = paddle.amp.is_bfloat16_supported if kind == "bf16" else paddle.amp.is_float16_supported
    return check()
