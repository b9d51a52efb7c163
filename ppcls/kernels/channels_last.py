"""What networks compute, on a CPU, with images channels last in memory: forwards and gradients.

Tensors keep Paddle's shape, [N, C, H, W], and are views of memory [N, H, W, C]. Whatever is not
made here takes such a tensor as any other and copies it where it must: only time is lost.
Convolutions are oneDNN's (`onednn`), all else is `loops`.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.jit.sot.psdb import in_sot

from ppcls.kernels import RELU6, onednn
from ppcls.kernels.onednn import Shape
from ppcls.kernels.start import can_run, loops

ONE = np.ones(1, np.float32)
LEAST = 1 << 14  # pixels of all images, below which Paddle's own are as fast …
LEAST_DEPTHWISE = 1 << 8  # … but for depthwise convolutions, in which Paddle's are slow


def is_eager() -> bool:
    """Whether tensors have numbers: no graph is being made, by neither of `to_static`'s ways."""
    return paddle.in_dynamic_mode() and not in_sot()


def serves(x: Tensor, depthwise: bool = False) -> bool:
    """Whether what is to be computed of x, float32 [N, C, H, W], is computed here.

    A matter of its shape alone, so that a run that goes on does as it did. What has come channels
    last stays so, however small it becomes.

    Args:
        depthwise: it is a convolution of each channel by itself.
    """
    if not is_eager() or x.ndim != 4 or x.dtype != paddle.float32:
        return False
    n, c, h, w = x.shape
    if h * w == 1:  # is channels last either way: as large as it was 5 halvings ago
        served = n * 32 * 32 >= LEAST
    else:
        least = LEAST_DEPTHWISE if depthwise else LEAST
        served = n * h * w >= least or (c > 1 and is_last(x))
    return served and x.place.is_cpu_place() and can_run()


def serves_images(images: Tensor) -> bool:
    """As `serves`, of images uint8 [N, H, W, C]."""
    if not is_eager() or images.dtype != paddle.uint8:
        return False
    n, h, w, _ = images.shape
    return n * h * w >= LEAST and images.place.is_cpu_place() and can_run()


def is_last(x: Tensor) -> bool:
    """Whether its memory is [N, H, W, C], without gaps."""
    n, c, h, w = x.shape
    image, channel, row, pixel = x.strides
    return (
        (channel == 1 or c == 1)
        and (pixel == c or w == 1)
        and (row == w * c or h == 1)
        and (image == h * w * c or n == 1)
    )


def last(x: Tensor) -> Tensor:
    """The same, channels last, without what autograd knows of it."""
    x = x.detach()
    return x if is_last(x) else x.transpose([0, 2, 3, 1]).contiguous().transpose([0, 3, 1, 2])


def empty(n: int, c: int, h: int, w: int) -> Tensor:
    return paddle.empty([n, h, w, c]).transpose([0, 3, 1, 2])


def alias(x: Tensor) -> Tensor:
    """A second tensor of the same memory, which autograd takes for another one.

    Not by DLPack: Paddle never frees a memory that has come to it twice.
    """
    return x.detach().transpose([0, 2, 3, 1]).transpose([0, 3, 1, 2])


def needs(*inputs: Tensor | None) -> list[bool]:
    """Which of a PyLayer's inputs take a gradient; Paddle refuses one for any other."""
    return [tensor is not None and not tensor.stop_gradient for tensor in inputs]


def address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def numbers(x: Tensor) -> np.ndarray:
    """A tensor's memory as an array, to read and to write."""
    found = np.from_dlpack(x.detach())
    return found if found.flags.writeable else np.asarray(Writable(found))


class Writable:
    """An array's memory again: numpy before 2.1 only reads what comes by DLPack."""

    def __init__(self, array: np.ndarray):
        self.array = array  # which owns it
        about = array.__array_interface__
        self.__array_interface__ = {**about, "data": (about["data"][0], False)}


def rows_of(x: Tensor) -> np.ndarray:
    """[N, C, 1, 1] as an array [N, C]."""
    return numbers(x.contiguous()).reshape(x.shape[:2])


# --------------------------------------------------------------------------
# Convolution, batch norm, what is added, activation


class Norm(NamedTuple):
    """What a batch norm has beside its weight and bias; `frozen`: neither of these trains."""

    mean: Tensor
    variance: Tensor
    momentum: float  # the share of the running statistics that stays
    epsilon: float
    training: bool
    frozen: bool


