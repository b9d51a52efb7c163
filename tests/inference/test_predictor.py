"""Images in, names out: order, errors, odd images, and outputs nobody described."""

import gc
import threading
from contextlib import closing

import numpy as np
import paddle
import pytest
import small_network
import yaml
from paddle import nn
from PIL import Image, ImageFile

import ppcls
from ppcls.export import Form, export
from ppcls.inference import predictor as module
from ppcls.utils.errors import UserError


@pytest.fixture(scope="session")
def predictor(exported):
    return ppcls.Predictor(exported, engine="onednn", batch_size=2)


@pytest.fixture
def photos(images, tmp_path):
    """Five files of the pixels of `images`."""
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


def scores(results):
    """[N, 2] by class."""
    found = np.zeros((len(results), 2))
    for row, result in zip(found, results, strict=True):
        row[result.classes] = result.scores
    return found


def expected(small, images):
    """What the network itself says of the images."""
    preprocess = small.recipe.preprocess
    pixels = np.stack([preprocess(image) for image in images])
    return small_network.probabilities(small.net, preprocess.normalize(pixels))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8])
def test_order_is_kept(predictor, photos, images, small, batch_size):
    mixed = [photos[0], images[1], photos[2], photos[3], images[4]] * 3
    results = predictor.predict(mixed, batch_size=batch_size)
    assert [r.path for r in results] == [photos[0], None, photos[2], photos[3], None] * 3
    np.testing.assert_allclose(scores(results), np.tile(expected(small, images), (3, 1)), atol=2e-6)
    assert all(result.milliseconds > 0 for result in results)


def test_a_stream_takes_a_few_photos_ahead_and_no_more(predictor, images):
    """An iterator, such as a camera, may have no end."""
    taken = []

    def camera():
        while True:
            taken.append(len(taken))
            yield images[len(taken) % 5]

    with closing(predictor.stream(camera())) as stream:
        for count in range(1, 12):
            assert next(stream).path is None
            batches = -(-count // 2)
            assert len(taken) == 2 * (batches + module.AHEAD)


@pytest.mark.parametrize("engine", ["paddle", "onednn", "onnxruntime", "openvino"])
def test_many_batches_have_the_same_answers_in_the_same_order(
    exported, photos, images, small, engine
):
    """They run on as many threads as there are."""
    with ppcls.Predictor(exported, engine=engine, threads=3, batch_size=2) as predictor:
        many = photos * 2 * module.MANY
        results = predictor.predict(many)
        assert [r.path for r in results] == many
        wanted = np.tile(expected(small, images), (2 * module.MANY, 1))
        np.testing.assert_allclose(scores(results), wanted, atol=2e-6)
        assert len(predictor.predict(photos)) == len(photos)
        assert predictor.engine.settings.threads == 3


def test_best_of_is_what_sorting_gives():
    rng = np.random.default_rng(0)
    for _ in range(200):
        row = rng.integers(0, 9, 30).astype(np.float32)  # with many that are equal
        topk = int(rng.integers(1, 33))
        np.testing.assert_array_equal(
            module.best_of(row, topk), np.argsort(-row, kind="stable")[:topk]
        )


def test_threads_do_not_grow_and_end_with_the_predictor(exported, images, photos, tmp_path):
    """Whatever becomes of the streams."""
    before = set(threading.enumerate())

    def own():
        return set(threading.enumerate()) - before

    (tmp_path / "broken.png").write_bytes(b"x")
    with ppcls.Predictor(exported, engine="onednn", batch_size=2, threads=2) as predictor:
        for _ in range(6):
            stream = predictor.stream([images[0]] * 10_000)
            next(stream)
            stream.close()
            with pytest.raises(UserError):
                predictor.predict([*photos, tmp_path / "broken.png"])
            predictor.predict(photos)
        assert len(own()) <= 2
        stream = predictor.stream([images[0]] * 100)
        next(stream)
    assert not own()
    with pytest.raises(UserError, match="the predictor is closed"):
        predictor.predict(photos)
    with pytest.raises(UserError, match=r"the predictor (was|is) closed"):
        list(stream)

    predictor = ppcls.Predictor(exported, engine="onednn", batch_size=2)
    predictor.predict(photos)
    threads = own()
    del predictor
    gc.collect()
    for thread in threads:
        thread.join(20)
    assert not own()


def test_an_error_names_the_photo_and_ends_the_stream(predictor, photos, tmp_path):
    """Whatever is before it in its batch is answered."""
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n")
    for batch_size in (1, 2, 8):
        stream = predictor.stream(photos, batch_size=batch_size)
        assert [next(stream).path for _ in range(3)] == photos[:3]
        with pytest.raises(UserError, match=r"3\.png: "):
            next(stream)


def test_a_photo_too_narrow_is_named(predictor, tmp_path):
    path = tmp_path / "line.png"
    Image.new("L", (5000, 1)).save(path)
    with pytest.raises(UserError) as caught:
        predictor.predict(path)
    assert str(caught.value).startswith(f"{path}: an image of 5000x1 pixels is too narrow")
    with pytest.raises(UserError, match=r"^the image given: an image of 5000x1 pixels is"):
        predictor.predict(np.zeros((1, 5000, 3), np.uint8))


def test_a_photo_of_one_pixel(predictor, small, tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), (200, 100, 50)).save(path)
    whole = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    found = scores(predictor.predict(path))
    np.testing.assert_allclose(found, expected(small, [whole]), atol=2e-6)


