"""`data.fixes`: what was decided about labels, applied to every form of data."""

import codecs
import os
from pathlib import Path

import pytest
from photos import write_photo
from shard_contents import message

from ppcls.config.load import load
from ppcls.data.datasets import open_samples
from ppcls.data.fixes import read_fixes, with_fixes
from ppcls.data.make_shards import make_shards
from ppcls.recipe import Recipe, may_change
from ppcls.train.setup import open_eval, open_listed
from ppcls.utils.errors import UserError

HEAD = "path,label,suggested,confidence,why,decision,new_label\n"


def write(text, name="fixes.csv"):
    Path(name).write_text(text, encoding="utf-8")
    return name


def fixed(data, text):
    """The labels by file name of a data set to which a list of fixes was applied."""
    samples = open_samples(data)
    samples = with_fixes(samples, read_fixes(write(text)), "data.train")
    return {os.path.basename(path): samples.label_of(i) for i, path in enumerate(samples.paths)}


DECIDED = (
    HEAD + "{0}0.png,ant,bee,0.9,,change,\n"  # to what is suggested
    "{0}1.png,ant,bee,0.9,,Change,ant\n"
    "{0}2.png,ant,bee,0.9,,drop,\n"
    "{0}3.png,ant,bee,0.9,,keep,bee\n"
    "{0}4.png,ant,bee,0.9,,,\n"
)


@pytest.mark.parametrize("form", ["folder", "list", "csv", "absolute"])
def test_folders_and_lists(workdir, form, capsys):
    rows = [(f"photos/train/ant/{i}.png", 0) for i in range(6)] + [("photos/train/bee/0.png", 1)]
    Path("list.txt").write_text("".join(f"{path} {label}\n" for path, label in rows))
    Path("names.txt").write_text("ant\nbee\n")
    names = ("ant", "bee")
    Path("list.csv").write_text("path,label\n" + "".join(f"{p},{names[c]}\n" for p, c in rows))
    start = str(workdir / "photos/train/ant") if form == "absolute" else "photos/train/ant"
    text = DECIDED.format(f"{start}/")
    if form == "list":
        text = text.replace("ant,bee", "0,1").replace(",ant\n", ",0\n")
    data = {"folder": "photos/train", "list": "list.txt", "csv": "list.csv"}
    samples = open_samples(data.get(form, "photos/train"))
    found = with_fixes(samples, read_fixes(write(text)), "data.train")
    ants = {p: found.label_of(i) for i, p in enumerate(found.paths) if "/ant/" in p}
    one, other = ("0", "1") if form == "list" else names
    expected = {0: other, 1: one, 3: one, 4: one, 5: one}
    assert {int(Path(p).stem): label for p, label in ants.items()} == expected
    assert found.names == samples.names
    assert len(found) == len(samples) - 1
    assert found.digest() != samples.digest()
    said = "1 label changed, 1 image left out, 1 label so already"
    assert f"fixes.csv: data.train: {said}" in capsys.readouterr().out
    if found.lines is not None:  # where an image stands stays known
        assert found.where(2).startswith(f"{samples.source}:{samples.lines[3]} ")


def test_shards(workdir):
    make_shards("photos/train", workdir / "shards", 20_000)
    pattern = f"shards/train-{{000000..{len(list(Path('shards').glob('*.tar'))) - 1:06}}}.tar"
    samples = open_samples(pattern)
    one, two = (str(samples.paths[i]) for i in (1, 4))
    before = samples.label_of(1)
    after = "bee" if before == "ant" else "ant"
    text = f"{HEAD}{one},{before},{after},0.9,,change,{after}\n{two},x,y,0.9,,drop,\n"
    found = with_fixes(samples, read_fixes(write(text)), "data.train")
    assert [found.label_of(1), len(found)] == [after, len(samples) - 1]
    assert str(found.paths[4]) == str(samples.paths[5])


def test_spreadsheets_write_semicolons_and_a_byte_order_mark(workdir):
    text = DECIDED.format("photos/train/ant/").replace(",", ";")
    Path("fixes.csv").write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    fixes = read_fixes("fixes.csv")
    decisions = [fix.decision for fix in fixes.by_path.values()]
    assert decisions == ["change", "change", "drop"]
    # Other columns, and fewer of them, as anybody might write.
    write("image;decision;new_label\nphotos/train/ant/0.png;change;bee\n")
    (fix,) = read_fixes("fixes.csv").by_path.values()
    assert (fix.label, fix.line) == ("bee", 2)


def test_relative_paths_start_beside_the_list(workdir, monkeypatch):
    text = f"{HEAD}train/ant/0.png,ant,bee,0.9,,change,\n../photos/train/ant/1.png,,bee,,,change,\n"
    write(text, "photos/fixes.csv")
    monkeypatch.chdir("photos/train")
    samples = with_fixes(open_samples("."), read_fixes("../fixes.csv"), "data.train")
    assert samples.labels.tolist() == [1, 1, 0, 0, 0, 0] + [1] * 6


