"""Preprocessing that a recipe does not state comes from the weights; what it states wins."""

import json
from pathlib import Path

import pytest

from ppcls.config.load import load, to_plain
from ppcls.data.preprocess import Preprocess
from ppcls.inference.exported_model import open_exported
from ppcls.recipe import Recipe
from ppcls.weights import files, store

ROOT = Path(__file__).parents[1]
BARE = """
model: {name: EfficientNetLite0, weights: imagenet, new_head: true}
data: {train: photos/train, eval: photos/eval, workers: 0}
train: {epochs: 1, batch_size: 4, schedule: {lr: 0.005}}
output: runs/bare
"""
LITE0 = {
    "fit": "crop", "resize": 256, "crop": 224, "fill": 114,
    "interpolation": "bicubic", "backend": "cv2",
    "mean": [127 / 255] * 3, "std": [128 / 255] * 3,
}  # fmt: skip
PLAIN = to_plain(Preprocess())
SMALL = ("preprocess.resize=36", "preprocess.crop=32")


def used(folder):
    """The preprocessing of a run: of its recipe, and of what it saved."""
    own = to_plain(load(Recipe, Path(folder, "recipe.yml")).preprocess)
    record = json.loads(files.read(Path(folder, "latest.safetensors")).metadata["ppcls"])
    assert record["recipe"]["preprocess"] == own
    return own


@pytest.fixture
def bare(workdir):
    Path("bare.yaml").write_text(BARE)
    return workdir


def seen(run, *options, config="bare.yaml"):
    """What a command that only looks at the data says, and the size of what is trained on."""
    code, out, err = run("show-data", "-c", config, "--count", 1, "--overwrite", *options)
    assert (code, err) == (0, "")
    return out


def test_what_is_not_stated_is_as_the_weights_were_trained(bare, run):
    out = seen(run)
    assert (
        "preprocess as imagenet was trained with: interpolation bicubic, mean 0.498 0.498 0.498, "
        "std 0.502 0.502 0.502\n"
    ) in out
    assert "note:" not in out
    assert "at 224x224" in out
    code, out, _ = run("train", "-c", "bare.yaml", "-o", *SMALL)
    assert code == 0
    assert out.count("preprocess as imagenet was trained with") == 1
    line = "note: imagenet was trained with resize 256, crop 224; the recipe has resize 36, crop 32"
    assert out.count(line) == 1
    assert used("runs/bare") == {**LITE0, "resize": 36, "crop": 32}


@pytest.mark.slow
def test_export_eval_and_resume_have_the_values_used(bare, run):
    assert run("train", "-c", "bare.yaml", "-o", *SMALL)[0] == 0
    expected = {**LITE0, "resize": 36, "crop": 32}
    best = "runs/bare/best.safetensors"
    for name, options in {"a": ("--weights", best), "b": ("-c", "bare.yaml", "-o", *SMALL)}.items():
        code, out, _ = run("export", *options, "--output", f"exported/{name}")
        assert code == 0
        assert to_plain(open_exported(Path(f"exported/{name}")).manifest.preprocess) == expected
    code, out, _ = run("eval", "-c", "bare.yaml")  # states nothing: all is the checkpoint's
    assert (code, "note" in out) == (0, False)
    assert run("train", "-c", "bare.yaml", "-o", *SMALL, "--resume")[0] == 0
    code, _, err = run("train", "-c", "bare.yaml", "-o", SMALL[0], "preprocess.crop=30", "--resume")
    assert code == 2
    assert "preprocess.crop: 32 -> 30" in err


def test_weights_of_an_own_run_say_theirs(trained, bare, run):
    weights = "model.weights=runs/small/best.safetensors"
    assert seen(run, "-o", weights).startswith("preprocess as runs/small/best.safetensors was ")
    code, out, _ = run("train", "-c", "bare.yaml", "-o", weights, "output=runs/own")
    assert code == 0
    assert used("runs/own") == {**PLAIN, "resize": 36, "crop": 32}
    code, out, _ = run("train", "-c", "bare.yaml", "-o", weights, "output=runs/own2",
                       "preprocess.interpolation=area")  # fmt: skip
    assert code == 0
    assert "was trained with interpolation bilinear; the recipe has interpolation area" in out
    assert used("runs/own2") == {**PLAIN, "resize": 36, "crop": 32, "interpolation": "area"}


