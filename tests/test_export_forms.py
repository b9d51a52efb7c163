"""`ppcls export` in each of its forms, and what becomes of an export that was there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import openvino
import paddle
import pytest
import small_network
import yaml
from openvino import opset13
from photos import write_photo

import ppcls
from ppcls.api import create_model
from ppcls.export import Form, export
from ppcls.inference import exported_model, formats
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported, sizes
from ppcls.utils.errors import UserError
from ppcls.weights import files

ENGINES = {"paddle": "onednn", "onnx": "onnxruntime", "openvino": "openvino"}
FILES = {
    "paddle": {"inference.json", "inference.pdiparams"},
    "onnx": {"inference.onnx"},
    "openvino": {"inference.xml", "inference.bin"},
}
EXPORT = ("export", "-c", "recipe.yaml", "--weights", "lite0.safetensors", "--output", "exported")
OLD = """
import os, sys
os.environ["FLAGS_enable_pir_api"] = "0"
import ppcls, paddle
from small_network import trained
network = paddle.nn.Sequential(trained().net, paddle.nn.Softmax())
network.eval()
spec = paddle.static.InputSpec([None, 3, 32, 32], "float32", "x")
paddle.jit.save(network, sys.argv[1] + "/inference", input_spec=[spec])
"""


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A checkpoint, and what its network says of any images."""
    paddle.seed(0)
    net = small_network.settle(create_model("EfficientNetLite0", 2))
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    files.write_safetensors(path, {k: v.numpy() for k, v in net.state_dict().items()}, {})
    return path, net


@pytest.fixture
def place(workdir, lite0):
    """The working directory with the checkpoint."""
    (workdir / "lite0.safetensors").symlink_to(lite0[0])
    return workdir


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small network in Paddle's format, and images."""
    place = tmp_path_factory.mktemp("small")
    for seed in range(2):
        write_photo(place / f"{seed}.png", seed)
    trained = small_network.trained()
    export(trained, place / "small", [str(place / "0.png"), str(place / "1.png")])
    return trained, place / "small", [str(place / "0.png"), str(place / "1.png")]


def names(path):
    return {file.name for file in path.iterdir()}


def scores(results):
    found = np.zeros((len(results), 2))
    for row, result in zip(found, results, strict=True):
        row[result.classes] = result.scores
    return found


def expected(net, preprocess, photos):
    pixels = [cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB) for photo in photos]
    inputs = preprocess.normalize(np.stack([preprocess(image) for image in pixels]))
    return small_network.probabilities(net, inputs)


@pytest.mark.slow
def test_all_formats_of_pixels_of_any_size_to_logits(place, lite0, run):
    formats = ("paddle", "onnx", "openvino")
    form = ("--format", *formats, "--input", "uint8", "--dynamic-size", "--logits")
    code, out, err = run(*EXPORT, *form)
    assert code == 0, err
    assert "on 6 images its probabilities differ from the trained network's by" in out
    assert names(place / "exported") == {"inference.yml"}.union(*FILES.values())
    own = yaml.safe_load((place / "exported/inference.yml").read_text())["ppcls"]
    assert own["network"] == {
        "input": "uint8",
        "output": "logits",
        "precision": "fp32",
        "dynamic_size": True,
        "task": "classify",
    }
    assert list(own["check"]["formats"]) == list(formats)
    assert own["check"]["largest_difference"] == max(own["check"]["formats"].values()) < 1e-4
    assert own["files"] == {
        name: (place / "exported" / name).stat().st_size for name in set().union(*FILES.values())
    }
    photos = sorted((place / "photos/eval").rglob("*.png"))
    for engine in ENGINES.values():
        predictor = ppcls.Predictor("exported", engine=engine, crop=45, resize=45)
        wanted = expected(lite0[1], predictor.manifest.preprocess, photos)
        assert np.ptp(wanted[:, 0]) > 1e-3
        found = scores(predictor.predict([str(photo) for photo in photos]))
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_another_format_replaces_the_earlier_export(small, tmp_path):
    trained, earlier, photos = small
    output = tmp_path / "small"
    shutil.copytree(earlier, output)
    for name in ("inference.xml", "inference.onnx.data", "inference.pdmodel", "notes.txt"):
        (output / name).write_text("of an earlier export")
    (output / "engine_cache/x").mkdir(parents=True)
    export(trained, output, photos, Form(("onnx",)))
    assert names(output) == {"inference.onnx", "inference.yml", "notes.txt"}  # what is none's stays
    found = ppcls.Predictor(output, engine="onnxruntime").predict(photos)
    before = ppcls.Predictor(earlier, engine="onednn").predict(photos)
    np.testing.assert_allclose(scores(found), scores(before), atol=2e-6)


def test_norms_are_fused_unless_they_are_kept(small, tmp_path):
    trained, fused, photos = small
    kept = export(trained, tmp_path / "kept", photos, Form(fuse=False))
    count = [(path / "inference.json").read_text().count("batch_norm") for path in (fused, kept)]
    assert count[0] == 0 < count[1]
    both = [ppcls.Predictor(path, engine="onednn").predict(photos) for path in (fused, kept)]
    np.testing.assert_allclose(*map(scores, both), atol=1e-6)


