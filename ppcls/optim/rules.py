"""Optimizers of our own, for what Paddle has not or computes otherwise: LARS and Lion.

They offer the part of a Paddle optimizer that training uses, and name their slots as Paddle does,
`<parameter>_<slot>`, so that checkpoints treat both alike.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import paddle
from paddle import Tensor

from ppcls.optim.parameters import Group

# parameter, gradient, slot (changed in place), learning rate, decayed -> what is subtracted
Rule = Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]


class Optimizer(Protocol):
    """What training asks of an optimizer, ours or Paddle's."""

    def set_lr(self, value: float) -> None: ...
    def step(self) -> None: ...
    def clear_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def set_state_dict(self, state_dict: dict[str, Tensor]) -> None: ...


class OneSlot:
    """An optimizer that keeps one tensor per parameter, zero at first."""

    def __init__(self, groups: Sequence[Group], slot: str, rule: Rule):
        self.groups = groups
        self.rule = rule
        self.lr = 0.0
        self.parameters = [p for group in groups for p in group.parameters]
        self.slots = {p.name: paddle.zeros_like(p) for p in self.parameters}
        self.suffix = f"_{slot}"

    def set_lr(self, value: float) -> None:
        self.lr = value

    @paddle.no_grad()
    def step(self) -> None:
        for group in self.groups:
            lr = self.lr * group.lr_scale
            for parameter in group.parameters:
                if parameter.grad is not None:
                    slot = self.slots[parameter.name]
                    change = self.rule(parameter, parameter.grad, slot, lr, group.decayed)
                    parameter.subtract_(change)

    def clear_grad(self) -> None:
        for parameter in self.parameters:
            parameter.clear_gradient(False)

    def state_dict(self) -> dict[str, Tensor]:
        return {name + self.suffix: slot for name, slot in self.slots.items()}

    def set_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        for name, slot in self.slots.items():
            slot.set_value(state_dict[name + self.suffix])


def lars(momentum: float, trust: float, weight_decay: float) -> Rule:
    """Layer-wise rate scaling (arXiv:1708.03888); one-dimensional parameters move at plain rate."""

    def rule(weight: Tensor, gradient: Tensor, velocity: Tensor, lr: float, decay: bool) -> Tensor:
        rate = weight_decay if decay else 0.0
        total = gradient + rate * weight
        if len(weight.shape) > 1:
            size = weight.square().sum().sqrt()
            slope = gradient.square().sum().sqrt()
            ratio = trust * size / (slope + rate * size)
            total = total * paddle.where((size > 0) & (slope > 0), ratio, paddle.ones_like(ratio))
        velocity.scale_(momentum)
        velocity.add_(lr * total)
        return velocity

    return rule


def lion(beta1: float, beta2: float, weight_decay: float) -> Rule:
    """The sign of a blend of momentum and gradient, with decoupled decay (arXiv:2302.06675)."""

    def rule(weight: Tensor, gradient: Tensor, momentum: Tensor, lr: float, decay: bool) -> Tensor:
        change = (beta1 * momentum + (1 - beta1) * gradient).sign()
        momentum.scale_(beta2)
        momentum.add_((1 - beta2) * gradient)
        return lr * (change + weight_decay * weight) if decay and weight_decay else lr * change

    return rule
