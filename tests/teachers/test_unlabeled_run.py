"""Runs on images with labels and without."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from cut_run import cut

from ppcls.config.load import load
from ppcls.losses.labels import CrossEntropy
from ppcls.recipe import Recipe
from ppcls.train.distill import where_known
from ppcls.train.setup import train
from ppcls.weights import files

TEACHER = "{name: EfficientNetLite0, weights: runs/small/best.safetensors}"
TASK = f"task={{kind: distill, teacher: {TEACHER}, losses: [{{kind: js}}], labels_weight: 1}}"
MORE = "data.unlabeled={images: more, share: 0.5}"


def recipe(*given):
    return load(Recipe, "recipe.yaml", [TASK, MORE, *given])


@pytest.fixture
def more(trained, workdir):
    """The training images once more, without their labels."""
    folder = workdir / "more"
    folder.mkdir()
    for number, photo in enumerate(sorted((workdir / "photos/train").rglob("*.png"))):
        (folder / f"{number}.png").write_bytes(photo.read_bytes())
    return folder


def test_only_known_labels_count():
    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.normal(size=(4, 3)).astype(np.float32))
    loss = CrossEntropy(smoothing=0.1)
    found = where_known(loss, logits, paddle.to_tensor([2, -1, 0, -1]), np.array([0, 2]))
    expected = loss(logits[[0, 2]], paddle.to_tensor([2, 0])) / 2
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    none = np.zeros(0, np.int64)
    assert float(where_known(loss, logits, paddle.to_tensor([-1, -1, -1, -1]), none)) == 0
    whole = paddle.to_tensor([0, 1, 2, 0])
    assert float(where_known(loss, logits, whole, np.arange(4))) == float(loss(logits, whole))


@pytest.mark.slow
def test_a_run_cut_and_resumed(more, workdir, monkeypatch):
    given = ("train.save_every=1 steps", "train.log_every=1", "data.workers=0")
    assert train(recipe(*given, "output=runs/whole"))
    with monkeypatch.context() as patch:
        cut(patch, step=2)
        with pytest.raises(SystemExit, match="cut"):
            train(recipe(*given, "output=runs/cut"))
    assert train(recipe(*given, "output=runs/cut"), resume=True)
    whole, again = (files.read(Path(f"runs/{n}/latest.safetensors")) for n in ("whole", "cut"))
    assert whole.tensors.keys() == again.tensors.keys()
    assert all(whole.tensors[k].tobytes() == again.tensors[k].tobytes() for k in whole.tensors)
    lines = [json.loads(line) for line in Path("runs/whole/run.jsonl").read_text().splitlines()]
    shares = [line["top1"] for line in lines if line["event"] == "train"]
    assert shares
    assert all(0 <= share <= 1 for share in shares)
    assert set(json.loads(whole.metadata["ppcls"])["data"]) == {"train", "eval", "unlabeled"}
    (more / "late.png").write_bytes((more / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"data\.unlabeled: 12 images"):
        train(recipe(*given, "output=runs/cut"), resume=True)


MISTAKES = {
    "no teacher": (["task={kind: classify}"], "data.unlabeled needs a teacher"),
    "labels": (["task.losses=[{kind: dkd}]"], "dkd needs the label of every image"),
    "repeats": (["train.repeats=2", "train.batch_size=4"], "-o train.repeats=1"),
    "mixing": (
        ["train.batch_transforms=[{op: mixup}]"],
        "would mix images with labels and without",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_does_not_fit(case, trained, workdir):
    given, words = MISTAKES[case]
    with pytest.raises(ValueError, match=words):
        recipe(*given)


def test_the_command_says_what_is_wrong_with_the_list(more, workdir, run):
    (workdir / "more.txt").write_text("more/0.png 1\n")
    wrong = "data.unlabeled={images: more.txt, share: 0.5}"
    code, _, err = run(
        *("train", "-c", "recipe.yaml", "-o", TASK, "-o", wrong, "-o", "output=runs/new")
    )
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "more.txt:1" in err
    assert "has the label '1'" in err
    assert not (workdir / "runs/new").exists()
