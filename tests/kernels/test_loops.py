"""What each compiled loop means, in numpy and float64 beside it."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppcls.kernels import HARDSWISH, NONE, RELU, RELU6, SILU
from ppcls.kernels.start import are_here

pytestmark = [
    pytest.mark.slow,  # numba takes seconds for each loop where none is in the cache
    pytest.mark.skipif(not are_here(), reason="needs numba, and oneDNN of Paddle for Linux on x86"),
]
ACTIVATIONS = (NONE, RELU, RELU6, SILU, HARDSWISH)


@pytest.fixture(scope="module")
def run():
    from ppcls.kernels.start import loops

    return loops()


def checked(test):
    """Images, pixels of each and channels: odd ones, and some of hypothesis's."""
    shapes = [(1, 1, 1), (1, 1, 70), (1, 5, 3), (2, 63, 64), (3, 130, 17), (5, 37, 1)]
    for images, pixels, channels in shapes:
        test = example(images=images, pixels=pixels, channels=channels, seed=0)(test)
    drawn = given(
        images=st.integers(1, 4),
        pixels=st.integers(1, 90),
        channels=st.integers(1, 70),
        seed=st.integers(0, 1000),
    )
    return settings(max_examples=8, deadline=None, derandomize=True, database=None)(drawn(test))


def at(x):
    """The address of an array's first number."""
    return 0 if x is None else x.ctypes.data


def float32(x):
    return np.ascontiguousarray(x, np.float32)


def randoms(seed):
    """Draws normal float32 of a shape."""
    random = np.random.default_rng(seed)
    return lambda *shape: float32(random.standard_normal(shape))


def empty(*shape, dtype=np.float32):
    """What a loop is to write: a number that it leaves is seen."""
    return np.full(shape, 250 if dtype is np.uint8 else np.nan, dtype)