MISTAKES = {
    "a.png,ant,bee,,,chnge,": "fixes.csv:2: decision 'chnge' is unknown; did you mean 'change'?",
    "a.png,ant,bee,,,later,": "fixes.csv:2: decision 'later' is unknown; it is keep, change, drop",
    "a.png,ant,,,,change,": "fixes.csv:2: change to what? new_label is empty, and so is suggested",
    ",ant,,,,drop,": "fixes.csv:2: no path",
    "a.png,drop": "fixes.csv:2: expected 7 fields, found 2",
    "a.png,,b,,,drop,\n./a.png,,b,,,change,": "fixes.csv:3: ./a.png is decided otherwise on line 2",
}


@pytest.mark.parametrize("row", MISTAKES)
def test_mistakes_in_the_list(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    assert MISTAKES[row] in message(read_fixes, write(f"{HEAD}{row}\n"))


def test_no_decisions_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("path,label\na.png,ant\n")
    assert "fixes.csv:1: no column is called 'decision'" in message(read_fixes, "fixes.csv")
    assert message(read_fixes, "none.csv") == "none.csv: No such file or directory"


def test_a_class_that_there_is_not(workdir):
    text = f"{HEAD}photos/train/ant/0.png,ant,bee,0.9,,change,bees\n"
    said = message(fixed, "photos/train", text)
    assert said == "fixes.csv:2: 'bees' is no class of photos/train; did you mean 'bee'?"
    Path("list.txt").write_text("photos/train/ant/0.png 0\nphotos/train/bee/0.png 1\n")
    text = text.replace("bees", "2")
    said = message(fixed, "list.txt", text)
    assert said == "fixes.csv:2: '2' is no class of list.txt"


def test_images_that_are_elsewhere_are_said(workdir, capsys):
    write(f"{HEAD}photos/train/ant/99.png,ant,bee,0.9,,drop,\n")
    samples = open_samples("photos/train")
    found = with_fixes(samples, read_fixes("fixes.csv"), "data.train")
    assert found.digest() == samples.digest()
    out = capsys.readouterr().out
    assert "1 decision on images that are not in it" in out
    assert "fixes.csv:2: " in out
    assert "99.png is none of the images of photos/train; relative paths start beside" in out


def test_nothing_is_left(workdir):
    rows = "".join(f"photos/eval/{c}/{i}.png,,,,,drop,\n" for c in ("ant", "bee") for i in range(3))
    assert "fixes.csv: leaves no image of data.train" in message(fixed, "photos/eval", HEAD + rows)


def test_both_parts_of_a_recipe(workdir):
    """Evaluation has the same labels whether it is opened with training's images or alone."""
    write_photo(Path("photos/train/cat/0.png"), 7)
    rows = "photos/train/cat/0.png,cat,ant,0.9,,change,\n"
    rows += "photos/eval/bee/0.png,bee,cat,0.9,,change,\nphotos/eval/bee/1.png,bee,,0.9,,drop,\n"
    write(HEAD + rows)
    recipe = load(Recipe, "recipe.yaml", ["data.fixes=fixes.csv", "model.num_classes=3"])
    _, opened = open_listed(recipe)
    assert opened.train.names == ("ant", "bee", "cat")
    assert opened.train.counts(3).tolist() == [7, 6, 0]
    assert opened.eval.names == ("ant", "bee", "cat")  # which its folders lack
    assert opened.eval.labels.tolist() == [0, 0, 0, 2, 1]
    alone = open_eval(recipe, 3, ("ant", "bee", "cat"), "x")
    assert alone.digest() == opened.eval.digest()
    held = load(Recipe, "recipe.yaml", [
        "data.fixes=fixes.csv", "data.eval=null", "data.holdout=0.3", "model.num_classes=3",
    ])  # fmt: skip
    _, opened = open_listed(held)
    alone = open_eval(held, 3, ("ant", "bee", "cat"), "x")
    assert alone.digest() == opened.eval.digest()


def test_a_run_goes_on_with_the_same_fixes_alone(workdir, run):
    write(f"{HEAD}photos/train/ant/0.png,ant,bee,0.9,,change,\n")
    training = ("train", "-c", "recipe.yaml", "-o", "train.epochs=1")
    assert run(*training, "data.fixes=fixes.csv")[0] == 0
    code, _, err = run(*training, "--resume")
    assert code == 2
    assert "images of data.train" in err or "train: 12 images" in err
    os.rename("fixes.csv", "moved.csv")
    code, _, err = run(*training, "data.fixes=moved.csv", "--resume")
    assert (code, err) == (0, "")
    assert may_change("data.fixes")
    write(f"{HEAD}photos/train/ant/0.png,ant,bee,0.9,,drop,\n", "moved.csv")
    assert run(*training, "data.fixes=moved.csv", "--resume")[0] == 2


def test_what_has_no_one_label_is_refused(workdir):
    with pytest.raises(UserError, match=r"data\.fixes is for images with one label"):
        load(Recipe, "recipe.yaml", ["data.fixes=x.csv", "task={kind: multilabel}"])
