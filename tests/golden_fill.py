"""Weights and images that any framework can make: the golden logits were computed from these."""

import zlib

import numpy as np


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 values that depend on a parameter's name and shape only.

    The spread keeps activations near one: variances in [0.5, 1.5), scales in [0.5, 1), kernels
    normal with variance 1 / fan-in, linear weights with 0.02, means and biases with 0.1.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    leaf = key.split(".")[-1]
    if leaf == "_variance":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    std = 0.02 if len(shape) == 2 else np.prod(shape[1:]) ** -0.5
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def image(side: int) -> np.ndarray:
    """One float32 image [1, 3, side, side] of normal noise."""
    return np.random.default_rng(2020).standard_normal((1, 3, side, side), dtype=np.float32)