def close(found, expected, scale=None):
    """Within 1e-5 of the largest number, or of what sums were made of."""
    assert found.shape == np.shape(expected)
    largest = np.abs(expected).max() if scale is None else np.max(scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


# --------------------------------------------------------------------------
# Norms


def sigmoid(u):
    return 0.5 + 0.5 * np.tanh(u / 2)


def activated(u, act):
    gate = np.clip(u + 3, 0, 6) / 6
    return (u, np.maximum(u, 0), np.clip(u, 0, 6), u * sigmoid(u), u * gate)[act]


def steepness(u, act):
    """The derivative of `activated`."""
    s = sigmoid(u)
    return (
        np.ones_like(u),
        1.0 * (u > 0),
        1.0 * ((u > 0) & (u < 6)),
        s + u * s * (1 - s),
        np.where(np.abs(u) < 3, u / 3 + 0.5, 1.0 * (u > 0)),
    )[act]


def normed(run, images, pixels, channels, seed, training=True, far=0.0):
    """A convolution's result, a norm, and what `norm_numbers` says of it; the same in float64."""
    draw = randoms(seed)
    z = draw(images * pixels, channels) * 2 + draw(channels) + np.float32(far)
    weight = draw(channels) + 1
    bias = draw(channels)
    running = draw(channels), draw(channels) ** 2
    held = [part.copy() for part in running]
    known = empty(2, channels, dtype=np.float64)
    affine = empty(2, channels)
    rows, momentum, epsilon = len(z), 0.9, 1e-5
    run.norm_numbers(
        at(z), rows, channels, training, at(weight), at(bias), at(held[0]), at(held[1]), momentum,
        epsilon, known, affine,
    )  # fmt: skip
    wide = z.astype(np.float64)
    mean, variance = (wide.mean(0), wide.var(0)) if training else running
    inverse = 1 / np.sqrt(variance + epsilon)
    after = running
    if training:
        after = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(running, (mean, variance), strict=True)
        ]
    slope = weight * inverse
    return SimpleNamespace(
        z=z, known=known, affine=affine, held=held, rows=rows,
        mean=mean, variance=variance, inverse=inverse, after=after, slope=slope,
        offset=bias - mean * slope, u=wide * slope + (bias - mean * slope), draw=draw,
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@checked
def test_norm_numbers(run, training, images, pixels, channels, seed):
    norm = normed(run, images, pixels, channels, seed, training)
    close(norm.known[0], norm.mean, np.abs(norm.z))
    np.testing.assert_allclose(norm.known[1] ** -2 - 1e-5, norm.variance, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(norm.affine[0], norm.slope, rtol=2e-5 if images * pixels > 1 else 1)
    close(norm.held[0], norm.after[0], np.abs(norm.z))
    close(norm.held[1], norm.after[1])
    if not training:
        close(norm.affine[1], norm.offset)
        np.testing.assert_array_equal(norm.held, norm.after)  # to the bit


def test_a_mean_far_from_zero_does_not_drown_the_variance(run):
    norm = normed(run, 4, 100, 5, 0, far=1000.0)
    np.testing.assert_allclose(norm.known[1], norm.inverse, rtol=1e-5)
    still = np.full((50, 3), 7.7, np.float32)
    running = [empty(3), empty(3)]
    known = empty(2, 3, dtype=np.float64)
    parameters = np.ones(3, np.float32)
    run.norm_numbers(
        at(still), 50, 3, True, at(parameters), at(parameters), at(running[0]), at(running[1]),
        0.9, 1e-5, known, empty(2, 3),
    )  # fmt: skip
    np.testing.assert_allclose(known[0], still[0])
    np.testing.assert_allclose(known[1], 1e-5**-0.5)


def drawn_keep(draw, images):
    """As of drop path: some images' branches are left out, others scaled."""
    return float32(draw(images) > 0) * np.float32(1.25)


@pytest.mark.parametrize(
    ("act", "added", "kept"),
    [(act, False, False) for act in ACTIVATIONS]
    + [(act, True, kept) for act in (NONE, RELU) for kept in (False, True)],
)
@checked
def test_norm_act_there_and_back(run, act, added, kept, images, pixels, channels, seed):
    for training in (True, False):
        norm = normed(run, images, pixels, channels, seed, training)
        rows, draw, affine = norm.rows, norm.draw, norm.affine
        more = draw(rows, channels) if added else None
        keep = drawn_keep(draw, images) if kept else np.ones(1, np.float32)
        each = np.repeat(keep, rows // len(keep))[:, None].astype(np.float64)
        # A lone row has a norm of 0 and a slope of hundreds: what the loop got is what counts.
        u = norm.z.astype(np.float64) * affine[0] + affine[1]
        terms = np.abs(norm.z * affine[0]) + np.abs(affine[1])
        before = u * each + (0 if more is None else more)
        y = empty(rows, channels)
        run.norm_act(at(norm.z), rows, channels, affine, act, at(more), keep, at(y))
        close(y, activated(before, act), terms)
        place = norm.z.copy()
        run.norm_act(at(place), rows, channels, affine, act, at(more), keep, at(place))
        np.testing.assert_array_equal(place, y)

        g = draw(rows, channels)
        # Rounding may take a number to the other side of a bend: there y says what was taken.
        p = g * steepness(y if act in (RELU, RELU6) else before, act)
        q = p * each
        centred = norm.z - norm.known[0]
        gbias = q.sum(0)
        gweight = (q * centred).sum(0) * norm.known[1]
        share = training / rows
        gz = affine[0] * (q - share * gbias - centred * norm.known[1] * gweight * share)
        passed = empty(rows, channels)
        found = [empty(rows, channels), empty(channels), empty(channels)]
        seen = y if added and act else None
        run.norm_act_backward(
            at(norm.z), rows, channels, training, norm.known, affine, act, at(seen), keep, at(g),
            at(passed) if run.p_is_written(act, added) else at(g), *map(at, found),
        )  # fmt: skip
        if run.p_is_written(act, added):
            close(passed, p, np.abs(g))
            run.norm_act_backward(
                at(norm.z), rows, channels, training, norm.known, affine, act, at(seen), keep,
                at(g), at(passed), at(passed), *map(at, found[1:]),
            )  # fmt: skip
            np.testing.assert_array_equal(passed, found[0])
        largest = np.abs(centred * norm.known[1]).max() + 1
        close(found[0], gz, np.abs(affine[0]) * np.abs(g).max() * largest**2)
        close(found[1], gweight, np.abs(q * centred * norm.known[1]).sum(0) + 1)
        close(found[2], gbias, np.abs(q).sum(0) + 1)

        if not training:  # as of a norm that does not train either
            out = empty(rows, channels)
            base = y if act in (RELU, RELU6) else norm.z
            for through in (False, True) if act else (False,):
                passed = empty(rows, channels)
                run.frozen_backward(
                    at(base), rows, channels, affine, act, keep, at(g), at(out),
                    at(passed) if through and added else 0,
                )  # fmt: skip
                close(out, gz, np.abs(affine[0]) * np.abs(g).max())
                if through and added:
                    close(passed, p)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_an_activation_is_right_far_out_and_at_its_bends(run, act):
    z = np.concatenate([np.linspace(-40, 40, 1601), [-3, 0, 3, 6]]).astype(np.float32)[:, None]
    y = empty(*z.shape)
    affine = float32([[1], [0]])
    run.norm_act(at(z), len(z), 1, affine, act, 0, np.ones(1, np.float32), at(y))
    np.testing.assert_allclose(y, activated(z.astype(np.float64), act), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("added", [False, True])
def test_no_activation_swallows_what_is_no_number(run, act, added):
    if added and act not in (NONE, RELU):
        return
    for value in (np.nan, np.inf):
        z = np.zeros((9, 11), np.float32)
        z[4, 3] = z[8, 10] = value
        more = np.zeros_like(z) if added else None
        y = empty(9, 11)
        affine = float32([np.ones(11), np.zeros(11)])
        run.norm_act(at(z), 9, 11, affine, act, at(more), np.ones(1, np.float32), at(y))
        lost = act == RELU6 and value == np.inf  # which is 6
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(z) | lost)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_statistics_of_what_is_no_number_are_none(run, value):
    for row in (0, 1, 70):
        z = np.ones((71, 3), np.float32)
        z[row, 1] = value
        known = empty(2, 3, dtype=np.float64)
        affine = empty(2, 3)
        each = [np.ones(3, np.float32) for _ in range(4)]
        run.norm_numbers(at(z), 71, 3, True, *map(at, each), 0.9, 1e-5, known, affine)
        assert not np.isfinite(affine[1, 1])
        assert np.isfinite(affine[:, [0, 2]]).all()


# --------------------------------------------------------------------------
# Sums, means, gates, parts of the channels


@checked
def test_add(run, images, pixels, channels, seed):
    draw = randoms(seed)
    rows = images * pixels
    a, b, each = draw(rows, channels), draw(rows, channels), draw(images, channels)
    out = empty(rows, channels)
    run.add(at(a), at(b), rows, channels, at(out))
    np.testing.assert_array_equal(out, a + b)
    spread = np.repeat(each, pixels, axis=0)
    run.add_to_images(at(a), images, pixels, channels, each, at(out))
    np.testing.assert_array_equal(out, a + spread)
    run.add_to_images(0, images, pixels, channels, each, at(out))
    np.testing.assert_array_equal(out, spread)


@checked
def test_image_sums(run, images, pixels, channels, seed):
    x = randoms(seed)(images, pixels, channels)
    out = empty(images, channels)
    run.image_sums(at(x), images, pixels, channels, 1 / pixels, at(out))
    close(out, x.astype(np.float64).mean(1), np.abs(x))


@pytest.mark.parametrize(("added", "act"), [(False, NONE), (True, NONE), (True, RELU)])
@checked
def test_gated_there_and_back(run, added, act, images, pixels, channels, seed):
    draw = randoms(seed)
    shape = images, pixels, channels
    x, g, gate = draw(*shape), draw(*shape), draw(images, channels)
    more = draw(*shape) if added else None
    y = empty(*shape)
    run.gated(at(x), *shape, gate, at(more), act, at(y))
    u = x.astype(np.float64) * gate[:, None] + (0 if more is None else more)
    close(y, activated(u, act), np.abs(x).max() * np.abs(gate).max() + 1)
    gx, passed, ggate = empty(*shape), empty(*shape), empty(images, channels)
    p = g * (y > 0 if act else np.ones(shape))
    run.gated_backward(
        at(x), *shape, gate, at(y) if act else 0, at(g), at(gx), at(passed if act else g), at(ggate)
    )
    close(gx, p * gate[:, None], np.abs(g).max() * np.abs(gate))
    close(ggate, (p * x).sum(1), np.abs(g * x).sum(1) + 1)
    if act:
        np.testing.assert_array_equal(passed, p)


@pytest.mark.parametrize("parts", [1, 2, 3])
@checked
def test_mixed_there_and_back(run, parts, images, pixels, channels, seed):
    draw = randoms(seed)
    x, gates = draw(images, pixels, parts, channels), draw(images, parts, channels)
    g = draw(images, pixels, channels)
    y, gx, ggates = empty(*g.shape), empty(*x.shape), empty(*gates.shape)
    flat = gates.reshape(images, -1)
    run.mixed(at(x), images, pixels, channels, parts, flat, at(y))
    products = x.astype(np.float64) * gates[:, None]
    close(y, products.sum(2), np.abs(products).sum(2) + 1)
    run.mixed_backward(at(x), images, pixels, channels, parts, flat, at(g), at(gx), at(ggates))
    close(gx, g[:, :, None] * gates[:, None])
    each = g[:, :, None].astype(np.float64) * x
    close(ggates, each.sum(1), np.abs(each).sum(1) + 1)


@checked
def test_copy_channels(run, images, pixels, channels, seed):
    draw = randoms(seed)
    rows = images * pixels
    x, y = draw(rows, channels + 5), draw(rows, channels + 3)
    expected = y.copy()
    expected[:, 2 : 2 + channels] = x[:, 4 : 4 + channels]
    run.copy_channels(at(x), rows, channels + 5, 4, at(y), channels + 3, 2, channels)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("steps", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 7, 5, 16), (3, 6, 8, 3)])
def test_pick_and_put_back(run, size, steps):
    x = randoms(0)(*size)
    expected = np.ascontiguousarray(x[:, :: steps[0], :: steps[1]])
    y = empty(*expected.shape)
    run.pick(at(x), *size, *steps, at(y), *y.shape[1:3])
    np.testing.assert_array_equal(y, expected)
    back, there = empty(*size), np.zeros(size)
    there[:, :: steps[0], :: steps[1]] = y
    run.put_back(at(y), *size, *steps, at(back), *y.shape[1:3])
    np.testing.assert_array_equal(back, there)


@checked
def test_to_numbers(run, images, pixels, channels, seed):
    random = np.random.default_rng(seed)
    rows = images * pixels
    values = random.integers(0, 256, (rows, channels), np.uint8)
    values.flat[0] = 255
    draw = randoms(seed)
    scale, offset, y = draw(channels), draw(channels), empty(rows, channels)
    run.to_numbers(at(values), rows, channels, scale, offset, at(y))
    close(y, values.astype(np.float64) * scale + offset, 255 * np.abs(scale) + np.abs(offset))


# --------------------------------------------------------------------------
# Pooling, and the weights of depthwise convolutions

WINDOWS = [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0), (5, 2, 2)]
SIZES = [(1, 8, 8, 3), (2, 7, 5, 16), (3, 5, 9, 1), (1, 11, 6, 70)]