def norm_numbers(z: Tensor, norm: Norm, weight: Tensor, bias: Tensor):
    """What `loops.norm_numbers` says of z, whose statistics running ones take in: known, affine."""
    n, c, h, w = z.shape
    known = np.empty((2, c))
    affine = np.empty((2, c), np.float32)
    parameters = weight, bias, norm.mean, norm.variance
    loops().norm_numbers(
        z.data_ptr(),
        n * h * w,
        c,
        norm.training,
        *[tensor.data_ptr() for tensor in parameters],
        norm.momentum,
        norm.epsilon,
        known,
        affine,
    )
    return known, affine


class Convolution:
    """A convolution without a bias: of 1x1 a product of matrices (MKL's), else oneDNN's."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self.is_product = shape.kernel == (1, 1) and shape.groups == 1 and not any(shape.padding)
        self.picks = shape.stride != (1, 1)
        self.rows = shape.images * shape.size[0] * shape.size[1]

    def picked(self, x: Tensor) -> Tensor:
        """What a 1x1 convolution looks at of x, [pixels, C]."""
        shape = self.shape
        if not self.picks:
            return x.transpose([0, 2, 3, 1]).reshape([self.rows, shape.cin])
        out = paddle.empty([self.rows, shape.cin])
        sizes = shape.images, shape.height, shape.width, shape.cin, *shape.stride
        loops().pick(x.data_ptr(), *sizes, out.data_ptr(), *shape.size)
        return out

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        shape = self.shape
        if self.is_product:
            flat = kernel.reshape([shape.cout, shape.cin])
            out = paddle.matmul(self.picked(x), flat, transpose_y=True)
            out = out.reshape([shape.images, *shape.size, shape.cout])
            return out.transpose([0, 3, 1, 2])
        z = empty(shape.images, shape.cout, *shape.size)
        op = onednn.convolution(shape)
        op.forward(x.data_ptr(), kernel.data_ptr(), z.data_ptr())
        return z

    def input_gradient(self, gz: Tensor, kernel: Tensor) -> Tensor:
        shape = self.shape
        if self.is_product:
            flat = gz.transpose([0, 2, 3, 1]).reshape([self.rows, shape.cout])
            found = paddle.matmul(flat, kernel.reshape([shape.cout, shape.cin]))
            if not self.picks:
                found = found.reshape([shape.images, shape.height, shape.width, shape.cin])
                return found.transpose([0, 3, 1, 2])
            gx = empty(shape.images, shape.cin, shape.height, shape.width)
            sizes = shape.images, shape.height, shape.width, shape.cin, *shape.stride
            loops().put_back(found.data_ptr(), *sizes, gx.data_ptr(), *shape.size)
            return gx
        gx = empty(shape.images, shape.cin, shape.height, shape.width)
        op = onednn.convolution(shape)
        op.backward_data(gz.data_ptr(), kernel.data_ptr(), gx.data_ptr())
        return gx

    def kernel_gradient(self, x: Tensor, gz: Tensor, kernel: Tensor) -> Tensor:
        shape = self.shape
        if self.is_product:
            flat = gz.transpose([0, 2, 3, 1]).reshape([self.rows, shape.cout])
            found = paddle.matmul(flat, self.picked(x), transpose_x=True)
            return found.reshape(kernel.shape)
        op = onednn.convolution(shape)
        out = paddle.empty_like(kernel)
        if shape.groups == shape.cin == shape.cout and not op.has_depthwise_weights:
            top, left = shape.padding[:2]
            loops().depthwise_weights(
                x.data_ptr(), gz.data_ptr(), shape.images, shape.height, shape.width, shape.cin,
                *shape.kernel, *shape.stride, top, left, *shape.size, out.data_ptr(),
            )  # fmt: skip
            return out
        op.backward_weights(x.data_ptr(), gz.data_ptr(), out.data_ptr())
        return out


convolution = cache(Convolution)  # one for each shape


class ConvNormAct(PyLayer):
    """act(norm(conv(x)) * keep + added)."""

    @staticmethod
    def forward(ctx, x, kernel, weight, bias, added, shape, norm, act, keep):
        ctx.needs = needs(x, kernel, weight, bias, added)
        ctx.has_added = added is not None
        x = last(x)
        added = None if added is None else last(added)
        op = convolution(shape)
        n, c = shape.images, shape.cout
        z = op.forward(x, kernel.detach())
        rows = n * shape.size[0] * shape.size[1]
        run = loops()
        known, affine = norm_numbers(z, norm, weight, bias)
        light = norm.frozen and not norm.training
        # Of a frozen norm before a simple activation what comes out tells all that is needed.
        y = z if light and act <= RELU6 else empty(n, c, *shape.size)
        run.norm_act(z.data_ptr(), rows, c, affine, act, address(added), keep, y.data_ptr())
        seen = y.detach() if added is not None and act and y is not z else None
        # What goes out must not be kept: it knows this context, and neither would ever be freed.
        ctx.kept = x, kernel.detach(), z.detach(), seen, known, affine, light
        ctx.how = op, shape, norm.training, act, keep
        return y

    @staticmethod
    def backward(ctx, g):
        x, kernel, z, y, known, affine, light = ctx.kept
        op, shape, training, act, keep = ctx.how
        x_needs, kernel_needs, weight_needs, bias_needs, added_needs = ctx.needs
        run = loops()
        g = last(g)
        n, c = shape.images, shape.cout
        rows = n * shape.size[0] * shape.size[1]
        gweight = gbias = None
        passed = g
        if light:
            gz = empty(n, c, *shape.size)
            if act and added_needs:
                passed = empty(n, c, *shape.size)
            run.frozen_backward(
                z.data_ptr(), rows, c, affine, act, keep, g.data_ptr(), gz.data_ptr(),
                0 if passed is g else passed.data_ptr(),
            )  # fmt: skip
        else:
            if run.p_is_written(act, ctx.has_added):
                passed = empty(n, c, *shape.size)
            # Nobody else reads what was written for the norm alone.
            alone = passed is not g and not added_needs
            gz = passed if alone else empty(n, c, *shape.size)
            gweight = paddle.empty([c])
            gbias = paddle.empty([c])
            run.norm_act_backward(
                z.data_ptr(), rows, c, training, known, affine, act, address(y), keep,
                g.data_ptr(), passed.data_ptr(), gz.data_ptr(), gweight.data_ptr(),
                gbias.data_ptr(),
            )  # fmt: skip
            gweight = gweight if weight_needs else None
            gbias = gbias if bias_needs else None
        gx = gkernel = None
        if kernel_needs:
            gkernel = op.kernel_gradient(x, gz, kernel)
        if x_needs:
            gx = op.input_gradient(gz, kernel)
        found = (gx, gkernel, gweight, gbias)
        return (*found, passed if added_needs else None) if ctx.has_added else found


def conv_norm_act(x, kernel, weight, bias, added, shape, norm, act, keep=ONE) -> Tensor:
    """act(norm(conv(x)) * keep + added).

    Args:
        kernel: of the convolution; weight and bias: of the norm.
        added: float32 of the output's shape, or None; act is then NONE or RELU.
        shape: the convolution's, for this x.
        act: a number of `loops`.
        keep: float32 [N], or [1] for all images, looked at where something is added.
    """
    inputs = x, kernel, weight, bias, added
    needed = not all(tensor is None or tensor.stop_gradient for tensor in inputs)
    if needed and paddle.is_grad_enabled():
        return ConvNormAct.apply(x, kernel, weight, bias, added, shape, norm, act, keep)
    z = convolution(shape).forward(last(x), kernel.detach())
    affine = norm_numbers(z, norm, weight, bias)[1]
    added = None if added is None else last(added)
    rows = shape.images * shape.size[0] * shape.size[1]
    at = z.data_ptr()
    loops().norm_act(at, rows, shape.cout, affine, act, address(added), keep, at)
    return z


# --------------------------------------------------------------------------
# Numbers rounded as 8 bits hold them


def image_ends(x: Tensor) -> np.ndarray:
    """The least and the greatest number of each image, float32 [N, 2]."""
    x = last(x)
    found = np.empty((x.shape[0], 2), np.float32)
    loops().image_ends(x.data_ptr(), x.shape[0], x.size // x.shape[0], found)
    return found


class Rounded(PyLayer):
    """`rounded`, with the gradient as it is where nothing was clipped, and 0 elsewhere."""

    @staticmethod
    def forward(ctx, x, step, first, steps):
        x = last(x)
        ctx.kept = x, step, first, steps
        return round_into(x, step, first, steps)

    @staticmethod
    def backward(ctx, g):
        x, step, first, steps = ctx.kept
        g = last(g)
        out = empty(*x.shape)
        ends = first * step, (first + steps) * step
        loops().pass_inside(x.data_ptr(), x.size, *ends, g.data_ptr(), out.data_ptr())
        return out


def round_into(x: Tensor, step: np.float32, first: np.float32, steps: int) -> Tensor:
    out = empty(*x.shape)
    ends = first, np.float32(first + steps)
    loops().round_to_steps(x.data_ptr(), x.size, step, *ends, out.data_ptr())
    return out


def rounded(x: Tensor, step: np.float32, first: np.float32, steps: int) -> Tensor:
    """x as whole numbers, first to first + steps, times a step."""
    if x.stop_gradient or not paddle.is_grad_enabled():
        return round_into(last(x), step, first, steps)
    return Rounded.apply(x, step, first, steps)


# --------------------------------------------------------------------------
# A tensor for two readers, means, gates


def added_up(a: Tensor, b: Tensor) -> Tensor:
    a = last(a)
    b = last(b)
    n, c, h, w = a.shape
    out = empty(n, c, h, w)
    loops().add(a.data_ptr(), b.data_ptr(), n * h * w, c, out.data_ptr())
    return out


class Twice(PyLayer):
    """x and x again: the two gradients are added channels last."""

    @staticmethod
    def forward(ctx, x):
        x = last(x)
        return alias(x), alias(x)

    @staticmethod
    def backward(ctx, one, other):
        return added_up(one, other)


def image_means(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    found = paddle.empty([n, c, 1, 1])
    loops().image_sums(x.data_ptr(), n, h * w, c, 1 / (h * w), found.data_ptr())
    return found


def spread(means: Tensor, size: Sequence[int], added: Tensor | None = None) -> Tensor:
    """The gradient of images of a size, of that of their means; and what is added to it."""
    n, c, h, w = size
    out = empty(n, c, h, w)
    each = rows_of(means) / np.float32(h * w)
    loops().add_to_images(address(added), n, h * w, c, each, out.data_ptr())
    return out


class Mean(PyLayer):
    """The means over each image's pixels, [N, C, 1, 1]."""

    @staticmethod
    def forward(ctx, x):
        x = last(x)
        ctx.size = x.shape
        return image_means(x)

    @staticmethod
    def backward(ctx, g):
        return spread(g, ctx.size)


