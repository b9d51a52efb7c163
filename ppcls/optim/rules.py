"""Optimizers of our own: LARS and Lion, which Paddle has not, and faster steps on a CPU.

They offer the part of a Paddle optimizer that training uses, and name their slots as Paddle does,
`<parameter>_<slot>`, so that checkpoints treat both alike.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import paddle
from paddle import Tensor

from ppcls.kernels import start
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


def has_slots(optimizer: Optimizer) -> bool:
    """Whether a checkpoint has tensors of this optimizer."""
    if isinstance(optimizer, Together):
        return bool(optimizer.names)
    return not isinstance(optimizer, paddle.optimizer.SGD)


def drop_gradients(optimizer: Optimizer) -> None:
    """Clear the gradients; Paddle's own would fill them with zeros, which takes time."""
    if isinstance(optimizer, paddle.optimizer.Optimizer):
        optimizer.clear_grad(set_to_zero=False)
    else:
        optimizer.clear_grad()


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


# --------------------------------------------------------------------------
# Paddle's SGD, Momentum, Adam and AdamW, in one loop over all parameters

LEAST = 1_000_000  # numbers in all, below which a step of Paddle's own is short


def run_together(groups: Sequence[Group]) -> bool:
    """Whether `Descent` and `Adaptive` can and should take the place of Paddle's optimizers here.

    A matter of the parameters and the machine, so that a run that goes on does as it did.
    """
    parameters = [p for group in groups for p in group.parameters]
    return (
        sum(p.size for p in parameters) >= LEAST
        and all(p.dtype == paddle.float32 and p.place.is_cpu_place() for p in parameters)
        and all(p.is_contiguous() for p in parameters)
        and start.can_run()
    )


class Together:
    """An optimizer of float32 parameters on a CPU; its slots are zero at first.

    A parameter that has no gradient stays as it is, with its slots.

    Attributes:
        slots: one for each of `names`, the parameters' numbers end to end.
    """

    names: Sequence[str] = ()

    def __init__(self, groups: Sequence[Group], decay: float):
        self.loops = start.updates()
        self.lr = 0.0
        self.parameters = [p for group in groups for p in group.parameters]
        each = [group for group in groups for _ in group.parameters]
        self.scales = np.array([group.lr_scale for group in each], np.float32)
        self.decays = np.array([decay if group.decayed else 0 for group in each], np.float32)
        self.starts, self.first = self.loops.pieces([p.size for p in self.parameters])
        self.slots = {name: np.zeros(self.starts[-1], np.float32) for name in self.names}

    def set_lr(self, value: float) -> None:
        self.lr = value

    def step(self) -> None:
        gradients = [p.grad for p in self.parameters]
        # Some come as views, which are copied and held until they have been read.
        whole = [g if g is None or g.is_contiguous() else g.contiguous() for g in gradients]
        weights_ = np.array([p.data_ptr() for p in self.parameters], np.int64)
        gradients_ = np.array([0 if g is None else g.data_ptr() for g in whole], np.int64)
        self.update(weights_, gradients_, np.float32(self.lr) * self.scales)

    def update(self, weights_: np.ndarray, gradients_: np.ndarray, rates: np.ndarray) -> None:
        """One step; addresses as `updates` takes them, the parameters' learning rates."""
        raise NotImplementedError

    def clear_grad(self) -> None:
        for parameter in self.parameters:
            parameter.clear_gradient(False)

    def state(self) -> dict[str, np.ndarray]:
        """Views of all that `state_dict` holds, under its names."""
        return {
            f"{p.name}_{name}_0": slot[begin : begin + p.size].reshape(p.shape)
            for name, slot in self.slots.items()
            for p, begin in zip(self.parameters, self.starts[:-1], strict=True)
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {name: paddle.to_tensor(values) for name, values in self.state().items()}

    def set_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        for name, values in self.state().items():
            if name in state_dict:  # Paddle has no slots of what has had no gradient yet
                values[...] = state_dict[name].numpy()


class Descent(Together):
    """SGD, and Momentum where `momentum` is given; weight decay is an L2 term in the gradient."""

    def __init__(
        self,
        groups: Sequence[Group],
        decay: float,
        momentum: float | None = None,
        nesterov: bool = False,
    ):
        self.names = () if momentum is None else ("velocity",)
        super().__init__(groups, decay)
        self.momentum = np.float32(momentum or 0)
        self.nesterov = nesterov

    def update(self, weights_: np.ndarray, gradients_: np.ndarray, rates: np.ndarray) -> None:
        velocities_ = self.slots["velocity"].ctypes.data if self.slots else 0
        self.loops.descend(
            weights_, gradients_, velocities_, self.starts, self.first, rates, self.decays,
            self.momentum, self.nesterov,
        )  # fmt: skip


class Adaptive(Together):
    """Adam, and AdamW where the weight decay is `decoupled`; else it is an L2 term."""

    names = ("moment1", "moment2")

    def __init__(
        self,
        groups: Sequence[Group],
        decay: float,
        betas: tuple[float, float],
        epsilon: float,
        decoupled: bool = False,
    ):
        super().__init__(groups, decay)
        self.betas = np.float32(betas[0]), np.float32(betas[1])
        self.epsilon = np.float32(epsilon)
        self.decoupled = decoupled
        count = len(self.parameters)
        self.powers = [np.full((count, 1), beta) for beta in self.betas]  # by each's next step

    def update(self, weights_: np.ndarray, gradients_: np.ndarray, rates: np.ndarray) -> None:
        first, second = (1 - power[:, 0] for power in self.powers)
        left = np.sqrt(second)
        none = np.zeros_like(rates)
        self.loops.adapt(
            weights_, gradients_, *(slot.ctypes.data for slot in self.slots.values()),
            self.starts, self.first, rates * left / first, none if self.decoupled else self.decays,
            1 - rates * self.decays if self.decoupled else none + 1, *self.betas,
            self.epsilon * left,
        )  # fmt: skip
        for power, beta in zip(self.powers, self.betas, strict=True):
            power[gradients_ != 0] *= beta

    def state(self) -> dict[str, np.ndarray]:
        found = super().state()
        for name, powers in zip(("beta1", "beta2"), self.powers, strict=True):
            for parameter, power in zip(self.parameters, powers, strict=True):
                found[f"{parameter.name}_{name}_pow_acc_0"] = power
        return found
