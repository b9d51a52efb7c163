"""Class activation maps add up to logits, Grad-CAM is they, and both change with the weights."""

import numpy as np
import paddle
import pytest
import small_network
from paddle import nn

from ppcls.api import create_model
from ppcls.models import registry
from ppcls.models.class_maps import class_maps, grad_cam, why_inexact, why_no_grad_cam
from ppcls.utils.errors import UserError

CLASSES = 4
# One of each family's kinds; the last two's have a layer between the mean and the classifier.
EXACT = (
    *("ResNet18", "ResNet50_vd", "SE_ResNet18_vd", "Res2Net50_26w_4s", "ResNeSt50_fast_1s1x64d"),
    *("RegNetX_200MF", "ResNeXt50_32x4d", "EfficientNetB0", "EfficientNetLite0"),
)
DEEP = ("ResNet50_vd", "Res2Net50_26w_4s", "ResNeSt50_fast_1s1x64d", "ResNeXt50_32x4d")
INEXACT = ("MobileNetV3_small_x0_35", "PPLCNet_x0_25")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return paddle.to_tensor(random.normal(0, 1, (2, 3, 64, 64)).astype(np.float32))


def made(name):
    paddle.seed(0)
    return small_network.settle(create_model(name, CLASSES))


def all_of(images):
    return np.tile(np.arange(CLASSES), (len(images), 1))


def require_close(found, expected, share=1e-4):
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def test_every_family_has_one_here():
    specs = [type(registry.spec_of(name)) for name in (*EXACT, *INEXACT)]
    assert {type(spec) for spec in registry.SPECS.values()} <= set(specs)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in EXACT]
)
def test_their_mean_and_the_bias_are_the_logits(name, images):
    net = made(name)
    assert why_inexact(net, images) == ""
    with paddle.no_grad():
        features = net.features(images)
        maps = class_maps(net, features).numpy()
        logits = net(images).numpy()
    assert maps.shape == (2, CLASSES, 2, 2)
    require_close(maps.mean((2, 3)) + net.head.bias.numpy(), logits)
    require_close(grad_cam(net, images, all_of(images)), maps)


@pytest.mark.parametrize("name", INEXACT)
def test_where_another_layer_stands_before_the_classifier(name, images):
    net = made(name)
    assert why_inexact(net, images).startswith("has more than a mean over the places")
    classes = np.array([[2, 0], [1, 3]])
    found = grad_cam(net, images, classes)
    # By the definition: gradients of the logit with respect to what is pooled.
    kept = []
    hook = net.pool.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    logits = net(images)
    hook.remove()
    for row in range(2):
        for column in range(2):
            logit = logits[row, int(classes[row, column])]
            (gradient,) = paddle.grad(logit, kept[0], retain_graph=True)
            weights = gradient[row].sum([1, 2], keepdim=True)
            require_close(found[row, column], (weights * kept[0][row]).sum(0).numpy())


def test_a_network_of_ones_own(images):
    net = small_network.settle(small_network.Small())
    assert why_inexact(net, images) == ""
    assert why_no_grad_cam(net) == ""
    maps = class_maps(net, net.features(images)).numpy()
    require_close(grad_cam(net, images, np.array([[1], [0]]))[:, 0], maps[[0, 1], [1, 0]])
    bare = nn.Sequential(net)
    assert why_inexact(bare, images) == why_no_grad_cam(bare) == "has no method features"


class Squared(small_network.Small):
    """What it pools is not what it classifies."""

    def pooled(self, features):
        return super().pooled(features) ** 2


class Strongest(small_network.Small):
    """The strongest place counts, not the mean."""

    def pooled(self, features):
        return features[-1].max([2, 3])


class Flat(small_network.Small):
    def features(self, images):
        return [super().pooled(super().features(images))]

    def pooled(self, features):
        return features[-1]


@pytest.mark.parametrize("kind", [Squared, Strongest, Flat])
def test_what_is_no_mean_and_no_linear_layer_is_found_out(kind, images):
    net = small_network.settle(kind())
    assert why_inexact(net, images).startswith("has more than a mean")
    if kind is Flat:
        with pytest.raises(UserError, match=r"last features are \[2, 16\], not \[N, C, h, w\]"):
            grad_cam(net, images, all_of(images))


def ranks(maps):
    return maps.reshape(len(maps) * maps.shape[1], -1).argsort(1).argsort(1)


def alike(first, second):
    """The mean rank correlation of maps [N, k, h, w]."""
    pairs = zip(ranks(first), ranks(second), strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


def test_random_weights_change_the_map_from_the_last_layer_on(images):
    """The cascading randomisation of arXiv:1810.03292."""
    net, other = (small_network.settle(small_network.Small(), seed) for seed in (0, 5))
    before = grad_cam(net, images, all_of(images)[:, :2])
    assert alike(before, grad_cam(net, images, all_of(images)[:, :2])) == 1
    layers = [(net.head, other.head)]
    layers += [(net.body[i], other.body[i]) for i in (2, 1, 0)]
    found = []
    for own, random in layers:
        own.set_state_dict(random.state_dict())
        found.append(alike(before, grad_cam(net, images, all_of(images)[:, :2])))
    assert max(np.abs(found)) < 0.8
    assert abs(found[-1]) < 0.5
    expected = grad_cam(other, images, all_of(images)[:, :2])
    np.testing.assert_allclose(grad_cam(net, images, all_of(images)[:, :2]), expected, rtol=1e-5)
