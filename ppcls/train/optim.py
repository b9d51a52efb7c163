"""Optimizers: what each line of a recipe builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ppcls.config.node import Flag, NotNegative, Positive, Share, node

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from paddle import Tensor
    from paddle.optimizer import Optimizer

FIRST_RATE = 1.0  # replaced by the schedule before every step


@node
class Momentum:
    """Gradient descent with momentum; weight decay is an L2 term added to the gradient."""

    kind: Literal["momentum"] = "momentum"
    momentum: Share = 0.9
    nesterov: Flag = False
    weight_decay: NotNegative = 0.0

    def build(self, parameters: list[Tensor]) -> Optimizer:
        from paddle.optimizer import Momentum as Built

        return Built(
            FIRST_RATE,
            self.momentum,
            parameters,
            use_nesterov=self.nesterov,
            weight_decay=self.weight_decay or None,
        )


@node
class AdamW:
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.01

    def build(self, parameters: list[Tensor]) -> Optimizer:
        from paddle.optimizer import AdamW as Built

        return Built(
            FIRST_RATE,
            self.beta1,
            self.beta2,
            self.epsilon,
            parameters,
            weight_decay=self.weight_decay,
        )


@node
class RMSProp:
    """RMSProp with momentum, epsilon under the root; weight decay is an L2 term."""

    kind: Literal["rmsprop"] = "rmsprop"
    rho: Share = 0.9
    epsilon: Positive = 1e-3
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.0

    def build(self, parameters: list[Tensor]) -> Optimizer:
        from paddle.optimizer import RMSProp as Built

        return Built(
            FIRST_RATE,
            self.rho,
            self.epsilon,
            self.momentum,
            parameters=parameters,
            weight_decay=self.weight_decay or None,
        )


AnyOptimizer = Annotated[Momentum | AdamW | RMSProp, Field(discriminator="kind")]