class MeanAndSelf(PyLayer):
    """`Mean`, and x again."""

    @staticmethod
    def forward(ctx, x):
        x = last(x)
        return image_means(x), alias(x)

    @staticmethod
    def backward(ctx, mean, own):
        return spread(mean, own.shape, last(own))


class Gated(PyLayer):
    """act(x * gate + added); gate [N, C, 1, 1], added of x's shape or None, act NONE or RELU."""

    @staticmethod
    def forward(ctx, x, gate, added, act):
        ctx.needs = needs(x, gate, added)
        ctx.has_added = added is not None
        x = last(x)
        added = None if added is None else last(added)
        n, c, h, w = x.shape
        y = empty(n, c, h, w)
        each = rows_of(gate)
        loops().gated(x.data_ptr(), n, h * w, c, each, address(added), act, y.data_ptr())
        ctx.kept = x, each, y.detach() if act else None
        return y

    @staticmethod
    def backward(ctx, g):
        x, gate, y = ctx.kept
        g = last(g)
        n, c, h, w = x.shape
        gx = empty(n, c, h, w)
        passed = g if y is None else empty(n, c, h, w)
        ggate = paddle.empty([n, c, 1, 1])
        loops().gated_backward(
            x.data_ptr(),
            n,
            h * w,
            c,
            gate,
            address(y),
            g.data_ptr(),
            gx.data_ptr(),
            passed.data_ptr(),
            ggate.data_ptr(),
        )
        found = [gx, ggate, passed] if ctx.has_added else [gx, ggate]
        return tuple(gradient if ctx.needs[i] else None for i, gradient in enumerate(found))


