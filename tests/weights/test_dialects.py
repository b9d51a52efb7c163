"""Names and layouts of other projects against what those projects have, and there and back."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import paddle
import pytest
from deep_networks import is_deep
from golden_fill import blank, fill, image

import ppcls
from ppcls.models import registry
from ppcls.models.families import residual
from ppcls.models.families.efficientnet import EfficientNetSpec
from ppcls.utils.errors import UserError
from ppcls.weights import dialects
from ppcls.weights.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = json.loads((GOLDEN / "foreign_names.json").read_text())
LOGITS = json.loads((GOLDEN / "timm_logits.json").read_text())

# What timm calls by these names has another structure; of this one, it has the same tensors.
OF_TIMM = {
    "ResNet200_vd": {"depths": (3, 24, 36, 3)},
    "SE_ResNeXt50_vd_32x4d": {"stem": residual.DEEP},
}
ROUNDED = (("timm", "SE_ResNet18_vd"), ("timm", "SE_ResNet34_vd"))  # see the refusals below


@cache
def shapes(spec):
    with paddle.LazyGuard():
        state = registry.network(spec).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def tensors(dialect, spec):
    """Name → shape of every tensor of a network in a dialect, in its order."""
    spec = dialects.built(dialect, spec)
    places = dialects.places(dialect, spec, shapes(spec))
    found = {}
    for name, place in places.items():
        found[name] = place.shape
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = ()
    return found


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        pytest.param(dialect, name, marks=pytest.mark.slow if is_deep(name) else ())
        for dialect, names in NAMES.items()
        for name in names
        if (dialect, name) not in ROUNDED
    ],
)
def test_names_shapes_and_order_are_the_projects_own(dialect, name):
    spec = registry.spec_of(name)
    if dialect == "timm":
        spec = replace(spec, **OF_TIMM.get(name, {}))
    found = tensors(dialect, spec)
    text = "\n".join(f"{key} {list(shape)}" for key, shape in found.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == NAMES[dialect][name]
    assert dialects.recognise(list(found)) == dialect


def shuffled(mapping):
    keys = list(mapping)
    np.random.default_rng(0).shuffle(keys)
    return {key: mapping[key] for key in keys}


@pytest.mark.parametrize("name", LOGITS)
def test_logits_equal_those_of_timm(name):
    golden = LOGITS[name]
    weights = {
        key: fill(key, shape) for key, shape in tensors("timm", registry.spec_of(name)).items()
    }
    with blank():
        net = ppcls.create_model(name, weights=shuffled(weights))
    logits = evaluate(net, golden["size"])
    expected = np.array(golden["logits"])
    assert np.linalg.norm(logits[:16] - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(logits) == pytest.approx(golden["norm"], rel=1e-5)
    if name == "ResNeSt50":
        return
    # The network's own weights say how it was built, without any other record.
    with blank():
        again = ppcls.create_model(name, weights=dict(net.state_dict()))
    np.testing.assert_array_equal(evaluate(again, golden["size"]), logits)


def evaluate(net, side):
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(image(side)))[0].numpy()


def small(name):
    """The structure with few blocks and channels."""
    spec = registry.spec_of(name)
    if isinstance(spec, EfficientNetSpec):
        widths = (8, 8, 16, 16, 24, 24, 32)
        return replace(spec, depths=(1, 2, 1, 1, 1, 1, 1), widths=widths, stem=8, head=40)
    if name in LIGHT:
        return spec
    return replace(
        spec,
        depths=(1, 2, 3, 1),
        widths=(16, 32, 48, 64),
        mids=spec.mids and (8, 16, 16, 32),
        groups=tuple(min(groups, 2) for groups in spec.groups),
        stem=replace(spec.stem, widths=(8, 8, 16)[-len(spec.stem.widths) :]),
        se=2 if spec.se else 0,
    )


def weights_of(spec, classes=7):
    rng = np.random.default_rng(0)
    state = {k: rng.standard_normal(s, dtype="float32") for k, s in shapes(spec).items()}
    heads = {"head.weight": (state["head.weight"].shape[0], classes), "head.bias": (classes,)}
    state |= {k: rng.standard_normal(s, dtype="float32") for k, s in heads.items()}
    marks = {k: np.full(1, getattr(spec, k), "float32") for k in state if hasattr(spec, k)}
    return state | marks


RESIDUAL = (
    "ResNet18", "ResNet50", "ResNet50_vc", "ResNet50_vd", "ResNeXt50_32x4d", "SE_ResNeXt50_32x4d",
    "Res2Net50_vd_26w_4s", "ResNeSt50", "ResNeSt50_fast_1s1x64d", "RegNetX_4GF",
)  # fmt: skip
LIGHT = ("PPLCNet_x0_25", "MobileNetV3_small_x0_5", "MobileNetV3_large_x0_75")
ROUND_TRIPS = [
    *((name, to) for name in RESIDUAL for to in ("native", "paddleclas", "timm")),
    *(("EfficientNetB0", to) for to in ("native", "paddleclas", "timm", "efficientnet-pytorch")),
    *(("EfficientNetLite0", to) for to in ("native", "timm", "efficientnet-pytorch")),
    *((name, to) for name in LIGHT for to in ("native", "paddleclas", "timm")),
]


@pytest.mark.parametrize(("name", "to"), ROUND_TRIPS)
def test_there_and_back_is_exact_whatever_the_order(name, to):
    spec = small(name)
    state = weights_of(dialects.built(to, spec))
    there = convert(state, spec, to)
    assert dialects.recognise(list(there)) == to
    back = convert(shuffled(there), spec, "native")
    assert list(back) == list(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_layouts():
    spec = small("SE_ResNet18_vd")
    state = weights_of(spec)
    there = convert(state, spec, "paddleclas")
    squeeze = state["stages.0.0.branch.2.gate.1.weight"]
    assert squeeze.shape == (8, 16, 1, 1)
    np.testing.assert_array_equal(there["bb_0_0.scale.squeeze.weight"], squeeze[:, :, 0, 0].T)
    np.testing.assert_array_equal(there["out.weight"], state["head.weight"])

    lite = convert(weights_of(small("EfficientNetLite0")), small("EfficientNetLite0"), "timm")
    assert lite["classifier.weight"].shape == (7, 40)
    assert lite["bn1.num_batches_tracked"].dtype == np.int64
    assert lite["bn1.num_batches_tracked"].shape == ()


def test_timms_extra_bias_goes_into_the_mean():
    spec = small("ResNeSt50")
    timm = convert(weights_of(dialects.built("timm", spec)), spec, "timm")
    mean, bias = "layer1.0.conv2.bn1.running_mean", "layer1.0.conv2.fc1.bias"
    assert not timm[bias].any()
    native = convert({**timm, bias: np.full_like(timm[bias], 0.5)}, spec, "native")
    squeeze = native["stages.0.0.branch.1.squeeze.norm._mean"]
    np.testing.assert_array_equal(squeeze, timm[mean] - np.float32(0.5))


def test_another_projects_network_is_told_from_ours():
    """A checkpoint of timm's says how its structure differs, by its own names."""
    spec = registry.spec_of("ResNet200_vd")
    other = tensors("timm", replace(spec, depths=(3, 24, 36, 3)))
    weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in other.items()}
    with pytest.raises(UserError) as caught:
        dialects.to_native(weights, spec, shapes(spec))
    assert str(caught.value) == (
        "with timm/torchvision's names, it has 3, 24, 36, 3 blocks, this network 3, 12, 48, 3; "
        "180 of 1,027 tensors are missing: layer3.36.conv1.weight, layer3.36.bn1.weight, "
        "layer3.36.bn1.bias, layer3.36.bn1.running_mean and 176 more; "
        "180 are unexpected: layer2.12.conv1.weight, layer2.12.bn1.weight, layer2.12.bn1.bias, "
        "layer2.12.bn1.running_mean and 176 more"
    )

    spec = registry.spec_of("SE_ResNeXt50_vd_32x4d")
    other = tensors("timm", replace(spec, stem=residual.DEEP))
    weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in other.items()}
    words = r"names, 17 have another shape: conv1.0.weight \[32, 3, 3, 3\] for \[64, 3, 3, 3\], "
    with pytest.raises(UserError, match=words):
        dialects.to_native(weights, spec, shapes(spec))


