"""A run's own files with what no run writes there."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

LATEST = Path("runs/small/latest.safetensors")
LINES = [
    b"[" * 100_000,
    b"NaN",
    b"[1, 2]",
    b'"text"',
    b"null",
    b'{"event": "train"}',
    b'{"event": "train", "step": "x", "loss": 1}',
    b'{"event": "train", "step": NaN, "loss": NaN}',
    b'{"event": "eval", "step": 1e400, "loss": [[]], "top1": "x"}',
    b'{"event": ["a"], "step": 1, "loss": true}',
    b'{"event": "resume"}',
    b'{"event": "resume", "step": null}',
    b'{"event": "train", "step": ' + b"9" * 5000 + b"}",
    b"\xff\xfe\x00",
    b'{"event": "train", "step": 1, "\xff": 2}',
]


def test_lines_of_records(trained, run):
    records = Path("runs/small/run.jsonl")
    records.write_bytes(records.read_bytes() + b"\n".join(LINES) + b"\n")
    Path("runs/small/skipped.txt").write_bytes(b"\xff\xfe\n\0\n")
    code, _, err = run("train", "-c", "recipe.yaml", "--resume", "-o", "train.epochs=3")
    assert code == 0, err
    assert Path("runs/small/curves.png").stat().st_size


@pytest.mark.parametrize("content", [b"\xff", b"a: \xff", b"[" * 3000, b"\0"])
def test_the_runs_recipe(trained, run, content):
    Path("runs/small/recipe.yaml").write_bytes(content)
    code, _, err = run("eval", "-c", "runs/small/recipe.yaml")
    assert code == 2
    assert err.startswith("error: runs/small/recipe.yaml")
    assert err.count("\n") == 1


def rewritten(change):
    """The checkpoint with another record."""
    with safe_open(LATEST, framework="np") as file:
        metadata = dict(file.metadata())
        tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    (key,) = (key for key, value in metadata.items() if '"recipe"' in value)
    record = json.loads(metadata[key])
    text = change(record)
    metadata[key] = text if isinstance(text, str) else json.dumps(record)
    save_file(tensors, LATEST, metadata)


RECORDS = {
    "nested": lambda record: "[" * 100_000,
    "no JSON": lambda record: "{",
    "a list": lambda record: "[]",
    "null": lambda record: "null",
    "no recipe": lambda record: record.update(recipe=None),
    "a list as recipe": lambda record: record.update(recipe=[]),
    "a recipe without model": lambda record: record["recipe"].pop("model"),
    "a recipe without data": lambda record: record["recipe"].pop("data"),
    "a model of text": lambda record: record["recipe"].update(model="x"),
    "labels of numbers": lambda record: record.update(labels=[1, 2]),
    "labels of text": lambda record: record.update(labels="ab"),
    "labels null": lambda record: record.update(labels=None),
    "a step of text": lambda record: record.update(step="x"),
    "infinite step": lambda record: record.update(step=float("inf")),
    "scores of text": lambda record: record.update(scores={"top1": "x"}),
    "scores of lists": lambda record: record.update(scores=[1]),
    "evaluations": lambda record: record.update(evaluations=[[1]]),
    "thresholds": lambda record: record.update(thresholds=["a"]),
    "other keys": lambda record: record.update(other=1),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_checkpoints(trained, run, name):
    rewritten(RECORDS[name])
    for command in (
        ("train", "-c", "recipe.yaml", "--resume", "-o", "train.epochs=3"),
        ("eval", "-c", "recipe.yaml", "--weights", str(LATEST)),
        ("export", "--weights", str(LATEST)),
        ("train", "-c", "recipe.yaml", "-o", f"model.weights={LATEST}", "output=runs/other"),
    ):
        code, _, err = run(*command)
        assert code == 2, (command, err)
        assert "details" not in err
        assert str(LATEST) in err
        assert err.count("\n") == 1
        assert len(err) < 2000
