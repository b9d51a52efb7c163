"""Names that are no UTF-8, terminals that are not, é in two spellings, letters of all scripts."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from photos import write_photo
from PIL import Image

from ppcls.cli import main
from ppcls.data.datasets import open_samples
from ppcls.inference.inputs import find_images
from ppcls.inference.predictor import Predictor
from ppcls.report import fonts, sheets
from ppcls.utils.text import to_json

RED, GREEN = "红", os.fsdecode("绿".encode("gbk"))  # the second as a GBK archive leaves it
GREEN_SHOWN = "\\xc2\\xcc"
CHINESE = any("wqy" in path or "CJK" in path for path in font_manager.findSystemFonts())
RECIPE = """
model: {name: EfficientNetLite0}
data: {train: photos/train, eval: photos/eval, workers: 0}
preprocess: {resize: 36, crop: 32}
train: {epochs: 1, batch_size: 4, schedule: {lr: 0.005}}
output: runs/small
"""


def furnish(folder):
    """12 images to train on, 6 to evaluate, and `recipe.yaml`."""
    for part, count in (("train", 6), ("eval", 3)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                seed = 100 * label + i + (50 if part == "eval" else 0)
                write_photo(folder / "photos" / part / name / f"{i}.png", seed)
    (folder / "recipe.yaml").write_text(RECIPE)


def rename(folder):
    """The classes of `furnish` under foreign names, and an image of each, too."""
    for part in ("train", "eval"):
        for old, new in (("ant", RED), ("bee", GREEN)):
            os.rename(folder / "photos" / part / old, folder / "photos" / part / new)
            photo = folder / "photos" / part / new / "0.png"
            photo.rename(photo.with_name(f"0{GREEN}.png"))


def said(folder, *arguments, encoding="utf-8"):
    """Exit code and output of a command on a strict stream of an encoding."""
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.chdir(folder)
        code = main([str(argument) for argument in arguments])
        out.flush()
    return code, out.buffer.getvalue().decode(encoding)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on such images, evaluated and exported, and what was said."""
    folder = tmp_path_factory.mktemp("foreign")
    furnish(folder)
    rename(folder)
    commands = {
        "train": ("-c", "recipe.yaml"),
        "eval": ("-c", "recipe.yaml", "--report", "report"),
        "export": ("-c", "recipe.yaml", "--output", "exported"),
        "check-data": ("-c", "recipe.yaml", "--output", "found.csv", "--sheet", "found.png"),
        "show-data": ("-c", "recipe.yaml", "--count", "12", "--epochs", "1"),
    }
    found = {command: said(folder, command, *given) for command, given in commands.items()}
    found["predict"] = said(
        folder,
        *("predict", "--model-dir", "exported", "photos/eval", "--engine", "paddle"),
        *("--save", "named.csv"),
    )
    return folder, found


@pytest.mark.parametrize(
    "command", ["train", "eval", "export", "check-data", "show-data", "predict"]
)
def test_a_command_goes_well_and_shows_broken_bytes(run, command):
    code, out = run[1][command]
    assert code in (0, 1 if command == "check-data" else 0), out
    if command in ("train", "check-data", "predict"):
        assert RED in out
        assert GREEN_SHOWN in out


def test_tables_keep_the_bytes_of_names(run):
    folder, _ = run
    for file in ("named.csv", "report/scores.csv"):
        with (folder / file).open(encoding="utf-8", errors="surrogateescape", newline="") as text:
            rows = list(csv.DictReader(text))
        assert {row["path"] for row in rows} == set(map(str, photos(folder)))
        assert {os.path.dirname(row["path"]) for row in rows} >= {f"photos/eval/{GREEN}"}


def photos(folder):
    return [path.relative_to(folder) for path in (folder / "photos" / "eval").rglob("*.png")]