def test_all_kinds_of_misfits_are_told_at_once():
    spec = small("ResNet50")
    weights = convert(weights_of(spec), spec, "paddleclas")
    del weights["stem.0.bn._mean"]
    weights["blocks.99.conv0.conv.weight"] = np.zeros(3, "float32")
    weights["stem.0.conv.weight"] = weights["stem.0.conv.weight"][:, :, 1:]
    weights["fc.bias"] = weights["fc.bias"].astype("int64")
    words = (
        r"^with PaddleClas's names, it has 8 blocks, this network 7; "
        r"1 of 132 tensors are missing: stem.0.bn._mean; "
        r"1 are unexpected: blocks.99.conv0.conv.weight; "
        r"1 have another shape: stem.0.conv.weight \[16, 3, 6, 7\] for \[16, 3, 7, 7\]; "
        r"1 hold no floats: fc.bias \(int64\)$"
    )
    with pytest.raises(UserError, match=words):
        convert(weights, spec, "native")


def test_names_of_no_project():
    with pytest.raises(UserError, match=r"its names \(a.b, c\) are not those of ppcls, PaddleC"):
        dialects.recognise(["a.b", "c"])


@pytest.mark.parametrize(
    ("name", "to", "words"),
    [
        ("SE_ResNet18_vd", "timm", "to multiples of 8, a stage 8, 8, 16, 32; this network has 4,"),
        ("EfficientNetLite0", "paddleclas", "PaddleClas has no EfficientNet-Lite"),
        ("ResNet18", "efficientnet-pytorch", "efficientnet-pytorch has EfficientNets alone"),
        ("PPLCNet_x1_0", "efficientnet-pytorch", "efficientnet-pytorch has EfficientNets alone"),
        ("MobileNetV3_large_x1_25", "timm", "timm has no MobileNetV3 large of 1.25 times"),
    ],
)
def test_networks_a_project_has_not(name, to, words):
    with pytest.raises(UserError, match=words):
        dialects.built(to, registry.spec_of(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ResNet18", "builds this network without a projection in stage 1's first block, unlike"),
        ("ResNeSt50", "with the padding counted in 3x3 means, unlike this one: its logits"),
        (
            "Res2Net50_26w_4s",
            "without a chain of convolutions in stage 1's first block and with the padding counted",
        ),
    ],
)
def test_what_would_compute_other_logits_elsewhere_is_refused(name, words):
    spec = small(name)
    with pytest.raises(UserError, match=f"timm/torchvision .*{words}"):
        convert(weights_of(spec), spec, "timm")
    built = dialects.built("timm", spec)
    with pytest.raises(UserError, match="PaddleClas builds this network with"):
        convert(weights_of(built), spec, "paddleclas")


