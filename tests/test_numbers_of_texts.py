"""What Python takes for a number and people do not: superscripts, digits of other scripts."""

import subprocess
import sys

import pytest

from ppcls.cli import main

ODD = ["²", "\u0661\u0662", "1_000", "1e3", " 1", "+1", "-1", "0x10", "", "nan"]
ODD += ["9" * 30, "9" * 5000]
PREDICT = ("predict", "--model-dir", "x", "y.jpg")
QUANTIZE = ("quantize", "--model-dir", "x", "--calibrate", "y")
WHOLE = [
    (*PREDICT, "--topk"),
    (*PREDICT, "--batch-size"),
    ("train", "-c", "recipe.yaml", "--processes"),
    ("bench", "--batch-sizes"),
    ("bench", "--threads"),
    ("make-shards", "a", "b", "--seed"),
    ("check-data", "a", "--near"),
    ("select-unlabeled", "-c", "r", "--images", "p", "--output", "o", "--per-class"),
    ("import-paddleclas", "a", "--cards"),
]
REAL = [(*PREDICT, "--threshold"), (*QUANTIZE, "--budget"), ("bench", "--seconds")]
NO_REAL = ["²", "\u0661", "1_0", "", "nan", "inf", "-1", "1e400", "9" * 5000, "0x1"]


def refused(capsys, command, text):
    with pytest.raises(SystemExit) as ended:
        main([*command[:-1], f"{command[-1]}={text}"])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"argument {command[-1]}" in err.splitlines()[-1] or "/-" in err
    assert len(err.splitlines()) == 1
    assert len(err.rstrip("\n")) <= 2000


@pytest.mark.parametrize("command", WHOLE)
def test_whole_numbers_of_options(capsys, command):
    for text in ODD:
        refused(capsys, command, text)


@pytest.mark.parametrize("command", REAL)
def test_shares_and_seconds_of_options(capsys, command):
    for text in NO_REAL:
        refused(capsys, command, text)


@pytest.mark.parametrize("text", ["²MB", "\u0661MB", "1_0", "9" * 400 + "GB", "0", "1TB", ""])
def test_sizes(capsys, text):
    refused(capsys, ("make-shards", "a", "b", "--shard-size"), text)


@pytest.mark.parametrize("text", ["nan", "inf", "²", "1e400"])
def test_means(capsys, text):
    refused(capsys, (*PREDICT, "--mean"), text)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("train.transforms.²=1", "train.transforms"),
        ("train.transforms.\u0661=1", "train.transforms"),
        ("data.²=1", "unknown key"),
        ("train.epochs=²", "train.epochs: "),
        ("train.epochs=\u0661", "train.epochs: "),
        ("train.schedule.warmup=² epochs", "a duration is a number of epochs"),
        ("train.schedule.warmup=\u0661 epochs", "a duration is a number of epochs"),
        ("train.schedule.warmup=" + "9" * 400, "a duration is at most 1"),
        ("model.freeze=[²%]", "should be a share from 0% to below 100%"),
        ("model.freeze=[\u0661%]", "should be a share from 0% to below 100%"),
        ("data.train=x-{0..²}.tar", "a range of shards is written like"),
        ("data.train=x-{0..\u0661}.tar", "a range of shards is written like"),
        ("data.train=x-{0.." + "9" * 5000 + "}.tar", "a range of shards is written like"),
    ],
)
def test_overrides(workdir, run, item, words):
    code, _, err = run("train", "-c", "recipe.yaml", "-o", item)
    assert code == 2
    assert words in err
    assert all(len(line) <= 2000 for line in err.splitlines())


@pytest.mark.parametrize(
    ("label", "words"),
    [("²", "label '²'"), ("\u0661", "label '\u0661'"), ("9" * 400, "label '999"), ("1_0", "'1_0'")],
)
def test_labels_of_lists(workdir, run, label, words):
    (workdir / "list.txt").write_text(f"photos/train/ant/0.png {label}\n", encoding="utf-8")
    code, _, err = run("check-data", "list.txt")
    assert code == 2
    assert "list.txt:1: " in err
    assert words in err


# --------------------------------------------------------------------------- the environment

LAUNCHED = {
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:6170,127.0.0.1:6171",
    "PADDLE_CURRENT_ENDPOINT": "127.0.0.1:6171",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("PADDLE_TRAINERS_NUM", text) for text in ("abc", "0", "²", "-1", "9" * 400, "1e3")]
    + [("PADDLE_TRAINER_ID", text) for text in ("2", "²", "-1", "x\x1b")]
    + [("PADDLE_TRAINER_ENDPOINTS", text) for text in ("a", "a:²,b:1", "a:99999,b:1")],
)
def test_the_launchers_variables(workdir, run, monkeypatch, name, value):
    for known, text in LAUNCHED.items():
        monkeypatch.setenv(known, text)
    monkeypatch.setenv(name, value)
    code, _, err = run("train", "-c", "recipe.yaml")
    assert code == 2
    assert err.startswith("error: PADDLE_TRAINER")
    assert name in err
    assert err.rstrip("\n").isprintable()
    code, _, err = run("train", "-c", "recipe.yaml", "--processes", "2")
    assert code == 2
    assert name in err


@pytest.mark.parametrize("value", ["²", "-1", "1e3", "0", "9" * 400, "\u0664", "x\x1b[31m"])
def test_threads_that_are_no_number(value):
    code = "import os, sys, ppcls.utils.environment as e; print(e.threads() == e.core_count())"
    code = f"import os; os.environ.update({{n: {value!r} for n in {names()}}}); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert done.stderr.count("is no number from 1 to 1,024: as if it were not set") == len(names())
    assert all(line.isprintable() for line in done.stderr.splitlines())


def test_threads_of_levels_and_none():
    code = "import ppcls.utils.environment as e; print(e.threads() == (e.core_count(), 3)[{}])"
    for value, number in (("", 0), ("3,2", 1), (" 3 ", 1)):
        start = f"import os; os.environ.update({{n: {value!r} for n in {names()}}}); "
        command = [sys.executable, "-c", start + code.format(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("True\n", "")


def names():
    from ppcls.utils.environment import THREADS

    return list(THREADS)
