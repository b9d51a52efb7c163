"""What holds for every op of another kind than geometry, and the ops made of ops."""

import pickle

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from ppcls.config.load import from_plain, load, to_plain
from ppcls.data.auto_augment import AugMix, AutoAugment, RandAugment, TrivialAugment
from ppcls.data.transforms import (
    ColorJitter,
    Cutout,
    GaussianBlur,
    Grayscale,
    GridMask,
    HideAndSeek,
    HorizontalFlip,
    Lighting,
    OneOf,
    Pad,
    RandomApply,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotation,
    Transform,
    VerticalFlip,
    apply,
)
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError

NESTED = OneOf(
    ops=(
        RandomApply(prob=0.9, ops=(GaussianBlur(), ColorJitter(contrast=0.5))),
        AutoAugment(),
        OneOf(ops=(Cutout(), HideAndSeek(mode="pixel"))),
    ),
    weights=(1.0, 0.0, 3.0),
)
OPS = [
    Pad(pixels=3),
    Pad(pixels=(1, 2, 3, 4), mode="reflect"),
    Rotation(),
    ColorJitter(),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    Grayscale(),
    GaussianBlur(),
    Lighting(),
    AutoAugment(),
    RandAugment(),
    RandAugment(num_ops=3, magnitude_std=0.5),
    TrivialAugment(),
    AugMix(),
    AugMix(width=2, depth=1),
    RandomErasing(),
    RandomErasing(prob=1.0, mode="mean"),
    Cutout(),
    Cutout(holes=2, length=8, mode="pixel"),
    HideAndSeek(),
    HideAndSeek(mode="pixel"),
    GridMask(),
    GridMask(rotate=30.0, mode="pixel"),
    RandomApply(ops=(Lighting(), HorizontalFlip())),
    NESTED,
]
RECIPE = """
model: {name: ResNet18}
train:
  epochs: 1
  batch_size: 1
  schedule: {lr: 0.1}
  ops:
    - {op: random_resized_crop}
"""


def noise(height=50, width=70, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_op_is_a_function_of_image_rng_and_size(op, channels):
    image = noise(channels=channels)
    given = image.copy()
    results = set()
    for seed in range(12):
        first, second = op(image, rng(seed), 32), op(np.asfortranarray(image), rng(seed), 32)
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.uint8
        results.add(first.tobytes())
        if not isinstance(op, Pad):
            assert first.shape == image.shape
    np.testing.assert_array_equal(image, given)
    fixed = isinstance(op, Pad) or op == ColorJitter()
    no_colours = channels == 1 and isinstance(op, Grayscale | Lighting)
    assert (len(results) == 1) == (fixed or no_colours)


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_every_op_draws_equally_often_whatever_the_image(op):
    for seed in range(10):
        after = set()
        for height, width, channels in [(50, 70, 3), (300, 40, 1), (40, 300, 4), (1, 1, 3)]:
            stream = rng(seed)
            op(noise(height, width, channels), stream, 32)
            after.add(stream.random())
        assert len(after) == 1


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_every_op_is_a_node_that_is_read_back(op):
    adapter = TypeAdapter(Transform)
    assert adapter.validate_python(adapter.dump_python(op)) == op
    assert adapter.validate_python(adapter.dump_python(op, mode="json")) == op
    assert pickle.loads(pickle.dumps(op)) == op


def test_random_apply_runs_all_or_none():
    image, stream = noise(), rng()
    op = RandomApply(prob=0.3, ops=(HorizontalFlip(prob=1.0), VerticalFlip(prob=1.0)))
    turned = []
    for _ in range(2000):
        result = op(image, stream, 9)
        turned.append(result is not image)
        np.testing.assert_array_equal(result, image[::-1, ::-1] if turned[-1] else image)
    assert abs(np.mean(turned) - 0.3) < 0.035


@pytest.mark.parametrize(
    ("weights", "shares"),
    [(None, (1 / 3, 1 / 3, 1 / 3)), ((1, 0, 3), (0.25, 0, 0.75)), ((0, 0, 0.1), (0, 0, 1))],
)
def test_one_of_chooses_by_weight(weights, shares):
    image, stream = noise(3, 4), rng()
    op = OneOf(ops=tuple(Pad(pixels=(i, 0, 0, 0)) for i in range(3)), weights=weights)
    counts = np.bincount([op(image, stream, 9).shape[1] - 4 for _ in range(3000)], minlength=3)
    np.testing.assert_allclose(counts / 3000, shares, atol=0.03)
    assert (counts[np.array(shares) == 0] == 0).all()


def test_apply_takes_ops_made_of_ops():
    ops = (RandomResizedCrop(), NESTED, RandomErasing())
    result = apply(ops, noise(), rng(3), 24)
    assert result.shape == (24, 24, 3)
    np.testing.assert_array_equal(result, apply(ops, noise(), rng(3), 24))
    with pytest.raises(UserError, match="pad gave 28x28"):
        apply((Resize(), Pad(pixels=2)), noise(), rng(), 24)


def test_a_recipe_holds_ops_in_ops(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE + "    - {op: one_of, weights: [1, 0, 3], ops: [\n"
        "        {op: random_apply, prob: 0.9, ops: [\n"
        "          {op: gaussian_blur}, {op: color_jitter, contrast: 0.5}]},\n"
        "        {op: auto_augment},\n"
        "        {op: one_of, ops: [{op: cutout}, {op: hide_and_seek, mode: pixel}]}]}\n"
    )
    recipe = load(Recipe, path)
    assert recipe.train.transforms == (RandomResizedCrop(), NESTED)
    assert from_plain(Recipe, to_plain(recipe), "checkpoint") == recipe
    changed = load(Recipe, path, ["train.transforms.1.ops.2.ops.0.holes=3"])
    assert changed.train.transforms[1].ops[2].ops[0] == Cutout(holes=3)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        (
            "{op: random_apply, ops: [{op: pad, pixels: 1},\n      {op: color_jitter, hues: 0.1}]}",
            "{path}:10: unknown key 'train.transforms.1.ops.1.hues'; did you mean 'hue'?",
        ),
        (
            "{op: one_of, ops: [{op: random_apply, ops: [{op: cutou}]}]}",
            "{path}:9: train.transforms.1.ops.0.ops.0.op: unknown 'cutou'; did you mean 'cutout'?",
        ),
        (
            "{op: one_of, weights: [1], ops: [{op: cutout}, {op: lighting}]}",
            "{path}:9: train.transforms.1: 1 weight for 2 ops: give each one",
        ),
        ("{op: random_apply}", "{path}:9: missing key 'ops' under 'train.transforms.1'"),
        (
            "{op: random_apply, ops: []}",
            "{path}:9: train.transforms.1: ops is empty: name one op or more",
        ),
    ],
)
def test_mistakes_in_nested_ops_are_placed(tmp_path, line, mistake):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{RECIPE}    - {line}\n")
    with pytest.raises(UserError) as raised:
        load(Recipe, path)
    assert str(raised.value) == mistake.replace("{path}", str(path))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "one_of", "ops": ()}, "ops is empty"),
        ({"op": "one_of", "ops": ({"op": "cutout"},), "weights": (0,)}, "weights are all 0"),
        ({"op": "one_of", "ops": ({"op": "cutout"},), "weights": (-1,)}, "equal to 0"),
        ({"op": "random_apply", "prob": 2, "ops": ({"op": "cutout"},)}, "equal to 1"),
    ],
)
def test_mistakes_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Transform).validate_python(given)