def test_foreign_heads_of_another_size_are_reported():
    spec = registry.spec_of("EfficientNetLite0")
    weights = convert(weights_of(spec), spec, "efficientnet-pytorch")
    with pytest.raises(ValueError, match="weights: its classifier has 7 classes, this network's"):
        ppcls.create_model("EfficientNetLite0", 5, weights)
    net = ppcls.create_model("EfficientNetLite0", 5, weights, new_head=True)
    assert net.head.bias.shape == [5]
    np.testing.assert_array_equal(net.stem.conv.weight, weights["_conv_stem.weight"])


def test_mappings_of_other_types(capfd):
    spec = registry.spec_of("EfficientNetLite0")
    weights = weights_of(spec)
    half = {key: value.astype("float16") for key, value in weights.items()}
    net = ppcls.create_model("EfficientNetLite0", 7, half)
    assert net.head.weight.dtype == paddle.float32
    np.testing.assert_array_equal(net.head.weight.numpy(), half["head.weight"].astype("float32"))
    assert "cast 247 of 247 tensors from float16 to float32" in "".join(capfd.readouterr())
    assert weights["head.bias"].flags.writeable  # the caller's arrays are left as they were

    weights["head.bias"][3] = np.nan
    with pytest.raises(ValueError, match=r"weights: NaN or infinity in 1 of 247 tensors .'head.b"):
        ppcls.create_model("EfficientNetLite0", 7, weights)
    with pytest.raises(ValueError, match=r"weights: 'head.bias' gives no array: "):
        ppcls.create_model("EfficientNetLite0", 7, {"head.bias": [[1.0], [1.0, 2.0]]})
    for odd in ({"head.bias": "text"}, {3: np.zeros(7)}, {"head.bias": None}):
        with pytest.raises(ValueError, match=r"weights: .* should name an array of numbers"):
            ppcls.create_model("EfficientNetLite0", 7, {**weights, **odd})
