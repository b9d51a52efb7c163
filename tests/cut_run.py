"""A run that dies without a chance to save."""

from ppcls.train.trainer import Trainer


def cut(monkeypatch, step):
    """The process dies at the start of a step."""
    whole = Trainer.advance

    def advance(self, *given):
        if self.step == step:
            raise SystemExit("cut")
        return whole(self, *given)

    monkeypatch.setattr(Trainer, "advance", advance)