def test_arrays_of_every_kind(predictor, small, images):
    grey = images[0, :, :, 0]
    same = [grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 4)]
    wanted = np.repeat(expected(small, [np.dstack([grey] * 3)]), 4, axis=0)
    np.testing.assert_allclose(scores(predictor.predict(same)), wanted, atol=2e-6)
    with pytest.raises(UserError, match="an image is a uint8 array"):
        predictor.predict(images[0].astype(np.float32))


def test_no_photos(predictor, tmp_path):
    assert predictor.predict([]) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no images in this folder"):
        predictor.predict(tmp_path / "empty")
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(UserError, match=r"list\.txt: lists no images"):
        predictor.predict(tmp_path / "list.txt")


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """Images of 20,000 by 20,000 pixels; of the JPEG only the header says so."""
    place = tmp_path_factory.mktemp("huge")
    Image.new("1", (20_000, 20_000)).save(place / "huge.png")
    Image.new("L", (300, 500)).save(place / "huge.jpg")
    data = (place / "huge.jpg").read_bytes()
    sides = (500).to_bytes(2, "big") + (300).to_bytes(2, "big")
    assert data.count(sides) == 1
    (place / "huge.jpg").write_bytes(data.replace(sides, (20_000).to_bytes(2, "big") * 2))
    return place


@pytest.mark.parametrize("name", ["huge.png", "huge.jpg"])
def test_a_photo_of_20000_by_20000_pixels(exported, huge, photos, monkeypatch, run, name):
    """Refused by what its header says: nothing of its size is ever in memory."""

    def decode(image):
        assert image.size != (20_000, 20_000), "it is decoded"
        return load(image)

    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    command = ("predict", "--model-dir", exported, "--engine", "onednn", "--batch-size", 1)
    code, _, err = run(*command, *photos, huge / name)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {huge / name}: too large: Image size (400000000 pixels)")


def test_logits_become_probabilities(pixels_in, exported, small, images):
    logits = ppcls.Predictor(pixels_in, engine="onednn")
    assert logits.output == "logits"
    np.testing.assert_allclose(
        scores(logits.predict(list(images))), expected(small, images), atol=2e-6
    )


@pytest.mark.parametrize("ending", ["probabilities", "logits"])
def test_what_a_network_ends_in_is_seen_from_its_results(tmp_path, images, small, ending):
    made = export(small, tmp_path / "made", [], Form(("paddle",), output=ending))
    (made / "inference.yml").unlink()
    found = ppcls.Predictor(made, engine="onednn", resize=36, crop=32, labels=["a", "b"])
    assert found.output is None
    results = found.predict(list(images), batch_size=2)
    assert found.output == ending
    assert {name for result in results for name in result.labels} == {"a", "b"}
    np.testing.assert_allclose(scores(results), expected(small, images), atol=2e-6)


def test_another_size_than_the_network_takes(exported, pixels_in, images, small):
    for size in (24, 40):
        given = {"crop": size, "resize": size}
        with pytest.raises(UserError, match=r"takes float32 \[N, 3, 32, 32\].*use the --crop it"):
            ppcls.Predictor(exported, engine="onednn", **given).predict(images[0])
        (result,) = ppcls.Predictor(pixels_in, engine="onednn", **given).predict(images[0])
        preprocess = ppcls.Predictor(pixels_in, engine="onednn", **given).manifest.preprocess
        inputs = preprocess.normalize(preprocess(images[0])[None])
        wanted = small_network.probabilities(small.net, inputs)
        np.testing.assert_allclose(scores([result]), wanted, atol=2e-6)