def sides(height, width, kernel, stride, pad, up=0):
    return [(side + 2 * pad - kernel + up) // stride + 1 for side in (height, width)]


def looked_at(i, j, height, width, kernel, stride, pad):
    """Slices of the image that a window sees, and how many places are left out above and beside."""
    top, left = i * stride - pad, j * stride - pad
    rows = slice(max(top, 0), min(top + kernel, height))
    columns = slice(max(left, 0), min(left + kernel, width))
    return (rows, columns), (max(-top, 0), max(-left, 0))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", SIZES)
def test_max_pool_there_and_back(run, window, size):
    n, height, width, channels = size
    draw = randoms(sum(size))
    x = np.round(draw(*size) * 2) / 2  # with equal numbers: the first counts
    rows, columns = sides(height, width, *window)
    g = draw(n, rows, columns, channels)
    y, best = empty(*g.shape), empty(*g.shape, dtype=np.uint8)
    expected, gradients = np.zeros(g.shape), np.zeros(size)
    for i, j in itertools.product(range(rows), range(columns)):
        seen, _ = looked_at(i, j, height, width, *window)
        part = x[:, seen[0], seen[1]]
        high, wide = part.shape[1:3]
        which = part.reshape(n, -1, channels).argmax(1)
        expected[:, i, j] = part.max((1, 2))
        for image, c in itertools.product(range(n), range(channels)):
            a, b = divmod(which[image, c], wide)
            assert a < high
            gradients[image, seen[0].start + a, seen[1].start + b, c] += g[image, i, j, c]
    run.max_pool(at(x), *size, *window, at(y), at(best), rows, columns)
    np.testing.assert_array_equal(y, expected)
    gx = empty(*size)
    run.max_pool_backward(at(g), at(best), *size, *window, at(gx), rows, columns)
    close(gx, gradients)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_maximum_takes_in_what_is_no_number(run, window):
    height, width, channels = 7, 8, 17
    rows, columns = sides(height, width, *window)
    for above, beside in itertools.product(range(height), range(width)):
        x = randoms(0)(1, height, width, channels)
        x[0, above, beside, 5] = np.nan
        expected = np.zeros((rows, columns, channels), bool)
        for i, j in itertools.product(range(rows), range(columns)):
            seen, _ = looked_at(i, j, height, width, *window)
            expected[i, j] = np.isnan(x[0, seen[0], seen[1]]).any((0, 1))
        y, best = (
            empty(1, rows, columns, channels),
            empty(1, rows, columns, channels, dtype=np.uint8),
        )
        run.max_pool(at(x), 1, height, width, channels, *window, at(y), at(best), rows, columns)
        np.testing.assert_array_equal(np.isnan(y[0]), expected)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("up", [0, 1])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", SIZES)
def test_mean_pool_there_and_back(run, window, up, exclusive, size):
    kernel = window[0]
    n, height, width, channels = size
    if up and (not exclusive or window != (2, 2, 0)):
        return
    draw = randoms(sum(size))
    rows, columns = sides(height, width, *window, up)
    x, g = draw(*size), draw(n, rows, columns, channels)
    expected, gradients = np.zeros(g.shape), np.zeros(size)
    for i, j in itertools.product(range(rows), range(columns)):
        seen, _ = looked_at(i, j, height, width, *window)
        part = x[:, seen[0], seen[1]].astype(np.float64)
        count = part[0, :, :, 0].size if exclusive else kernel * kernel
        expected[:, i, j] = part.sum((1, 2)) / count
        gradients[:, seen[0], seen[1]] += g[:, i : i + 1, j : j + 1] / count
    y, gx = empty(*g.shape), empty(*size)
    run.mean_pool(at(x), *size, *window, exclusive, at(y), rows, columns)
    close(y, expected, np.abs(x))
    run.mean_pool_backward(at(g), *size, *window, exclusive, at(gx), rows, columns)
    close(gx, gradients, np.abs(g))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (0, 0), (1, 1)),  # as "SAME" does
        ((5, 5), (2, 2), (1, 2), (2, 2)),
        ((1, 1), (2, 1), (0, 0), (0, 0)),
        ((5, 3), (1, 2), (2, 1), (2, 1)),
        ((7, 7), (1, 1), (3, 3), (3, 3)),
    ],
)
def test_depthwise_weights(run, size, kernel, stride, before, after):
    n, channels = size[0], size[3]
    rows, columns = (
        (size[k + 1] + before[k] + after[k] - kernel[k]) // stride[k] + 1 for k in range(2)
    )
    draw = randoms(sum(size))
    x, g = draw(*size), draw(n, rows, columns, channels)
    ends = [(0, 0), *zip(before, after, strict=True), (0, 0)]
    wide = np.pad(x.astype(np.float64), ends)
    expected, scale = np.zeros((channels, 1, *kernel)), 0.0
    for a, b in itertools.product(*map(range, kernel)):
        part = wide[:, a :: stride[0], b :: stride[1]][:, :rows, :columns]
        expected[:, 0, a, b] = (g * part).sum((0, 1, 2))
        scale = max(scale, np.abs(g * part).sum((0, 1, 2)).max())
    out = empty(channels, 1, *kernel)
    run.depthwise_weights(at(x), at(g), *size, *kernel, *stride, *before, rows, columns, at(out))
    close(out, expected, scale)


