"""Prints the GFLOP/s of numpy's float32 matrix product.

A program of its own: the number of threads is read when numpy is imported.
"""

import time

import numpy as np

SIDE = 2048
SECONDS = 0.6


def peak() -> float:
    """The best of the products that fit into `SECONDS`, a multiply-add being two operations."""
    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    times = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(matrix, matrix)
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(times) / 1e9


if __name__ == "__main__":
    print(peak())
