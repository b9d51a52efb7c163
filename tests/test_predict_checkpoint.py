"""A checkpoint, or a run's folder, predicts: exported once, with all that it knows."""

import os
import shutil

import numpy as np
import pytest

import ppcls
from ppcls.utils.errors import UserError
from ppcls.weights import files


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def lines(out):
    """What is predicted, without the milliseconds."""
    return [line.partition("  [")[0] for line in out.splitlines() if ".png: " in line]


def test_it_predicts_as_its_export_does_and_is_exported_once(exported, run, home):
    given = ("photos/eval", "--engine", "onednn")
    code, out, _ = run("predict", "--model-dir", "exported/small", *given)
    assert code == 0
    expected = lines(out)
    assert "ant 0." in expected[0]
    for number, name in enumerate(("runs/small/best.safetensors", "runs/small")):
        code, out, err = run("predict", "--model-dir", name, *given)
        assert (code, err) == (0, "")
        assert lines(out) == expected
        told = [line for line in out.splitlines() if "exported into" in line]
        (folder,) = (home / "exported").iterdir()
        once = f"runs/small/best.safetensors: exported into {folder}, once"
        assert told == ([once] if number == 0 else [])


@pytest.mark.slow
def test_in_python_with_features(exported, finished):
    with ppcls.Predictor("runs/small/latest.safetensors", engine="onednn") as predictor:
        assert predictor.class_names == ("ant", "bee")
        assert predictor.features("photos/eval").shape == (6, 1280)
        assert predictor.manifest.preprocess.crop == 32


@pytest.mark.slow
def test_another_checkpoint_of_that_name_is_another_export(trained, run, home):
    given = ("photos/eval/ant/0.png", "--engine", "onednn")
    assert run("predict", "--model-dir", "runs/small", *given)[0] == 0
    best = files.read("runs/small/best.safetensors")
    changed = {k: v + np.float32(0.5) if k == "head.bias" else v for k, v in best.tensors.items()}
    changed["head.bias"][0] += 9
    files.write_safetensors("runs/small/best.safetensors", changed, best.metadata)
    code, out, _ = run("predict", "--model-dir", "runs/small", *given)
    assert code == 0
    assert "ant 0.9" in out
    assert len(list((home / "exported").iterdir())) == 2


@pytest.mark.slow
def test_an_export_that_is_damaged_is_made_again(trained, run, home):
    given = ("predict", "--model-dir", "runs/small", "photos/eval/ant/0.png", "--engine", "onednn")
    assert run(*given)[0] == 0
    (folder,) = (home / "exported").iterdir()
    os.truncate(folder / "inference.pdiparams", 1000)
    code, out, _ = run(*given)
    assert code == 0
    assert "exported into" in out


def test_what_is_no_checkpoint_of_ours_says_how_to_export_it(trained, run):
    files.write_safetensors("runs/small/other.safetensors", {"a": np.zeros(2, np.float32)}, {})
    shutil.copy("runs/small/other.safetensors", "weights.pth")
    for name in ("runs/small/other.safetensors", "weights.pth"):
        code, _, err = run("predict", "--model-dir", name, "photos/eval")
        assert code == 2
        assert f"{name}: is a checkpoint; export it first: ppcls export" in err
    with pytest.raises(UserError, match="is a checkpoint; export it first"):
        ppcls.Predictor("weights.pth")


def test_a_home_that_cannot_be_written(trained, run, home):
    home.write_text("a file")
    code, _, err = run("predict", "--model-dir", "runs/small", "photos/eval")
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "PPCLS_HOME" in line
