"""Parameters and multiply-adds of a network, counted on its own layers."""

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import paddle
from paddle import nn
from paddle.utils import unique_name

from ppcls.models import registry
from ppcls.models.spec import StagedSpec


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one image."""

    params: int  # trainable parameters: batch norm's running statistics are left out
    macs: int  # multiply-adds of the convolutions and linear layers


def count(net: nn.Layer, input_shape: Sequence[int]) -> Complexity:
    """Complexity for one float32 image of shape [C, H, W]. The network stays as it was."""
    return add_up(net, input_shape, repeats={})


def count_by_name(name: str) -> Complexity:
    """Complexity of a network by name at the resolution of its published figures.

    Of those of a family no weights are allocated and nothing is computed: static mode infers the
    shapes. Two blocks a stage are built where the blocks after a stage's first cost the same: one
    stands for them all. A network of one's own runs once; Paddle's generator stays as it was.

    Raises:
        UserError: no network has this name.
    """
    spec = registry.spec_of(name)
    shape = (3, spec.resolution, spec.resolution)
    if not isinstance(spec, StagedSpec):
        state = paddle.get_rng_state()
        try:
            return count(registry.network(spec), shape)
        finally:
            paddle.set_rng_state(state)
    built = replace(spec, depths=tuple(min(depth, 2) for depth in spec.depths))
    with shapes_only():
        net = registry.network(built if spec.alike else spec)
        stages = zip(net.stages, spec.depths, strict=True)
        repeats = {blocks[1]: depth - 1 for blocks, depth in stages if depth > 1 and spec.alike}
        return add_up(net, shape, repeats)


def add_up(net: nn.Layer, input_shape: Sequence[int], repeats: Mapping) -> Complexity:
    """Complexity of `net` with the layers of each block in `repeats` counted so many times."""
    times = dict.fromkeys(net.sublayers(include_self=True), 1)
    for block, repeat in repeats.items():
        times |= dict.fromkeys(block.sublayers(include_self=True), repeat)
    macs = 0

    def add(layer, _, output):
        nonlocal macs
        # A convolution's weight is [out, in / groups, kh, kw]: each output value takes as many
        # multiply-adds as there are weights for one output channel. A linear layer's is [in, out].
        weight = layer.weight.shape
        fan_in = math.prod(weight[1:]) if isinstance(layer, nn.Conv2D) else weight[0]
        macs += times[layer] * fan_in * math.prod(output.shape)
        return output

    modes = {layer: layer.training for layer in times}
    counted = [layer for layer in times if isinstance(layer, nn.Conv2D | nn.Linear)]
    hooks = [layer.register_forward_post_hook(add) for layer in counted]
    try:
        net.eval()
        with paddle.no_grad():
            net(paddle.zeros([1, *input_shape]))
    finally:
        for hook in hooks:
            hook.remove()
        for layer, training in modes.items():
            layer.training = training
    params = sum(n * trainable_parameters(layer) for layer, n in times.items())
    return Complexity(params, macs)


def trainable_parameters(layer: nn.Layer) -> int:
    """How many the layer itself has, without those of its sublayers."""
    own = layer.parameters(include_sublayers=False)
    return sum(math.prod(p.shape) for p in own if not p.stop_gradient)


@contextmanager
def shapes_only():
    """Static mode with a program of its own; dynamic mode comes back, after an error too."""
    program = paddle.static.Program()
    startup = paddle.static.Program()
    was_dynamic = paddle.in_dynamic_mode()
    # Parameter names are numbered, optimizer states are saved under them, and `disable_static`
    # starts them anew: hand the numbering back, or later networks would take names in use.
    numbering = unique_name.switch()
    paddle.enable_static()
    try:
        with paddle.static.program_guard(program, startup), unique_name.guard():
            yield
    finally:
        if was_dynamic:
            paddle.disable_static()
        unique_name.switch(*numbering)
