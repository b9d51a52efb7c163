"""What callbacks are told, in order, and what becomes of a run in which one of them fails."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ppcls.config.load import load
from ppcls.recipe import Recipe
from ppcls.train.callbacks import Callback
from ppcls.train.setup import train
from ppcls.utils.errors import UserError
from ppcls.utils.log import read_records
from ppcls.weights import files

SHORT = ("log=[]", "output=run")


class Listener(Callback):
    """Notes what it is told; raises `error` at an event of a step."""

    def __init__(self, error=None, at=("train", 2)):
        self.heard = []
        self.error = error
        self.at = at

    def note(self, *what):
        self.heard.append(what)
        if self.error and what[: len(self.at)] == self.at:
            raise self.error

    def begin(self, about):
        self.about = about
        self.note("begin", about["step"])

    def record(self, event, step, values):
        self.note(event, step, values)

    def saved(self, path, step):
        assert files.read(path).tensors
        self.note("saved", path.name, step)

    def picture(self, name, path):
        assert path.exists()
        self.note(name, path.name)

    def end(self, done):
        self.note("end", done)


class Spare(Listener):
    essential = False


def run(*callbacks, given=(), **options):
    return train(load(Recipe, "recipe.yaml", [*SHORT, *given]), callbacks=callbacks, **options)


def weights(folder):
    tensors = files.read(Path(folder) / "latest.safetensors").tensors
    return {name: value.tobytes() for name, value in tensors.items()}


def test_a_callback_hears_the_run(workdir):
    listener = Listener()
    assert run(listener)
    told = [what[:2] for what in listener.heard]
    one = [("train", 1), ("train", 2), ("train", 3), ("eval", 3)]
    two = [("train", 4), ("train", 5), ("train", 6), ("eval", 6)]
    saved = [what for what in told if what[0] == "saved"]
    best = sum("best" in name for _, name in saved)
    assert [what for what in told if what[0] != "saved"] == [
        ("begin", 0), *one, *two, ("curves", "curves.png"), ("end", True),
    ]  # fmt: skip
    assert best in (1, 2)
    assert len(saved) == best + 2
    about = listener.about
    assert about["recipe"]["train"]["epochs"] == 2
    assert about["class_names"] == ["ant", "bee"]
    assert (about["epoch_steps"], about["total_steps"]) == (3, 6)
    tensors = files.read("run/best.safetensors").tensors
    statistics = sum(v.size for name, v in tensors.items() if name.endswith(("_mean", "_variance")))
    assert about["parameters"] == sum(np.size(v) for v in tensors.values()) - statistics
    recorded = [what for what in listener.heard if what[0] in ("train", "eval")]
    records = read_records(about["folder"] / "run.jsonl")
    for (event, step, values), record in zip(recorded, records, strict=True):
        assert {"event": event, "step": step, "time": record["time"], **values} == record


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no\nnetwork"), pytest.param(UserError("mend it"), marks=pytest.mark.slow)],
)
def test_one_that_fails_ends_the_run_with_its_state_saved(workdir, error):
    others = Listener()
    failing = Listener(error)
    with pytest.raises(UserError) as raised:
        run(failing, others)
    said = "mend it" if isinstance(error, UserError) else r"Listener.record: RuntimeError: no\n"
    assert str(raised.value).startswith(said)
    assert "saved run/latest.safetensors; to go on: the same command with --resume" in str(
        raised.value
    )
    assert raised.value.__cause__ is error
    assert [what[:2] for what in failing.heard][-2:] == [("train", 2), ("end", False)]
    assert [what[:2] for what in others.heard][-2:] == [
        ("saved", "latest.safetensors"),
        ("end", False),
    ]
    assert json.loads(files.read("run/latest.safetensors").metadata["ppcls"])["step"] == 2
    if not isinstance(error, UserError):  # and nothing is lost
        assert run(resume=True)
        assert run(given=("output=whole",))
        assert weights("run") == weights("whole")


@pytest.mark.parametrize("at", [("train", 3), ("end",)])
def test_one_that_fails_at_the_end_is_said(workdir, at):
    with pytest.raises(UserError, match=r"^Listener\.\w+: ValueError: oh; the run had ended"):
        run(Listener(ValueError("oh"), at), given=["train.epochs=1"])
    assert json.loads(files.read("run/latest.safetensors").metadata["ppcls"])["step"] == 3


def test_one_that_cannot_begin_ends_it_before_and_the_others_hear_it(trained, workdir):
    """An earlier run that was to be replaced is back."""
    first, last = Listener(), Listener()
    before = weights("runs/small")
    given = ("output=runs/small",)
    with pytest.raises(UserError, match=r"^Listener.begin: OSError: no door$"):
        run(first, Listener(OSError("no door"), ("begin",)), last, given=given, overwrite=True)
    assert [what[0] for what in first.heard] == ["begin", "end"]
    assert last.heard == []
    assert weights("runs/small") == before


def test_one_that_can_be_spared_is_left_out(workdir, capsys):
    spare, other = Spare(RuntimeError("gone")), Listener()
    assert run(spare, other)
    out = capsys.readouterr().out
    note = "note: Spare.record: RuntimeError: gone; it is left out from here on, run.jsonl is not"
    assert out.count("gone") == 1
    assert note in out
    assert spare.heard[-1][:2] == ("train", 2)
    assert other.heard[-1] == ("end", True)
    with pytest.raises(UserError, match=r"Spare.begin: RuntimeError: away"):
        run(Spare(RuntimeError("away"), ("begin",)), overwrite=True)


def test_the_example_of_the_page_runs(workdir, capsys):
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shorter = code.replace('["output', '["train.epochs=1", "output')
    assert shorter != code
    exec(compile(shorter, "page", "exec"), {})
    found = [r["top1"] for r in read_records(Path("runs/best/run.jsonl")) if r["event"] == "eval"]
    assert f"best top-1: {max(found):.2%}" in capsys.readouterr().out
