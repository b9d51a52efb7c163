"""Preprocessing against plain numpy and OpenCV, described as PaddleX and PaddleClas do."""

import itertools
import pickle
from dataclasses import FrozenInstanceError

import cv2
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from ppcls.data.preprocess import Preprocess
from ppcls.utils.errors import UserError

LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "area", "lanczos"]

# What PaddleX 3 accepts, by backend; an upper-cased name must be among them.
PADDLEX = {
    "cv2": {"NEAREST", "LINEAR", "BICUBIC", "AREA", "LANCZOS4"},
    "pil": {"NEAREST", "BILINEAR", "BICUBIC", "BOX", "LANCZOS4"},
}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_crop_without_resizing():
    rows, columns = np.indices((8, 11)).astype(np.uint8)
    image = np.stack([rows, columns, rows], -1)
    result = Preprocess(resize=8, crop=5)(image)
    np.testing.assert_array_equal(result, image[1:6, 3:8])
    assert result.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 334), (97, 101), (64, 64)])
def test_the_steps_of_paddleclas(height, width):
    image = noise(height, width, 3)
    percent = 64.0 / min(width, height)
    resized = cv2.resize(image, (round(width * percent), round(height * percent)))
    left, top = (resized.shape[1] - 56) // 2, (resized.shape[0] - 56) // 2
    result = Preprocess(resize=64, crop=56)(image)
    np.testing.assert_array_equal(result, resized[top : top + 56, left : left + 56])


def test_an_oblong_crop_and_a_resize_to_two_sides():
    image = noise(97, 150, 3)
    resized = cv2.resize(image, (80, 60))
    result = Preprocess(resize=(60, 80), crop=(56, 32))(image)
    np.testing.assert_array_equal(result, resized[2:58, 24:56])
    resized = cv2.resize(image, (round(150 * 60 / 97), 60))
    left = (resized.shape[1] - 32) // 2
    result = Preprocess(resize=60, crop=(56, 32))(image)
    np.testing.assert_array_equal(result, resized[2:58, left : left + 32])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (20, 9), (1, 900), (225, 96)])
def test_squash_shows_the_whole_image(height, width):
    image = noise(height, width, 3)
    result = Preprocess(fit="squash", crop=(225, 96))(image)
    np.testing.assert_array_equal(result, cv2.resize(image, (96, 225)))
    assert result.flags.c_contiguous


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (400, 400, (64, 96, 0, 96)),  # of [225, 96]: top, height, left, width
        (450, 100, (0, 225, 23, 50)),
        (10, 5, (16, 192, 0, 96)),  # enlarged
        (1, 9000, (112, 1, 0, 96)),  # not made nothing
        (225, 96, (0, 225, 0, 96)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_letterbox_shows_the_whole_image_in_its_shape(height, width, box, channels):
    image = noise(height, width, channels)
    values = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    result = Preprocess(fit="letterbox", crop=(225, 96), fill=7, **values)(image)
    assert result.shape == (225, 96, channels)
    top, high, left, wide = box
    inside = result[top : top + high, left : left + wide].copy()
    expected = cv2.resize(image, (wide, high)).reshape(high, wide, channels)
    np.testing.assert_array_equal(inside, expected)
    result[top : top + high, left : left + wide] = 7
    assert (result == 7).all()


def test_two_equal_sides_are_one():
    assert Preprocess(crop=(200, 200)) == Preprocess(crop=200)
    assert Preprocess(resize=(256, 256)) != Preprocess()  # which keeps the shape


def test_backend_and_interpolation_are_used():
    image = noise(90, 120, 3)
    results = {
        Preprocess(resize=32, crop=32, interpolation=interpolation, backend=backend)(
            image
        ).tobytes()
        for interpolation, backend in itertools.product(INTERPOLATIONS, ["cv2", "pil"])
    }
    assert len(results) == 10


def test_scale_and_offset_are_rounded_once():
    preprocess = Preprocess()
    for channel, (mean, std) in enumerate(zip(preprocess.mean, preprocess.std, strict=True)):
        assert preprocess.scale[channel] == np.float32(1 / (255 * std))
        assert preprocess.offset[channel] == np.float32(-mean / std)
    assert preprocess.scale.dtype == preprocess.offset.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_normalize_equals_plain_numpy_bit_for_bit(channels, count):
    values = {"mean": (0.485, 0.456, 0.406, 0.1)[:channels], "std": (0.229, 0.1, 1.7, 3)[:channels]}
    preprocess = Preprocess(**values)
    images = noise(count, 40, 30, channels)
    if count:
        images[0, :16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    product = images.astype(np.float32) * preprocess.scale
    assert product.dtype == np.float32
    wanted = (product + preprocess.offset).transpose(0, 3, 1, 2)
    for given in (images, images[:, ::-1, ::-1][:, ::-1, ::-1]):
        result = preprocess.normalize(given)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result.view(np.int32), wanted.copy().view(np.int32))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_came_of_an_image_goes_back_to_its_pixels(channels):
    values = {"mean": (0.485, 0.456, 0.406, 0.1)[:channels], "std": (0.229, 0.1, 1.7, 3)[:channels]}
    preprocess = Preprocess(**values)
    image = noise(1, 16, 16, channels)[0]
    image[:, :, 0] = np.arange(256, dtype=np.uint8).reshape(16, 16)
    given = preprocess.network_input([image], "float32")[0]
    back = preprocess.from_network_input(np.frombuffer(given.tobytes(), "<f4").reshape(given.shape))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, image)
    assert preprocess.from_network_input(image) is image
    assert preprocess.from_network_input(given - np.float32(20))[:, :, 0].max() == 0