def listing(path):
    return {file: file.stat().st_mtime_ns for file in path.rglob("*")}


def test_one_format_that_differs_leaves_all_as_it_was(small, tmp_path, monkeypatch):
    trained, fused, photos = small
    shutil.copytree(fused, tmp_path / "small")
    before, save = listing(tmp_path), openvino.save_model

    def save_another(model, *given, **options):
        (result,) = model.get_results()
        shifted = opset13.add(result.input_value(0), np.float32(0.01))
        result.input(0).replace_source_output(shifted.output(0))
        save(model, *given, **options)

    monkeypatch.setattr(openvino, "save_model", save_another)
    with pytest.raises(UserError, match=r"network \(openvino\) differs .* by 0.01 in a probab"):
        export(trained, tmp_path / "small", photos, Form(("paddle", "openvino")))
    assert listing(tmp_path) == before


def test_an_interrupted_export_leaves_all_as_it_was(place, small, run, monkeypatch):
    shutil.copytree(small[1], place / "exported")
    before = listing(place)

    def interrupted(network, path, **options):
        Path(f"{path}.json").write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(paddle.jit, "save", interrupted)
    code, _, err = run(*EXPORT, "--overwrite")
    assert (code, err) == (130, "interrupted\n")
    assert listing(place) == before


def test_a_killed_export_is_cleared_away_by_the_next(small, tmp_path):
    trained, _, photos = small
    left = tmp_path / "small.incomplete"
    left.mkdir()
    (left / "inference.onnx").write_text("half of one")
    export(trained, tmp_path / "small", photos)
    assert names(tmp_path) == {"small"}
    assert names(tmp_path / "small") == FILES["paddle"] | {"inference.yml"}


def test_an_export_killed_while_it_was_replaced_is_replaced(small, tmp_path):
    trained, _, photos = small
    export(trained, tmp_path / "small", photos)
    (tmp_path / "small/inference.yml").unlink()
    export(trained, tmp_path / "small", photos)
    assert names(tmp_path / "small") == FILES["paddle"] | {"inference.yml"}
    (tmp_path / "small/inference.yml").unlink()
    (tmp_path / "small/diary.txt").write_text("not an export's")
    with pytest.raises(UserError, match="is no exported folder"):
        export(trained, tmp_path / "small", photos)


class Turning(small_network.Small):
    """Turns its answer round where images are dark."""

    def forward(self, images):
        answer = self.logits(self.pooled(self.features(images)))
        if images.mean() < 0:
            answer = -answer
        return answer


def test_a_layer_may_decide_by_the_numbers_it_sees(small, tmp_path):
    trained = small_network.trained(Turning())
    export(trained, tmp_path / "turning", small[2])
    engine = open_engine(open_exported(tmp_path / "turning"), Settings("onednn"))
    noise = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    for images in (noise - 1, noise + 1):
        found = engine.run(images)
        np.testing.assert_allclose(
            found, small_network.probabilities(trained.net, images), atol=1e-5
        )


@pytest.mark.parametrize("missing", ["paddle2onnx", "openvino"])
def test_a_package_that_is_not_installed(small, tmp_path, monkeypatch, missing):
    trained, _, photos = small
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install 'ppcls\[deploy\]'$"):
        export(trained, tmp_path / "small", photos, Form(("openvino",)))
    assert not listing(tmp_path)


def test_check_photos_are_named(small, tmp_path):
    trained, _, photos = small
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((1, 5000, 3), np.uint8))
    before = listing(tmp_path)
    for photo, words in (
        (tmp_path / "gone.png", "no such file"),
        (tmp_path / "broken.png", "not a JPEG, PNG"),
        (tmp_path / "line.png", "an image of 5000x1 pixels is too narrow"),
        (tmp_path, "is a folder; name an image in it"),
    ):
        with pytest.raises(UserError) as caught:
            export(trained, tmp_path / "small", [*photos, str(photo)])
        assert str(caught.value).startswith(f"{photo}: {words}")
        assert listing(tmp_path) == before


