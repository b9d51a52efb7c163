"""`ppcls check-data` on folders and lists with one thing wrong each."""

import csv
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import scene
from PIL import Image

from ppcls.check import findings, survey
from ppcls.check.survey import Demands, examine
from ppcls.utils.errors import DataError


def save(path: str, seed: int, **options) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(seed)).save(file, **options)
    return file


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folders train and eval with two classes of different images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("ant", "bee")):
        for i in range(4):
            save(f"train/{name}/{i}.jpg", 10 * label + i)
            save(f"eval/{name}/{i}.jpg", 100 + 10 * label + i)
    return tmp_path


@pytest.fixture
def check(run):
    """Run the check of train and eval: its exit code and its rows (kind, paths, detail)."""

    def check(*options, of=("train", "eval")):
        code, out, err = run("check-data", *of, "--output", "found.csv", *options)
        assert err == ""
        groups = {}
        with open("found.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                groups.setdefault((row["group"], row["kind"], row["detail"]), []).append(row)
        found = [(key[1], [row["path"] for row in rows], key[2]) for key, rows in groups.items()]
        assert code == any(kind in findings.KINDS for kind, *_ in found)
        return code, [group for group in found if group[1] != [""]], out

    return check


def test_nothing_is_wrong(photos, check):
    code, found, out = check()
    assert (code, found) == (0, [])
    assert "train: 8 images, 2 classes" in out
    assert "16 images looked at" in out
    assert "no findings" in out


def test_broken_photos(photos, check):
    truncated = save("train/ant/0.jpg", 0)
    truncated.write_bytes(truncated.read_bytes()[:-300])
    Path("train/ant/1.jpg").write_bytes(b"")
    Path("train/bee/0.jpg").write_text("not an image")
    Image.new("1", (14000, 14000)).save("eval/bee/0.png")
    code, found, out = check()
    assert code == 1
    assert [(kind, *paths) for kind, paths, _ in found] == [
        ("broken", "train/ant/0.jpg"),
        ("broken", "train/ant/1.jpg"),
        ("broken", "train/bee/0.jpg"),
        ("broken", "eval/bee/0.png"),
    ]
    for words, group in zip(["truncated", "empty", "not a JPEG", "too large"], found, strict=True):
        assert words in group[2]
        assert f"  {group[1][0]}: {group[2]}" in out


def test_copies(photos, check):
    shutil.copy("train/ant/0.jpg", "train/ant/copy.jpg")
    cv2.imwrite("train/bee/same.png", cv2.imread("train/bee/1.jpg"))
    assert check()[1] == [
        ("duplicate", ["train/ant/0.jpg", "train/ant/copy.jpg"], "same bytes"),
        ("duplicate", ["train/bee/1.jpg", "train/bee/same.png"], "same pixels"),
    ]


def test_one_photo_in_two_classes(photos, check):
    shutil.copy("train/ant/0.jpg", "train/bee/9.jpg")
    _, found, out = check()
    assert found == [("two labels", ["train/ant/0.jpg", "train/bee/9.jpg"], "same bytes")]
    assert "  train/ant/0.jpg [ant] = train/bee/9.jpg [bee]: same bytes" in out


def test_leaks_exact_and_near(photos, check, run):
    shutil.copy("train/ant/0.jpg", "eval/ant/9.jpg")
    save("eval/bee/9.jpg", 11, quality=50)  # train/bee/1.jpg
    half = cv2.resize(scene(12), None, fx=0.5, fy=0.5)
    Image.fromarray((half * 0.8).astype(np.uint8)).save("eval/bee/half.png")
    code, found, _ = check("--sheet", "pairs.png")
    assert code == 1
    assert found[0] == ("leak", ["train/ant/0.jpg", "eval/ant/9.jpg"], "same bytes")
    assert sorted(found[1:]) == [
        ("near leak", ["train/bee/1.jpg", "eval/bee/9.jpg"], found[1][2]),
        ("near leak", ["train/bee/2.jpg", "eval/bee/half.png"], found[2][2]),
    ]
    assert "of 256 bits differ" in found[1][2]
    picture = Image.open("pairs.png")
    assert np.asarray(picture).std() > 10
    assert 1 < picture.width / picture.height < 2.5
    lines = picture.text["Description"].splitlines()
    assert len(lines) == 3
    assert "train/ant/0.jpg | eval/ant/9.jpg: leak: same bytes | train: ant | eval: ant" in lines
    code, out, err = run("check-data", "train", "eval", "--sheet", "pairs.png")
    assert (code, out) == (2, "")
    assert err.startswith("error: --sheet pairs.png exists; --overwrite replaces it")
    assert run("check-data", "train", "eval", "--sheet", "pairs.png", "--overwrite")[0] == 1


def test_near_copies_with_two_labels_and_fewer_bits(photos, check):
    save("train/ant/9.jpg", 12, quality=40)  # train/bee/2.jpg
    assert [(kind, paths) for kind, paths, _ in check()[1]] == [
        ("near two labels", ["train/ant/9.jpg", "train/bee/2.jpg"])
    ]
    clipped = np.clip(scene(3) * 1.5, 0, 255).astype(np.uint8)
    Image.fromarray(clipped).save("train/ant/clipped.png")
    Path("train/ant/9.jpg").unlink()
    assert [kind for kind, *_ in check()[1]] == ["near duplicate"]
    assert check("--near", 0)[0] == 0


def test_a_crowd_is_a_note(photos, check):
    for i in range(12):
        Image.fromarray(np.roll(scene(55), i % 2, 0) ^ (i > 5)).save(f"train/ant/crowd{i}.png")
        save(f"train/ant/crowd{i}.jpg", 56, quality=60 + i)
    code, found, out = check(of=("train",))
    assert code == 1  # exact copies among them
    assert [kind for kind, *_ in found if kind not in ("duplicate",)] == ["crowd", "crowd"]
    assert "note: 75% of the images look much like another one" in out


def test_odd_photos_are_notes(photos, check):
    Image.fromarray(scene(70)).convert("RGBA").save("train/ant/alpha.png")
    Image.new("RGB", (50, 50), "red").save("train/ant/red.png")
    Image.new("RGB", (60, 60), "green").save("train/bee/green.png")  # blank ones are not compared
    code, found, out = check()
    assert code == 0
    assert [(kind, *paths) for kind, paths, _ in found] == [
        ("blank", "train/ant/red.png"),
        ("blank", "train/bee/green.png"),
        ("alpha", "train/ant/alpha.png"),
    ]
    assert "note: blank (2): images of one colour" in out
    assert "  … and 1 more" in out


def test_lists_say_lines_and_classes_without_photos(photos, check):
    rows = [f"train/ant/{i}.jpg 0" for i in range(4)] + ["train/gone.jpg 0", "train/ant/2.jpg 0"]
    Path("list.txt").write_text("\n".join(rows) + "\n")
    Path("eval.txt").write_text("eval/ant/1.jpg 0\neval/bee/1.jpg 2\n")
    code, _, out = check(of=("list.txt", "eval.txt"))
    assert code == 1
    assert "  list.txt:5 (train/gone.jpg): no such file" in out
    assert "  list.txt:3 (train/ant/2.jpg) = list.txt:6 (train/ant/2.jpg): listed several" in out
    assert "classes (3): classes without images" in out
    assert "  train: no image of class 2" in out
    assert "  eval: no image of class 1" in out
    with open("found.csv", newline="") as file:
        (gone,) = [row for row in csv.DictReader(file) if row["kind"] == "broken"]
    assert (gone["part"], gone["line"], gone["label"]) == ("train", "5", "0")


def test_uneven_classes_are_noted(photos, check):
    for i in range(40):
        save(f"train/ant/more{i}.jpg", 200 + i)
    assert "note: uneven classes (1)" in check()[2]
    assert "train: ant has 44 images, bee has 4 images" in check()[2]


def test_only_ten_of_a_kind_are_shown(photos, check):
    for i in range(13):
        Path(f"train/ant/broken{i}.jpg").write_bytes(b"x")
    _, found, out = check()
    assert len(found) == 13
    assert out.count("  train/ant/broken") == 10
    assert "broken (13)" in out
    assert "  … and 3 more" in out


def test_a_recipe_says_what_is_too_narrow_or_small_and_keeps_a_part(workdir, run):
    Image.fromarray(scene(1, 1, 1000)).save("photos/train/ant/line.png")
    options = ("check-data", "-c", "recipe.yaml", "-o")
    code, out, _ = run(*options, "data.eval=null", "data.holdout=0.3", "preprocess.crop=33")
    assert code == 1
    assert "photos/train/ant/line.png: an image of 1000x1 pixels is too narrow" in out
    assert out.count("photos/train: ") == 2
    (workdir / "photos/train/ant/line.png").unlink()
    code, out, _ = run(*options, "preprocess.crop=44", "preprocess.resize=44")
    assert code == 0
    assert "note: small (18): smaller than the recipe's crop" in out


def test_groups_on_both_sides_are_found(photos, check, run):
    for part, names in (("train", "pq"), ("eval", "qr")):
        for path in sorted(Path(part).rglob("*.jpg")):
            group = names[int(path.stem) // 2]
            path.rename(path.with_stem(f"{group}{path.stem}"))
    code, found, out = check("--group-path", "/([a-z])[0-9]")
    assert code == 1
    assert [(kind, len(paths), detail) for kind, paths, detail in found] == [
        ("group leak", 8, "'q': 4 images of train, 4 images of eval")
    ]
    assert "group leak (1)" in out
    lists = {}
    for part in ("train", "eval"):
        rows = [f"{path},{path.parent.name},{path.stem[0]}\n" for path in Path(part).rglob("*.jpg")]
        lists[part] = Path(f"{part}.csv")
        lists[part].write_text("".join(["path,label,Patient\n", *rows]))
    code, found, _ = check("--group-column", "patient", of=("train.csv", "eval.csv"))
    assert [kind for kind, *_ in found] == ["group leak"]
    for options, words in [
        (("train", "eval", "--group-path", "("), "--group-path: '(' is no regular expression"),
        (("train", "--group-path", "a"), "compare TRAIN with EVAL: give both"),
        (("train", "eval", "--group-column", "a"), "train has no columns"),
        (("-c", "x.yaml", "--group-path", "a"), "-o data.group_by.column=NAME"),
    ]:
        code, _, err = run("check-data", *options)
        assert code == 2
        assert words in err


def test_the_folds_of_a_recipe_are_checked_against_each_other(workdir, run):
    shutil.copy("photos/train/ant/0.png", "photos/train/ant/copy.png")
    options = ("check-data", "-c", "recipe.yaml", "-o", "data.eval=null", "data.folds=13")
    (workdir / "photos/train/bee/0.png").rename("photos/train/bee/00.png")
    code, out, _ = run(*options)
    assert code == 1
    assert "leak (1): the same image to learn from and to be scored on" in out
    code, out, _ = run(*options, "data.group_by.path=[0-9c]", "data.folds=2", "data.fold=1")
    assert "fold 1 of 2: " in out
    assert "group leak" not in out


def test_photos_without_labels_are_looked_at(trained, workdir, run):
    teacher = "{name: EfficientNetLite0, weights: runs/small/best.safetensors}"
    task = f"task={{kind: distill, teacher: {teacher}, losses: [{{kind: js}}]}}"
    more = "data.unlabeled={images: photos/train, share: 0.5}"
    options = ("check-data", "-c", "recipe.yaml", "-o", task, "data.labeled=0.5", more)
    code, out, _ = run(*options)
    assert code == 0, out
    assert "photos/train: 12 images, 2 classes" in out
    assert "photos/train: 12 images without labels" in out
    (workdir / "more").mkdir()
    (workdir / "more/a.png").write_bytes((workdir / "photos/eval/ant/0.png").read_bytes())
    (workdir / "more/b.png").write_bytes((workdir / "photos/train/ant/0.png").read_bytes()[:99])
    code, out, _ = run(*options[:-1], more.replace("photos/train", "more"))
    assert code == 1
    assert "leak (1)" in out
    assert "broken (1)" in out
    assert "two labels" not in out


def test_mistakes_in_the_command(photos, run, capsys):
    for arguments, words in [
        ((), "give -c RECIPE, or TRAIN"),
        (("train", "-c", "x.yaml"), "give -c RECIPE, or TRAIN"),
        (("train", "-o", "a=1"), "-o changes a recipe"),
        (("gone",), "gone: no such folder or list file"),
        (("train", "--output", "x.txt"), "--output x.txt: the file name should end in .csv"),
        (("train", "--sheet", "no/x.png"), "--sheet no/x.png: cannot be written"),
    ]:
        code, out, err = run("check-data", *arguments)
        assert code == 2
        assert out == ""
        assert words in err
        assert len(err.splitlines()) == 1
    with pytest.raises(SystemExit) as ended:
        run("check-data", "train", "--near", "99")
    assert ended.value.code == 2


def test_the_script_is_the_command(photos, check):
    shutil.copy("train/ant/0.jpg", "eval/ant/9.jpg")
    Path("train/bee/0.jpg").write_bytes(b"")
    script = Path(__file__).parents[2] / "tools/check_data.py"
    code, _, out = check()
    done = subprocess.run(
        [sys.executable, script, "train", "eval", "--output", "again.csv"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code == 1
    assert Path("again.csv").read_bytes() == Path("found.csv").read_bytes()
    same = out.splitlines()
    assert done.stdout.splitlines()[: len(same) - 2] == same[:-2]  # then come speed and file names


def test_processes_give_the_same(photos):
    shutil.copy("train/ant/0.jpg", "eval/ant/9.jpg")
    Path("train/bee/0.jpg").write_bytes(b"")
    paths = [str(path) for part in ("train", "eval") for path in sorted(Path(part).rglob("*.jpg"))]
    assert len(paths) == 17
    look = partial(examine, demands=Demands(3))
    alone, shared = (
        list(survey.in_order(look, survey.chunks(iter(paths), 4), workers)) for workers in (0, 2)
    )
    assert [len(records) for records, _ in alone] == [4, 4, 4, 4, 1]
    for (records, broken), (same, reasons) in zip(alone, shared, strict=True):
        assert records.tobytes() == same.tobytes()
        assert broken == reasons


def test_a_worker_that_dies_is_said():
    with pytest.raises(DataError, match=r"by one of the images from a\.jpg on"):
        list(survey.in_order(ended_by, iter([["a.jpg"]]), 1))


def ended_by(paths):
    os._exit(1)