class Plus(PyLayer):
    """a + b."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.needs = needs(a, b)
        return added_up(a, b)

    @staticmethod
    def backward(ctx, g):
        return tuple(g if need else None for need in ctx.needs)


# --------------------------------------------------------------------------
# Parts of the channels


class Mixed(PyLayer):
    """The sum of the channels' parts, each times its gate: gates [N, parts * C, 1, 1]."""

    @staticmethod
    def forward(ctx, x, gates, parts):
        ctx.needs = needs(x, gates)
        x = last(x)
        n, wide, h, w = x.shape
        c = wide // parts
        y = empty(n, c, h, w)
        each = rows_of(gates)
        loops().mixed(x.data_ptr(), n, h * w, c, parts, each, y.data_ptr())
        ctx.kept = x, each, parts
        return y

    @staticmethod
    def backward(ctx, g):
        x, gates, parts = ctx.kept
        g = last(g)
        n, wide, h, w = x.shape
        gx = empty(n, wide, h, w)
        ggates = paddle.empty([n, wide, 1, 1])
        loops().mixed_backward(
            x.data_ptr(),
            n,
            h * w,
            wide // parts,
            parts,
            gates,
            g.data_ptr(),
            gx.data_ptr(),
            ggates.data_ptr(),
        )
        return gx if ctx.needs[0] else None, ggates if ctx.needs[1] else None


