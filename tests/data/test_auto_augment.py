"""Policies: the papers' tables written out here, the changes held against Pillow's own calls."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from pydantic import TypeAdapter, ValidationError

from ppcls.data import auto_augment
from ppcls.data.auto_augment import AugMix, AutoAugment, RandAugment, TrivialAugment
from ppcls.data.transforms import Transform

# "AutoAugment policy found on reduced ImageNet", with the ranges of the operations' table.
PAPER = """
Posterize 0.4 8 Rotate 0.6 9       | Solarize 0.6 5 AutoContrast 0.6 5
Equalize 0.8 8 Equalize 0.6 3      | Posterize 0.6 7 Posterize 0.6 6
Equalize 0.4 7 Solarize 0.2 4      | Equalize 0.4 4 Rotate 0.8 8
Solarize 0.6 3 Equalize 0.6 7      | Posterize 0.8 5 Equalize 1.0 2
Rotate 0.2 3 Solarize 0.6 8        | Equalize 0.6 8 Posterize 0.4 6
Rotate 0.8 8 Color 0.4 0           | Rotate 0.4 9 Equalize 0.6 2
Equalize 0.0 7 Equalize 0.8 8      | Invert 0.6 4 Equalize 1.0 8
Color 0.6 4 Contrast 1.0 8         | Rotate 0.8 8 Color 1.0 2
Color 0.8 8 Solarize 0.8 7         | Sharpness 0.4 7 Invert 0.6 8
ShearX 0.6 5 Equalize 1.0 9        | Color 0.4 0 Equalize 0.6 3
Equalize 0.4 7 Solarize 0.2 4      | Solarize 0.6 5 AutoContrast 0.6 5
Invert 0.6 4 Equalize 1.0 8        | Color 0.6 4 Contrast 1.0 8
Equalize 0.8 8 Equalize 0.6 3
"""
PLAIN = {"identity", "autocontrast", "equalize"}

# For each change its amounts over all magnitudes, as the implementations in common use write them.
TEN = {
    "posterize": np.round(np.linspace(8, 4, 10)),
    "solarize": np.linspace(256, 0, 10),
    "rotate": np.linspace(0, 30, 10),
    "color": np.linspace(0, 0.9, 10),
    "contrast": np.linspace(0, 0.9, 10),
    "brightness": np.linspace(0, 0.9, 10),
    "sharpness": np.linspace(0, 0.9, 10),
    "shear_x": np.linspace(0, 0.3, 10),
    "shear_y": np.linspace(0, 0.3, 10),
    "shift_x": np.linspace(0, 150 / 331, 10),
    "shift_y": np.linspace(0, 150 / 331, 10),
}
THIRTY_ONE = {
    "posterize": 8 - np.round(np.arange(31) / 5),
    "solarize": np.linspace(256, 0, 31),
    "rotate": np.linspace(0, 135, 31),
    "color": np.linspace(0, 0.99, 31),
    "contrast": np.linspace(0, 0.99, 31),
    "brightness": np.linspace(0, 0.99, 31),
    "sharpness": np.linspace(0, 0.99, 31),
    "shear_x": np.linspace(0, 0.99, 31),
    "shear_y": np.linspace(0, 0.99, 31),
    "translate_x": np.linspace(0, 32, 31),
    "translate_y": np.linspace(0, 32, 31),
}
UNSIGNED = ("posterize", "solarize")


def photo(height=60, width=80, channels=3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [90 + 60 * np.sin(x / (9 + c)) + y / 2 for c in range(channels)]
    return np.stack(waves, -1).astype(np.uint8)


DOT = photo(2, 2)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_pillow(image: np.ndarray, name: str, amount: float, fill: int) -> np.ndarray:
    """A change by Pillow alone; `amount` signed, shifts as shares of the side."""
    own, grey = Image.fromarray(image), (fill,) * 3
    width, height = own.size
    shear_x, shear_y, x, y = (
        amount if name == wanted else 0.0 for wanted in ("shear_x", "shear_y", "x", "y")
    )
    x = {"shift_x": int(amount * width), "translate_x": int(amount)}.get(name, 0)
    y = {"shift_y": int(amount * height), "translate_y": int(amount)}.get(name, 0)
    data = (1, shear_x, -x, shear_y, 1, -y)
    bilinear = Image.Resampling.BILINEAR

    def moved():
        return own.transform(own.size, Image.Transform.AFFINE, data, bilinear, fillcolor=grey)

    changes = {
        "identity": lambda: own,
        "autocontrast": lambda: ImageOps.autocontrast(own),
        "equalize": lambda: ImageOps.equalize(own),
        "invert": lambda: ImageOps.invert(own),
        "posterize": lambda: ImageOps.posterize(own, int(amount)),
        "solarize": lambda: ImageOps.solarize(own, amount),
        "color": lambda: ImageEnhance.Color(own).enhance(1 + amount),
        "contrast": lambda: ImageEnhance.Contrast(own).enhance(1 + amount),
        "brightness": lambda: ImageEnhance.Brightness(own).enhance(1 + amount),
        "sharpness": lambda: ImageEnhance.Sharpness(own).enhance(1 + amount),
        "rotate": lambda: own.rotate(amount, bilinear, fillcolor=grey),
    }
    return np.asarray(changes.get(name, moved)())


def assert_same(ours: np.ndarray, theirs: np.ndarray, share=0.9995) -> None:
    assert (np.abs(ours.astype(int) - theirs) <= 1).mean() >= share


@pytest.mark.parametrize(
    ("ranges", "amounts", "fill"),
    [(auto_augment.RANGES, TEN, 128), (auto_augment.WIDE_RANGES, THIRTY_ONE, 0)],
    ids=["AutoAugment", "TrivialAugment"],
)
def test_every_change_is_pillows_at_every_magnitude(ranges, amounts, fill):
    image = photo()
    assert set(ranges) - {"invert"} == PLAIN | set(amounts)
    for name in ranges:
        levels = amounts.get(name, [0.0])
        for level, amount in enumerate(levels):
            for minus in (False, True):
                strength = level / max(len(levels) - 1, 1)
                ours = auto_augment.change(image, name, ranges, strength, minus, fill)
                signed = -amount if minus and name not in UNSIGNED else amount
                assert_same(ours, by_pillow(image, name, signed, fill))


def test_the_policy_is_the_papers():
    lines = PAPER.replace("|", "\n").strip().splitlines()
    wanted = []
    for line in lines:
        names, probs, levels = line.split()[::3], line.split()[1::3], line.split()[2::3]
        names = [{"ShearX": "shear_x"}.get(name, name.lower()) for name in names]
        wanted.append(tuple(zip(names, map(float, probs), map(int, levels), strict=True)))
    assert len(wanted) == 25
    assert tuple(wanted) == auto_augment.IMAGENET_POLICY


OPS = {AutoAugment(): 128, RandAugment(): 128, TrivialAugment(): 0, AugMix(): 0}


@pytest.mark.parametrize("op", OPS)
def test_what_lies_outside_is_grey_or_black(op):
    """Of changes by which nothing else of a uniform image becomes darker than its 200."""
    outside = {"rotate", "shear_x", "shear_y", "shift_x", "shift_y", "translate_x", "translate_y"}
    image, darkest = np.full((60, 80, 3), 200, np.uint8), []
    for seed in range(400):
        stream = rng(seed)
        if isinstance(op, AugMix):
            stream.dirichlet([1.0] * 3), stream.beta(1.0, 1.0)
        drawn = op.draw(stream)
        if isinstance(op, AugMix):
            drawn += [*op.draw(stream), *op.draw(stream)]
        if {name for name, *_ in drawn} <= outside:
            darkest.append(int(op(image, rng(seed), 9).min()))
    assert len(darkest) > 5
    if isinstance(op, AugMix):  # mixed with the image itself
        assert min(darkest) < 100
    else:
        assert min(darkest) == OPS[op]


def test_auto_augment_draws_sub_policies_evenly_and_changes_with_their_probability():
    stream, pairs = rng(), []
    for _ in range(8000):
        pairs.append(AutoAugment().draw(stream))
    # Sub-policies with the only changes of their kind; each is drawn by one in 25 (or 2 in 25).
    counts = Counter(call[:2] for pair in pairs for call in pair)
    for name, magnitude, expected in [
        ("shear_x", 5, 0.6),
        ("sharpness", 7, 0.4),
        ("rotate", 9, 0.6 + 0.4),
        ("rotate", 8, 0.8 * 3),
        ("rotate", 3, 0.2),
        ("contrast", 8, 2 * 1.0),
        ("color", 2, 1.0),
        ("posterize", 6, 0.6 + 0.4),
        ("solarize", 4, 2 * 0.2),
    ]:
        share = counts[name, magnitude / 9] / len(pairs)
        assert abs(share - expected / 25) < 0.2 * expected / 25 + 0.002
    signs = [minus for pair in pairs for name, _, minus in pair if name == "rotate"]
    assert abs(np.mean(signs) - 0.5) < 0.04
    assert max(map(len, pairs)) == 2


def test_rand_augment_draws_fourteen_changes_evenly():
    stream, op = rng(), RandAugment(num_ops=3, magnitude=7.0)
    calls = [change for _ in range(4000) for change in op.draw(stream)]
    assert len(calls) == 3 * 4000
    counts = Counter(name for name, *_ in calls)
    assert set(counts) == PLAIN | set(TEN)
    np.testing.assert_allclose(np.array(list(counts.values())) / 12000, 1 / 14, atol=0.01)
    assert {strength for _, strength, _ in calls} == {0.7}
    assert abs(np.mean([minus for _, _, minus in calls]) - 0.5) < 0.03


def test_rand_augment_draws_magnitudes_around_its_own():
    stream, op = rng(), RandAugment(magnitude=6.0, magnitude_std=1.5)
    strengths = [strength for _ in range(3000) for _, strength, _ in op.draw(stream)]
    magnitudes = 10 * np.array(strengths)
    assert abs(magnitudes.mean() - 6) < 0.1
    assert abs(magnitudes.std() - 1.5) < 0.08
    op = RandAugment(magnitude=9.0, magnitude_std=20.0)
    strengths = {strength for _ in range(300) for _, strength, _ in op.draw(stream)}
    assert (min(strengths), max(strengths)) == (0, 1)


def test_rand_augments_severity_grows_with_its_magnitude():
    image = photo() ^ rng().integers(0, 8, (60, 80, 3), np.uint8)
    for name in TEN.keys() - {"rotate", "shear_x", "shear_y", "shift_x", "shift_y"}:
        distances = []
        for magnitude in (0, 3, 6, 10):
            result = auto_augment.change(
                image, name, auto_augment.RANGES, magnitude / 10, False, 128
            )
            distances.append(np.abs(result.astype(float) - image).mean())
        assert distances == sorted(distances)
        assert distances[0] == 0 < distances[3]


def test_trivial_augment_draws_one_change_and_one_of_31_strengths():
    stream = rng()
    calls = [change for _ in range(8000) for change in TrivialAugment().draw(stream)]
    assert len(calls) == 8000
    counts = Counter(name for name, *_ in calls)
    assert set(counts) == PLAIN | set(THIRTY_ONE)
    np.testing.assert_allclose(np.array(list(counts.values())) / 8000, 1 / 14, atol=0.012)
    strengths = Counter(round(30 * strength, 9) for _, strength, _ in calls)
    assert sorted(strengths) == list(range(31))
    np.testing.assert_allclose(np.array(list(strengths.values())) / 8000, 1 / 31, atol=0.008)


def test_augmix_draws_chains_of_one_to_three_changes():
    stream, lengths = rng(), []
    for _ in range(3000):
        chain = AugMix(severity=5.0).draw(stream)
        lengths.append(len(chain))
        assert all(0.01 <= strength <= 0.5 for _, strength, _ in chain)
    counts = np.bincount(lengths)
    np.testing.assert_allclose(counts / 3000, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.03)
    assert {len(AugMix(depth=2).draw(stream)) for _ in range(20)} == {2}
    calls = [change for _ in range(600) for change in AugMix().draw(stream)]
    names = "autocontrast equalize posterize_up rotate solarize shear_x shear_y shift_x shift_y"
    assert {name for name, *_ in calls} == set(names.split())


def test_augmix_mixes_its_chains_by_hand():
    image, op = photo(), AugMix(width=3, depth=2, alpha=2.0)
    result = op(image, rng(4), 9)
    stream = rng(4)
    shares, mixture = stream.dirichlet([2.0] * 3), stream.beta(2.0, 2.0)
    mean = np.zeros(image.shape)
    for share in shares:
        chain = image
        for name, strength, minus in op.draw(stream):
            ranges = auto_augment.AUGMIX_RANGES
            chain = auto_augment.change(chain, name, ranges, strength, minus, 0)
        mean += share * chain
    assert np.abs(result - ((1 - mixture) * image + mixture * mean)).max() <= 0.501


@pytest.mark.parametrize("level", [0.1, 1.0, 2.6, 5.1, 9.9])
def test_augmix_changes_are_the_authors(level):
    image, ranges = photo(), auto_augment.AUGMIX_RANGES
    height, width = image.shape[:2]
    for ours, theirs in [
        ("posterize_up", by_pillow(image, "posterize", 4 - int(level * 4 / 10), 0)),
        ("solarize", by_pillow(image, "solarize", 256 - int(level * 256 / 10), 0)),
        ("rotate", by_pillow(image, "rotate", level * 30 / 10, 0)),
        ("shear_x", by_pillow(image, "shear_x", level * 0.3 / 10, 0)),
        ("shear_y", by_pillow(image, "shear_y", level * 0.3 / 10, 0)),
        ("shift_x", by_pillow(image, "translate_x", int(level * width / 3 / 10), 0)),
        ("shift_y", by_pillow(image, "translate_y", int(level * height / 3 / 10), 0)),
    ]:
        assert_same(auto_augment.change(image, ours, ranges, level / 10, False, 0), theirs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "rand_augment", "num_ops": 0}, "greater than 0"),
        ({"op": "rand_augment", "magnitude": 11}, "less than or equal to 10"),
        ({"op": "rand_augment", "magnitude_std": -1}, "greater than or equal to 0"),
        ({"op": "augmix", "severity": 0.05}, "greater than or equal to 0.1"),
        ({"op": "augmix", "depth": 0}, "greater than 0"),
        ({"op": "augmix", "alpha": 0}, "greater than 0"),
        ({"op": "auto_augment", "magnitude": 5}, "[Uu]nexpected keyword"),
        ({"op": "trivial_augment", "num_ops": 2}, "[Uu]nexpected keyword"),
    ],
)
def test_mistakes_are_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Transform).validate_python(given)
