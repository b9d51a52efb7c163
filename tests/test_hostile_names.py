"""Whatever names, classes, keys and values hold: a line stays one, and nothing is run."""

import csv
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from hostile import CLASSES, PHOTOS, Tags, furnish, raw, run_by_spreadsheets

from ppcls.cli import main
from ppcls.data.datasets import open_samples
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.weights.files import write_safetensors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file names of POSIX")


def said(folder, *arguments):
    """Exit code, output and errors of a command."""
    with pytest.MonkeyPatch.context() as patch, StringIO() as out, StringIO() as err:
        patch.chdir(folder)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as ended:  # argparse
                code = ended.code
        return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder in which all has run, and what each command said."""
    folder = tmp_path_factory.mktemp("hostile")
    furnish(folder)
    broken = folder / "photos" / "train" / CLASSES[0] / "\x1b[31mbroken\n=1.png"
    broken.write_bytes(b"no image")
    predict = ("predict", "--model-dir", "exported", "photos/eval", "--engine", "paddle")
    commands = {
        "train": ("train", "-c", "recipe.yaml", "-o", "data.on_error=skip"),
        "eval": ("eval", "-c", "recipe.yaml", "--report", "report"),
        "export": ("export", "-c", "recipe.yaml", "--output", "exported"),
        "check-data": ("check-data", "-c", "recipe.yaml", "--output", "found.csv"),
        "show-data": ("show-data", "-c", "recipe.yaml", "--count", "40", "--epochs", "1",
                      "-o", "data.on_error=skip", "--eval"),
        "predict": (*predict, "--save", "x.csv"),
        "json": (*predict, "--save", "x.json"),
        "jsonl": (*predict, "--save", "x.jsonl"),
    }  # fmt: skip
    return folder, {name: said(folder, *given) for name, given in commands.items()}


COMMANDS = ("train", "eval", "export", "check-data", "show-data", "predict", "json", "jsonl")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_sends_no_control_characters(run, command):
    code, out, err = run[1][command]
    assert code == (1 if command == "check-data" else 0), err
    assert not raw(out + err)
    assert max(map(len, out.splitlines())) <= 2000


def test_each_photo_is_one_line(run):
    lines = run[1]["predict"][1].splitlines()
    assert len([line for line in lines if line.endswith(" ms]")]) == 2 * 8
    assert any("\\x1b[31m\\n<script>" in line for line in lines)
    assert any("猫 é👩\u200d🔬".replace(" ", " ") in line for line in lines)


def test_a_broken_photo_is_one_line_of_the_run(run):
    (line,) = (run[0] / "runs/small/skipped.txt").read_text().splitlines()
    assert "\\x1b[31mbroken\\n=1.png: " in line
    assert line in run[1]["train"][1]


@pytest.mark.parametrize(
    "file", ["x.csv", "found.csv", "report/scores.csv", "report/confusion.csv"]
)
def test_a_spreadsheet_runs_no_cell(run, file):
    text = (run[0] / file).read_bytes().decode().replace("\r\n", "\n")
    assert len(text.splitlines()) > 2
    assert not run_by_spreadsheets(text)
    assert not raw(text)


def test_a_json_file_keeps_the_names(run):
    texts = [(run[0] / file).read_text() for file in ("x.json", "x.jsonl", "report/report.json")]
    assert not raw("".join(texts))
    lines = [json.loads(line) for line in texts[1].splitlines()]
    assert json.loads(texts[0])[0]["path"] == lines[0]["path"]
    assert {Path(line["path"]).stem for line in lines} == set(PHOTOS[:8])
    assert {label for line in lines for label in line["labels"]} == set(CLASSES)
    assert {one["name"] for one in json.loads(texts[2])["classes"]} == set(CLASSES)


def test_yaml_keeps_the_names(run):
    text = (run[0] / "exported/inference.yml").read_text()
    assert not raw(text)
    assert set(yaml.safe_load(text)["PostProcess"]["Topk"]["label_list"]) == set(CLASSES)
    assert not raw((run[0] / "runs/small/recipe.yml").read_text())


def test_a_page_has_no_tags_but_its_own(run):
    page = (run[0] / "report/report.html").read_text()
    assert not raw(page)
    tags = Tags(page).found
    assert [tag for tag, _ in tags].count("script") == 1
    assert not any(key.startswith("on") for _, about in tags for key in about)
    assert all(about["src"].startswith("data:") for tag, about in tags if tag == "img")


def test_predictions_with_such_names_are_gone_on_with(run, tmp_path):
    """The file of a run that ended: the last image is a folder's that is no image any more."""
    folder = run[0]
    photos = sorted(str(p.relative_to(folder)) for p in (folder / "photos/eval").rglob("*.png"))
    gone = tmp_path / "gone.png"
    command = ("predict", "--model-dir", "exported", "--engine", "paddle", "--save", "y.csv")
    code, _, err = said(folder, *command, *photos, gone)
    assert code == 2
    assert "kept in" in err
    gone.write_bytes((folder / photos[0]).read_bytes())
    code, out, err = said(folder, *command, *photos, gone, "--resume")
    assert code == 0, err
    assert "going on behind" in out
    text = (folder / "y.csv").read_bytes().decode()
    firsts = [row[0] for row in csv.reader(StringIO(text, newline="")) if row[1] == "1"]
    assert firsts == [*firsts[:-1], str(gone)]
    assert len(set(firsts)) == len(photos) + 1


