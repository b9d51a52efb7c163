"""How many processes train: chosen by measured steps, and only where the result stays the same."""

import os
import subprocess
import sys

import pytest

from ppcls.config.load import load
from ppcls.recipe import Recipe
from ppcls.start import choose_processes
from ppcls.start.choose_processes import TURN, candidate, choose, pass_turn, shown, wait_for_turn
from ppcls.train.divide import why_not
from ppcls.utils import environment

FROZEN = "model.freeze=['*.norm.*']"


@pytest.fixture
def two_cores(workdir, monkeypatch):
    monkeypatch.setattr(environment, "threads_given", False)
    monkeypatch.setattr(environment, "core_count", lambda: 2)


def recipe(*overrides):
    return load(Recipe, "recipe.yaml", [FROZEN, *overrides])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("seed=0", ""),
        ("train.accumulate=2", "train.accumulate"),
        ("train.batch_transforms=[{op: mixup}]", "train.batch_transforms"),
        ("train.sync_norms=true", "train.sync_norms"),
        ("model.freeze=[50%]", "model.freeze"),
        ("task={kind: distill, teacher: {name: ResNet18, weights: x}}", "task.kind"),
    ],
)
def test_what_looks_at_several_images_is_not_divided(workdir, override, reason):
    found = why_not(recipe(override))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_nothing_is_tried_against_the_users_word(two_cores, monkeypatch):
    assert candidate(recipe()) == 2
    assert candidate(recipe("device=gpu")) == 1
    assert candidate(recipe("train.batch_size=1")) == 1
    monkeypatch.setattr(environment, "threads_given", True)
    assert candidate(recipe()) == 1


def test_images_are_counted_by_their_pixels(workdir):
    once = 12 * (32 / 224) ** 2
    assert shown(recipe()) == pytest.approx(2 * once)
    assert shown(recipe("train.epochs=7", "train.size=64")) == pytest.approx(7 * 4 * once)
    assert shown(recipe("data.eval=null", "data.holdout=0.25")) == pytest.approx(2 * 0.75 * once)
    assert shown(recipe("data.train=nowhere")) == 0


@pytest.mark.parametrize(
    ("found", "count", "said"),
    [
        ({1: 0.9, 2: 0.5}, 2, "2 processes (--processes 2 --divided says so"),
        ({1: 0.52, 2: 0.5}, 1, "1 process (--processes 1 says so"),
        ({1: 0.5}, 1, ""),
    ],
)
def test_the_faster_is_chosen_and_said(two_cores, monkeypatch, capsys, found, count, said):
    asked = []
    monkeypatch.setattr(
        choose_processes, "measure", lambda command, counts: asked.append(counts) or found
    )
    assert choose(recipe(), ["train"]) == 1
    assert not asked, "a run of seconds is not measured"
    assert choose(recipe("train.epochs=1000000"), ["train"]) == count
    assert asked == [(1, 2)]
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_turns_go_round(tmp_path):
    (tmp_path / TURN).write_text("1 2")
    wait_for_turn(tmp_path, 1)
    pass_turn(tmp_path)
    wait_for_turn(tmp_path, 2)
    pass_turn(tmp_path)
    assert (tmp_path / TURN).read_text() == "1 2"


@pytest.mark.slow
def test_steps_are_measured_and_nothing_is_left(workdir):
    code = (
        "from ppcls.start import choose_processes as c; from ppcls.cli import main; "
        "c.LEAST_SHOWN = 0; c.GAIN = 0; c.candidate = lambda recipe: 2; "
        f"main(['train', '-c', 'recipe.yaml', '-o', {FROZEN!r}, 'output=runs/chosen'])"
    )
    before = set(os.listdir())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "measured: a step takes" in done.stdout
    assert "2 processes (--processes 2 --divided says so without measuring)" in done.stdout
    assert "2 processes that share each step" in done.stdout
    assert set(os.listdir()) - before == {"runs"}
    assert os.listdir("runs") == ["chosen"]