def test_normalize_is_the_textbook_formula():
    preprocess = Preprocess(**LITE)
    images = noise(2, 8, 8, 3)
    wanted = (images.astype(np.float64).transpose(0, 3, 1, 2) - 127) / 128
    np.testing.assert_allclose(preprocess.normalize(images), wanted, atol=1e-6)
    assert preprocess.channels == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resize": 200}, "resize 200 is below crop 224"),
        ({"mean": (0.5,)}, "mean has 1 value and std 3"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "give each one value per channel"),
        ({"mean": (), "std": ()}, "give each one value per channel"),
        ({"std": (0.2, 0.0, 0.2)}, "greater than 0"),
        ({"crop": 0}, "greater than 0"),
        ({"crop": "224"}, "valid integer"),
        ({"crop": (225, 96, 3)}, r"one number, or two: \[height, width\]"),
        ({"crop": (225, 300)}, r"resize 256 is below crop \[225, 300\]"),
        ({"resize": (300, 90), "crop": (225, 96)}, r"resize \[300, 90\] is below crop \[225, 96\]"),
        ({"crop": (225, 0)}, "greater than 0"),
        ({"fit": "stretch"}, "'letterbox'"),
        ({"fill": 256}, "less than or equal to 255"),
        ({"interpolation": "cubic"}, "'bicubic'"),
        ({"backend": "opencv"}, "'cv2' or 'pil'"),
        ({"size": 224}, "[Uu]nexpected keyword"),
    ],
)
def test_mistakes_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Preprocess(**fields)


def test_is_a_frozen_value():
    preprocess = Preprocess(mean=[0, 0, 0])
    assert preprocess == pickle.loads(pickle.dumps(preprocess))
    with pytest.raises(FrozenInstanceError):
        preprocess.crop = 1


ALL = [
    Preprocess(resize=260, crop=240, interpolation=interpolation, backend=backend, **values)
    for interpolation, backend in itertools.product(INTERPOLATIONS, ["cv2", "pil"])
    for values in (
        {},
        LITE,
        {"mean": (0.1307,), "std": (0.3081,)},
        {"mean": (0.1,) * 4, "std": (3,) * 4},
    )
]


WAYS = [
    Preprocess(resize=(300, 120), crop=(225, 96), backend="pil"),
    Preprocess(resize=(240, 240), crop=224),
    Preprocess(crop=(225, 96)),
    Preprocess(fit="squash", crop=(225, 96), interpolation="area"),
    Preprocess(fit="squash", crop=320),
    Preprocess(fit="letterbox", crop=(225, 96), fill=0, interpolation="bicubic"),
    Preprocess(fit="letterbox", crop=224),
]


