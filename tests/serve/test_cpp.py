"""The programs of deploy/cpp, built by the commands of docs/cpp.md, answer as `Predictor` does.

Skipped without a compiler, OpenCV or yaml-cpp. `ONNXRUNTIME_ROOT` and `PADDLE_INFERENCE_ROOT` say
where the libraries are, as on the page. Without the second, Paddle's program is built with the
declarations beside this file and the library in Paddle's Python package; ONNX Runtime's is skipped.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import paddle
import pages
import pytest
import small_network
from photos import scene
from PIL import Image

import ppcls
from ppcls.data import builtin
from ppcls.export import Form, export

PAGE = pages.text_of("docs/cpp.md")
SOURCES = pages.ROOT / "deploy/cpp"
NAMES = ("ant", "bee", "wasp, common", "no", "007", "黄蜂", "fly")
ENGINES = {"onnx_runtime": "onnxruntime", "paddle_inference": "onednn"}
SQUASHED = {"fit": "squash", "crop": (24, 40)}
TURNED = 6  # EXIF's orientation of a picture whose right side is up
SHOWN = 5
CLOSE = 1e-5  # of JPEGs, too: OpenCV 4.6 and 5.0 decode and resize these alike


def test_each_file_is_short_enough_to_read():
    counts = {path.name: len(path.read_text().splitlines()) for path in SOURCES.iterdir()}
    assert set(counts) == {"CMakeLists.txt", "exported.h", *(f"{name}.cc" for name in ENGINES)}
    assert max(counts.values()) <= 80
    for path in SOURCES.iterdir():
        assert max(map(len, path.read_text().splitlines())) <= 100, path


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The small network in the forms that the programs know."""
    place = tmp_path_factory.mktemp("exports")
    trained = small_network.trained(small_network.Small(classes=len(NAMES)), NAMES)
    squashed = replace(trained.recipe.preprocess, **SQUASHED)
    whole = replace(trained, recipe=replace(trained.recipe, preprocess=squashed), names=())
    both = ("paddle", "onnx")
    return {
        "float32": export(trained, place / "float32", [], Form(both)),
        "uint8": export(trained, place / "uint8", [], Form(both, input="uint8", features=True)),
        "squash": export(whole, place / "squash", [], Form(both, input="uint8")),
        "logits": export(trained, place / "logits", [], Form(both, output="logits")),
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """More than run together: of odd sizes, small ones, grey, with alpha, turned; and JPEGs."""
    place = tmp_path_factory.mktemp("images")
    for number, (height, width) in enumerate([(120, 160), (51, 37), (36, 36), (20, 23), (333, 90)]):
        assert cv2.imwrite(str(place / f"{number}.png"), scene(number, height, width))
    assert cv2.imwrite(str(place / "grey.png"), scene(5)[..., 0])
    assert cv2.imwrite(str(place / "alpha.png"), np.dstack([scene(6), scene(7)[..., :1]]))
    exif = Image.Exif()
    exif[0x0112] = TURNED
    Image.fromarray(scene(8)).save(place / "turned.jpg", exif=exif, quality=95)
    return [*sorted(map(str, place.iterdir())), *map(str, builtin.sample_images())]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Where the page's commands are run: the sources, and the variables that the page names."""
    if missing := [name for name in ("g++", "pkg-config") if not shutil.which(name)]:
        pytest.skip(f"no {missing[0]} here")
    for name in ("opencv4", "yaml-cpp"):
        if subprocess.run(["pkg-config", "--exists", name], check=False).returncode:
            pytest.skip(f"no {name} for C++ here")
    place = tmp_path_factory.mktemp("cpp")
    (place / "deploy").symlink_to(pages.ROOT / "deploy")
    variables = dict(os.environ)
    variables.setdefault("PADDLE_INFERENCE_ROOT", str(paddle_root(place / "library")))
    return place, variables


def paddle_root(place: Path) -> Path:
    """A folder like Paddle's C++ library, of what Paddle's Python package has.

    That library asks for Python's own, hence a linker's script that names both.
    """
    package = Path(paddle.__file__).parent
    python = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    library = place / "paddle/lib"
    library.mkdir(parents=True)
    (place / "paddle/libs").symlink_to(package / "libs")  # where its run path looks
    (place / "paddle/include").mkdir()
    header = "paddle_inference_api.h"
    (place / "paddle/include" / header).symlink_to(Path(__file__).with_name(header))
    for path in (package / "base/libpaddle.so", python):
        (library / path.name).symlink_to(path)
    parts = f"{library}/libpaddle.so {library}/{python.name}"
    (library / "libpaddle_inference.so").write_text(f"INPUT({parts})\n")
    return place


@pytest.fixture(scope="module", params=ENGINES)
def program(request, workplace):
    """One of the programs, built as the page says, warnings being errors; and its name."""
    place, variables = workplace
    name = request.param
    (command,) = (line for line in pages.commands(PAGE) if f"-o {name} " in line)
    skip_without(name, variables)
    execute(command.replace("-Wextra", "-Wextra -Werror"), place, variables)
    return place / name, name


def skip_without(name, variables):
    if name == "onnx_runtime" and not variables.get("ONNXRUNTIME_ROOT"):
        pytest.skip("ONNXRUNTIME_ROOT does not say where ONNX Runtime's headers are")
    root = Path(variables["PADDLE_INFERENCE_ROOT"])
    python = Path(sysconfig.get_config_var("LIBDIR"), str(sysconfig.get_config_var("INSTSONAME")))
    if name == "paddle_inference" and (root / "paddle/libs").is_symlink() and not python.is_file():
        pytest.skip("PADDLE_INFERENCE_ROOT is not set, and this Python is no shared library")


def execute(command, place, variables):
    done = subprocess.run(
        ["bash", "-euc", command], cwd=place, env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answers(program, *arguments):
    """What it prints of each image: its name, then (class name, probability)."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = []
    for line in done.stdout.splitlines():
        path, _, answer = line.partition(": ")
        pairs = re.findall(r"(?:^|, )(.+?) (\d\.\d{7})(?=, |$)", answer)
        found.append((path, [name for name, _ in pairs], [float(score) for _, score in pairs]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float32", "uint8", "squash"])
def test_answers_are_the_predictors(program, exports, images, form):
    path, name = program
    with ppcls.Predictor(exports[form], engine=ENGINES[name]) as predictor:
        wanted = predictor.predict(images, topk=SHOWN)
    found = answers(path, exports[form], *images)
    assert [one[0] for one in found] == images
    assert len({one[1][0] for one in found}) > 1  # the images are told apart
    for (image, labels, scores), prediction in zip(found, wanted, strict=True):
        assert labels == prediction.labels, image
        np.testing.assert_allclose(scores, prediction.scores, rtol=0, atol=CLOSE, err_msg=image)


@pytest.mark.slow
def test_mistakes_are_one_line(program, exports, images, tmp_path):
    path, name = program
    (tmp_path / "text.jpg").write_text("no image")
    for arguments, words in (
        ((), f"usage: {name} FOLDER IMAGE..."),
        ((tmp_path, images[0]), "bad file"),
        ((exports["logits"], images[0]), "not an export as docs/cpp.md asks for"),
        ((exports["uint8"], tmp_path / "text.jpg"), "text.jpg: no image that OpenCV can read"),
    ):
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_cmake_builds_them(workplace, exports, images):
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    place, variables = workplace
    for command in pages.commands(PAGE):
        if command.startswith("cmake"):
            execute(command, place, {"ONNXRUNTIME_ROOT": ""} | variables)
    built = [name for name in ENGINES if (place / "build/cpp" / name).is_file()]
    assert ("onnx_runtime" in built) == bool(variables.get("ONNXRUNTIME_ROOT"))
    for name in built:
        assert len(answers(place / "build/cpp" / name, exports["uint8"], *images)) == len(images)
