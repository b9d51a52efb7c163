"""How long a run takes: said early, evaluations included, and said again where it was wrong."""

import json
import re
from pathlib import Path

import pytest

from ppcls.train.progress import Remaining, TimeLeft
from ppcls.utils.text import duration


class Run:
    """A run whose steps, evaluations and saves take as many seconds as a test says."""

    def __init__(self, plan):
        self.now = 0.0
        self.outlook = TimeLeft(plan, clock=lambda: self.now)

    def steps(self, count, seconds):
        for _ in range(count):
            self.now += seconds
            self.outlook.tell()

    def aside(self, kind, seconds):
        with self.outlook.aside(kind):
            self.now += seconds


def test_it_is_said_once_and_has_evaluations_in_it(capsys):
    run = Run(Remaining(steps=187, evaluations=3, saves=3, evaluation_steps=20))
    run.steps(2, 50)  # the first ones are slower, which says nothing of the others
    run.steps(60, 2)
    first = capsys.readouterr().out.splitlines()
    assert len(first) == 1  # 180 steps to go then, and three evaluations as long as 20 each
    assert first[0].startswith("about 8.0 minutes to train, evaluations included; ")
    run.aside("evaluation", 44)  # about what was guessed
    run.aside("save", 1)
    run.steps(60, 2)
    assert capsys.readouterr().out == ""
    assert run.outlook.left == 65 * 2 + 2 * 44 + 2 * 1


def test_it_is_said_again_when_the_first_evaluation_takes_long(capsys):
    run = Run(Remaining(steps=120, evaluations=2, evaluation_steps=5))
    run.steps(60, 1)
    assert "about 2.0 minutes to train" in capsys.readouterr().out
    run.aside("evaluation", 90)
    out = capsys.readouterr().out
    assert out == "now about 2.5 minutes to go, 5.0 minutes in all\n"
    run.steps(60, 1)
    run.aside("evaluation", 90)
    assert (run.now, capsys.readouterr().out) == (300, "")
    assert run.outlook.left == 0


def test_it_is_said_again_when_steps_become_slower(capsys):
    run = Run(Remaining(steps=1000))
    run.steps(100, 1)
    run.steps(300, 3)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("about 16.6 minutes to train; ")
    assert 1 < len(said) < 6
    assert all(line.startswith("now about ") for line in said[1:])


def test_slow_steps_are_not_waited_for(capsys):
    run = Run(Remaining(steps=50))
    run.steps(3, 60)
    assert capsys.readouterr().out.startswith("about 47.0 minutes to train; ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 seconds"), (1, "1 second"), (20, "20 seconds"), (89, "89 seconds"),
        (90, "1.5 minutes"), (7200, "2.0 hours"), (200000, "2.3 days"),
    ],
)  # fmt: skip
def test_times_in_words(seconds, text):
    assert duration(seconds) == text


LINE = (
    r"epoch {}: top-1 [\d.]+ %, loss ([\d.]+)( \(best\))?; "
    r"training loss ([\d.]+), \d+ seconds? at [\d.e+]+ images/s(; \d+ seconds? left)?"
)


def test_a_line_on_each_epoch_has_training_and_evaluation(finished):
    folder, said = finished
    text = (folder / "runs/small/run.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    scores = [r["loss"] for r in records if r["event"] == "eval"]
    for epoch in (1, 2):
        found = re.search(f"^{LINE.format(epoch)}$", said, re.MULTILINE)
        assert found
        own = [r["loss"] for r in records if r["event"] == "train" and r["epoch"] == epoch]
        assert float(found[3]) == pytest.approx(sum(own) / len(own), abs=6e-5)
        assert float(found[1]) == pytest.approx(scores[epoch - 1], abs=6e-5)
    assert "(best)" in said
    assert said.count("left") == 1


def test_an_epoch_without_evaluation_has_a_line_too(workdir, run):
    options = ("eval.every=2", "train.epochs=3", "train.log_every=100")
    code, out, _ = run("train", "-c", "recipe.yaml", "-o", *options)
    assert code == 0
    kinds = re.findall(r"^epoch (\d): (top-1|training loss)", out, re.MULTILINE)
    assert kinds == [("1", "training loss"), ("2", "top-1"), ("3", "top-1")]
    assert "about " in out
    assert Path("runs/small/best.safetensors").exists()