@pytest.mark.parametrize("preprocess", ALL + WAYS)
def test_ops_round_trip_exactly_and_through_yaml(preprocess):
    ops = preprocess.to_ops()
    assert Preprocess.from_ops(ops) == preprocess
    assert Preprocess.from_ops(yaml.safe_load(yaml.safe_dump(ops))) == preprocess


@pytest.mark.parametrize("preprocess", ALL)
def test_ops_are_what_paddlex_reads(preprocess):
    ops = preprocess.to_ops()
    assert [list(op) for op in ops] == [
        ["ResizeImage"],
        ["CropImage"],
        ["NormalizeImage"],
        ["ToCHWImage"],
    ]
    resize, crop, normalize, to_chw = (op.popitem()[1] for op in ops)
    assert resize.keys() == {"resize_short", "interpolation", "backend"}
    assert resize["interpolation"] in PADDLEX[resize["backend"]]
    assert crop == {"size": 240}
    assert normalize["order"] == ""
    assert normalize["scale"] == pytest.approx(1 / 255, rel=1e-15)
    assert normalize["channel_num"] == len(normalize["mean"]) == len(normalize["std"])
    assert to_chw is None


def test_two_sides_are_width_and_height_to_paddlex():
    def written(**fields):
        (first, *rest) = Preprocess(**fields).to_ops()[:-2]
        resize = first.get("ResizeImage") or first["LetterboxImage"]
        way = ("interpolation", "backend")
        return [{key: resize[key] for key in resize if key not in way}, *rest]

    crop = {"CropImage": {"size": [96, 225]}}
    assert written(crop=(225, 96)) == [{"resize_short": 256}, crop]
    assert written(resize=(256, 128), crop=(225, 96)) == [{"size": [128, 256]}, crop]
    assert written(fit="squash", crop=(225, 96)) == [{"size": [96, 225]}]
    assert written(fit="letterbox", crop=(225, 96)) == [{"size": [96, 225], "fill": 114}]


PADDLECLAS = """
- DecodeImage: {to_rgb: True, channel_first: False}
- ResizeImage: {resize_short: 256}
- CropImage: {size: 224}
- NormalizeImage:
    scale: 1.0/255.0
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    order: ''
- ToCHWImage:
"""


def ops_with(**changes) -> list:
    """PaddleClas's ops with some arguments changed, an op replaced by None left out."""
    ops = {name: given for op in yaml.safe_load(PADDLECLAS) for name, given in op.items()}
    for name, given in changes.items():
        ops[name] = {**(ops.get(name) or {}), **given} if given is not None else None
    return [
        {name: given} for name, given in ops.items() if given is not None or name == "ToCHWImage"
    ]


def test_paddleclas_yaml():
    assert Preprocess.from_ops(yaml.safe_load(PADDLECLAS)) == Preprocess()
    assert Preprocess.from_ops(yaml.safe_load(PADDLECLAS)[1:]) == Preprocess()


@pytest.mark.parametrize("scale", ["1.0/255.0", "1/255", 0.00392157, "0.00392157", 1 / 255])
def test_scales_that_mean_a_255th(scale):
    ops = ops_with(NormalizeImage={"scale": scale, "order": "hwc"})
    assert Preprocess.from_ops(ops) == Preprocess()


def test_another_scale_moves_into_mean_and_std():
    ops = ops_with(NormalizeImage={"scale": "1.0", "mean": [127, 127, 127], "std": [128, 128, 128]})
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    result = Preprocess.from_ops(ops).normalize(images)[0, 0].ravel()
    np.testing.assert_allclose(result, (np.arange(256) - 127) / 128, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ("bilinear", "cv2")),
        ({"backend": "pil"}, ("bicubic", "pil")),
        ({"backend": "PIL", "interpolation": "Box"}, ("area", "pil")),
        ({"interpolation": "bilinear"}, ("bilinear", "cv2")),
        ({"interpolation": "lanczos", "return_numpy": False}, ("lanczos", "cv2")),
    ],
)
def test_resize_as_paddleclas_writes_it(given, wanted):
    preprocess = Preprocess.from_ops(ops_with(ResizeImage=given))
    assert (preprocess.interpolation, preprocess.backend) == wanted


def test_crop_of_two_sides():
    assert Preprocess.from_ops(ops_with(CropImage={"size": [200, 200]})).crop == 200
    assert Preprocess.from_ops(ops_with(CropImage={"size": [96, 225]})).crop == (225, 96)


