"""Loops that numba compiles: norms with what follows them, gates, pooling, sums of gradients.

Images are channels last: a batch is a matrix of float32, [pixels of all images, channels], given by
the address of its first number. Every sum runs over fixed blocks of rows, whatever the number of
threads, and so has the same bits every time. tests/kernels/test_loops.py says in numpy what each
loop means.
"""

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from ppcls.kernels import HARDSWISH, NONE, RELU, RELU6, SILU

BLOCKS = 64  # of rows; each is summed by one thread
ROWS = 16  # that are summed in float32 before they go into float64


@intrinsic
def pointer(typing, address):
    """An address as a pointer to float32."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.CPointer(types.float32)))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def byte_pointer(typing, address):
    """An address as a pointer to uint8."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.CPointer(types.uint8)))

    return types.CPointer(types.uint8)(types.int64), generate


# All of fastmath but the leave to take for granted that every number is finite: one that is not
# goes through and is found in the loss.
FAST = {"reassoc", "contract", "nsz", "arcp"}
loop = nb.njit(parallel=True, fastmath=FAST, cache=True, nogil=True)
inlined = nb.njit(fastmath=FAST, inline="always")


@inlined
def matrix(address, rows, channels):
    return nb.carray(pointer(address), (rows, channels))  # type: ignore


@inlined
def sigmoid(x):
    """1 / (1 + exp(-x)) within 1e-7, by a rational function of tanh (Eigen's)."""
    h = min(max(np.float32(0.5) * x, np.float32(-9)), np.float32(9))
    s = h * h
    p = np.float32(-2.76076847742355e-16)
    p = p * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return np.float32(0.5) * (h * p / q) + np.float32(0.5)


# --------------------------------------------------------------------------
# Norms: z is what a convolution gave, u = z * slope + offset, y = act(u * keep + added)


@inlined
def vector(address, count):
    return nb.carray(pointer(address), (count,))  # type: ignore


@loop
def norm_numbers(
    z_, rows, channels, training, weight_, bias_, mean_, variance_, momentum, epsilon, known, affine
):
    """What a norm does to z, of the batch's statistics in training, else of the running ones.

    Args:
        mean_, variance_: the running ones, of which `momentum` stays when they take in the batch's.
        known: float64 [2, channels], gets the mean and 1 / sqrt(variance + epsilon).
        affine: float32 [2, channels], gets slope and offset.
    """
    weight = vector(weight_, channels)
    bias = vector(bias_, channels)
    running_mean = vector(mean_, channels)
    running_variance = vector(variance_, channels)
    if training:
        z = matrix(z_, rows, channels)
        pivot = z[0].copy()  # near the mean, so that squares of small numbers are summed
        sums = np.zeros((BLOCKS, 2, channels))
        for block in nb.prange(BLOCKS):
            first = rows * block // BLOCKS
            last = rows * (block + 1) // BLOCKS
            part = np.empty((2, channels), np.float32)
            for start in range(first, last, ROWS):
                part[:] = 0
                for i in range(start, min(start + ROWS, last)):
                    for c in range(channels):
                        value = z[i, c] - pivot[c]
                        part[0, c] += value
                        part[1, c] += value * value
                for c in range(channels):
                    sums[block, 0, c] += part[0, c]
                    sums[block, 1, c] += part[1, c]
        stays = np.float32(momentum)
        for c in range(channels):
            total = 0.0
            squares = 0.0
            for block in range(BLOCKS):
                total += sums[block, 0, c]
                squares += sums[block, 1, c]
            shift = total / rows
            mean = shift + pivot[c]
            variance = squares / rows - shift * shift
            variance = 0.0 if variance < 0 else variance
            known[0, c] = mean
            known[1, c] = 1 / np.sqrt(variance + epsilon)
            running_mean[c] = running_mean[c] * stays + np.float32(mean * (1 - momentum))
            running_variance[c] = running_variance[c] * stays + np.float32(
                variance * (1 - momentum)
            )
    else:
        for c in range(channels):
            known[0, c] = running_mean[c]
            known[1, c] = 1 / np.sqrt(running_variance[c] + epsilon)
    for c in range(channels):
        slope = weight[c] * known[1, c]
        affine[0, c] = slope
        affine[1, c] = bias[c] - known[0, c] * slope


