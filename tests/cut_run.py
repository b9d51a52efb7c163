"""A run that something happens to at a step, such as that it dies without a chance to save."""

from collections.abc import Callable

import paddle

from ppcls.optim.rules import Together


def at_step(monkeypatch, step: int, act: Callable[[], None]) -> None:
    """Act as the step with this number begins in a run from the start.

    Each step sets the optimizer's learning rate before anything else.
    """
    begun = [0]
    for kind in (paddle.optimizer.Optimizer, Together):

        def set_lr(self, value, whole=kind.set_lr):
            if begun[0] == step:
                act()
            begun[0] += 1
            return whole(self, value)

        monkeypatch.setattr(kind, "set_lr", set_lr)


def cut(monkeypatch, step: int) -> None:
    """The process dies at the start of a step."""

    def die():
        raise SystemExit("cut")

    at_step(monkeypatch, step, die)
