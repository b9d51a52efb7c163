"""An optimizer's step over all parameters, in one loop that numba compiles.

Parameters, their gradients and slots are float32. Laid end to end they are one row of numbers, cut
into pieces of one size for the threads, so that many small parameters cost as little as a large
one. Each number depends on nothing but its own, whatever the number of threads.
tests/kernels/test_updates.py says in numpy what each loop means.

Arguments that the loops share:
    weights_, gradients_: int64 [parameters], the addresses of their first numbers. A parameter
        whose gradient's is 0 stays as it is, with its slots.
    starts: int64 [parameters + 1], where in the row each begins.
    first: int64 [pieces], the parameter in which each piece begins.
    rates, decays: float32 [parameters]; decays are added to the gradient, times the weight.
"""

import numba as nb
import numpy as np

from ppcls.kernels.loops import vector

PIECE = 1 << 14  # numbers

# Division and roots as they are: memory is what takes the time.
loop = nb.njit(parallel=True, fastmath={"contract"}, cache=True, nogil=True)


def pieces(sizes):
    """`starts` and `first` of parameters of these sizes."""
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    begins = np.arange(0, starts[-1], PIECE)
    return starts, np.searchsorted(starts, begins, side="right") - 1


@loop
def descend(weights_, gradients_, velocities_, starts, first, rates, decays, momentum, nesterov):
    """Gradient descent, with momentum unless `velocities_` is 0.

    Args:
        velocities_: the address of a row of numbers.
    """
    total = starts[-1]
    for piece in nb.prange(len(first)):
        at = piece * PIECE
        end = min(at + PIECE, total)
        i = first[piece]
        while at < end:
            count = min(starts[i + 1], end) - at
            if gradients_[i]:
                passed = (at - starts[i]) * 4
                weights = vector(weights_[i] + passed, count)
                gradients = vector(gradients_[i] + passed, count)
                velocities = vector(velocities_ + at * 4, count)
                rate = rates[i]
                decay = decays[i]
                if not velocities_:
                    for j in range(count):
                        weights[j] -= rate * (gradients[j] + decay * weights[j])
                elif nesterov:
                    for j in range(count):
                        gradient = gradients[j] + decay * weights[j]
                        velocity = momentum * velocities[j] + gradient
                        velocities[j] = velocity
                        weights[j] -= rate * (gradient + momentum * velocity)
                else:
                    for j in range(count):
                        velocity = momentum * velocities[j] + (gradients[j] + decay * weights[j])
                        velocities[j] = velocity
                        weights[j] -= rate * velocity
            at += count
            i += 1


@loop
def adapt(
    weights_, gradients_, means_, squares_, starts, first, rates, decays, kept, beta1, beta2,
    epsilons,
):  # fmt: skip
    """Adam.

    Args:
        means_, squares_: the addresses of rows of numbers.
        rates, epsilons: float32 [parameters], with the correction of the bias in them.
        kept: float32 [parameters], the share of a weight that its own decay leaves.
    """
    total = starts[-1]
    new1 = np.float32(1) - beta1
    new2 = np.float32(1) - beta2
    for piece in nb.prange(len(first)):
        at = piece * PIECE
        end = min(at + PIECE, total)
        i = first[piece]
        while at < end:
            count = min(starts[i + 1], end) - at
            if gradients_[i]:
                passed = (at - starts[i]) * 4
                weights = vector(weights_[i] + passed, count)
                gradients = vector(gradients_[i] + passed, count)
                means = vector(means_ + at * 4, count)
                squares = vector(squares_ + at * 4, count)
                rate = rates[i]
                decay = decays[i]
                keep = kept[i]
                epsilon = epsilons[i]
                for j in range(count):
                    gradient = gradients[j] + decay * weights[j]
                    mean = beta1 * means[j] + new1 * gradient
                    square = beta2 * squares[j] + new2 * gradient * gradient
                    means[j] = mean
                    squares[j] = square
                    weights[j] = keep * weights[j] - rate * (mean / (np.sqrt(square) + epsilon))
            at += count
            i += 1