@loop
def norm_act(z_, rows, channels, affine, act, added_, keep, y_):
    """y = act(u * keep + added).

    Args:
        added_: with NONE and RELU; 0: nothing is added.
        keep: float32 [images]; looked at where something is added.
        y_: may be `z_`.
    """
    z = matrix(z_, rows, channels)
    y = matrix(y_, rows, channels)
    added = matrix(added_, rows, channels)
    slope = affine[0]
    offset = affine[1]
    per_image = rows // len(keep)
    zero = np.float32(0)
    six = np.float32(6)
    three = np.float32(3)
    sixth = np.float32(1 / 6)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            if added_:
                kept = keep[i // per_image]
                if act == RELU:
                    for c in range(channels):
                        u = (z[i, c] * slope[c] + offset[c]) * kept + added[i, c]
                        y[i, c] = zero if u < 0 else u
                else:
                    for c in range(channels):
                        y[i, c] = (z[i, c] * slope[c] + offset[c]) * kept + added[i, c]
            elif act == RELU:
                for c in range(channels):
                    u = z[i, c] * slope[c] + offset[c]
                    y[i, c] = zero if u < 0 else u
            elif act == RELU6:
                for c in range(channels):
                    u = z[i, c] * slope[c] + offset[c]
                    u = zero if u < 0 else u
                    y[i, c] = six if u > six else u
            elif act == SILU:
                for c in range(channels):
                    u = z[i, c] * slope[c] + offset[c]
                    y[i, c] = u * sigmoid(u)
            elif act == HARDSWISH:
                for c in range(channels):
                    u = z[i, c] * slope[c] + offset[c]
                    gate = u + three
                    gate = zero if gate < 0 else gate
                    gate = six if gate > six else gate
                    y[i, c] = u * gate * sixth
            else:
                for c in range(channels):
                    y[i, c] = z[i, c] * slope[c] + offset[c]


def p_is_written(act, added):
    """Whether `norm_act_backward` writes p: what costs nothing is computed again instead."""
    return act in (SILU, HARDSWISH) or (act == RELU and added)


@loop
def norm_act_backward(
    z_, rows, channels, training, known, affine, act, y_, keep, g_, p_, gz_, gweight_, gbias_
):
    """The gradients for z and for the norm's weight and bias, of g.

    With p, the gradient past the activation, and q = p * keep: gbias = sum(q), gweight =
    sum(q (z - mean)) / deviation, and gz = slope * (q - gbias / rows - (z - mean) * gweight /
    deviation / rows), of which slope * q is all where the statistics are not the batch's.

    Args:
        y_: what came out, where something was added: NONE and RELU only; else 0.
        p_: is written where `p_is_written`.
        gz_: may be `p_`, where that is written.
        gweight_, gbias_: float32 [channels].
    """
    slope = affine[0]
    offset = affine[1]
    mean = known[0]
    z = matrix(z_, rows, channels)
    y = matrix(y_, rows, channels)
    g = matrix(g_, rows, channels)
    passed = matrix(p_, rows, channels)
    gz = matrix(gz_, rows, channels)
    gweight = vector(gweight_, channels)
    gbias = vector(gbias_, channels)
    base = np.empty(channels, np.float32)
    tilt = np.empty(channels, np.float32)
    sums = np.zeros((BLOCKS, 2, channels))
    middle = mean.astype(np.float32)
    per_image = rows // len(keep)
    zero = np.float32(0)
    six = np.float32(6)
    one = np.float32(1)
    third = np.float32(1 / 3)
    half = np.float32(0.5)
    for block in nb.prange(BLOCKS):
        first = rows * block // BLOCKS
        last = rows * (block + 1) // BLOCKS
        part = np.empty((2, channels), np.float32)
        for start in range(first, last, ROWS):
            part[:] = 0
            for i in range(start, min(start + ROWS, last)):
                kept = keep[i // per_image]
                if act == NONE:
                    for c in range(channels):
                        p = g[i, c] * kept
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
                elif act == RELU and y_:
                    for c in range(channels):
                        p = g[i, c] if y[i, c] > 0 else zero
                        passed[i, c] = p
                        p *= kept
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
                elif act == RELU:
                    for c in range(channels):
                        p = g[i, c] if z[i, c] * slope[c] + offset[c] > 0 else zero
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
                elif act == RELU6:
                    for c in range(channels):
                        u = z[i, c] * slope[c] + offset[c]
                        p = g[i, c] if u > 0 else zero
                        p = p if u < six else zero
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
                elif act == SILU:
                    for c in range(channels):
                        u = z[i, c] * slope[c] + offset[c]
                        s = sigmoid(u)
                        p = g[i, c] * (s + u * s * (one - s))
                        passed[i, c] = p
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
                else:
                    for c in range(channels):
                        u = z[i, c] * slope[c] + offset[c]
                        d = u * third + half
                        d = zero if u <= -3 else d
                        d = one if u >= 3 else d
                        p = g[i, c] * d
                        passed[i, c] = p
                        part[0, c] += p
                        part[1, c] += p * (z[i, c] - middle[c])
            for c in range(channels):
                sums[block, 0, c] += part[0, c]
                sums[block, 1, c] += part[1, c]
    for c in range(channels):
        total = 0.0
        moment = 0.0
        for block in range(BLOCKS):
            total += sums[block, 0, c]
            moment += sums[block, 1, c]
        gweight[c] = moment * known[1, c]
        gbias[c] = total
        tilt[c] = -slope[c] * moment * known[1, c] ** 2 / rows if training else 0.0
        base[c] = -slope[c] * total / rows if training else 0.0
    written = act in (SILU, HARDSWISH) or (act == RELU and y_ != 0)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            kept = keep[i // per_image]
            if written:
                for c in range(channels):
                    p = passed[i, c] * kept
                    gz[i, c] = slope[c] * p + (z[i, c] - middle[c]) * tilt[c] + base[c]
            elif act == NONE:
                for c in range(channels):
                    p = g[i, c] * kept
                    gz[i, c] = slope[c] * p + (z[i, c] - middle[c]) * tilt[c] + base[c]
            elif act == RELU:
                for c in range(channels):
                    p = g[i, c] if z[i, c] * slope[c] + offset[c] > 0 else zero
                    gz[i, c] = slope[c] * p + (z[i, c] - middle[c]) * tilt[c] + base[c]
            else:
                for c in range(channels):
                    u = z[i, c] * slope[c] + offset[c]
                    p = g[i, c] if u > 0 else zero
                    p = p if u < six else zero
                    gz[i, c] = slope[c] * p + (z[i, c] - middle[c]) * tilt[c] + base[c]


@loop
def frozen_backward(kept_, rows, channels, affine, act, keep, g_, gz_, p_):
    """gz = slope * p * keep, and p where `p_` is not 0, of a norm whose parameters do not train.

    Args:
        kept_: y after RELU and RELU6, z before SILU and HARDSWISH; of NONE nothing is looked at.
    """
    kept_values = matrix(kept_, rows, channels)
    g = matrix(g_, rows, channels)
    gz = matrix(gz_, rows, channels)
    passed = matrix(p_, rows, channels)
    slope = affine[0]
    offset = affine[1]
    per_image = rows // len(keep)
    zero = np.float32(0)
    six = np.float32(6)
    one = np.float32(1)
    third = np.float32(1 / 3)
    half = np.float32(0.5)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            kept = keep[i // per_image]
            if act == NONE:
                for c in range(channels):
                    gz[i, c] = slope[c] * g[i, c] * kept
            elif act == RELU and p_:
                for c in range(channels):
                    p = g[i, c] if kept_values[i, c] > 0 else zero
                    passed[i, c] = p
                    gz[i, c] = slope[c] * p * kept
            elif act == RELU:
                for c in range(channels):
                    gz[i, c] = slope[c] * g[i, c] * kept if kept_values[i, c] > 0 else zero
            elif act == RELU6:
                for c in range(channels):
                    p = g[i, c] if kept_values[i, c] > 0 else zero
                    p = p if kept_values[i, c] < six else zero
                    gz[i, c] = slope[c] * p
            elif act == SILU:
                for c in range(channels):
                    u = kept_values[i, c] * slope[c] + offset[c]
                    s = sigmoid(u)
                    gz[i, c] = slope[c] * g[i, c] * (s + u * s * (one - s))
            else:
                for c in range(channels):
                    u = kept_values[i, c] * slope[c] + offset[c]
                    d = u * third + half
                    d = zero if u <= -3 else d
                    d = one if u >= 3 else d
                    gz[i, c] = slope[c] * g[i, c] * d


# --------------------------------------------------------------------------
# Sums, means, gates


@loop
def image_ends(x_, images, each, out):
    """The least and the greatest of every image's `each` numbers, into out, float32 [images, 2]."""
    x = matrix(x_, images, each)
    for n in nb.prange(images):
        low = high = x[n, 0]
        for i in range(each):
            low = min(low, x[n, i])
            high = max(high, x[n, i])
        out[n, 0] = low
        out[n, 1] = high


@loop
def round_to_steps(x_, count, step, first, last, y_):
    """y = x / step as a whole number from `first` to `last`, times step."""
    x = vector(x_, count)
    y = vector(y_, count)
    for block in nb.prange(BLOCKS):
        for i in range(count * block // BLOCKS, count * (block + 1) // BLOCKS):
            whole = np.rint(x[i] / step)
            whole = first if whole < first else whole
            y[i] = (last if whole > last else whole) * step


@loop
def pass_inside(x_, count, low, high, g_, gx_):
    """gx = g where x is low to high, else 0."""
    x = vector(x_, count)
    g = vector(g_, count)
    gx = vector(gx_, count)
    zero = np.float32(0)
    for block in nb.prange(BLOCKS):
        for i in range(count * block // BLOCKS, count * (block + 1) // BLOCKS):
            gx[i] = g[i] if low <= x[i] <= high else zero


@loop
def add(a_, b_, rows, channels, out_):
    """out = a + b."""
    a = matrix(a_, rows, channels)
    b = matrix(b_, rows, channels)
    out = matrix(out_, rows, channels)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            for c in range(channels):
                out[i, c] = a[i, c] + b[i, c]


@loop
def add_to_images(a_, images, rows, channels, b, out_):
    """out = a + b, the same for all `rows` pixels of an image; `a_` 0: b alone.

    b: float32 [images, channels].
    """
    a = matrix(a_, images * rows, channels)
    out = matrix(out_, images * rows, channels)
    for block in nb.prange(BLOCKS):
        first = images * rows * block // BLOCKS
        for i in range(first, images * rows * (block + 1) // BLOCKS):
            n = i // rows
            if a_:
                for c in range(channels):
                    out[i, c] = a[i, c] + b[n, c]
            else:
                for c in range(channels):
                    out[i, c] = b[n, c]


PIECES = 16  # of an image, or of lines, each of which one thread sums


@loop
def image_sums(x_, images, rows, channels, factor, out_):
    """out = factor * the sum over the `rows` pixels of each image, float32 [images, channels]."""
    x = matrix(x_, images * rows, channels)
    out = matrix(out_, images, channels)
    sums = np.zeros((images, PIECES, channels))
    for both in nb.prange(images * PIECES):
        n = both // PIECES
        piece = both % PIECES
        last = rows * (piece + 1) // PIECES
        part = np.empty(channels, np.float32)
        for start in range(rows * piece // PIECES, last, ROWS):
            part[:] = 0
            for i in range(start, min(start + ROWS, last)):
                for c in range(channels):
                    part[c] += x[n * rows + i, c]
            for c in range(channels):
                sums[n, piece, c] += part[c]
    for n in range(images):
        for c in range(channels):
            total = 0.0
            for piece in range(PIECES):
                total += sums[n, piece, c]
            out[n, c] = total * factor


@loop
def gated(x_, images, rows, channels, gate, added_, act, y_):
    """y = act(x * gate + added); act NONE or RELU; `added_` 0: nothing is added.

    gate: float32 [images, channels].
    """
    x = matrix(x_, images * rows, channels)
    y = matrix(y_, images * rows, channels)
    added = matrix(added_, images * rows, channels)
    zero = np.float32(0)
    for block in nb.prange(BLOCKS):
        first = images * rows * block // BLOCKS
        for i in range(first, images * rows * (block + 1) // BLOCKS):
            n = i // rows
            if added_ and act == RELU:
                for c in range(channels):
                    u = x[i, c] * gate[n, c] + added[i, c]
                    y[i, c] = zero if u < 0 else u
            elif added_:
                for c in range(channels):
                    y[i, c] = x[i, c] * gate[n, c] + added[i, c]
            else:
                for c in range(channels):
                    y[i, c] = x[i, c] * gate[n, c]


@loop
def gated_backward(x_, images, rows, channels, gate, y_, g_, gx_, p_, ggate_):
    """gx = p * gate, ggate = the sums of p * x over each image.

    Args:
        y_: what came out of a RELU; 0: p is g.
        p_: written where `y_` is not 0.
    """
    x = matrix(x_, images * rows, channels)
    y = matrix(y_, images * rows, channels)
    g = matrix(g_, images * rows, channels)
    gx = matrix(gx_, images * rows, channels)
    passed = matrix(p_, images * rows, channels)
    ggate = matrix(ggate_, images, channels)
    sums = np.zeros((images, PIECES, channels))
    zero = np.float32(0)
    for both in nb.prange(images * PIECES):
        n = both // PIECES
        piece = both % PIECES
        last = n * rows + rows * (piece + 1) // PIECES
        part = np.empty(channels, np.float32)
        for start in range(n * rows + rows * piece // PIECES, last, ROWS):
            part[:] = 0
            for i in range(start, min(start + ROWS, last)):
                if y_:
                    for c in range(channels):
                        p = g[i, c] if y[i, c] > 0 else zero
                        passed[i, c] = p
                        gx[i, c] = p * gate[n, c]
                        part[c] += p * x[i, c]
                else:
                    for c in range(channels):
                        p = g[i, c]
                        gx[i, c] = p * gate[n, c]
                        part[c] += p * x[i, c]
            for c in range(channels):
                sums[n, piece, c] += part[c]
    for n in range(images):
        for c in range(channels):
            total = 0.0
            for piece in range(PIECES):
                total += sums[n, piece, c]
            ggate[n, c] = total


@loop
def mixed(x_, images, rows, channels, parts, gate, y_):
    """y = the sum over parts of x's channels, each times its gate.

    x has parts * channels channels, y has `channels`; gate: float32 [images, parts * channels].
    """
    x = matrix(x_, images * rows, parts * channels)
    y = matrix(y_, images * rows, channels)
    for block in nb.prange(BLOCKS):
        first = images * rows * block // BLOCKS
        for i in range(first, images * rows * (block + 1) // BLOCKS):
            n = i // rows
            for c in range(channels):
                y[i, c] = x[i, c] * gate[n, c]
            for part in range(1, parts):
                start = part * channels
                for c in range(channels):
                    y[i, c] += x[i, start + c] * gate[n, start + c]


@loop
def mixed_backward(x_, images, rows, channels, parts, gate, g_, gx_, ggate_):
    """gx = g * gate in each part, ggate = the sums of g * x over each image."""
    x = matrix(x_, images * rows, parts * channels)
    g = matrix(g_, images * rows, channels)
    gx = matrix(gx_, images * rows, parts * channels)
    wide = parts * channels
    ggate = matrix(ggate_, images, wide)
    sums = np.zeros((images, PIECES, wide))
    for both in nb.prange(images * PIECES):
        n = both // PIECES
        piece = both % PIECES
        last = n * rows + rows * (piece + 1) // PIECES
        sum_of_rows = np.empty(wide, np.float32)
        for start in range(n * rows + rows * piece // PIECES, last, ROWS):
            sum_of_rows[:] = 0
            for i in range(start, min(start + ROWS, last)):
                for part in range(parts):
                    at = part * channels
                    for c in range(channels):
                        gx[i, at + c] = g[i, c] * gate[n, at + c]
                        sum_of_rows[at + c] += g[i, c] * x[i, at + c]
            for c in range(wide):
                sums[n, piece, c] += sum_of_rows[c]
    for n in range(images):
        for c in range(wide):
            total = 0.0
            for piece in range(PIECES):
                total += sums[n, piece, c]
            ggate[n, c] = total


@loop
def copy_channels(x_, rows, of, start, y_, into, at, count):
    """y[:, at : at + count] = x[:, start : start + count]; x has `of` channels, y has `into`."""
    x = matrix(x_, rows, of)
    y = matrix(y_, rows, into)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            for c in range(count):
                y[i, at + c] = x[i, start + c]


@loop
def pick(x_, images, height, width, channels, down, across, y_, rows, columns):
    """y = every `down`th row and `across`th column of x."""
    x = nb.carray(pointer(x_), (images, height, width, channels))  # type: ignore
    y = nb.carray(pointer(y_), (images, rows, columns, channels))  # type: ignore
    for both in nb.prange(images * rows):
        n = both // rows
        i = both % rows
        for j in range(columns):
            for c in range(channels):
                y[n, i, j, c] = x[n, i * down, j * across, c]


@loop
def put_back(y_, images, height, width, channels, down, across, x_, rows, columns):
    """The reverse of `pick`: x is 0 in the other places."""
    x = nb.carray(pointer(x_), (images, height, width, channels))  # type: ignore
    y = nb.carray(pointer(y_), (images, rows, columns, channels))  # type: ignore
    zero = np.float32(0)
    for both in nb.prange(images * height):
        n = both // height
        i = both % height
        for j in range(width):
            if i % down or j % across:
                for c in range(channels):
                    x[n, i, j, c] = zero
            else:
                for c in range(channels):
                    x[n, i, j, c] = y[n, i // down, j // across, c]


@nb.njit(parallel=True, cache=True, nogil=True)  # to the bit as Paddle's multiplying and adding
def to_numbers(pixels_, rows, channels, scale, offset, y_):
    """y = pixels * scale + offset; pixels uint8, scale and offset float32 [channels]."""
    pixels = nb.carray(byte_pointer(pixels_), (rows, channels))  # type: ignore
    y = matrix(y_, rows, channels)
    for block in nb.prange(BLOCKS):
        for i in range(rows * block // BLOCKS, rows * (block + 1) // BLOCKS):
            for c in range(channels):
                y[i, c] = np.float32(pixels[i, c]) * scale[c] + offset[c]


# --------------------------------------------------------------------------
# Pooling, and the weights of depthwise convolutions


@loop
def max_pool(x_, images, height, width, channels, kernel, stride, pad, y_, best_, rows, columns):
    """The largest of each window; `best_` gets which of its places that is, uint8, the first.

    One that is no number counts as the largest, so that it is found in the loss.
    """
    x = nb.carray(pointer(x_), (images, height, width, channels))  # type: ignore
    y = nb.carray(pointer(y_), (images, rows, columns, channels))  # type: ignore
    best = nb.carray(byte_pointer(best_), (images, rows, columns, channels))  # type: ignore
    lowest = np.float32(-np.inf)
    for both in nb.prange(images * rows):
        n = both // rows
        i = both % rows
        largest = np.empty(channels, np.float32)
        places = np.zeros(channels, np.int32)  # as wide as the numbers: compared side by side
        for j in range(columns):
            largest[:] = lowest
            for a in range(kernel):
                above = i * stride + a - pad
                if above < 0 or above >= height:
                    continue
                for b in range(kernel):
                    left = j * stride + b - pad
                    if left < 0 or left >= width:
                        continue
                    place = np.int32(a * kernel + b)
                    for c in range(channels):
                        value = x[n, above, left, c]
                        taken = value > largest[c] or value != value
                        places[c] = place if taken else places[c]
                        largest[c] = value if taken else largest[c]
            for c in range(channels):
                y[n, i, j, c] = largest[c]
            for c in range(channels):
                best[n, i, j, c] = places[c]


@loop
def max_pool_backward(
    g_, best_, images, height, width, channels, kernel, stride, pad, gx_, rows, columns
):
    """Each gradient goes to the place its window's largest number came from."""
    g = nb.carray(pointer(g_), (images, rows, columns, channels))  # type: ignore
    best = nb.carray(byte_pointer(best_), (images, rows, columns, channels))  # type: ignore
    gx = nb.carray(pointer(gx_), (images, height, width, channels))  # type: ignore
    zero = np.float32(0)
    for both in nb.prange(images * height):
        n = both // height
        above = both % height
        for left in range(width):
            for c in range(channels):
                gx[n, above, left, c] = zero
            for a in range(kernel):
                i = above + pad - a
                if i < 0 or i % stride or i // stride >= rows:
                    continue
                i = i // stride
                for b in range(kernel):
                    j = left + pad - b
                    if j < 0 or j % stride or j // stride >= columns:
                        continue
                    j = j // stride
                    place = np.uint8(a * kernel + b)
                    for c in range(channels):
                        own = best[n, i, j, c] == place
                        gx[n, above, left, c] += g[n, i, j, c] if own else zero


@inlined
def window(i, size, kernel, stride, pad):
    """First and last + 1 of the places in 0 to size that a window looks at."""
    start = i * stride - pad
    return max(start, 0), min(start + kernel, size)


@loop
def mean_pool(
    x_, images, height, width, channels, kernel, stride, pad, exclusive, y_, rows, columns
):
    """The mean of each window; `exclusive`: of the places within the image alone."""
    x = nb.carray(pointer(x_), (images, height, width, channels))  # type: ignore
    y = nb.carray(pointer(y_), (images, rows, columns, channels))  # type: ignore
    zero = np.float32(0)
    for both in nb.prange(images * rows):
        n = both // rows
        i = both % rows
        top, bottom = window(i, height, kernel, stride, pad)
        for j in range(columns):
            left, right = window(j, width, kernel, stride, pad)
            count = (bottom - top) * (right - left) if exclusive else kernel * kernel
            factor = np.float32(1 / count)
            for c in range(channels):
                y[n, i, j, c] = zero
            for above in range(top, bottom):
                for beside in range(left, right):
                    for c in range(channels):
                        y[n, i, j, c] += x[n, above, beside, c]
            for c in range(channels):
                y[n, i, j, c] *= factor


@loop
def mean_pool_backward(
    g_, images, height, width, channels, kernel, stride, pad, exclusive, gx_, rows, columns
):
    """Each gradient in equal parts to its window."""
    g = nb.carray(pointer(g_), (images, rows, columns, channels))  # type: ignore
    gx = nb.carray(pointer(gx_), (images, height, width, channels))  # type: ignore
    zero = np.float32(0)
    for both in nb.prange(images * height):
        n = both // height
        above = both % height
        for left in range(width):
            for c in range(channels):
                gx[n, above, left, c] = zero
            for a in range(kernel):
                i = above + pad - a
                if i < 0 or i % stride or i // stride >= rows:
                    continue
                i = i // stride
                top, bottom = window(i, height, kernel, stride, pad)
                for b in range(kernel):
                    j = left + pad - b
                    if j < 0 or j % stride or j // stride >= columns:
                        continue
                    j = j // stride
                    start, end = window(j, width, kernel, stride, pad)
                    count = (bottom - top) * (end - start) if exclusive else kernel * kernel
                    factor = np.float32(1 / count)
                    for c in range(channels):
                        gx[n, above, left, c] += g[n, i, j, c] * factor


@loop
def depthwise_weights(
    x_,
    g_,
    images,
    height,
    width,
    channels,
    high,
    wide,
    down,
    across,
    top,
    left,
    rows,
    columns,
    out_,
):
    """The gradient of a depthwise convolution's weights, float32 [channels, 1, high, wide].

    Its kernel is high x wide, its strides are down and across, and top and left its padding.
    """
    x = nb.carray(pointer(x_), (images, height, width, channels))  # type: ignore
    g = nb.carray(pointer(g_), (images, rows, columns, channels))  # type: ignore
    out = nb.carray(pointer(out_), (channels, 1, high, wide))  # type: ignore
    lines = images * rows
    sums = np.zeros((PIECES, high * wide, channels))
    for block in nb.prange(PIECES):
        part = np.empty((high * wide, channels), np.float32)
        for both in range(lines * block // PIECES, lines * (block + 1) // PIECES):
            n = both // rows
            i = both % rows
            part[:] = 0
            for a in range(high):
                above = i * down + a - top
                if above < 0 or above >= height:
                    continue
                for b in range(wide):
                    k = a * wide + b
                    first = max(0, -(-(left - b) // across))
                    last = min(columns, (width - 1 + left - b) // across + 1)
                    for j in range(first, last):
                        beside = j * across + b - left
                        for c in range(channels):
                            part[k, c] += g[n, i, j, c] * x[n, above, beside, c]
            for k in range(high * wide):
                for c in range(channels):
                    sums[block, k, c] += part[k, c]
    for c in range(channels):
        for k in range(high * wide):
            total = 0.0
            for block in range(PIECES):
                total += sums[block, k, c]
            out[c, 0, k // wide, k % wide] = total