class Split(PyLayer):
    """Equal parts of the channels."""

    @staticmethod
    def forward(ctx, x, parts):
        x = last(x)
        n, c, h, w = x.shape
        ctx.size = n, c, h, w
        each = c // parts
        found = []
        for start in range(0, c, each):
            part = empty(n, each, h, w)
            loops().copy_channels(x.data_ptr(), n * h * w, c, start, part.data_ptr(), each, 0, each)
            found.append(part)
        return tuple(found)

    @staticmethod
    def backward(ctx, *gradients):
        n, c, h, w = ctx.size
        out = empty(n, c, h, w)
        each = c // len(gradients)
        for i, part in enumerate(map(last, gradients)):
            loops().copy_channels(
                part.data_ptr(), n * h * w, each, 0, out.data_ptr(), c, i * each, each
            )
        return out


class Concat(PyLayer):
    """Channels after one another, of parts of equal width."""

    @staticmethod
    def forward(ctx, *parts):
        n, each, h, w = parts[0].shape
        c = each * len(parts)
        out = empty(n, c, h, w)
        for i, part in enumerate(map(last, parts)):
            loops().copy_channels(
                part.data_ptr(), n * h * w, each, 0, out.data_ptr(), c, i * each, each
            )
        ctx.needs = needs(*parts)
        return out

    @staticmethod
    def backward(ctx, g):
        g = last(g)
        n, c, h, w = g.shape
        each = c // len(ctx.needs)
        found = []
        for i, need in enumerate(ctx.needs):
            part = empty(n, each, h, w) if need else None
            if part is not None:
                at = part.data_ptr()
                loops().copy_channels(g.data_ptr(), n * h * w, c, i * each, at, each, 0, each)
            found.append(part)
        return tuple(found)


# --------------------------------------------------------------------------
# Pooling


class Window(NamedTuple):
    kernel: int
    stride: int
    padding: int
    rows: int
    columns: int
    exclusive: bool = True  # means are of the places within the image alone


class MaxPool(PyLayer):
    @staticmethod
    def forward(ctx, x, window):
        x = last(x)
        n, c, h, w = x.shape
        y = empty(n, c, window.rows, window.columns)
        best = paddle.empty([n, window.rows, window.columns, c], "uint8")
        places = window.kernel, window.stride, window.padding
        loops().max_pool(
            x.data_ptr(),
            n,
            h,
            w,
            c,
            *places,
            y.data_ptr(),
            best.data_ptr(),
            window.rows,
            window.columns,
        )
        ctx.kept = best, window, (n, c, h, w)
        return y

    @staticmethod
    def backward(ctx, g):
        best, window, (n, c, h, w) = ctx.kept
        g = last(g)
        gx = empty(n, c, h, w)
        places = window.kernel, window.stride, window.padding
        loops().max_pool_backward(
            g.data_ptr(),
            best.data_ptr(),
            n,
            h,
            w,
            c,
            *places,
            gx.data_ptr(),
            window.rows,
            window.columns,
        )
        return gx


class MeanPool(PyLayer):
    @staticmethod
    def forward(ctx, x, window):
        x = last(x)
        n, c, h, w = x.shape
        y = empty(n, c, window.rows, window.columns)
        places = window.kernel, window.stride, window.padding, window.exclusive
        loops().mean_pool(
            x.data_ptr(), n, h, w, c, *places, y.data_ptr(), window.rows, window.columns
        )
        ctx.kept = window, (n, c, h, w)
        return y

    @staticmethod
    def backward(ctx, g):
        window, (n, c, h, w) = ctx.kept
        g = last(g)
        gx = empty(n, c, h, w)
        places = window.kernel, window.stride, window.padding, window.exclusive
        loops().mean_pool_backward(
            g.data_ptr(), n, h, w, c, *places, gx.data_ptr(), window.rows, window.columns
        )
        return gx


def to_numbers(images: Tensor, scale: np.ndarray, offset: np.ndarray) -> Tensor:
    """images uint8 [N, H, W, C] to float32 [N, C, H, W], each channel pixel * scale + offset."""
    n, h, w, c = images.shape
    out = empty(n, c, h, w)
    images = images.contiguous()
    loops().to_numbers(images.data_ptr(), n * h * w, c, scale, offset, out.data_ptr())
    return out
