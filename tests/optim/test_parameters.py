"""Frozen parameters and the layers kept in evaluation mode with them."""

from dataclasses import replace

import numpy as np
import pytest

import ppcls
from ppcls.models import registry
from ppcls.models.layers import DropPath
from ppcls.optim.parameters import freeze
from ppcls.utils.errors import UserError
from ppcls.weights import files


@pytest.fixture
def net():
    return registry.network(replace(registry.spec_of("ResNet18"), depths=(1, 1, 1, 1)), 3)


def test_patterns_name_what_is_frozen(net):
    frozen = freeze(net, ("stem.*", "stages.0.*"))
    stopped = {
        n.split(".")[0]
        for n, p in net.stages.named_parameters()
        if p.stop_gradient and not n.endswith(("_mean", "_variance"))
    }
    assert stopped == {"0"}
    assert all(not p.stop_gradient for p in net.head.parameters())
    net.train()
    for layer in frozen:
        layer.eval()
    norms = {n: layer.training for n, layer in net.named_sublayers() if n.endswith("norm")}
    assert {n for n, training in norms.items() if not training} == {
        n for n in norms if n.startswith(("stem.", "stages.0."))
    }


def test_nothing_is_frozen_unasked(net):
    assert freeze(net, ()) == []
    assert not net.stem[0].conv.weight.stop_gradient


def test_a_pattern_without_effect_and_one_too_many(net):
    with pytest.raises(UserError, match=r"'layers.*' matches no parameter; there are stem"):
        freeze(net, ("stem.*", "layers.*"))
    with pytest.raises(UserError, match="nothing is left to train"):
        freeze(net, ("*",))


def test_a_frozen_block_drops_nothing_and_one_half_frozen_does():
    net = registry.network(registry.spec_of("EfficientNetB0"), 3)
    frozen = freeze(net, ("stem.*", "stages.[0-2].*", "*.norm.*"))
    net.train()
    for layer in frozen:
        layer.eval()
    paths = {n: p.training for n, p in net.named_sublayers() if isinstance(p, DropPath)}
    assert {n for n, training in paths.items() if not training} == {
        n for n in paths if n.startswith(("stages.0.", "stages.1.", "stages.2."))
    }
    assert net.stages[3].training


def test_a_rate_of_0_leaves_weights_and_lets_norms_learn(workdir, run):
    """What PaddleClas's lr_mult_list of 0 does, unlike `freeze`."""
    network = ppcls.create_model("EfficientNetLite0", 2)
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    files.write_npz(workdir / "start.npz", before)
    asked = ["model.weights=start.npz", "train.lr_scale={stem.*: 0}", "train.epochs=1"]
    assert run("train", "-c", "recipe.yaml", "-o", *asked)[0] == 0
    after = files.read(workdir / "runs/small/latest.safetensors").tensors
    same = {n for n, value in before.items() if np.array_equal(after[n], value)}
    own = {n for n in before if n.startswith("stem.")}
    assert own - same == {"stem.norm._mean", "stem.norm._variance"}
    assert "head.weight" not in same