def test_a_resize_to_width_and_height():
    whole = ops_with(ResizeImage={"resize_short": None, "size": [192, 256]}, CropImage=None)
    assert Preprocess.from_ops(whole) == Preprocess(fit="squash", crop=(256, 192))
    cut = ops_with(ResizeImage={"resize_short": None, "size": 256})
    assert Preprocess.from_ops(cut) == Preprocess(resize=(256, 256), crop=224)
    assert Preprocess.from_ops(cut) != Preprocess()


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        (ops_with(ResizeImage={"resize_short": None}), "ResizeImage: size None should be a number"),
        (
            ops_with(ResizeImage={"resize_short": 0, "size": [9, 9]}),
            r"resize \[9, 9\] is below crop",
        ),
        (
            ops_with(ResizeImage={"resize_short": 0, "size": [9, 9, 9]}),
            r"ResizeImage: size \[9, 9, 9",
        ),
        (
            ops_with(ResizeImage={"resize_short": 0, "size": [9, "9"]}),
            "transform_ops: resize: 0: .*int",
        ),
        (ops_with(ResizeImage={"interpolation": "hamming"}), "ResizeImage: unknown interpolation"),
        (ops_with(ResizeImage={"interpolation": 2}), "ResizeImage: unknown interpolation 2"),
        (ops_with(ResizeImage={"backend": "tv"}), "transform_ops: backend"),
        (ops_with(ResizeImage={"resize_short": 100}), "^transform_ops: resize 100 is below crop"),
        (
            ops_with(ResizeImage={"resize_short": [256, 256]}),
            "ResizeImage: resize_short .* no number",
        ),
        (ops_with(ResizeImage={"resize_short": "256"}), "transform_ops: resize: .*integer"),
        (ops_with(ResizeImage={"scale": 2}), "ResizeImage: cannot read"),
        (ops_with(CropImage={"size": [300, 200]}), r"resize 256 is below crop \[200, 300\]"),
        (ops_with(CropImage={"size": [224, 224, 3]}), r"CropImage: size .* or \[width, height\]"),
        (ops_with(LetterboxImage={"size": 224}), "only .*LetterboxImage.* in this order"),
        (ops_with(CropImage=None), "cannot be represented"),
        (ops_with(NormalizeImage={"scale": "255/0"}), "NormalizeImage: scale '255/0'"),
        (ops_with(NormalizeImage={"scale": "__import__('os')"}), "NormalizeImage: scale"),
        (ops_with(NormalizeImage={"scale": -1}), "NormalizeImage: scale -1"),
        (ops_with(NormalizeImage={"scale": "nan"}), "NormalizeImage: scale 'nan'"),
        (ops_with(NormalizeImage={"order": "chw"}), "NormalizeImage: order 'chw'"),
        (ops_with(NormalizeImage={"mean": 0.5}), "NormalizeImage: mean and std are lists"),
        (ops_with(NormalizeImage={"std": ["a", 1, 1]}), "NormalizeImage: mean and std are lists"),
        (ops_with(NormalizeImage={"std": [1, 1]}), "mean has 3 values and std 2"),
        (ops_with(NormalizeImage={"channel_num": 4}), "NormalizeImage: channel_num 4"),
        (ops_with(DecodeImage={"to_rgb": False}), "DecodeImage: only RGB"),
        (ops_with(DecodeImage={"img_mode": "BGR"}), "DecodeImage: only RGB"),
        (ops_with(DecodeImage={"channel_first": True}), "DecodeImage: only RGB"),
        (ops_with(RandFlipImage={"flip_code": 1}), "unknown op 'RandFlipImage'; known are Decode"),
        (ops_with()[::-1], "only .* in this order"),
        (ops_with() + [{"CropImage": {"size": 9}}], "only .* in this order"),
        ([], "only .* in this order"),
        (None, "is not an op"),
        (["ToCHWImage"], "is not an op"),
        ([{"CropImage": 224}], "CropImage: cannot read 224"),
    ],
)
def test_ops_without_an_equal_are_refused(ops, words):
    with pytest.raises(UserError, match=words) as caught:
        Preprocess.from_ops(ops)
    assert "\n" not in str(caught.value)
