"""Weights and images that any framework can make: what networks compute from them is comparable."""

import zlib
from collections.abc import Sequence

import numpy as np


def fill(name: str, shape: Sequence[int]) -> np.ndarray:
    """Float32 values that depend on a tensor's name and shape only.

    The spread keeps activations near one: variances in [0.5, 1.5), scales in [0.5, 1), kernels
    normal with variance 1 / fan-in, linear weights with 0.02, means and biases with 0.1.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.split(".")[-1]
    if leaf in ("_variance", "running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("_mean", "running_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:
        return rng.uniform(0.5, 1.0, shape).astype(np.float32)
    std = 0.02 if len(shape) == 2 else np.prod(shape[1:]) ** -0.5
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def image(side: int) -> np.ndarray:
    """One float32 image [1, 3, side, side] of normal noise."""
    return np.random.default_rng(2020).standard_normal((1, 3, side, side), dtype=np.float32)