def test_a_run_goes_on_without_the_file_it_began_from(trained, bare, run):
    Path("start.safetensors").write_bytes(Path("runs/small/best.safetensors").read_bytes())
    options = ("-o", "model.weights=start.safetensors", "output=runs/own")
    assert run("train", "-c", "bare.yaml", *options)[0] == 0
    Path("start.safetensors").unlink()
    assert run("train", "-c", "bare.yaml", *options, "--resume")[0] == 0


def test_weights_that_say_nothing_leave_the_defaults(trained, bare, run):
    tensors = files.read("runs/small/best.safetensors").tensors
    files.write_safetensors(Path("own.safetensors"), tensors, {"format": "pt", "ppcls": "[]"})
    for name in ("own.safetensors", "missing.safetensors"):
        out = seen(run, "-o", f"model.weights={name}")
        assert "preprocess" not in out
        assert "at 224x224" in out


def test_grey_weights_bring_their_one_channel(bare, run):
    options = ("model.weights=null", "model.in_channels=1", *SMALL)
    grey = ("preprocess.mean=[0.3]", "preprocess.std=[0.35]")
    assert run("train", "-c", "bare.yaml", "-o", *options, *grey, "output=runs/g")[0] == 0
    options = ("model.weights=runs/g/best.safetensors", "model.in_channels=1")
    assert run("train", "-c", "bare.yaml", "-o", *options, "output=runs/h")[0] == 0
    assert used("runs/h") == {**PLAIN, "resize": 36, "crop": 32, "mean": [0.3], "std": [0.35]}
    assert run("eval", "-c", "bare.yaml", "-o", *options, "output=runs/h")[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["preprocess.crop=300"], "resize 256 is below crop 300"),
        (["preprocess.resize=100"], "resize 100 is below crop 224"),
        (["preprocess.mean=[0.5]"], "mean has 1 value and std 3"),
        (["model.in_channels=1"], "mean and std have 3 values and model.in_channels is 1"),
        (["preprocess.crop=36", "preprocess.resize=32"], "resize 32 is below crop 36"),
    ],
)
def test_what_does_not_fit_is_one_line(bare, run, options, words):
    code, _, err = run("train", "-c", "bare.yaml", "-o", *options)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    fresh = run("train", "-c", "bare.yaml", "-o", *options, "model.weights=null")
    assert fresh[0] == 2
    assert words in fresh[2]


def test_larger_weights_allow_what_the_defaults_do_not(bare, run):
    larger = ("model.name=EfficientNetLite2", "preprocess.crop=288")
    assert "at 288x288" in seen(run, "-o", *larger)


@pytest.mark.parametrize("config", sorted((ROOT / "configs/finetune").glob("*.yaml")))
def test_recipes_for_own_photos_follow_another_network(bare, run, config):
    data = ("data.train=photos/train", "data.eval=photos/eval")
    out = seen(run, "-o", *data, "model.name=EfficientNetLite2", "model.weights=imagenet",
               config=config)  # fmt: skip
    assert "resize 297, crop 260, interpolation bicubic, mean 0.498 0.498 0.498" in out
    assert "note:" not in out
    assert "at 260x260" in out


@pytest.mark.parametrize("config", ["ResNet50_vd", "ResNet50_vd_ssld", "EfficientNetB4"])
def test_published_recipes_state_what_their_weights_were_trained_with(bare, run, config):
    known = store.trained_with(config, "true")
    own = to_plain(load(Recipe, ROOT / f"configs/{config}.yaml").preprocess)
    assert {key: own[key] for key in known} == known
