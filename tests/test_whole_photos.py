"""Images that are no squares, or are seen whole: from training to every engine."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from photos import write_photo

from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.inputs import open_image
from ppcls.inference.predictor import Predictor, softmax
from ppcls.train.setup import open_trained

ENGINES = ("onednn", "paddle", "onnxruntime", "openvino")
LETTERBOX = "{fit: letterbox, crop: [225, 96]}"
SQUASH = "{fit: squash, crop: [192, 48], backend: pil}"
CROP = "{resize: [60, 80], crop: [48, 64]}"
ONE_EPOCH = ("-o", "model.name=ResNet18", "train.epochs=1")
IMAGES = "photos/eval/ant"


def trained_with(run, preprocess, *options):
    """What training for an epoch says; photos have more than one shape."""
    for part in ("train", "eval"):
        write_photo(Path(f"photos/{part}/ant/wide.png"), 7, (30, 200, 3))
        write_photo(Path(f"photos/{part}/bee/tall.png"), 8, (230, 40, 3))
    text = Path("recipe.yaml").read_text().replace("{resize: 36, crop: 32}", preprocess)
    Path("recipe.yaml").write_text(text)
    code, out, err = run("train", "-c", "recipe.yaml", *ONE_EPOCH, *options)
    assert (code, err) == (0, "")
    return out


def exported_with(run, *options):
    """The network in all formats, in `exported/x`."""
    formats = ("--format", "paddle", "onnx", "openvino")
    code, _, err = run("export", "--weights", "runs/small/best.safetensors", *formats, *options,
                       "--output", "exported/x")  # fmt: skip
    assert (code, err) == (0, "")
    return open_exported(Path("exported/x"))


def probabilities(paths):
    """Of the trained network, in its own framework."""
    trained = open_trained(None, [], "runs/small/best.safetensors")
    preprocess = trained.recipe.preprocess
    pixels = np.stack([open_image(str(path), preprocess) for path in paths])
    trained.net.eval()
    with paddle.no_grad():
        logits = trained.net(paddle.to_tensor(preprocess.normalize(pixels))).numpy()
    return pixels, softmax(logits)


@pytest.mark.parametrize(
    ("preprocess", "given", "op", "options", "size", "every"),
    [
        (
            LETTERBOX,
            (),
            {"LetterboxImage": {"size": [96, 225], "fill": 114}},
            (),
            "96x225 px",
            False,
        ),
        pytest.param(
            SQUASH,
            (
                "train.transforms=[{op: resize}]",
                "train.size={kind: multi_scale, sizes: [[96, 48]]}",
            ),
            {"ResizeImage": {"size": [48, 192], "backend": "pil"}},
            ("--input", "uint8"),
            "48x96 px",
            True,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            CROP,
            ("train.transforms=[{op: resize_short}, {op: random_crop}]",),
            {"ResizeImage": {"size": [80, 60]}},
            ("--dynamic-size", "--logits"),
            "64x48 px",
            True,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_from_training_to_every_engine(workdir, run, preprocess, given, op, options, size, every):
    out = trained_with(run, preprocess, *given)
    assert size in out
    assert run("eval", "-c", "recipe.yaml", *ONE_EPOCH)[0] == 0
    folder = exported_with(run, *options)
    written = yaml.safe_load(Path("exported/x/inference.yml").read_text())
    ((name, found),) = written["PreProcess"]["transform_ops"][0].items()
    assert (name, {**found, **op[name]}) == (name, found)
    paths = sorted(Path("photos/eval").rglob("*.png"))
    pixels, expected = probabilities(paths)
    about = folder.manifest
    assert pixels.shape[1:] == (about.preprocess.height, about.preprocess.width, 3)
    inputs = pixels if about.input == "uint8" else about.preprocess.normalize(pixels)
    for engine in ENGINES if every else ("onnxruntime", "openvino"):
        output = open_engine(folder, Settings(engine)).run(inputs)
        seen = softmax(output) if about.output == "logits" else output
        np.testing.assert_allclose(seen, expected, atol=1e-5)
    for engine in ENGINES if every else ("onednn",):
        with Predictor("exported/x", engine=engine) as predictor:
            for row, result in zip(expected, predictor.predict(paths), strict=True):
                np.testing.assert_allclose(result.scores, sorted(row)[::-1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", [LETTERBOX, SQUASH])
def test_in_int8_and_with_every_engine_measured(workdir, run, preprocess):
    pytest.importorskip("onnx")
    trained_with(run, preprocess)
    exported_with(run)
    quantize = ("quantize", "--model-dir", "exported/x", "--calibrate", "photos/train")
    code, _, err = run(*quantize, "--eval", "photos/eval", "--budget", "0.5")
    assert (code, err) == (0, "")
    int8 = open_exported(Path("exported/x-int8")).manifest
    assert int8.precision == "int8"
    assert int8.preprocess == open_exported(Path("exported/x")).manifest.preprocess
    code, out, err = run("predict", "--model-dir", "exported/x-int8", IMAGES)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) >= 4
    code, _, err = run("predict", "--model-dir", "exported/x", IMAGES)  # the fastest engine
    assert (code, err) == (0, "")
    code, _, err = run("bench", "--model-dir", "exported/x", "--seconds", "0.01", "--rounds", "1")
    assert (code, err) == (0, "")
    rows = Path("bench/benchmark.csv").read_text()
    size = "96x225" if preprocess == LETTERBOX else "48x192"
    assert f",{size},{'letterbox' if preprocess == LETTERBOX else 'squash'}," in rows


@pytest.mark.slow
def test_pictures_findings_and_a_resumed_run(workdir, run):
    trained_with(run, LETTERBOX)
    recipe = ("-c", "recipe.yaml", *ONE_EPOCH)
    code, out, err = run("show-data", "--output", "train.png", *recipe)
    assert (code, err) == (0, "")
    assert "at 96x225 px" in out
    code, out, err = run("show-data", "--output", "eval.png", "--eval", *recipe)
    assert (code, err) == (0, "")
    assert "at 96x225 px" in out
    assert run("check-data", *recipe)[0] in (0, 1)
    assert run("train", *recipe, "train.epochs=2", "--resume")[0] == 0
    code, _, err = run("train", *recipe, "preprocess.fit=squash", "train.epochs=2", "--resume")
    assert code == 2
    assert "preprocess.fit: letterbox -> squash" in err


@pytest.mark.slow
def test_a_teacher_of_images_that_are_no_squares(workdir, run):
    text = Path("recipe.yaml").read_text()
    text = text.replace("{resize: 36, crop: 32}", "{fit: squash, crop: [40, 24]}")
    Path("recipe.yaml").write_text(text)
    assert run("train", "-c", "recipe.yaml", "-o", "train.epochs=1")[0] == 0
    assert run("export", "-c", "recipe.yaml", "--output", "exported/x")[0] == 0
    teacher = "{kind: exported, folder: exported/x, cache: kept.bin}"
    taught = (
        *("-o", "train.epochs=1", "output=runs/taught", "train.transforms=[{op: resize}]"),
        f"task={{kind: distill, teacher: {teacher}, losses: [{{kind: kl}}]}}",
    )
    code, _, err = run("teach", "-c", "recipe.yaml", *taught, "--output", "kept.bin")
    assert (code, err) == (0, "")
    code, _, err = run("train", "-c", "recipe.yaml", *taught)
    assert (code, err) == (0, "")
    code, _, err = run(
        "train", "-c", "recipe.yaml", *taught, "output=runs/b", "train.size=[40, 32]"
    )
    assert code == 2
    assert "size: [40, 24] -> [40, 32]" in err
    live = taught[-1].replace(", cache: kept.bin", "")
    other = ("output=runs/c", "train.size=[24, 40]")
    code, _, err = run("train", "-c", "recipe.yaml", *taught[:-1], live, *other)
    assert code == 2
    assert "takes images of 24x40 px and they are 40x24 px: export it with --dynamic-size" in err


def test_predicting_otherwise_than_the_folder_says(exported, run):
    command = ("predict", "--model-dir", "exported/small", IMAGES, "--engine", "onednn")

    def scores(*options):
        code, _, err = run(*command, *options, "--save", "found.jsonl", "--overwrite")
        assert (code, err) == (0, "")
        rows = map(json.loads, Path("found.jsonl").read_text().splitlines())
        return [row["scores"] for row in rows]

    whole = {fit: scores("--fit", fit) for fit in ("crop", "squash", "letterbox")}
    black = scores("--fit", "letterbox", "--fill", "0")
    assert len({str(found) for found in (*whole.values(), black)}) == 4
    assert whole["squash"] == scores("--fit", "crop", "--resize", "32,32")
    code, _, err = run(*command, "--crop", "32,24")
    assert code == 2
    assert "use the --crop it was exported with" in err
    code, _, err = run(*command, "--fit", "squash", "--resize", "40")
    assert code == 2
    assert err.endswith("give the size as crop, or fit as crop, too\n")
    for given in ("32x32", "0,32", "1,2,3", ""):
        with pytest.raises(SystemExit):
            run(*command, "--crop", given)


def test_sizes_in_python(exported):
    with pytest.raises(ValueError, match=r"crop .* should be a number, or height and width"):
        Predictor("exported/small", crop=(1, 2, 3))
    for crop in ((1, 0), [1, [2]], np.ones((2, 2), int)):
        with pytest.raises(ValueError, match=r"crop .* should be a whole number from 1"):
            Predictor("exported/small", crop=crop)
    with pytest.raises(ValueError, match=r"fit: should be 'crop', 'squash' or 'letterbox'"):
        Predictor("exported/small", fit="whole")
    crop = np.array([32, 32])
    with Predictor("exported/small", engine="onednn", fit="squash", crop=crop) as predictor:
        assert predictor.manifest.preprocess.crop == 32


def test_a_checkpoint_from_before_is_read(trained, run):
    """Its record has no word of how images are fitted: they are cut, whatever a recipe says."""
    from ppcls.train.checkpoint import RECORD
    from ppcls.utils.text import from_json, to_json
    from ppcls.weights import files

    path = Path("runs/small/best.safetensors")
    checkpoint = files.read(path)
    record = from_json(checkpoint.metadata[RECORD])
    for key in ("fit", "fill"):
        del record["recipe"]["preprocess"][key]
    metadata = {**checkpoint.metadata, RECORD: to_json(record)}
    files.write_safetensors(path, checkpoint.tensors, metadata)
    text = Path("recipe.yaml").read_text().replace("{resize:", "{fit: squash, resize:")
    Path("recipe.yaml").write_text(text)
    code, out, err = run("export", "-c", "recipe.yaml", "--output", "exported/x")
    assert (code, err) == (0, "")
    assert "preprocess is taken from the checkpoint (fit crop); the config has fit squash" in out
    assert open_exported(Path("exported/x")).manifest.preprocess.fit == "crop"