def test_json_is_utf8_and_gives_the_names_back(run):
    report = json.loads((run[0] / "report" / "report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in report["classes"]] == [RED, GREEN]
    assert json.loads(to_json([GREEN, RED])) == [GREEN, RED]
    assert RED in to_json([GREEN, RED])
    to_json([GREEN]).encode()
    page = (run[0] / "report" / "report.html").read_text(encoding="utf-8")
    assert RED in page
    assert GREEN_SHOWN in page


def test_the_run_remembers_the_names(run):
    events = (run[0] / "runs" / "small" / "run.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(event) for event in events)
    predictor = Predictor(run[0] / "exported", engine="paddle")
    assert set(predictor.manifest.labels) == {RED, GREEN}


def test_a_broken_photo_with_such_a_name_is_left_out_and_listed(tmp_path):
    furnish(tmp_path)
    rename(tmp_path)
    broken = tmp_path / "photos" / "train" / RED / f"0{GREEN}.png"
    broken.write_bytes(b"no image")
    given = ("-c", "recipe.yaml")
    code, out = said(tmp_path, "train", *given)
    assert code == 2
    assert f"0{GREEN_SHOWN}.png" in out
    given = (*given, "-o", "data.on_error=skip")
    code, out = said(tmp_path, "train", *given, "--overwrite")
    assert code == 0, out
    listed = (tmp_path / "runs" / "small" / "skipped.txt").read_bytes()
    assert os.fsencode(f"0{GREEN}.png") in listed
    assert said(tmp_path, "train", *given, "--resume")[0] == 0


def test_shards_refuse_such_classes_before_they_write(run):
    code, out = said(run[0], "make-shards", "photos/train", "shards")
    assert code == 2
    assert f"{GREEN_SHOWN} is none: rename the folders" in out
    assert not list((run[0] / "shards").iterdir())


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.slow) for e in ("latin-1", "gbk"))]
)
def test_a_terminal_that_is_not_utf8_stops_nothing(run, encoding):
    given = ("predict", "--model-dir", "exported", "photos/eval", "--engine", "paddle")
    code, out = said(run[0], *given, encoding=encoding)
    assert code == 0, out
    assert GREEN_SHOWN in out
    assert (RED if encoding == "gbk" else "\\u7ea2") in out
    code, out = said(run[0], *given[:3], f"{RED}…", *given[4:], encoding=encoding)
    assert code == 2
    assert out.splitlines()[-1].startswith("error: ")
    code, out = said(run[0], "show-data", "-c", "recipe.yaml", "-o", f"nme={RED}", encoding="ascii")
    assert (code, out.partition(";")[0]) == (2, "error: -o nme=\\u7ea2: unknown key 'nme'")


def test_a_library_call_on_such_a_terminal(run, monkeypatch, capsys):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.chdir(run[0])
    with redirect_stdout(stream):
        from ppcls.utils.log import say

        say(f"{RED} {GREEN} …")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u7ea2 \\xc2\\xcc ...\n"


