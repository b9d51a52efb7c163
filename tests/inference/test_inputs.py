"""What `Predictor.predict` takes for an image, and the one line that answers everything else."""

import io

import numpy as np
import paddle
import pytest
from PIL import Image

import ppcls
from ppcls.utils.errors import UserError


@pytest.fixture(scope="module")
def predictor(exported):
    with ppcls.Predictor(exported, engine="onednn", batch_size=4) as predictor:
        yield predictor


def answers(predictor, photos):
    return [(result.classes, result.scores) for result in predictor.predict(photos, batch_size=1)]


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(number):
    """EXIF's block that says so."""
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


def test_what_a_photo_may_be(predictor, images, tmp_path):
    pixels = images[0]
    image = Image.fromarray(pixels)
    data = encoded(image)
    (tmp_path / "a.png").write_bytes(data)
    expected = answers(predictor, pixels)
    same = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        data,
        bytearray(data),
        memoryview(data),
        image,
        Image.open(tmp_path / "a.png"),
        Image.open(io.BytesIO(data)),
        pixels,
        pixels[:, ::-1][:, ::-1],
    ]
    for photo in same:
        assert answers(predictor, photo) == expected
        assert answers(predictor, [photo]) == expected
    assert answers(predictor, same) == expected * len(same)
    assert answers(predictor, tuple(same)) == expected * len(same)
    assert answers(predictor, iter(same)) == expected * len(same)
    assert answers(predictor, np.array([str(tmp_path / "a.png")] * 2)) == expected * 2
    assert answers(predictor, list(np.stack([pixels] * 3))) == expected * 3
    paths = [result.path for result in predictor.predict(same)]
    assert paths == [str(tmp_path / "a.png")] * 2 + [None] * 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_modes_of_pillow_are_read_as_files_are(predictor, images, mode):
    image = Image.fromarray(images[0])
    if mode == "I;16":
        image = Image.fromarray(images[0, :, :, 0].astype(np.uint16) * 256)
    elif mode == "LA":
        image = image.convert("L").convert("LA")
    else:
        image = image.convert(mode)
    form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    data = encoded(image, form)
    assert answers(predictor, Image.open(io.BytesIO(data))) == answers(predictor, data)
    if mode != "YCbCr":  # whose TIFF is read as RGB
        assert answers(predictor, image) == answers(predictor, data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_of_pillow_are_turned_as_files_are(predictor, images, orientation, form):
    wide = Image.fromarray(np.hstack([images[0], images[1]]))
    options = {} if form != "WEBP" else {"lossless": True}
    data = encoded(wide, form, exif=turned(orientation), **options)
    expected = answers(predictor, data)
    assert answers(predictor, Image.open(io.BytesIO(data))) == expected
    if form != "JPEG":
        assert (answers(predictor, encoded(wide)) == expected) == (orientation == 1)


def odd(images, tmp_path):
    """What is no image, and words of the line that says so."""
    data = encoded(Image.fromarray(images[0]))
    closed = Image.open(io.BytesIO(data))
    closed.close()
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "gone.png").write_bytes(data)
    vanished = Image.open(tmp_path / "gone.png")
    vanished.fp.close()
    return [
        (None, "None is no image (OpenCV's imread gives it for a file it cannot read)"),
        (paddle.to_tensor(images[0]), "Tensor; give value.numpy(), uint8 [H, W, C]"),
        (io.BytesIO(data), "BytesIO; give its name or file.read()"),
        ((tmp_path / "a.png").open("rb"), "BufferedReader; give its name or file.read()"),
        (images[0].astype(np.float32) / 255, "an image is a uint8 array"),
        (images[0].astype(np.int64), "an image is a uint8 array"),
        (images, "an array [5, 32, 32, 3] is a batch; give list(array)"),
        (np.array(3, np.uint8), "an image is a uint8 array"),
        (np.zeros((0, 5, 3), np.uint8), "an image is a uint8 array"),
        (np.zeros((5, 5, 2), np.uint8), "an image has 1, 3 or 4 channels"),
        (closed, "this Pillow image is closed, truncated or damaged"),
        (vanished, "this Pillow image is closed, truncated or damaged"),
        (Image.open(io.BytesIO(data[: len(data) // 2])), "closed, truncated or damaged"),
        (Image.new("RGB", (0, 4)), "closed, truncated or damaged"),
        (b"", "empty file"),
        (b"no image", "not a JPEG, PNG, WebP"),
        (data[: len(data) // 2], "truncated or damaged image"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg: is an address; download it"),
        ("", "an image's name is empty"),
        ("a\0.png", "cannot be read"),
        (3, "is a int; an image is a file's name or bytes, a Pillow image or a numpy array"),
        (True, "is a bool"),
        ({"path": "a.png"}, "is a dict"),
        (object(), "is a object"),
    ]


def test_what_is_no_photo_is_one_line_with_its_place(predictor, images, tmp_path):
    good = tmp_path / "a.png"
    for photo, words in odd(images, tmp_path):
        for given in (photo, [good, photo, good]):
            with pytest.raises(UserError) as caught:
                predictor.predict(given)
            message = str(caught.value)
            assert words in message
            assert "\n" not in message
            if not isinstance(photo, str):
                assert message.startswith("images[1]" if given is not photo else "the image given")


def test_what_is_no_photo_is_skipped_with_its_error(predictor, images, tmp_path):
    """The others of its batch are answered all the same."""
    good = tmp_path / "a.png"
    wrong = odd(images, tmp_path)
    mixed = [photo for bad, _ in wrong for photo in (good, bad)]
    expected = answers(predictor, good)
    for batch_size in (1, 4, 8, 100):
        results = predictor.predict(mixed, batch_size=batch_size, on_error="skip")
        assert len(results) == len(mixed)
        for result in results[::2]:
            assert result.error is None
            assert result.classes == expected[0][0]
            np.testing.assert_allclose(result.scores, expected[0][1], atol=2e-6)
        for result, (_, words) in zip(results[1::2], wrong, strict=True):
            assert (result.classes, result.labels, result.scores) == ([], [], [])
            assert words in result.error
    assert predictor.predict(None, on_error="skip")[0].error.startswith("the image given: None")


def test_lists_in_lists(predictor, images):
    with pytest.raises(UserError, match=r"^images\[1\]: is a list; give one flat list of images"):
        predictor.predict([images[0], [images[1]]])
    with pytest.raises(UserError, match=r"^images\[0\]: is a list"):
        predictor.predict(images[0].tolist())


def test_one_image_of_pillow_many_times_from_many_threads(exported, images):
    """It is read from its file when it is first used."""
    image = Image.open(io.BytesIO(encoded(Image.fromarray(images[0]))))
    with ppcls.Predictor(exported, engine="onnxruntime", batch_size=1, threads=4) as predictor:
        results = predictor.predict([image] * 64)
        (expected,) = predictor.predict(images[0])
    assert {tuple(result.classes) for result in results} == {tuple(expected.classes)}


ARGUMENTS = [
    ({"engin": "onednn"}, "engin is no argument of Predictor; did you mean 'engine'?; known: "),
    ({"model_dir": "x"}, "model_dir is no argument of Predictor"),
    ({"engine": "onedn"}, "engine ('onedn') is unknown; did you mean 'onednn'?; known are auto, "),
    ({"engine": None}, "engine (None) is unknown; known are auto, paddle"),
    ({"device": "cuda"}, "device ('cuda') is unknown; did you mean 'gpu'?; known are auto, cpu"),
    ({"device": "CPU"}, "device ('CPU') is unknown; did you mean 'cpu'?"),
    ({"precision": "float16"}, "precision ('float16') is unknown; did you mean 'fp16'?"),
    ({"batch_size": "8"}, "batch_size ('8') should be a whole number from 1"),
    ({"batch_size": 0}, "batch_size (0) should be a whole number from 1"),
    ({"batch_size": True}, "batch_size (True) should be a whole number from 1"),
    ({"threads": 0}, "threads (0) should be a whole number from 1"),
    ({"threads": 1.5}, "threads (1.5) should be a whole number from 1"),
    ({"crop": -1}, "crop (-1) should be a whole number from 1"),
    ({"crop": "224"}, "crop ('224') should be a whole number from 1"),
    ({"crop": 64, "resize": 32}, "resize 32 is below crop 64"),
    ({"interpolation": "cubic"}, "interpolation: should be 'nearest', 'bilinear', 'bicubic'"),
    ({"backend": "opencv"}, "backend: should be 'cv2' or 'pil', not 'opencv'"),
    ({"mean": [0.5, 0.5, "x"]}, "mean.2: should be a valid number, not 'x'"),
    ({"mean": 0.5}, "mean: should be a valid tuple, not 0.5"),
    ({"mean": [0.5]}, "mean has 1 value and std 3"),
    ({"threshold": "x"}, "threshold ('x') should be a number from 0 to 1"),
    ({"threshold": 2}, "threshold (2) should be a number from 0 to 1"),
    ({"threshold": float("nan")}, "threshold (nan) should be a number from 0 to 1"),
    ({"threads": 100_000}, "more than"),
    ({"labels": b"ab"}, "labels (b'ab') should be a list of class names, or a file of them"),
    ({"labels": "ab"}, "ab: No such file or directory"),
    ({"labels": [1, 2]}, "labels: 1 should be a class name in quotes"),
]


@pytest.mark.parametrize(("given", "words"), ARGUMENTS)
def test_wrong_arguments_are_one_line(exported, given, words):
    with pytest.raises(UserError) as caught:
        ppcls.Predictor(exported, **{"engine": "onednn", **given})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("folder", [None, 3, b"x", ["x"]])
def test_a_folder_that_is_no_path(folder):
    with pytest.raises(UserError, match=r"folder \(.*\) should be the path of an exported folder"):
        ppcls.Predictor(folder)


def test_wrong_arguments_of_predict(predictor, images):
    for name, value in [("topk", 0), ("topk", 2.5), ("topk", "5"), ("batch_size", 0)]:
        with pytest.raises(UserError, match=rf"^{name} \(.*\) should be a whole number from 1$"):
            predictor.predict(images[0], **{name: value})
        with pytest.raises(UserError, match=rf"^{name} \("):
            predictor.stream([images[0]], **{name: value})  # said at once, not at the first image
    with pytest.raises(UserError, match=r"on_error \('skipp'\) is unknown; did you mean 'skip'"):
        predictor.predict(images[0], on_error="skipp")


def test_numbers_of_numpy_are_numbers(exported, images):
    given = {"crop": np.int64(32), "resize": np.int32(36), "mean": np.full(3, 0.5)}
    predictor = ppcls.Predictor(exported, engine="onednn", batch_size=np.int64(2), **given)
    assert len(predictor.predict(images[0], topk=np.int64(1))[0].classes) == 1
