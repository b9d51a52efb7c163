"""Folders of exported networks: whole, incomplete, damaged, and without `inference.yml`."""

import json
import os
import re

import numpy as np
import pytest
import yaml
from photos import write_photo

from ppcls.data.preprocess import Preprocess
from ppcls.inference import exported_model
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.utils.errors import UserError

PADDLE = ("inference.json", "inference.pdiparams")
OPENVINO = ("inference.xml", "inference.bin")
ENGINES = {
    "inference.json": "onednn",
    "inference.pdiparams": "onednn",
    "inference.onnx": "onnxruntime",
    "inference.xml": "openvino",
    "inference.bin": "openvino",
}
BESIDE = {
    "inference.json": PADDLE,
    "inference.pdiparams": PADDLE,
    "inference.onnx": ("inference.onnx",),
    "inference.xml": OPENVINO,
    "inference.bin": OPENVINO,
}
CROP = {"crop": 32, "resize": 36}  # in place of inference.yml


def refused(path, given=None, engine="onednn"):
    """The one line with which opening the folder, or the network in it, ends."""
    with pytest.raises(UserError) as caught:
        open_engine(open_exported(path, given), Settings(engine))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_folder(exported):
    found = open_exported(exported)
    names = [*PADDLE, "inference.onnx", *OPENVINO]
    assert [path.name for path in found.files] == names
    assert found.size() == max((exported / name).stat().st_size for name in names)
    assert found.manifest.labels == ("ant", "bee")


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("known", [True, False], ids=["inference.yml", "flags"])
def test_files_cut_short(copy, name, known):
    """Refused by the sizes in inference.yml, and without it by what is inside the files."""
    place = copy(*BESIDE[name], *(["inference.yml"] if known else []))
    file = place / name
    data = file.read_bytes()
    for left in (0, 1, len(data) // 2, len(data) - 3):
        file.write_bytes(data[:left])
        words = refused(place, None if known else CROP, ENGINES[name])
        assert words.startswith(f"{file}: ")
        assert re.search("export it again|copy it again", words)
        if known:
            assert f"has {left} bytes, inference.yml says {len(data)}" in words
    file.write_bytes(data)
    open_engine(open_exported(place, None if known else CROP), Settings(ENGINES[name]))


def test_files_of_another_export(copy):
    place = copy()
    (place / "inference.onnx").write_bytes((place / "inference.onnx").read_bytes() + b"\0")
    assert "it is cut short or of another export" in refused(place)


def test_an_inference_yml_cut_anywhere(copy):
    """It is refused, or says less; never a traceback."""
    place = copy(*PADDLE, "inference.yml")
    text = (place / "inference.yml").read_text()
    read, words = 0, []
    for left in [0, 1, *range(2, len(text), 7), *(m.end() for m in re.finditer(": ?", text))]:
        (place / "inference.yml").write_text(text[:left])
        try:
            open_exported(place)
            read += 1
        except UserError as error:
            words.append(str(error))
    assert read
    assert words
    assert all(line.startswith(f"{place}/inference.") and "\n" not in line for line in words)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "has no inference.yml; make such a folder with tools/export.py"),
        (("inference.yml",), "no inference.json and inference.pdiparams, nor inference.onnx or"),
        (("inference.yml", "inference.json"), "inference.json is there and inference.pdiparams is"),
        (("inference.yml", "inference.pdiparams"), "no inference.json and inference.pdiparams"),
        (("inference.yml", "inference.xml"), "inference.bin: should be there, too; copy it again"),
        (PADDLE, "has no inference.yml; say how images are prepared: --resize 256 --crop 224"),
    ],
)
def test_files_missing(copy, exported, tmp_path, names, words):
    place = copy(*names) if names else tmp_path
    with pytest.raises(UserError) as caught:
        open_exported(place)
    assert str(caught.value).startswith(str(place))
    assert words in str(caught.value)


def test_no_folder(tmp_path):
    assert "gone: does not exist" in refused(tmp_path / "gone")
    assert "gone: does not exist" in refused(tmp_path / "gone", CROP)
    (tmp_path / "file").write_text("")
    assert "file: " in refused(tmp_path / "file", CROP)


def test_a_program_of_something_else_than_paddle(copy):
    place = copy(*PADDLE)
    program = json.loads((place / "inference.json").read_text())
    program["base_code"]["magic"] = "not pir"
    (place / "inference.json").write_text(json.dumps(program, separators=(",", ":")))
    words = refused(place, CROP)
    assert "is damaged, or of a version of Paddle that the installed one cannot read" in words
    for text in ("{}", "[]", "null"):
        (place / "inference.json").write_text(text)
        assert "is damaged, or of a version of Paddle" in refused(place, CROP)


