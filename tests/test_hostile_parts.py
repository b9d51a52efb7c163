"""Files from elsewhere that name an import path run nothing unless its module was named."""

import json
import shutil

import pytest
import yaml

import ppcls
from ppcls.weights import files

PATH = "trap_pkg.Trap"
TRAP = """
open("{folder}/sprung", "w").close()


class Trap:
    def __call__(self, *given):
        pass
"""
PLACES = {
    "task.loss": {"kind": PATH},
    "data.train": {"kind": PATH, "root": "x"},
    "data.eval": {"kind": PATH},
    "train.transforms": [{"op": PATH}],
    "train.batch_transforms": [{"op": PATH}],
    "train.sampler": {"kind": PATH},
    "train.optimizer": {"kind": PATH},
    "train.schedule.decay": {"kind": PATH},
    "model.name": PATH,
}


@pytest.fixture
def trapped(workdir, monkeypatch):
    """The working folder with a module that leaves a file when it is imported."""
    (workdir / "trap_pkg.py").write_text(TRAP.format(folder=workdir))
    monkeypatch.syspath_prepend(str(workdir))  # it could be found
    ppcls.use("colorsys")  # another one is named
    yield workdir
    assert not (workdir / "sprung").exists()


def put(tree, key, value):
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


@pytest.mark.parametrize("key", PLACES)
def test_a_recipe(key, trapped, run):
    recipe = yaml.safe_load((trapped / "recipe.yaml").read_text())
    put(recipe, key, PLACES[key])
    (trapped / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for command in ("train", "eval", "check-data", "show-data"):
        code, _, err = run(command, "-c", "recipe.yaml")
        assert code == 2
        assert err.count("\n") == 1
        assert "trap_pkg" in err
        assert "--use trap_pkg" in err
    with pytest.raises(ppcls.UserError, match="--use trap_pkg"):
        ppcls.Recipe.load("recipe.yaml")


@pytest.mark.parametrize("key", ["task.loss", "data.eval", "train.transforms", "model.name"])
def test_a_checkpoint(key, trapped, finished, run):
    saved = files.read(finished[0] / "runs" / "small" / "latest.safetensors")
    record = json.loads(saved.metadata[files.RECORD])
    put(record["recipe"], key, PLACES[key])
    files.write_safetensors(
        trapped / "hostile.safetensors", saved.tensors, {files.RECORD: json.dumps(record)}
    )
    for command in ("eval", "export"):
        code, _, err = run(command, "--weights", "hostile.safetensors")
        assert code == 2
        assert err.count("\n") == 1
        assert "--use trap_pkg" in err
    for function in (ppcls.load, ppcls.evaluate):
        with pytest.raises(ppcls.UserError, match="--use trap_pkg"):
            function("hostile.safetensors")
    if key == "task.loss":  # as weights to start from, it tells classes and preprocessing alone
        given = ("model.weights=hostile.safetensors", "train.epochs=1", "output=runs/from")
        assert run("train", "-c", "recipe.yaml", "-o", *given)[0] == 0


def test_an_exported_folder(trapped, exported, run):
    path = trapped / "exported" / "small" / "inference.yml"
    document = yaml.safe_load(path.read_text())
    document["Global"]["model_name"] = PATH
    document["PreProcess"]["transform_ops"].append({PATH: {"kind": PATH}})
    document["ppcls"]["kind"] = document["ppcls"]["engine"] = PATH
    shutil.copy(path, trapped / "before.yml")
    path.write_text(yaml.safe_dump(document))
    image = "photos/eval/ant/0.png"
    assert run("predict", "--model-dir", "exported/small", image)[0] == 2
    del document["PreProcess"]["transform_ops"][-1]
    path.write_text(yaml.safe_dump(document))
    assert run("predict", "--model-dir", "exported/small", "--engine", "onednn", image)[0] == 0
    code, _, err = run("predict", "--model-dir", "exported/small", "--engine", PATH, image)
    assert code == 2
    assert "--use trap_pkg" in err


@pytest.mark.slow
def test_a_measured_choice_of_engine(trapped, exported, run, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(trapped / "home"))
    image = "photos/eval/ant/0.png"
    command = ("predict", "--model-dir", "exported/small", image)
    assert run(*command)[0] == 0
    kept = list(trapped.rglob("engines.json"))
    assert kept
    for path in kept:
        text = path.read_text()
        for name in ("onednn", "onnxruntime", "openvino"):
            text = text.replace(f'"{name}"', f'"{PATH}"')
        assert PATH in text
        path.write_text(text)
    assert run(*command)[0] == 0


ENGINE = """
import numpy as np
from ppcls.inference.engines.base import Opened


class Sure:
    def load(self, folder, settings):
        call = lambda images: np.float32([[0.25, 0.75]] * len(images))
        return Opened(call, (None, 3, 32, 32), "float32")


class Broken:
    def load(self, folder, settings):
        return folder.nothing


class NoEngine:
    pass
"""


def test_an_engine_whose_module_is_named_runs(exported, workdir, run):
    (workdir / "engines_own.py").write_text(ENGINE)
    command = ("predict", "--model-dir", "exported/small", "--use", "engines_own")
    images = ("photos/eval/ant/0.png", "photos/eval/bee/0.png")
    code, out, _ = run(*command, "--engine", "engines_own.Sure", *images)
    assert code == 0
    assert out.count("bee 0.7500; ant 0.2500") == 2
    for name, words in (("Broken", "AttributeError"), ("NoEngine", "should be a class with load")):
        code, _, err = run(*command, "--engine", f"engines_own.{name}", *images)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
