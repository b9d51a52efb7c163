"""Optimizers: what each line of a recipe builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ppcls.config.node import BelowOne, Flag, NotNegative, Positive, Share, node
from ppcls.config.own import OrOwn, Own
from ppcls.optim.parameters import Group, for_paddle

if TYPE_CHECKING:  # a recipe is checked before paddle is imported
    from ppcls.optim.rules import Optimizer


FIRST_RATE = 1.0  # replaced by the schedule before every step


@node
class SGD:
    """Gradient descent; weight decay is an L2 term added to the gradient."""

    kind: Literal["sgd"] = "sgd"
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        from paddle import optimizer

        from ppcls.optim.rules import Descent, run_together

        if run_together(groups):
            return Descent(groups, self.weight_decay)
        return optimizer.SGD(FIRST_RATE, for_paddle(groups, self.weight_decay))


@node
class Momentum:
    """Gradient descent with momentum; weight decay is an L2 term added to the gradient."""

    kind: Literal["momentum"] = "momentum"
    momentum: Share = 0.9  # share of the last change
    nesterov: Flag = False  # look ahead
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        from paddle.optimizer import Momentum as Built

        from ppcls.optim.rules import Descent, run_together

        if run_together(groups):
            return Descent(groups, self.weight_decay, self.momentum, self.nesterov)
        parameters = for_paddle(groups, self.weight_decay)
        return Built(FIRST_RATE, self.momentum, parameters, use_nesterov=self.nesterov)


@node
class Adam:
    """Adam (arXiv:1412.6980); weight decay is an L2 term added to the gradient."""

    kind: Literal["adam"] = "adam"
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        from paddle.optimizer import Adam as Built

        from ppcls.optim.rules import Adaptive, run_together

        if run_together(groups):
            betas = self.beta1, self.beta2
            return Adaptive(groups, self.weight_decay, betas, self.epsilon)
        parameters = for_paddle(groups, self.weight_decay)
        return Built(FIRST_RATE, self.beta1, self.beta2, self.epsilon, parameters)


@node
class AdamW:
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.01

    def build(self, groups: list[Group]) -> Optimizer:
        from paddle.optimizer import AdamW as Built

        from ppcls.optim.rules import Adaptive, run_together

        if run_together(groups):
            betas = self.beta1, self.beta2
            return Adaptive(groups, self.weight_decay, betas, self.epsilon, decoupled=True)
        parameters = for_paddle(groups, self.weight_decay, none=0.0)
        return Built(FIRST_RATE, self.beta1, self.beta2, self.epsilon, parameters)


@node
class RMSProp:
    """RMSProp as TensorFlow has it: epsilon under the root, the learning rate inside the momentum.

    The mean of squares starts from `mean_square`: 1 in TensorFlow, 0 in Paddle, where the first
    steps are longer. Weight decay is an L2 term added to the gradient.
    """

    kind: Literal["rmsprop"] = "rmsprop"
    rho: Share = 0.9  # decay of the mean square
    epsilon: Positive = 1e-3
    momentum: Share = 0.9
    mean_square: NotNegative = 1.0  # what it starts at
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        import paddle
        from paddle.optimizer import RMSProp as Built

        parameters = for_paddle(groups, self.weight_decay)
        optimizer = Built(FIRST_RATE, self.rho, self.epsilon, self.momentum, parameters=parameters)
        first = {"momentum": 0.0, "mean_square": self.mean_square, "mean_grad": 0.0}
        state = {}
        for parameter in (p for group in groups for p in group.parameters):
            for slot, value in first.items():  # under the names that Paddle gives the slots
                tensor = paddle.full_like(parameter, value)
                tensor.name = f"{parameter.name}_{slot}_0"
                state[tensor.name] = tensor
        optimizer.set_state_dict(state)
        return optimizer


@node
class Lamb:
    """Adam's step scaled to the norm of each layer's weights (arXiv:1904.00962).

    Parameters left out of the weight decay by `train.decay_norms` take Adam's step unscaled.
    """

    kind: Literal["lamb"] = "lamb"
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-6
    weight_decay: NotNegative = 0.01

    def build(self, groups: list[Group]) -> Optimizer:
        from paddle.optimizer import Lamb as Built

        parameters = for_paddle(groups, None)
        for group, options in zip(groups, parameters, strict=True):
            options["lamb_weight_decay"] = self.weight_decay if group.decayed else 0.0
        return Built(
            FIRST_RATE,
            self.weight_decay,
            self.beta1,
            self.beta2,
            self.epsilon,
            parameters,
            always_adapt=not self.weight_decay,  # else Paddle scales where it decays alone
        )


@node
class Lars:
    """Momentum with a learning rate per layer: `trust` times weight norm over gradient norm.

    arXiv:1708.03888; biases and the parameters of norms move at the plain learning rate.
    """

    kind: Literal["lars"] = "lars"
    momentum: Share = 0.9
    trust: Positive = 0.001  # ratio of a step to the weights
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        from ppcls.optim.rules import OneSlot, lars

        return OneSlot(groups, "velocity", lars(self.momentum, self.trust, self.weight_decay))


@node
class Lion:
    """Steps of one size, by the sign of the momentum; decoupled weight decay (arXiv:2302.06675)."""

    kind: Literal["lion"] = "lion"
    beta1: Share = 0.9
    beta2: Share = 0.99
    weight_decay: NotNegative = 0.0

    def build(self, groups: list[Group]) -> Optimizer:
        from ppcls.optim.rules import OneSlot, lion

        return OneSlot(groups, "momentum", lion(self.beta1, self.beta2, self.weight_decay))


@dataclass(frozen=True)
class OwnOptimizer(Own):
    """An optimizer of one's own: called as `optimizer(parameters)` with parameters as Paddle's
    optimizers take them, it gives one of Paddle, or what has the same methods
    (`ppcls.optim.rules.Optimizer`). The learning rate is set before each step. A key
    `weight_decay` stands in the groups of the parameters that decay.
    """

    called: ClassVar[str] = "an optimizer's maker, called as optimizer(parameters)"
    supplied: ClassVar[int] = 1

    def build(self, groups: list[Group]) -> Optimizer:
        return self.run(for_paddle(groups, self.options.get("weight_decay")))


AnyOptimizer = Annotated[
    SGD | Momentum | Adam | AdamW | RMSProp | Lamb | Lars | Lion,
    Field(discriminator="kind"),
    OrOwn(OwnOptimizer),
]
