"""`curves.png` of runs of every length, by the words that it has as text, and its shape."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ppcls.utils.log import read_records


def words(path="runs/small/curves.png") -> list[str]:
    return Image.open(path).text["Description"].splitlines()


def test_a_run_of_the_command(trained):
    evals = [r for r in read_records(Path("runs/small/run.jsonl")) if r["event"] == "eval"]
    best = max(evals, key=lambda record: record["top1"])  # the first of equals
    said = words()
    assert f"scores, %: best: top-1 {100 * best['top1']:.2f} % (epoch {best['epoch']})" in said
    training, evaluation = said[:2]
    assert training.startswith("loss: training: cross entropy with label smoothing 0.1")
    assert evaluation == f"loss: evaluation: cross entropy alone, last {evals[-1]['loss']:.6g}"
    width, height = Image.open("runs/small/curves.png").size
    assert width <= 1600
    assert 2 < width / height < 4


def test_the_first_step_is_recorded(run, workdir):
    code, _, _ = run("train", "-c", "recipe.yaml", "-o", "train.log_every=50", "train.epochs=1")
    assert code == 0
    train = [r for r in read_records(Path("runs/small/run.jsonl")) if r["event"] == "train"]
    assert [record["step"] for record in train] == [1, 3]
    assert "loss: training: cross entropy with label smoothing 0.1" in words()[0]


def test_what_is_learnt_beside_what_is_measured(run, workdir):
    mix = "train.batch_transforms=[{op: mixup}]"
    plain = ("task.loss.smoothing=0", "eval.best=loss", "train.epochs=1")
    code, _, _ = run("train", "-c", "recipe.yaml", "-o", mix, *plain)
    assert code == 0
    said = words()
    assert said[0].startswith("loss: training: cross entropy with mixup")
    assert said[1].startswith("loss: evaluation: cross entropy alone")
    assert said[2].startswith("loss: best: loss ")


@pytest.fixture
def drawn(tmp_path):
    """The words of a picture of made-up records."""
    from ppcls.train.curves import Course, draw

    def drawn(records, **of):
        path = tmp_path / "run.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        draw(path, tmp_path / "curves.png", Course(**of))
        return words(tmp_path / "curves.png")

    return drawn


def train(step: int, **scores) -> dict:
    return {"event": "train", "step": step, "loss": 2.5 / step, "lr": 0.1, **scores}


def test_several_labels_have_f1_and_map(drawn):
    evals = [
        {"event": "eval", "step": 4 * n, "loss": 1.0, "map": share, "f1": 0.5}
        for n, share in ((1, 0.25), (2, 0.75), (3, 0.75), (4, 0.5))
    ]
    found = drawn([train(1, label_accuracy=0.5), *evals], epoch_steps=4, best="map")
    assert "scores, %: training: labels right, on augmented images, last 50" in found
    assert "scores, %: evaluation: mAP, last 50" in found
    assert "scores, %: evaluation: F1, last 50" in found
    assert "scores, %: best: mAP 75.00 % (epoch 2)" in found


def test_without_an_evaluation_and_without_any_record(drawn):
    found = drawn([train(1, top1=0.5), train(10, top1=0.75)], epoch_steps=10)
    assert not any("evaluation" in line or "best" in line for line in found)
    assert "loss: training: cross entropy, on augmented images, last 0.25" in found
    assert drawn([], epoch_steps=10) == []


def test_records_that_lack_what_others_have(drawn):
    found = drawn([{"event": "start", "note": "x"}, train(1), train(2, top1=1.0)], epoch_steps=2)
    assert "scores, %: training: top-1, on augmented images, last 100" in found
