"""A teacher's answers in a file: what is kept, whose they are, and runs that learn from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppcls.train.answers import FORMAT, Writing, open_answers, pack, unpack
from ppcls.utils.errors import UserError

STILL = "train.transforms=[{op: resize_short}, {op: center_crop}, {op: horizontal_flip}]"
NETWORK = "{name: EfficientNetLite0, weights: runs/small/best.safetensors}"
TASK = f"task={{kind: distill, teacher: {NETWORK}, losses: [{{kind: kl}}]}}"
FILE = "answers.bin"


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize(("classes", "top"), [(2, 2), (10, 3), (10, 10), (70_000, 4)])
def test_what_is_kept_of_logits(classes, top):
    logits = np.random.default_rng(0).normal(0, 3, (5, classes)).astype("float32")
    records = pack(logits + 100, top)
    found, expected = softmax(unpack(records, classes).astype("float64")), softmax(logits)
    order = np.argsort(-logits, axis=1)
    for row in range(5):
        best, others = order[row, :top], order[row, top:]
        np.testing.assert_allclose(found[row, best], expected[row, best], rtol=1e-2)
        if len(others):
            np.testing.assert_allclose(found[row, others], expected[row, others].mean(), rtol=1e-2)
    assert records.itemsize == top * (2 + (2 if classes < 1 << 16 else 4)) + 2


def test_a_sure_answer_leaves_no_infinity():
    found = unpack(pack(np.array([[1e5, 0, -1e5]], "float32"), 1), 3)
    assert np.isfinite(found).all()
    assert found[0].argmax() == 0


def header(**changed):
    return {"format": FORMAT, "teacher": "x", "photos": 4, "classes": 3, "top": 2, **changed}


def test_a_file_that_was_cut_goes_on_with_whole_records(tmp_path):
    path, logits = tmp_path / "new" / FILE, np.arange(12.0).reshape(4, 3)
    writing = Writing(path, header())
    assert writing.done == 0
    writing.add(logits[:3])
    writing.close()
    with pytest.raises(UserError, match="has answers to 3 of 4 images: `ppcls teach` goes on"):
        open_answers(path, header())
    path.write_bytes(path.read_bytes()[:-1])
    writing = Writing(path, header())
    assert writing.done == 2
    writing.cut(2)
    writing.add(logits[2:])
    writing.close()
    assert (open_answers(path, {"teacher": "x"}) == pack(logits, 2)).all()
    with pytest.raises(UserError, match=r"than are wanted \(teacher: x -> y\): write"):
        open_answers(path, header(teacher="y"))
    with pytest.raises(UserError, match=r"4 -> 5\): give another --output, or delete it"):
        Writing(path, header(photos=5))


def test_other_files_are_refused(tmp_path):
    for content in (b"", b"\x00\xff\n", b"[1]\n", b'{"format": "x"}\n'):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(UserError, match="holds no answers of a teacher"):
            open_answers(tmp_path / FILE, {})
    with pytest.raises(UserError, match="cannot be read"):
        open_answers(tmp_path / "away", {})


def losses(folder):
    lines = [json.loads(line) for line in Path(folder, "run.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


@pytest.mark.slow
def test_a_run_learns_from_kept_answers_as_from_the_teacher(trained, run):
    still = STILL.replace(", {op: horizontal_flip}", "")
    given = [TASK, still, "train.epochs=1"]
    code, out, _ = run("teach", "-c", "recipe.yaml", "-o", *given, "--output", FILE)
    assert code == 0
    assert f"{FILE}: EfficientNetLite0's answers to 12 images, 2 classes each" in out
    whole = Path(FILE).read_bytes()
    Path(FILE).write_bytes(whole[:-25])  # cut in the second batch of four
    assert run("teach", "-c", "recipe.yaml", "-o", *given, "--output", FILE)[0] == 0
    assert Path(FILE).read_bytes() == whole
    assert run("train", "-c", "recipe.yaml", "-o", *given, "output=runs/live")[0] == 0
    cached = [*given, f"task.teacher.cache={FILE}", "output=runs/kept"]
    code, out, _ = run("train", "-c", "recipe.yaml", "-o", *cached)
    assert code == 0
    assert f"teacher EfficientNetLite0, {FILE}" in out
    # From the second step on, batch norms of four images have blown up what float16 rounded.
    assert losses("runs/kept")[0] == pytest.approx(losses("runs/live")[0], rel=1e-2)
    refused(run, cached)


REFUSED = {
    "task.losses=[{kind: rkd}]": "rkd compares features",
    "train.transforms=[{op: random_resized_crop}]": "random_resized_crop changes them",
    "train.batch_transforms=[{op: mixup}]": "mixup changes them",
    "train.size={kind: multi_scale, sizes: [32, 40]}": "for one size of images",
    "train.size=40": "size: 32 -> 40",
    "train.transforms=[{op: resize}]": "holds other answers than are wanted (ops",
    "data.train=photos/eval": "photos: 12 -> 6",
    "task.teacher.weights=runs/small/latest.safetensors": "weights: ",
    "task.teacher.cache=recipe.yaml": "holds no answers of a teacher",
    "task.teacher.cache=away.bin": "away.bin: cannot be read",
}


def refused(run, cached):
    """What the answers are not good for."""
    for option, words in REFUSED.items():
        given = [*cached[:-1], "output=runs/other", option]
        code, _, err = run("train", "-c", "recipe.yaml", "-o", *given)
        assert code == 2, option
        assert words in err, err
        assert len(err.splitlines()) == 1, err
        assert not Path("runs/other").exists()
    # A flip is answered as the image that is not flipped.
    given = [*cached[:1], STILL, *cached[2:-1], "output=runs/flipped"]
    assert run("train", "-c", "recipe.yaml", "-o", *given)[0] == 0


def test_teaching_needs_a_teacher_and_photos_that_stay_the_same(trained, run):
    command = ("teach", "-c", "recipe.yaml", "--output", FILE, "-o")
    for given, words in (
        ([STILL], "there is no teacher 1 whose answers could be kept"),
        ([TASK], "random_resized_crop changes them"),
        ([TASK, STILL, "task.teacher.weights=away.pdparams"], "away.pdparams: no such file"),
    ):
        code, _, err = run(*command, *given)
        assert code == 2
        assert words in err
        assert len(err.splitlines()) == 1, err
        assert not Path(FILE).exists()