def test_a_table_of_ours_is_a_list_of_photos_again(run):
    """Its apostrophes are not part of the names."""
    folder = run[0]
    rows = [f"photos/eval/{name}" for name in ("=1.png", "-x.png")]
    for row in rows:
        (folder / row).write_bytes(next((folder / "photos/eval").rglob("*.png")).read_bytes())
    command = ("predict", "--model-dir", "../exported", "--engine", "paddle")
    inside = folder / "photos"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inside / "eval")
        (inside / "eval" / "listed.csv").write_text("path\n'=1.png\n'-x.png\n")
        code, out, err = said(inside / "eval", *command[:2], folder / "exported",
                              *command[3:], "listed.csv")  # fmt: skip
    for row in rows:
        (folder / row).unlink()
    (inside / "eval" / "listed.csv").unlink()
    assert code == 0, err
    assert "=1.png: " in out


BAD = "a\x1b[31m\n\r\x07\u202e\u2028\x85|`b"
ODD_COMMANDS = [
    (BAD,),
    ("train", "-c", BAD),
    ("train", "-c", "recipe.yaml", f"--{BAD}"),
    ("train", "-c", "recipe.yaml", "--processes", BAD),
    ("train", "-c", "recipe.yaml", "-o", f"{BAD}=1"),
    ("train", "-c", "recipe.yaml", "-o", f"model.name={BAD}", f"train.epochs={BAD}"),
    ("train", "-c", "recipe.yaml", "-o", f"data.train={BAD}", f"output={BAD}\0"),
    ("train", "-c", "recipe.yaml", "-o", f"model.weights={BAD}"),
    ("train", "-c", "recipe.yaml", "-o", f"model.weights=hf://{BAD}/{BAD}"),
    ("train", "-c", "key.yaml"),
    ("train", "-c", "value.yaml"),
    ("train", "-c", "odd.yaml"),
    ("train", "-c", "base.yaml"),
    ("teach", "-c", "recipe.yaml", "--output", BAD),
    ("eval", "-c", "recipe.yaml", "--weights", BAD),
    ("eval", "--weights", "metadata.safetensors"),
    ("eval", "-c", "recipe.yaml", "--weights", "metadata.safetensors"),
    ("export", "-c", "recipe.yaml", "--weights", f"http://{BAD}/x.npz"),
    ("export", "-c", "recipe.yaml", "--format", BAD),
    ("predict", "--model-dir", BAD, BAD),
    ("predict", "--model-dir", "exported", "--engine", "paddle", BAD),
    ("predict", "--model-dir", "exported", "--engine", "paddle", "list.txt"),
    ("predict", "--model-dir", "exported", "--engine", "paddle", "photos", "--save", f"{BAD}.xls"),
    ("predict", "--model-dir", "exported", "--engine", "paddle", "photos", "--labels", BAD),
    ("quantize", "--model-dir", BAD, "--images", BAD, "--output", BAD),
    ("bench", "--model-dir", BAD),
    ("bench", "--models", BAD),
    ("models", BAD),
    ("weights", "convert", BAD, BAD, "--to", "native"),
    ("weights", "convert", "metadata.safetensors", "x.npz", "--to", "timm", "--model", BAD),
    ("data", BAD),
    ("make-shards", BAD, "shards"),
    ("make-shards", "photos/train", "shards", "--name", BAD),
    ("make-shards", "photos/train", "shards"),
    ("show-data", "-c", "recipe.yaml", "--output", BAD),
    ("check-data", BAD, BAD),
    ("check-data", "list.txt"),
    ("check-data", "labels.csv"),
    ("check-data", "photos/train", "photos/eval", "--output", BAD),
    ("zoo", "verify", BAD),
    ("import-paddleclas", BAD),
    ("import-paddleclas", "value.yaml"),
    ("select-unlabeled", "-c", "recipe.yaml", "--images", BAD, "--output", BAD),
]


