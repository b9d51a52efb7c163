"""How images look, in numbers that plain arithmetic gives, too; and that nobody pays unasked."""

import cv2
import numpy as np
import pytest
from photos import scene

import ppcls
from ppcls.inference import predictor as module
from ppcls.inference.looks import LOOKS, looks_of
from ppcls.inference.predictor import Asked, batched


def look(pixels):
    return dict(zip(LOOKS, looks_of(pixels).tolist(), strict=True))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_they_are_what_plain_arithmetic_gives(channels):
    pixels = np.dstack([scene(0), scene(1)[:, :, :1]])[:, :, :channels]
    found = look(pixels)
    floats = pixels.astype(np.float64)
    grey = floats[:, :, 0]
    warmth = tint = 0.0
    if channels > 1:
        grey = np.rint(floats[:, :, :3] @ (0.299, 0.587, 0.114))
        red, green, blue = floats[:, :, :3].mean(axis=(0, 1))
        warmth, tint = red - blue, green - (red + blue) / 2
    apart = [np.abs(np.diff(grey, axis=axis)) for axis in (0, 1)]
    mean = sum(one.sum() for one in apart) / sum(one.size for one in apart)
    expected = (grey.mean(), grey.std(), warmth, tint, np.log2((mean + 0.5) / (grey.std() + 0.5)))
    assert list(found.values()) == pytest.approx(expected, abs=0.02)


def test_what_is_done_to_an_image_is_what_they_say():
    pixels = np.uint8(scene(3) / 2)
    before = look(pixels)
    brighter = look(np.uint8(1.5 * pixels))
    assert brighter["brightness"] == pytest.approx(1.5 * before["brightness"], rel=0.01)
    assert brighter["contrast"] == pytest.approx(1.5 * before["contrast"], rel=0.01)
    assert brighter["sharpness"] == pytest.approx(before["sharpness"], abs=0.15)
    assert look(cv2.GaussianBlur(pixels, (0, 0), 2))["sharpness"] < before["sharpness"] - 0.3
    redder = pixels + np.uint8([20, 0, 0])
    assert look(redder)["warmth"] == pytest.approx(before["warmth"] + 20, abs=0.01)
    assert look(redder)["tint"] == pytest.approx(before["tint"] - 10, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 1), (9, 1, 4), (8, 8, 3)])
def test_images_without_any_difference(shape):
    found = looks_of(np.full(shape, 200, np.uint8))
    np.testing.assert_allclose(found, (200, 0, 0, 0, 0))


def test_they_come_where_they_are_asked_for_and_are_computed_nowhere_else(
    exported, images, monkeypatch
):
    counted = []

    def counting(pixels):
        counted.append(pixels.shape)
        return looks_of(pixels)

    monkeypatch.setattr(module, "looks_of", counting)
    with ppcls.Predictor(exported, engine="onednn", batch_size=2) as predictor:
        size = predictor.manifest.preprocess.height
        assert [one.looks for one in predictor.predict(list(images))] == [None] * len(images)
        assert not counted
        given = [images[0], b"none", *images[1:]]
        asked = Asked(1, skip=True, features=False, looks=True)
        answers = list(predictor.answer(batched(given, 2, False), 3, asked))
        assert counted == [(size, size, 3)] * len(images)
        assert answers[1].error
        assert answers[1].looks is None
        for answer, image in zip(answers[:1] + answers[2:], images, strict=True):
            pixels = predictor.manifest.preprocess(image)
            np.testing.assert_array_equal(answer.looks, looks_of(pixels))
        assert "looks" not in answers[0].plain()
