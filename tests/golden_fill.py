"""The rule lives in ppcls, which verifies networks with it; tests take it from here."""

from ppcls.weights.load import fill, image

__all__ = ["fill", "image"]