def test_auto_says_why_no_engine_takes_another_size(exported):
    with pytest.raises(UserError) as caught:
        ppcls.Predictor(exported, crop=24, resize=24)
    assert str(caught.value).count("the network takes float32 [N, 3, 32, 32]") == 1


def test_labels_of_another_number(exported):
    with pytest.raises(UserError, match="there are 3 class names and the network has 2 classes"):
        ppcls.Predictor(exported, engine="onednn", labels=["a", "b", "c"])


@pytest.mark.parametrize(
    "labels", [{1: "b", 0: "a"}, {"0": "a", "1": "b"}, {"b": 1, "a": 0}, ("a", "b")]
)
def test_labels_of_python(exported, images, labels):
    with ppcls.Predictor(exported, engine="onednn", labels=labels) as found:
        (prediction,) = found.predict(images[0])
    assert prediction.labels == [["a", "b"][number] for number in prediction.classes]


def test_class_names_by_either_name(exported):
    with ppcls.Predictor(exported, engine="onednn", class_names=["a", "b"]) as found:
        assert found.class_names == found.labels == ("a", "b")
    with pytest.raises(UserError, match="labels and class_names are the same"):
        ppcls.Predictor(exported, engine="onednn", class_names=["a", "b"], labels=["a", "b"])


@pytest.mark.parametrize("labels", [{"a", "b"}, {0: "a", 2: "b"}, {"a": "b"}, ["a", " "], {}])
def test_labels_that_name_no_classes(exported, labels):
    with pytest.raises(UserError, match=r"^labels\b"):
        ppcls.Predictor(exported, engine="onednn", labels=labels)


def test_more_threads_than_a_machine_can_start(exported):
    with pytest.raises(UserError, match=r"threads \(1000000\): more than"):
        ppcls.Predictor(exported, engine="onednn", threads=1_000_000)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"Topk": {"topk": "five"}}, "topk should be a whole number from 0 to below"),
        ({"Topk": {"label_list": {1: "a", 2: "b"}}}, "inference.yml: label_list: classes are num"),
        ({"ThreshOutput": {"threshold": 90}}, "threshold: should be a number from 0 to 1, not 90"),
        ({"ThreshOutput": {"default_label_index": 7}}, "default_label_index is 7 and the network "),
        (
            {"ThreshOutput": {"default_label_index": 2, "label_0": "a", "label_1": "b"}},
            "default_label_index should be a whole number from 0 to below 2",
        ),
    ],
)
def test_a_post_processing_that_cannot_be(copy, images, step, words):
    file = copy() / "inference.yml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"PostProcess": step}))
    with pytest.raises(UserError, match=words):
        ppcls.Predictor(file.parent, engine="onednn").predict(images[0])


def test_what_is_no_classifier(tmp_path, images):
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32", "image")
    paddle.jit.save(nn.Conv2D(3, 2, 1), str(tmp_path / "inference"), input_spec=[spec])
    predictor = ppcls.Predictor(tmp_path, engine="onednn", resize=36, crop=32)
    with pytest.raises(UserError, match=r"output is \[1, 2, 32, 32\], not a number for each clas"):
        predictor.predict(images[0])


def test_a_class_that_needs_a_threshold_to_be_the_answer(copy, images, predictor):
    """PaddleClas's ThreshOutput: of two classes the second from the threshold on, or the first."""
    place = copy()
    images = list(images)
    file = place / "inference.yml"
    document = yaml.safe_load(file.read_text())
    shares = [dict(zip(p.classes, p.scores, strict=True))[1] for p in predictor.predict(images)]
    least = sorted(shares)[2]
    document["PostProcess"] = {
        "ThreshOutput": {"threshold": least, "label_0": "nobody", "label_1": "someone"}
    }
    file.write_text(yaml.safe_dump(document))
    found = ppcls.Predictor(place, engine="onednn")
    for prediction, share in zip(found.predict(images), shares, strict=True):
        someone = share >= least - 1e-7
        assert prediction.labels == ["someone" if someone else "nobody"]
        assert prediction.classes == [int(someone)]
        expected = share if someone else 1 - share
        assert prediction.scores == pytest.approx([expected], abs=1e-5)
    answers = [p.classes[0] for p in found.predict(images)]
    assert [p.classes for p in found.predict(images, topk=2)] == [[c, 1 - c] for c in answers]
    for threshold, answer in ((0.0, "someone"), (1.0, "nobody")):
        other = ppcls.Predictor(place, engine="onednn", threshold=threshold)
        assert {p.labels[0] for p in other.predict(images)} == {answer}