@pytest.mark.skipif(os.name != "posix", reason="locales of POSIX")
def test_a_locale_that_is_not_utf8(tmp_path):
    furnish(tmp_path)
    rename(tmp_path)
    listed = [f"photos/eval/{RED}/{i}.png 0\n" for i in (1, 2)]
    (tmp_path / "list.txt").write_text("".join(listed), encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "ppcls", "check-data", "photos/train", "list.txt"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    out = done.stdout.decode("ascii")
    assert "\\u7ea2  " in out, done.stderr
    assert "list.txt: 2 images" in out
    assert "broken" not in out


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("own", "other"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_is_one_name_in_both_spellings(tmp_path, monkeypatch, own, other):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.rename("photos/train/ant", f"photos/train/{own}")
    os.rename("photos/eval/ant", f"photos/eval/{other}")
    code, out = said(tmp_path, "check-data", "photos/train", "photos/eval")
    assert code == 0, out
    names = open_samples("photos/train").names
    assert names == open_samples("photos/eval").names
    assert set(names) == {"bee", NFC}
    Path("labels.txt").write_text(f"{other}\nbee\n", encoding="utf-8")
    assert open_samples("photos/train", labels="labels.txt").labels[-1] == 0 + (names[0] != "bee")
    Path("list.txt").write_text(f"photos/train/{other}/0.png\t{own}\n", encoding="utf-8")
    assert open_samples("list.txt", labels="labels.txt").labels.tolist() == [0]
    assert len(find_images("list.txt")) == 1
    assert said(tmp_path, "check-data", "list.txt")[0] == 0 or "broken" not in out
    Path("both.csv").write_text(
        f"path,label\nphotos/train/{other}/0.png,{own}\nphotos/train/{own}/1.png,{other}\n",
        encoding="utf-8",
    )
    both = open_samples("both.csv")
    assert (both.names, list(both.paths.missing())) == ((NFC,), [])
    assert find_images(f"photos/train/{other}") == find_images(f"photos/train/{own}")


def test_two_folders_of_one_name_are_refused(tmp_path, monkeypatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.rename("photos/train/ant", f"photos/train/{NFC}")
    os.rename("photos/train/bee", f"photos/train/{NFD}")
    code, out = said(tmp_path, "check-data", "photos/train")
    assert (code, out) == (
        2,
        f"error: photos/train: several folders have the name {NFC}; make them one\n",
    )


def captions(sheet, side):
    """The labels below the two cards of a sheet, as pixels."""
    pixels = np.asarray(Image.open(sheet).convert("L")).astype(int)
    layout = sheets.lay_out(2, 2, side, 2)
    assert layout.columns == 2  # beside each other
    top = sheets.MARGIN + layout.tile + sheets.NEAR + sheets.LINE
    lefts = [sheets.MARGIN + i * (layout.width + sheets.GUTTER) for i in (0, 1)]
    return [pixels[top : top + sheets.LINE, left : left + layout.width] for left in lefts]


@pytest.mark.parametrize(
    "names",
    [
        ("红", "绿"),
        ("日", "本"),
        ("한", "국"),
        ("П", "Ж"),
        ("\U00012000", "\U00012345"),
        ("أ", "ب"),
    ],
)
def test_sheets_tell_letters_of_all_scripts_apart(tmp_path, names, monkeypatch):
    monkeypatch.setattr(fonts, "told", set())
    furnish(tmp_path)
    for old, new in zip(("ant", "bee"), names, strict=True):
        for part in ("train", "eval"):
            os.rename(tmp_path / "photos" / part / old, tmp_path / "photos" / part / new)
    code, out = said(tmp_path, "show-data", "-c", "recipe.yaml", "--count", "2", "--epochs", "1")
    assert code == 0, out
    # Boxes in the place of letters would leave the same two captions.
    first, last = captions(tmp_path / "sheet.png", 32)
    both = "".join(names)
    escaped = bool(fonts.lacked(both, fonts.fonts_for(both)))
    wide = 80 if escaped else 16  # one escape begins like another
    assert np.abs(first[:, :wide] - last[:, :wide]).max() > 100
    if escaped:
        assert f"no installed font has {' '.join(sorted(names))}" in out
    elif CHINESE or names[0] in "Пأ":
        assert "no installed font" not in out


@pytest.mark.skipif(not CHINESE, reason="needs a font such as fonts-wqy-microhei")
def test_the_matrix_has_chinese_names_where_a_font_is_installed(run):
    assert "no installed font" not in run[1]["eval"][1]


def test_a_name_without_a_font_is_said_once_and_numbered(tmp_path):
    from ppcls.report.plots import confusion

    out = io.StringIO()
    with redirect_stdout(out):
        matrix = np.eye(2, dtype=np.int64)
        pictures = [confusion(matrix, names) for names in (["\U00012111", "b"], ["0", "b"])]
    assert pictures[0] == pictures[1]
    assert out.getvalue().count("no installed font has") == 1