def test_probabilities_or_logits_not_both(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("export", "--weights", "x", "--softmax", "--logits")
    assert ended.value.code == 2
    assert "not allowed with argument --softmax" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_in_the_form_of_paddle_2(workdir, small, run):
    """`inference.pdmodel` without `inference.yml`, as PaddleClas released its networks."""
    trained, _, photos = small
    old = workdir / "old"
    old.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", OLD, "old"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {"inference.pdmodel", "inference.pdiparams"} <= names(old)
    assert "inference.json" not in names(old)

    wanted = expected(trained.net, trained.recipe.preprocess, photos)
    for engine in ("onednn", "paddle", "onnxruntime"):
        found = ppcls.Predictor("old", engine=engine, resize=36, crop=32)
        np.testing.assert_allclose(scores(found.predict(photos)), wanted, atol=2e-6)

    command = ("predict", "--model-dir", "old", "--engine", "onednn", "--crop", 32, *photos)
    code, _, err = run(*command, "--mean", 0.5, "--std", 0.5)
    assert code == 2
    assert "old: engine onednn cannot run this network on float32 [2, 1, 32, 32] (" in err
    program = (old / "inference.pdmodel").read_bytes()
    for left in (1, len(program) // 2):
        (old / "inference.pdmodel").write_bytes(program[:left])
        code, _, err = run(*command)
        assert code == 2
        assert "old/inference.pdmodel: this file or the .pdiparams beside it is damaged" in err
        assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_onnx_of_more_than_2_gb(small, tmp_path):
    """A network that is treated as one that large gives the same numbers."""
    trained, source, photos = small
    output = export(trained, tmp_path / "large", photos, Form(("onnx",)))
    weights = source / "inference.pdiparams"
    formats.to_onnx(source / "inference.json", weights, output / "inference.onnx", limit=1000)
    about = yaml.safe_load((output / "inference.yml").read_text())
    about["ppcls"]["files"] = sizes(output)
    (output / "inference.yml").write_text(yaml.safe_dump(about, allow_unicode=True))
    assert names(output) == {"inference.onnx", "inference.onnx.data", "inference.yml"}
    data = output / "inference.onnx.data"
    stored = list(exported_model.tensors(weights))
    assert data.stat().st_size == sum(tensor.bytes for tensor in stored)
    both = [
        ppcls.Predictor(path, engine=engine).predict(photos)
        for path, engine in ((source, "onednn"), (output, "onnxruntime"), (output, "openvino"))
    ]
    np.testing.assert_allclose(*map(scores, both[:2]), atol=1e-6)
    np.testing.assert_allclose(scores(both[0]), scores(both[2]), atol=1e-6)

    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"onnx.data: has .* bytes, inference.yml says"):
        open_exported(output)
    data.unlink()
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(UserError, match=r"inference\.onnx: damaged"):
            open_engine(open_exported(output), Settings(engine))


def test_what_counts_as_more_than_2_gb(tmp_path):
    path = tmp_path / "inference.pdiparams"
    for size, expected in ((1 << 30, False), ((1 << 31) - 1, True), (3 << 30, True)):
        with path.open("wb") as file:
            file.truncate(size)  # takes no room
        assert formats.is_large(path) == expected


def test_fp16_keeps_float32_at_both_ends(small, tmp_path):
    trained, _, photos = small
    form = Form(("onnx",), "uint8", precision="fp16", features=True)
    made = export(trained, tmp_path / "fp16", photos, form)
    about = yaml.safe_load((made / "inference.yml").read_text())["ppcls"]
    assert about["network"]["precision"] == "fp16"
    assert about["check"]["allowed"] == 2e-3
    assert 0 < about["check"]["largest_difference"] < 2e-3
    assert 0 < about["check"]["features"]["largest_difference"] < 2e-3
    assert about["check"]["recorded"]["onnx"] < 2e-3
    network = onnx.load(str(made / "inference.onnx"))
    onnx.checker.check_model(network)
    halves = [t for t in network.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    convolutions = {n.input[1] for n in network.graph.node if n.op_type == "Conv"}
    assert convolutions <= {tensor.name for tensor in halves}
    (given,) = network.graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for output in network.graph.output:
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    predictor = ppcls.Predictor(made / "inference.onnx", engine="onnxruntime")  # by its own texts
    assert predictor.manifest.precision == "fp16"
    expected_scores = expected(trained.net, predictor.manifest.preprocess, photos)
    found = scores(predictor.predict(photos))
    np.testing.assert_allclose(found, expected_scores, atol=2e-3)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)  # they were never rounded to FP16


@pytest.mark.slow
def test_fp16_leaves_convolutions_in_float32_where_it_has_to(small, tmp_path, monkeypatch, capsys):
    trained, _, photos = small
    monkeypatch.setattr(sys.modules["ppcls.export"], "FP16_TOLERANCE", 5e-5)
    monkeypatch.setattr(sys.modules["ppcls.export"], "IN_FLOAT", (0, 1))
    made = export(trained, tmp_path / "fp16", photos, Form(("onnx",), precision="fp16"))
    said = capsys.readouterr().out
    kept = re.search(r"; (\d) of 3 convolutions stay in float32 for that", said)
    network = onnx.load(str(made / "inference.onnx"))
    kinds = {tensor.name: tensor.data_type for tensor in network.graph.initializer}
    weights = [kinds[node.input[1]] for node in network.graph.node if node.op_type == "Conv"]
    assert sorted(weights).count(onnx.TensorProto.FLOAT) == int(kept[1]) == 3
    monkeypatch.setattr(sys.modules["ppcls.export"], "FP16_TOLERANCE", 1e-9)
    with pytest.raises(UserError, match=r"network \(onnx\) differs from .* nothing was exported"):
        export(trained, tmp_path / "none", photos, Form(("onnx",), precision="fp16"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("formats", [("paddle",), ("onnx", "openvino")])
def test_fp16_is_for_onnx_alone(small, tmp_path, formats):
    with pytest.raises(
        UserError, match=r"^--precision fp16: is for ONNX alone, give --format onnx"
    ):
        export(small[0], tmp_path / "fp16", (), Form(formats, precision="fp16"))
    assert not (tmp_path / "fp16").exists()