def test_weights_that_are_fewer_than_the_program_has(copy):
    from ppcls.inference import exported_model

    place = copy(*PADDLE)
    file = place / "inference.pdiparams"
    last = list(exported_model.tensors(file))[-2]
    file.write_bytes(file.read_bytes()[: last.start + last.bytes])
    exported_model.check_params(file)  # each tensor is whole
    assert ".pdiparams beside it is damaged" in refused(place, CROP)


def test_flags_in_place_of_inference_yml(copy, exported):
    place = copy(*PADDLE)
    found = open_exported(place, {**CROP, "mean": None, "labels": ["ant", "bee"]})
    assert found.manifest.preprocess == Preprocess(resize=36, crop=32)
    assert found.manifest.labels == ("ant", "bee")
    assert found.manifest.output is None  # seen from the first results
    assert found.manifest.model == "copy"


def test_flags_in_place_of_parts_of_inference_yml(exported):
    found = open_exported(exported, {"resize": 40, "std": [0.5, 0.5, 0.5], "labels": ["a", "b"]})
    assert found.manifest.preprocess == Preprocess(resize=40, crop=32, std=(0.5, 0.5, 0.5))
    assert found.manifest.labels == ("a", "b")
    assert found.manifest.output == "probabilities"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"crop": 288}, "resize 36 is below crop 288"),
        ({"std": [0.5]}, "mean has 3 values and std 1"),
        ({"std": [0.5, 0, 0.5]}, "how images are prepared: .*greater than 0"),
        ({"crpo": 32}, "how images are prepared: .*crpo"),
    ],
)
def test_flags_that_cannot_be(exported, given, words):
    assert re.search(words, refused(exported, given))


def test_labels_out_of_a_file(exported, tmp_path, capsys):
    file = tmp_path / "names.txt"

    def labels(text):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return open_exported(exported, {"labels": str(file)}).manifest.labels

    assert labels("0 tench\n1 great white shark\n") == ("tench", "great white shark")
    assert (
        "names.txt: 'ant' of inference.yml is called 'tench', in order" in capsys.readouterr().out
    )
    assert labels("tench\ncafé") == ("tench", "café")
    capsys.readouterr()
    assert labels("bee\nant\n") == ("ant", "bee")
    assert "in another order, which does not count" in capsys.readouterr().out
    for text in (b"", b"tench\n\nshark\n", b"caf\xe9\n", b"a\nb\nc\n", b"bee\nwasp\n"):
        with pytest.raises(UserError, match=r"names.txt"):
            labels(text)
    with pytest.raises(UserError, match=r"gone.txt: No such file"):
        open_exported(exported, {"labels": tmp_path / "gone.txt"})


def test_the_cache_is_beside_the_network_and_of_these_files(copy):
    place = copy()
    first = open_exported(place).cache()
    assert first.parent == place / exported_model.CACHE
    assert open_exported(place).cache() == first
    os.utime(place / "inference.onnx", ns=(1, 1))
    assert open_exported(place).cache() != first


def test_where_the_folder_is_read_only_the_cache_is_ppcls_s_own(copy, home, monkeypatch):
    place = copy()
    found = open_exported(place)
    if os.geteuid():
        place.chmod(0o500)
    else:  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    try:
        assert found.cache().parent == home / "engines"
        assert not (place / exported_model.CACHE).exists()
    finally:
        place.chmod(0o700)


def test_where_nothing_can_be_written_a_line_says_so(copy, home, monkeypatch):
    found = open_exported(copy())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    home.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"engines/.*: cannot be made .*; set PPCLS_HOME"):
        found.cache()


def test_the_form_of_others(copy, images):
    """PaddleX writes no sizes, no key of ours and the program alone."""
    place = copy(*PADDLE, "inference.yml")
    document = yaml.safe_load((place / "inference.yml").read_text())
    del document["ppcls"]
    (place / "inference.yml").write_text(yaml.safe_dump(document))
    found = open_exported(place)
    assert found.manifest.output is None
    assert found.manifest.labels == ("ant", "bee")
    inputs = found.manifest.preprocess.normalize(images)
    output = open_engine(found, Settings("onednn")).run(inputs)
    np.testing.assert_allclose(output.sum(1), 1, atol=1e-5)


