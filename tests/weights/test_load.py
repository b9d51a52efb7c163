"""Weights of each dialect into a network: all or nothing."""

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.utils.errors import UserError
from ppcls.weights import files, load

NAME = "EfficientNetLite0"


def arrays(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def filled(net):
    """Other numbers for every tensor of a network, in its order."""
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=v.shape).astype("float32") for k, v in arrays(net).items()}


@pytest.fixture
def net():
    paddle.seed(0)
    return ppcls.create_model(NAME, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("stem.conv.weight"), "1 of 247 tensors are missing: stem.conv.weight$"),
        (lambda t: t.update(extra=np.zeros(1)), "1 are unexpected: extra$"),
        (
            lambda t: t.update({"stem.conv.weight": np.zeros((32, 1, 3, 3))}),
            r"1 have another shape: stem.conv.weight \[32, 1, 3, 3\] for \[32, 3, 3, 3\]$",
        ),
        (
            lambda t: t.update({"stem.conv.weight": np.zeros((32, 3, 3, 3), "int8")}),
            r"1 hold no floats: stem.conv.weight \(int8\)$",
        ),
        (
            lambda t: t.update({"head.bias": np.zeros(11, "float32")}),  # the matrix has 10 columns
            r"1 have another shape: head.bias \[11\] for \[10\]$",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_set(net, change, words):
    before, tensors = arrays(net), filled(net)
    change(tensors)
    with pytest.raises(UserError, match=words) as caught:
        load.put(net, tensors, "w.npz", new_head=True)
    assert str(caught.value).startswith("w.npz: not weights of this network")
    for name, value in arrays(net).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_head_of_another_size_is_left_out_only_when_asked(net):
    tensors = filled(ppcls.create_model(NAME, 7))
    before = arrays(net)
    with pytest.raises(UserError, match=r"classifier has 7 classes, this network's has 10: -o"):
        load.put(net, tensors, "w.npz", new_head=False)
    notes = load.put(net, tensors, "w.npz", new_head=True)
    assert notes == ["w.npz: classifier of 7 classes left out; the new one has 10"]
    after = arrays(net)
    np.testing.assert_array_equal(after["head.weight"], before["head.weight"])
    np.testing.assert_array_equal(after["stem.conv.weight"], tensors["stem.conv.weight"])


def test_create_model_takes_a_file_and_a_mapping(tmp_path, net):
    tensors = filled(net)
    files.write_safetensors(tmp_path / "w.safetensors", tensors, {})
    files.write_pdparams(tmp_path / "w.pdparams", tensors)
    x = paddle.to_tensor(np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype("float32"))
    outputs = []
    for weights in (tensors, tmp_path / "w.safetensors", str(tmp_path / "w.pdparams")):
        model = ppcls.create_model(NAME, 10, weights)
        model.eval()
        outputs.append(model(x).numpy())
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
