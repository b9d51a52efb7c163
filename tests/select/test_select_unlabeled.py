"""The whole command with tiny teachers, against scores computed one image at a time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from photos import scene
from PIL import Image
from small_teacher import CLASSES, PHOTOS, TEACHER

from ppcls.api import create_model
from ppcls.select.scores import RECORD
from ppcls.weights import files

SECOND = "{name: MobileNetV3_small_x0_35, weights: second.safetensors}"
BESIDE = ("out.txt", "out.txt.scores", "out.txt.photos")
FILES = (*BESIDE, "out.txt.skipped")


def probabilities(paths, weights=("teacher.safetensors",)):
    """float64 [N, classes]: the mean of the teachers', from networks run image by image."""
    rows = []
    nets = [create_model("MobileNetV3_small_x0_35", CLASSES, each) for each in weights]
    for path in paths:
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = pixels.shape[:2]
        scale = 36 / min(height, width)
        pixels = cv2.resize(pixels, (round(width * scale), round(height * scale)))
        top, left = (pixels.shape[0] - 32) // 2, (pixels.shape[1] - 32) // 2
        crop = pixels[top : top + 32, left : left + 32] / 255
        image = ((crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
        logits = []
        for net in nets:
            net.eval()
            with paddle.no_grad():
                out = net(paddle.to_tensor(image.transpose(2, 0, 1)[None]))
            logits.append(out.numpy()[0].astype(np.float64))
        shares = [np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in logits]
        rows.append(np.mean(shares, axis=0))
    return np.array(rows)


def wild():
    return sorted(str(path) for path in Path("wild").rglob("*.*"))


def expected(paths, shares, per_class, least=0.0):
    """The paths of the surest of each class, in the order of `paths`."""
    chosen = []
    for label in range(shares.shape[1]):
        own = [i for i in range(len(paths)) if shares[i].argmax() == label]
        own = [i for i in own if shares[i].max() >= least]
        chosen += sorted(own, key=lambda i: -shares[i].max())[:per_class]
    return [paths[i] for i in sorted(chosen)]


def listed():
    return Path("out.txt").read_text().splitlines()


def test_the_surest_photos_of_each_class_are_listed(select):
    shares = probabilities(wild())
    assert len(np.unique(shares.argmax(1))) > 2  # the teacher tells them apart
    code, out, err = select("--sheet", "sheet.png")
    assert (code, err) == (0, "")
    assert listed() == expected(wild(), shares, 2)
    assert b"\r" not in Path("out.txt").read_bytes()
    scores = np.frombuffer(Path("out.txt.scores").read_bytes().partition(b"\n")[2], RECORD)
    assert (scores["label"] == shares.argmax(1)).all()
    np.testing.assert_allclose(scores["confidence"], shares.max(1), rtol=1e-4)
    assert f"{PHOTOS} images\n" in out
    assert not Path("out.txt.skipped").exists()
    picture = np.asarray(Image.open("sheet.png"))
    assert picture.shape[1] > 800
    assert picture.std() > 10


def test_the_words_at_the_end(select):
    shares = probabilities(wild())
    counts = np.bincount(shares.argmax(1), minlength=CLASSES)
    few = [f"{name} ({n})" for name, n in zip(["ant", "bee", "cat", "dog"], counts, strict=True)]
    code, out, _ = select(per_class=50)
    assert code == 0
    mean = shares.max(1).mean()
    assert out.splitlines()[-3:] == [
        f"{PHOTOS} images",
        f"4 classes have fewer than 50: {', '.join(few)}",
        f"out.txt: {PHOTOS} images of {(counts > 0).sum()} classes, mean confidence {mean:.4f}",
    ]


def test_teachers_are_averaged_and_their_kept_answers_ignored(select):
    both = f"task.teacher=[{TEACHER[:-1]}, cache: away.bin}}, {SECOND}]"
    shares = probabilities(wild(), ("teacher.safetensors", "second.safetensors"))
    code, out, _ = select("-o", both)
    assert code == 0
    assert listed() == expected(wild(), shares, 2)
    assert "teacher MobileNetV3_small_x0_35, second.safetensors" in out


def test_another_number_of_photos_scores_none_anew(select):
    assert select()[0] == 0
    shares = probabilities(wild())
    before = Path("out.txt.scores").stat()
    least = float(np.sort(shares.max(1))[5]) - 1e-5
    code, out, _ = select("--least", f"{least}", per_class=9)
    assert code == 0
    assert "teacher MobileNetV3_small_x0_35" not in out
    after = Path("out.txt.scores").stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert listed() == expected(wild(), shares, 9, least)
    assert "5 are below the least confidence" in out
    code, _, err = select("--least", "1")
    assert code == 2
    assert "no image is left to choose (23 images: 23 are below the least" in err
    assert len(err.splitlines()) == 1


def test_near_evaluation_photos_and_copies_are_left_out(select):
    assert select(per_class=99)[0] == 0
    before = listed()
    shutil.copy("scored/0.png", "wild/same.png")
    Image.fromarray(scene(1001)).save("wild/again.jpg", quality=50)
    half = cv2.resize(scene(1002), None, fx=0.5, fy=0.5)
    Image.fromarray((half * 0.8).astype(np.uint8)).save("wild/half.png")
    shutil.copy(before[3], "wild/z_bytes.png")
    Image.fromarray(np.asarray(Image.open(before[4]))).save("wild/z_pixels.bmp")
    for path in Path().glob("out.txt*"):
        path.unlink()
    code, out, _ = select(per_class=99)
    assert code == 0
    assert listed() == before
    assert "28 images: 3 are evaluation images, or nearly, 2 are copies of chosen ones" in out


def test_blank_photos_are_near_to_none(select):
    Image.fromarray(np.full((40, 40, 3), 100, np.uint8)).save("scored/0.png")
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save("wild/blank.png")
    assert select(per_class=99)[0] == 0
    assert len(listed()) == PHOTOS + 1


def test_photos_that_cannot_be_read_are_left_out_and_listed(select):
    good = wild()
    Path("wild/0.png").write_text("no image")
    Path("wild/part1/0.jpg").write_bytes(Path(good[1]).read_bytes()[:-9])
    Path("wild/a\nb.png").write_bytes(Path(good[0]).read_bytes())
    Path(os.fsdecode(b"wild/\xff.png")).write_bytes(Path(good[0]).read_bytes())
    (Path("wild") / ".hidden.png").write_bytes(b"")
    code, out, err = select(per_class=99)
    assert (code, err) == (0, "")
    assert listed() == good
    assert "27 images: 4 cannot be read (out.txt.skipped)" in out
    lines = Path("out.txt.skipped").read_bytes().splitlines()
    here = os.fsencode(os.getcwd())
    assert [line.partition(b"\t")[0] for line in lines] == [
        here + b"/wild/0.png",
        b'"' + here + b'/wild/a\\nb.png"',
        here + b"/wild/part1/0.jpg",
        b'"' + here + b'/wild/\\udcff.png"',
    ]
    reasons = [line.partition(b"\t")[2].decode() for line in lines]
    words = ("not a JPEG", "its name has a line break", "truncated", "its name is not UTF-8")
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_a_list_of_paths_gives_what_its_folder_gives(select):
    assert select()[0] == 0
    first = listed()
    for path in Path().glob("out.txt*"):
        path.unlink()
    Path("away").mkdir()
    absolute = [os.path.abspath(wild()[0]), *(f"../{path}" for path in wild()[1:])]
    Path("away/photos.lst").write_text("\n".join(absolute))
    code, _, _ = select(photos="away/photos.lst")
    assert code == 0
    assert not Path("out.txt.photos").exists()
    assert [os.path.relpath(path) for path in listed()] == first


@pytest.mark.parametrize("batches", range(0, 7, 3))
@pytest.mark.parametrize("torn", [0, 100])
def test_a_run_that_was_cut_ends_as_one_that_was_not(select, batches, torn):
    Path("wild/part0/broken.png").write_text("no image")
    Path("wild/part1/broken.png").write_text("no image")
    assert select()[0] == 0
    whole = {name: Path(name).read_bytes() for name in FILES}
    # What a run leaves that dies in writing what came of a batch of four images.
    header, _, data = whole["out.txt.scores"].partition(b"\n")
    records = np.frombuffer(data, RECORD)[: 4 * batches]
    lost = int((records["pixels"] == 0).sum())
    reasons = whole["out.txt.skipped"].splitlines(keepends=True)
    Path("out.txt").unlink()
    Path("out.txt.scores").write_bytes(header + b"\n" + data[: records.nbytes + torn])
    Path("out.txt.skipped").write_bytes(b"".join(reasons[:lost]) + b"half a li")
    # The folder is not looked at again: what it holds now was not there.
    Image.fromarray(scene(7)).save("wild/new.png")
    code, out, _ = select()
    assert code == 0
    assert "25 images of " in out
    assert "as out.txt.photos says" in out
    assert {name: Path(name).read_bytes() for name in FILES} == whole


def test_an_interrupted_walk_leaves_nothing(select, monkeypatch):
    scan = os.scandir

    def scandir(folder):
        if str(folder).endswith("part1/"):
            raise KeyboardInterrupt
        return scan(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        code, _, err = select()
    assert (code, err) == (130, "interrupted\n")
    assert not list(Path().glob("out.txt*"))
    assert select()[0] == 0


CHANGED = {
    "teacher": ("-o", f"task.teacher={SECOND}"),
    "another teacher": ("-o", f"task.teacher=[{TEACHER}, {SECOND}]"),
    "preprocessing": ("-o", "preprocess.resize=40"),
    "normalisation": ("-o", "preprocess.mean=[0,0,0]"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_scores_of_another_teacher_or_view_are_refused(select, what):
    assert select()[0] == 0
    before = Path("out.txt.scores").read_bytes()
    code, _, err = select(*CHANGED[what])
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: out.txt.scores: holds scores of another teacher, view or list")
    assert "give another --output, or delete out.txt and what lies beside it" in err
    assert Path("out.txt.scores").read_bytes() == before


def test_a_teacher_that_does_not_fit_leaves_nothing_behind(select):
    paddle.seed(0)
    state = create_model("MobileNetV3_small_x0_35", CLASSES + 1).state_dict()
    tensors = {name: value.numpy() for name, value in state.items()}
    files.write_safetensors(Path("other.safetensors"), tensors, {})
    code, _, err = select(
        "-o", "task.teacher={name: MobileNetV3_small_x0_35, weights: other.safetensors}"
    )
    assert code == 2
    assert f"has {CLASSES + 1} classes and the student {CLASSES}" in err
    assert select()[0] == 0


def test_other_photos_are_refused(select):
    assert select()[0] == 0
    code, _, err = select(photos="scored")
    assert code == 2
    assert f"out.txt.photos: holds the images of {os.getcwd()}/wild, not of" in err
    Path("list.txt").write_text(wild()[0])
    code, _, err = select(photos="list.txt")
    assert code == 2
    assert "photos: 23 -> 1" in err


MISTAKES = {
    "no teacher": ({"-o": "task={kind: classify}"}, "task.teacher: there is none that could score"),
    "peer": (
        {"-o": "task={kind: distill, labels_weight: 1, teacher: {kind: peer, name: ResNet18}}"},
        "task.teacher: there is none that could score images",
    ),
    "weights": (
        {"-o": "task.teacher={name: MobileNetV3_small_x0_35, weights: away.safetensors}"},
        "away.safetensors: no such file",
    ),
    "photos": ({"--images": "nowhere"}, "--images nowhere: no such folder or list file"),
    "empty": ({"--images": "empty"}, "/empty: no images in it (JPEG"),
    "labels": ({"--images": "eval.txt"}, "eval.txt:1: a label stands behind scored/0.png"),
    "csv": ({"--images": "x.csv"}, "a list with a path a line ends in .txt"),
    "foreign": ({"--output": "eval.txt"}, "eval.txt: exists and is not from here"),
    "no suffix": ({"--output": "out"}, "out: a list of images ends in .txt"),
    "suffix": ({"--output": "out.csv"}, "out.csv: a list of images ends in .txt"),
    "unwritable": ({"--output": "eval.txt/out.txt"}, "eval.txt/out.txt: cannot be written"),
    "sheet": ({"--sheet": "sheet.jpg"}, "sheet.jpg: the file name should end in .png"),
    "evaluation": ({"-o": "data.eval=away.txt"}, "data.eval: away.txt does not exist"),
    "classes": ({"-o": "model.num_classes=5"}, "eval.txt has 4 classes but model.num_classes is 5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(place, run, mistake):
    Path("empty").mkdir()
    Path("x.csv").write_text("path\nwild/part0/00.png\n")
    changed, words = MISTAKES[mistake]
    given = {"--images": "wild", "--per-class": "2", "--output": "out.txt", **changed}
    code, _, err = run(
        "select-unlabeled", "-c", "select.yaml", *(x for y in given.items() for x in y)
    )
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1, err
    assert not Path("out.txt").exists()
    assert Path("eval.txt").read_text().startswith("scored/0.png 0\n")


def test_without_evaluation_photos_it_goes_on(select):
    code, out, _ = select("-o", "data.eval=null", per_class=99)
    assert code == 0
    assert "the recipe has no evaluation images (data.eval)" in out
    assert len(listed()) == PHOTOS


def test_classes_are_counted_where_nothing_says_them(select):
    shutil.copy("eval.txt", "train.txt")
    code, _, err = select(
        "-o", "model.num_classes=null", "data.class_names=null", "data.train=train.txt"
    )
    assert (code, err) == (0, "")


def test_answers_that_are_no_numbers_end_it(select):
    tensors = files.read("teacher.safetensors").tensors
    tensors["head.weight"] = np.full_like(tensors["head.weight"], 3e38)  # they overflow
    files.write_safetensors(Path("teacher.safetensors"), tensors, {})
    code, _, err = select()
    assert code == 2
    assert "task.teacher: its answers are no numbers" in err


def test_an_exported_teacher_chooses_what_its_network_does(exported, run):
    command = [
        "select-unlabeled",
        "-c",
        "recipe.yaml",
        "--images",
        "photos/train",
        "--per-class",
        9,
    ]
    network = "{name: EfficientNetLite0, weights: runs/small/best.safetensors}"
    for teacher, name in ((network, "net.txt"), ("{folder: exported/small}", "out.txt")):
        task = f"task={{kind: distill, teacher: {teacher}}}"
        code, out, err = run(*command, "--output", name, "-o", task, "train.size=99")
        assert (code, err) == (0, "")
    assert "teacher EfficientNetLite0, exported/small" in out
    assert listed() == Path("net.txt").read_text().splitlines()
    assert all(line.startswith("photos/train/") for line in listed())
    code, _, err = run(*command, "--output", "x.txt", "-o", task, "preprocess.crop=34")
    assert code == 2
    assert "exported/small takes images of 32 px and they are 34 px" in err


@pytest.mark.slow
def test_worker_processes_and_kill_change_nothing(place):
    """By the script itself: killed again and again, and with workers."""
    for number in range(100, 400):
        Image.fromarray(scene(number, 48, 40)).save(f"wild/part0/{number}.png")
    script = Path(__file__).parents[2] / "tools" / "select_unlabeled.py"
    command = [sys.executable, str(script), "-c", "select.yaml", "--images", "wild"]
    command += ["--per-class", "9", "-o", "data.workers=2", "--output"]
    subprocess.run([*command, "whole/out.txt"], check=True)
    subprocess.run([*command, "alone/out.txt", "-o", "data.workers=0"], check=True)
    for _ in range(2):
        done = subprocess.Popen([*command, "killed/out.txt"])
        size = Path("killed/out.txt.scores")
        before, wait = size.stat().st_size if size.exists() else 0, time.monotonic() + 60
        while time.monotonic() < wait and done.poll() is None:
            if size.exists() and size.stat().st_size > before + 1000:
                break
            time.sleep(0.01)
        done.send_signal(signal.SIGKILL)
        done.wait()
    assert not Path("killed/out.txt").exists()
    subprocess.run([*command, "killed/out.txt"], check=True)
    for name in BESIDE:
        found = {Path(folder, name).read_bytes() for folder in ("whole", "alone", "killed")}
        assert len(found) == 1, name