@pytest.mark.parametrize("command", ODD_COMMANDS, ids=range(len(ODD_COMMANDS)))
def test_a_mistake_is_lines_of_ours(run, command):
    folder = run[0]
    quoted = json.dumps(BAD)
    texts = {
        "key.yaml": f"{quoted}: 1\nmodel: {{{quoted}: 1, name: {quoted}}}\n",
        "value.yaml": f"model: {{name: {quoted}}}\ndata: {{train: {quoted}}}\n",
        "odd.yaml": f"model: {{name: '{BAD}\n",
        "base.yaml": f"_base_: {quoted}\n",
        "list.txt": f"{BAD}.png\t0\n{BAD}\n",
        "labels.csv": f'path,label\n"{BAD}.png","{BAD}"\n',
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    tensors = {BAD: np.zeros((1, 2), np.float32)}
    write_safetensors(folder / "metadata.safetensors", tensors, {"recipe": BAD, BAD: BAD})
    code, out, err = said(folder, *command)
    assert code == (1 if command[1:] == ("labels.csv",) else 2), (out, err)
    assert not raw(out + err)
    lines = err.splitlines()
    assert all("error: " in line[:60] for line in lines), err
    assert all(len(line) <= 2100 for line in (*lines, *out.splitlines()))


def test_an_error_of_the_library_is_lines_of_ours():
    error = UserError("one\nof\x1b[31m", "two" * 10**6 + " the reason")
    first, second = str(error).split("\n")
    assert first == "one\\nof\\x1b[31m"
    assert len(second) == 2000
    assert second.endswith(" the reason")


TEXTS = {
    "Chinese and a combining mark": "猫 é\u0301 日本\u3000語",
    "emoji of several": "👩\u200d🔬🏳\ufe0f\u200d🌈",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Hindi": "\u0915\u094d\u200d\u0937",
    "spaces": "a\u202fb\xa0c",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_letters_emoji_and_spaces_stay(capsys, text):
    say(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_joiners_elsewhere_are_shown(capsys):
    say("pay\u200cpal\u200d.com\u200b \u2067\ufeff")
    assert capsys.readouterr().out == "pay\\u200cpal\\u200d.com\\u200b \\u2067\\ufeff\n"


@pytest.mark.slow
def test_a_benchmark_page_has_no_markup_of_a_name(run):
    folder, name = run[0], "=x|y`\x1b[31m\n<b>*z*"
    shutil.copytree(folder / "exported", folder / name, dirs_exist_ok=True)
    code, out, err = said(
        folder,
        *("bench", "--model-dir", name, "--engines", "paddle", "--batch-sizes", "1"),
        *("--threads", "1", "--rounds", "1", "--seconds", "0.01", "--output", "measured"),
    )
    assert code == 0, err
    texts = {
        path.name: path.read_bytes().decode() for path in (folder / "measured").glob("*.*[dvl]")
    }
    assert len(texts) == 3
    assert not raw("".join([out, err, *texts.values()]).replace("\r\n", "\n"))
    page = next(text for name, text in texts.items() if name.endswith(".md"))
    assert "=x\\|y\\`" in page
    assert page.count(r"\<b\>\*z\*") == page.count("<b") == page.count("*z") > 1
    assert not run_by_spreadsheets(next(text for name, text in texts.items() if "csv" in name))


def test_shards_have_such_classes_again(run):
    broken = next((run[0] / "photos/train" / CLASSES[0]).glob("*broken*"))
    content = broken.read_bytes()
    broken.unlink()
    code, out, err = said(run[0], "make-shards", "photos/train", "whole_shards")
    broken.write_bytes(content)
    assert code == 0, err
    assert not raw(out + (run[0] / "whole_shards/labels.txt").read_text())
    whole = run[0] / "whole_shards"
    found = open_samples(whole / "train-000000.tar", labels=whole / "labels.txt")
    assert found.names == CLASSES


def test_a_photo_is_named_once(run):
    missing = "\x1b[31m\u3000none.png"
    code, _, err = said(run[0], "predict", "--model-dir", "exported", "--engine", "paddle", missing)
    assert code == 2
    assert err.startswith("error: \\x1b[31m\u3000none.png: no such file")
