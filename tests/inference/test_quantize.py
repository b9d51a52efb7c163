"""INT8: what is written, that it agrees with the float network, and what is refused."""

import copy
from functools import partial
from itertools import count

import numpy as np
import pytest
import small_network
from described_machine import describe
from photos import write_photo

from ppcls.data.datasets import labels_as, open_samples
from ppcls.inference import manifest
from ppcls.inference import quantize as judging
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.predictor import softmax
from ppcls.inference.quantize import SCHEMES, Job, Quantizer, Score, prepare, quantize
from ppcls.models import fake_quantize
from ppcls.utils import environment
from ppcls.utils.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLOSE = 0.05  # of probabilities that 8 bits may change


quick = partial(quantize, clock=count().__next__)  # each run seems to take long enough


@pytest.fixture
def photos(tmp_path):
    """A folder with three images of each class."""
    for seed in range(6):
        write_photo(tmp_path / "photos" / ("ant", "bee")[seed % 2] / f"{seed}.png", seed)
    return tmp_path / "photos"


class Scripted:
    """A judge that finds these losses of agreement, one after the other."""

    advice = "look at them"

    def __init__(self, *losses):
        self.rest = iter(losses)

    def score(self, engine):
        return Score(None, 1 - next(self.rest))


def search(exported, photos, place, judge):
    """The network in INT8 that is found for a budget of a tenth."""
    folder, paths = open_exported(exported), sorted(map(str, photos.rglob("*.png")))
    inputs = (prepare(folder.manifest, [path]) for path in paths)
    assert folder.onnx
    quantizer = Quantizer(folder.onnx, SCHEMES["onnxruntime"], inputs, len(paths))
    place.mkdir()
    return Job(folder, "onnxruntime", quantizer, judge, place).search(0.1, paths)


def graph_of(path):
    graph = onnx.load(str(path)).graph
    made = {name: node for node in graph.node for name in node.output}
    return graph, made, {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}


def takes_int8(node, made) -> bool:
    return all(name in made and made[name].op_type == "DequantizeLinear" for name in node.input[:2])


def outputs(folder, engine, images):
    return open_engine(folder, Settings(engine)).run(images)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_folder_in_int8(exported, photos, tmp_path, capsys, engine):
    pytest.importorskip(engine)
    made = quick(exported, photos, engine, tmp_path / "made", photos, budget=0.5)
    files = {"onnxruntime": ["inference.onnx"], "openvino": ["inference.bin", "inference.xml"]}
    assert sorted(p.name for p in made.iterdir()) == [*files[engine], "inference.yml"]
    folder, before = open_exported(made), open_exported(exported)
    about = folder.manifest.about
    assert (before.manifest.precision, folder.manifest.precision) == ("fp32", "int8")
    assert about["files"] == {name: (made / name).stat().st_size for name in files[engine]}
    assert about["int8"]["engine"] == engine
    assert about["int8"]["layers_in_float"] == []
    assert set(about["int8"]["milliseconds"]) == {"batch 1", "batch 8"}
    images = prepare(before.manifest, sorted(map(str, photos.rglob("*.png"))))
    found, expected = outputs(folder, engine, images), outputs(before, engine, images)
    assert 0 < np.abs(found - expected).max() < CLOSE
    right = np.array([0, 0, 0, 1, 1, 1])
    assert about["int8"]["top1"] == {
        "float": (expected.argmax(1) == right).mean(),
        "int8": (found.argmax(1) == right).mean(),
    }
    assert f"{made}: {exported} in int8 for {engine}" in capsys.readouterr().out


def test_weights_have_a_scale_for_each_output_channel(exported, photos, tmp_path):
    made = quick(exported, photos, "onnxruntime", tmp_path / "made", budget=1)
    graph, producers, values = graph_of(made / "inference.onnx")
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for node in convolutions:
        weights, scales, _ = (values[name] for name in producers[node.input[1]].input)
        assert weights.dtype == np.int8
        assert scales.shape == weights.shape[:1]
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    assert producers[softmax.input[0]].op_type in ("Gemm", "MatMul", "Add")


def test_a_network_rounds_in_training_as_its_int8_does(exported, small, photos, tmp_path):
    folder = open_exported(exported)
    images = [prepare(folder.manifest, [str(path)]) for path in sorted(photos.rglob("*.png"))]
    assert folder.onnx
    quantizer = Quantizer(folder.onnx, SCHEMES["openvino"], images, len(images))
    quantizer.write(tmp_path / "int8.onnx", ())
    session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"))
    seen = np.concatenate(images)
    (found,) = session.run(None, {quantizer.given: seen})
    net = copy.deepcopy(small.net)
    in_float = small_network.probabilities(net, seen)
    fake_quantize.put_into(net.eval(), quantizer.weight_bits)
    for one in fake_quantize.ranges_of(net).values():
        one.train()
    for image in images:
        small_network.probabilities(net, image)
    net.eval()
    simulated = small_network.probabilities(net, seen)
    assert np.abs(found - in_float).max() > 1e-3
    assert np.abs(found - simulated).max() < np.abs(found - in_float).max() / 4


