"""No network is exported with operators that Paddle's converter to TensorRT stumbles over."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.api import create_model
from ppcls.export import Answers, Form
from ppcls.models import registry
from ppcls.models.fuse import fused
from ppcls.models.layers import Normalize

# Their converters fail from TensorRT 10.8 on.
REFUSED = {"pd_op.stack", "pd_op.arange"}
ONE_OF_EACH = ["ResNet18_vd", "EfficientNetLite0", "MobileNetV3_small_x0_35", "PPLCNet_x0_25"]
FORM = Form(input="uint8", dynamic_size=True)  # which takes more operators than the default


def operators(network, shape):
    """The names of all operators of the program that an export would write."""
    spec = paddle.static.InputSpec(shape, "uint8", "image")
    traced = paddle.jit.to_static(network, input_spec=[spec], full_graph=True)
    program = traced.forward.concrete_program.main_program
    return {op.name() for op in program.global_block().ops}


def exported(net, form=FORM):
    network = Answers(Normalize(np.full(3, 1 / 255), np.zeros(3)), net, nn.Softmax(), form)
    network.eval()
    with fused(net):
        return operators(network, [None, None, None, 3])


@pytest.fixture
def computed(monkeypatch):
    """The names of the operators that are computed from now on, of those that matter here."""
    names = set()

    def counted(name, operator):
        def compute(*args, **kwargs):
            names.add(f"pd_op.{name}")
            return operator(*args, **kwargs)

        return compute

    for name in ("conv2d", "stack", "arange"):
        monkeypatch.setattr(paddle._C_ops, name, counted(name, getattr(paddle._C_ops, name)))
    return names


def test_each_family_has_one_here():
    families = [registry.family_of(registry.spec_of(name)) for name in ONE_OF_EACH]
    assert sorted(map(id, families)) == sorted(map(id, registry.FAMILIES))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_one_network_of_each_family_computes_neither_stack_nor_arange(name, computed):
    """Run and not traced: tracing takes seconds, and every name is traced below."""
    net = create_model(name, 2)
    computed.clear()  # of making it
    net.eval()
    with paddle.no_grad(), fused(net):
        net(paddle.zeros([1, 3, 32, 32]))
    assert computed == {"pd_op.conv2d"}


def test_what_is_computed_is_seen(computed):
    paddle.stack([paddle.arange(3), paddle.arange(3)])
    assert computed == REFUSED


@pytest.mark.slow
def test_no_exported_network_has_either():
    seen = []
    for name in registry.list_models():
        spec = registry.spec_of(name)
        if spec in seen:
            continue
        seen.append(spec)
        found = exported(create_model(name, 2))
        assert "pd_op.conv2d" in found, name
        assert not found & REFUSED, name


@pytest.mark.slow
@pytest.mark.parametrize("form", [Form(features=True), Form(explain=True)])
def test_further_outputs_have_neither(form):
    found = exported(create_model("EfficientNetLite0", 2), form)
    assert not found & REFUSED


def test_such_an_operator_would_be_found():
    class Stacks(nn.Layer):
        def forward(self, images):
            return paddle.stack([images, images]) + paddle.arange(3).astype("uint8")

    assert operators(Stacks(), [None, 4, 4, 3]) >= REFUSED