# --------------------------------------------------------------------------


def test_threads_do_not_change_a_bit(run):
    import numba

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    before = numba.get_num_threads()
    found = []
    try:
        for threads in (1, 2, numba.config.NUMBA_NUM_THREADS, 2):
            numba.set_num_threads(threads)
            norm = normed(run, 3, 1001, 19, 0)
            sums, weights = empty(3, 19), empty(19, 1, 3, 3)
            g, gz = randoms(1)(3003, 19), empty(3003, 19)
            gweight, gbias = empty(19), empty(19)
            run.image_sums(at(norm.z), 3, 1001, 19, 1.0, at(sums))
            run.norm_act_backward(
                at(norm.z), 3003, 19, True, norm.known, norm.affine, RELU, 0,
                np.ones(1, np.float32), at(g), at(g), at(gz), at(gweight), at(gbias),
            )  # fmt: skip
            run.depthwise_weights(
                at(norm.z), at(g), 3, 77, 13, 19, 3, 3, 1, 1, 1, 1, 77, 13, at(weights)
            )
            found.append((norm.known, sums, gz, gweight, gbias, weights))
    finally:
        numba.set_num_threads(before)
    for again in found[1:]:
        for one, other in zip(found[0], again, strict=True):
            np.testing.assert_array_equal(one, other)