def test_tensorrt_reads_symmetric_activations_and_float_biases(exported, photos, tmp_path):
    made = quick(exported, photos, "onnxruntime-tensorrt", tmp_path / "made", budget=1)
    graph, producers, values = graph_of(made / "inference.onnx")
    kinds = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    zeros = [values[node.input[2]] for node in kinds]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    for node in graph.node:
        if node.op_type == "Conv":
            assert takes_int8(node, producers)
            assert values[node.input[2]].dtype == np.float32
            assert values[producers[producers[node.input[1]].input[0]].input[0]].dtype == np.float32
    folder, before = open_exported(made), open_exported(exported)
    images = prepare(before.manifest, sorted(map(str, photos.rglob("*.png"))))
    difference = outputs(folder, "onnxruntime", images) - outputs(before, "onnxruntime", images)
    assert np.abs(difference).max() < CLOSE


def test_pixels_are_normalised_in_float(pixels_in, photos, tmp_path):
    made = quick(pixels_in, photos, "onnxruntime", tmp_path / "made", budget=1)
    folder, before = open_exported(made), open_exported(pixels_in)
    assert (folder.manifest.input, folder.manifest.output) == ("uint8", "logits")
    assert folder.manifest.dynamic_size
    images = prepare(before.manifest, sorted(map(str, photos.rglob("*.png"))))
    assert images.dtype == np.uint8
    found, expected = (outputs(f, "onnxruntime", images) for f in (folder, before))
    assert np.abs(softmax(found) - softmax(expected)).max() < CLOSE
    graph, producers, _ = graph_of(made / "inference.onnx")
    for node in graph.node:
        if node.op_type in ("Mul", "Add"):
            assert not takes_int8(node, producers)
        if node.op_type == "Conv":
            assert takes_int8(node, producers)


def test_sensitive_layers_stay_float(exported, photos, tmp_path):
    judge = Scripted(0.5, 0.2, 0.1)  # of all layers in int8, one left in float, two
    left = search(exported, photos, tmp_path / "made", judge).in_float
    graph, producers, _ = graph_of(tmp_path / "made/inference.onnx")
    assert len(left) == 2
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            assert takes_int8(node, producers) == (node.name not in left), node.name


def test_layers_are_ranked_by_the_harm_they_do_alone(exported, photos):
    folder = open_exported(exported)
    images = prepare(folder.manifest, sorted(map(str, photos.rglob("*.png"))))
    singles = (images[i : i + 1] for i in range(6))
    assert folder.onnx
    quantizer = Quantizer(folder.onnx, SCHEMES["openvino"], singles, 6)
    name = quantizer.layers[1]
    node = next(node for node in quantizer.model.graph.node if node.name == name)
    low = quantizer.ranges[node.input[0]].lowest
    quantizer.ranges[node.input[0]].lowest = low - np.float32(1000)  # steps of 4: nothing is left
    assert sorted(quantizer.rank(images)) == sorted(quantizer.layers)
    assert quantizer.rank(images)[0] == name


def test_ranges_are_means_over_photos(exported):
    folder = open_exported(exported)
    images = np.random.default_rng(0).normal(0, 1, (5, 1, 3, 32, 32)).astype(np.float32)
    images[3] *= 1000  # an odd one
    assert folder.onnx
    quantizer = Quantizer(folder.onnx, SCHEMES["onnxruntime"], images, 5)
    expected = images.max(axis=(1, 2, 3, 4)).mean()
    assert quantizer.ranges[quantizer.given].highest == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("flags", "bits"), [("flags: avx2 avx512_vnni", 8), ("flags: avx2", 7)])
def test_weights_are_narrower_where_sums_would_overflow(exported, monkeypatch, flags, bits):
    describe(monkeypatch, "/proc/cpuinfo", flags)
    bits = bits if environment.X86 else 8
    images = np.zeros((1, 1, 3, 32, 32), np.float32)
    source = open_exported(exported).onnx
    assert source
    assert Quantizer(source, SCHEMES["openvino"], images, 1).weight_bits == bits
    assert Quantizer(source, SCHEMES["onnxruntime-tensorrt"], images, 1).weight_bits == 8


