"""A run that something happens to at a step, such as that it dies without a chance to save."""

from collections.abc import Callable

import paddle


def at_step(monkeypatch, step: int, act: Callable[[], None]) -> None:
    """Act as the step with this number begins in a run from the start.

    Each step sets the optimizer's learning rate before anything else.
    """
    whole, begun = paddle.optimizer.Optimizer.set_lr, [0]

    def set_lr(self, value):
        if begun[0] == step:
            act()
        begun[0] += 1
        return whole(self, value)

    monkeypatch.setattr(paddle.optimizer.Optimizer, "set_lr", set_lr)


def cut(monkeypatch, step: int) -> None:
    """The process dies at the start of a step."""

    def die():
        raise SystemExit("cut")

    at_step(monkeypatch, step, die)