WHERE = [
    ("best.safetensors", "is a checkpoint; export it first: ppcls export --weights {path} --out"),
    ("best.pdparams", "export it first: ppcls export -c RECIPE.yaml --weights {path} --output"),
    ("run", "it has checkpoints, export it first: ppcls export --weights {path}/best.safetensors"),
    ("above", "exported folders are in it, give one of them: {path}/copy"),
    ("empty", "make such a folder with tools/export.py (this one is empty)"),
    ("other", "network.onnx: a network's files should be named inference.*, or give the .onnx"),
    ("above/copy/inference.json", "it is a file of one; give its folder, {parent}"),
    ("notes.txt", "is no exported folder: it is a file"),
    ("gone/x", "does not exist; make such a folder with tools/export.py"),
    ("gone.safetensors", "does not exist; make such a folder with tools/export.py"),
]


@pytest.mark.parametrize(("name", "words"), WHERE)
def test_what_is_no_exported_folder_says_what_it_is(copy, tmp_path, run, name, words):
    for folder_name in ("run", "above", "empty", "other"):
        (tmp_path / folder_name).mkdir()
    copy().rename(tmp_path / "above/copy")
    for file in ("best.safetensors", "best.pdparams", "notes.txt", "other/network.onnx"):
        (tmp_path / file).write_bytes(b"x")
    for file in ("best.safetensors", "latest.safetensors", "recipe.yml"):
        (tmp_path / "run" / file).write_bytes(b"x")
    path = tmp_path / name
    for command in (("predict", path), ("quantize", "--calibrate", path)):
        code, _, err = run(command[0], "--model-dir", path, *command[1:])
        assert code == 2
        (line,) = err.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert words.format(path=path, parent=path.parent) in line


def test_a_networks_name_is_no_folder(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("predict", "--model-dir", "ResNet50_vd", "a.jpg")
    assert code == 2
    assert "ResNet50_vd: does not exist; if a network's name is meant, export it first" in err


def paddleclas(place, **changed):
    """`inference.yml` as PaddleClas writes it: without a name, sizes or a key of ours."""
    document = yaml.safe_load((place / "inference.yml").read_text())
    written = {key: document[key] for key in ("PreProcess", "PostProcess")} | changed
    (place / "inference.yml").write_text(yaml.safe_dump(written))
    return written


def test_paddleclas_export_says_no_name(copy, run, tmp_path):
    """Its inference.yml has Global only where a name for PaddleX was given."""
    place = copy(*PADDLE, "inference.yml")
    paddleclas(place)
    assert open_exported(place).manifest.model == "copy"
    write_photo(tmp_path / "photo.png", 1)
    photo = tmp_path / "photo.png"
    code, out, err = run("predict", "--model-dir", place, "--engine", "onednn", photo)
    assert (code, err) == (0, "")
    assert "ant" in out or "bee" in out
    for other in (None, {}, {"use_gpu": False}):
        paddleclas(place, Global=other)
        assert open_exported(place).manifest.labels == ("ant", "bee")


def test_flags_say_what_an_inference_yml_cannot(copy):
    place = copy(*PADDLE, "inference.yml")
    ops = [{"ResizeImage": {"size": [36, 32]}}]
    for before in ({"transform_ops": ops}, {}):
        paddleclas(place, PreProcess=before)
        found = open_exported(place, {"resize": 36, "crop": 32}).manifest
        assert (found.preprocess, found.labels) == (Preprocess(resize=36, crop=32), ("ant", "bee"))
    paddleclas(place, PreProcess={"transform_ops": ops})
    assert "--resize 256 --crop 224 and the like" in refused(place)


@pytest.mark.parametrize("beside", [False, True])
def test_paddleclas_int8_is_taken_where_it_is(copy, images, beside):
    """PaddleClas names a quantized network inference_int8, and takes it before another one."""
    place = copy("inference.onnx", *PADDLE, "inference.yml")
    paddleclas(place)
    for name in PADDLE:
        new = place / name.replace("inference", "inference_int8")
        new.write_bytes((place / name).read_bytes())
        if not beside:
            (place / name).unlink()
    (place / "inference.onnx").unlink()
    found = open_exported(place)
    assert [path.name for path in found.files] == [
        "inference_int8.json",
        "inference_int8.pdiparams",
    ]
    assert found.manifest.precision == "int8"
    inputs = found.manifest.preprocess.normalize(images)
    output = open_engine(found, Settings("onednn")).run(inputs)
    np.testing.assert_allclose(output.sum(1), 1, atol=1e-5)
    (place / "inference_int8.pdiparams").unlink()
    assert "inference_int8.pdiparams is not; copy it again" in refused(place)