def test_a_budget_that_cannot_be_kept_leaves_nothing(exported, photos, tmp_path):
    with pytest.raises(UserError, match=r"costs 0\.0 points .* where -100\.0 points are allowed"):
        quick(exported, photos, "onnxruntime", tmp_path / "made", budget=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    words = r"costs 50\.0 points .* and 30\.0 points with 2 of \d+ layers .*; .* or look at them"
    with pytest.raises(UserError, match=words):
        search(exported, photos, tmp_path / "tried", Scripted(0.5, 0.4, 0.3, 0.35, 0.36))


def test_an_earlier_folder_outlives_a_failure(exported, photos, tmp_path):
    made = quick(exported, photos, "onnxruntime", tmp_path / "made", budget=1)
    before = (made / "inference.onnx").read_bytes()
    (photos / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png"):
        quick(exported, photos, "onnxruntime", made, budget=1)
    assert (made / "inference.onnx").read_bytes() == before
    assert open_exported(made).manifest.precision == "int8"


def test_what_is_refused(exported, photos, tmp_path, copy):
    def refused(*given, match):
        with pytest.raises(UserError, match=match) as caught:
            quick(*given)
        assert "\n" not in str(caught.value)

    target = tmp_path / "made"
    refused(exported, photos, "paddle", target, match="does not run on CPUs")
    refused(exported, photos, "onednn", target, match="onnxruntime, openvino, onnxruntime-tens")
    refused(exported, photos, "openvino", exported, match="is the float network")
    refused(exported, photos, "openvino", photos, match="is no exported folder")
    refused(exported, tmp_path / "none", "openvino", target, match="none: no such file")
    (tmp_path / "empty").mkdir()
    refused(exported, tmp_path / "empty", "openvino", target, match="no images in this folder")
    write_photo(photos / "cat" / "0.png", 0)
    refused(
        exported,
        photos,
        "openvino",
        target,
        photos,
        match="has besides .cat., compared with the network",
    )
    again = copy()
    text = (again / manifest.FILE).read_text()
    (again / manifest.FILE).write_text(text.replace("precision: fp32", "precision: int8"))
    refused(again, photos, "openvino", target, match="is in int8 already")
    assert not target.exists()


def test_labels_are_the_networks_numbers(photos, tmp_path, capsys):
    samples = open_samples(photos)
    assert labels_as(samples, ("bee", "wasp", "ant"), 3, "--eval").tolist() == [2] * 3 + [0] * 3
    assert labels_as(samples, ("x", "y"), 2, "--eval").tolist() == [0] * 3 + [1] * 3
    assert "in order" in capsys.readouterr().out
    (tmp_path / "list.txt").write_text("photos/ant/0.png 0\nphotos/bee/1.png 7\n")
    with pytest.raises(
        UserError, match=r"list\.txt:2 .* label 7, but the network's last class is 1"
    ):
        labels_as(open_samples(tmp_path / "list.txt"), (), 2, "--eval")


def test_photos_to_compare_on_are_others_if_there_are_enough(exported, photos):
    folder = open_exported(exported)
    engine = open_engine(folder, Settings("onnxruntime"))
    found = sorted(map(str, photos.rglob("*.png")))
    for chosen, expected in ((found[:2], found[2:]), (found[:4], found)):
        judge = judging.unlabelled(photos, found, chosen, folder.manifest, engine)
        assert judge.paths == expected
        assert judge.score(engine) == Score(None, 1.0)


@pytest.mark.parametrize("labelled", [False, True])
def test_broken_photos_are_skipped_where_that_is_asked(
    exported, photos, tmp_path, run, capsys, labelled
):
    (photos / "ant" / "0.png").write_bytes(b"x")
    (photos / "bee" / "5.png").unlink()
    (tmp_path / "list.txt").write_text(
        "".join(f"photos/{name}/{n}.png {n % 2}\n" for n, name in enumerate(["ant", "bee"] * 3))
    )
    source = tmp_path / "list.txt"
    command = ["quantize", "--model-dir", exported, "--calibrate", source, "--budget", 1]
    command += ["--output", tmp_path / "made", *(["--eval", source] if labelled else [])]
    code, _, err = run(*command)
    assert code == 2
    assert not (tmp_path / "made").exists()
    evaluate = source if labelled else None
    quick(exported, source, "onnxruntime", tmp_path / "made", evaluate, budget=1, on_error="skip")
    assert "2 images to calibrate with cannot be read: " in capsys.readouterr().out
    about = open_exported(tmp_path / "made").manifest.about["int8"]
    assert about["calibrated_on"] == f"4 images of {source}"
    assert about["compared_on"] == f"4 images of {source}"
    for path in photos.rglob("*.png"):
        path.write_bytes(b"x")
    code, _, err = run(*command, "--on-error", "skip")
    assert code == 2
    assert "can be read" in err
    assert len(err.splitlines()) == 1
