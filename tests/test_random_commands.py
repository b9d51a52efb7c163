"""Random command lines over every command: each ends in words, whatever stands behind its options.

No traceback, no control character, no endless line, and no exit code for a fault of ppcls.
"""

import argparse
import os
import random
import sys
import unicodedata
from pathlib import Path

import pytest

from ppcls.cli import main, make_parser

LONGEST = 2000  # characters of a line
CODES = {0, 1, 2}

NASTY = [
    "",
    " ",
    "-",
    "--",
    "---",
    "=",
    "-1",
    "0",
    "1",
    "²",
    "\u0661\u0662",
    "1_000",
    "0x10",
    "1e3",
]
NASTY += ["1e400", "-1e400", "inf", "-inf", "nan", "9" * 19, "9" * 400, "9" * 5000, "1.5", "NaN"]
NASTY += ["\0", "a\0b", "x" * 300, "x/" * 2000, "\udcff", "\udc80.yaml", "\ud800", "é", "e\u0301"]
NASTY += [
    "\x1b[31mred",
    "two\nlines",
    "back\rto",
    "\x07",
    "\u202e",
    "\x85",
    "\u2028",
    "=cmd|'/C x'",
]
NASTY += [
    "*",
    "[",
    "[a",
    "{0..9}",
    "a,b",
    ",",
    "1,2",
    "1,\u00b2",
    "~",
    "~nobody_x/y",
    "%s",
    "{}",
    "$HOME",
]
NASTY += ["true", "null", "imagenet", "all", "auto", "http://a..b/c.tar", "http://[::1", "hf://a/b"]
NASTY += ["hf://", "http://h:99999/x.pdparams", "https://\udcff/x", "ResNet18", "resnet18", "模型"]
NASTY += ["512MB", "\u0665MB", "0GB", "999999999999999999999GB"]

OVERRIDES = [
    "train.transforms.²=1",
    "train.transforms.0=1",
    "seed=²",
    "seed=" + "9" * 400,
    "=",
    "a",
    "a=b",
    ".=.",
    "..=1",
]
OVERRIDES += [
    "model.name=ResNet18",
    "model.name=\x1b[31m",
    "data.train=\0",
    "data.eval=\udcff",
    "data=1",
]
OVERRIDES += [
    "train.epochs=1e400",
    "train.batch_size=.inf",
    "preprocess.crop=.nan",
    "preprocess.mean=[.nan]",
]
OVERRIDES += [
    "data.workers=²",
    "model.num_classes=\u0662",
    "output=" + "x" * 300,
    "output=a\0b",
    "train=[[" * 900,
]
OVERRIDES += [
    "data.train=http://a..b/x.tar",
    "data.train=x-{0..²}.tar",
    "data.class_names=deep.json",
    "output=file",
]
OVERRIDES += [
    "data.train=odd.tar",
    "data.train=bytes.txt",
    "data.train=bytes.csv",
    "x\ny=1",
    "\x85=\u2028",
]
OVERRIDES += [
    "model.weights=" + name
    for name in ("bytes.pdparams", "empty.pth", "deep.json", "file", "hf://a b")
]

# Where these options lead is outside of a test's folder, or takes long.
LEFT_OUT = {"--docs", "--help", "--version"}


def furnish_odd(folder: Path) -> list[str]:
    """Files that are not what their names say; their names."""
    noise = random.Random(1).randbytes(3000)
    contents = {
        "empty.yaml": b"",
        "bytes.yaml": b"model: \xff\xfe\n",
        "nul.yaml": b"model: a\0b\n",
        "deep.yaml": b"a: " + b"[" * 3000 + b"]" * 3000,
        "deep.json": b"[" * 100_000,
        "bytes.txt": b"a.jpg 0\n\xff\xfe 1\n",
        "bytes.csv": b"path,label\n\xff,\xb2\n",
        "digits.txt": "a.jpg ²\nb.jpg \u0661\n".encode(),
        "labels.txt": b"a\x1b[31m\nb\n",
        "long.txt": b"x" * 200_000 + b" 0\n",
        "odd.tar": noise,
        "cut.tar": b"a.jpg" + bytes(95) + b"0000644\0" * 3 + b"77777777777\0" + bytes(377),
        "file": noise,
        "empty.pth": b"",
    }
    contents |= {
        f"bytes{ending}": noise for ending in (".pdparams", ".pth", ".safetensors", ".npz")
    }
    contents |= {f"bytes{ending}": noise for ending in (".parquet", ".jpg", ".answers", ".jsonl")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.yaml").mkdir()
    for name, text in MANIFESTS.items():
        (folder / name).mkdir()
        (folder / name / "inference.yml").write_bytes(text)
        (folder / name / "inference.json").write_bytes(b"[" * 100_000)
        (folder / name / "inference.pdiparams").write_bytes(noise)
        (folder / name / "inference.xml").write_bytes(b"\xff<net>")
        (folder / name / "inference.bin").write_bytes(noise)
    os.mkfifo(folder / "pipe")
    (folder / "list.txt").write_text("photos/train/ant/0.png 0\nphotos/train/bee/0.png 1\n")
    (folder / "names.txt").write_text("ant\nbee\n")
    return [
        *contents,
        "folder.yaml",
        "pipe",
        "pipe/x",
        "file/x",
        "new/x.csv",
        "/dev/null",
        *MANIFESTS,
    ]


TOPK = b"PostProcess: {Topk: {topk: %s}}\nPreProcess: {transform_ops: [{CropImage: {size: 8}}]}\n"
MANIFESTS = {
    "infinite": TOPK % b".inf",
    "large": TOPK % b"1e400",
    "nested": b"a: " + b"[" * 3000,
    "bytes": b"Global: {model_name: \xff}\n",
    "missing": b"",
}


# What is right for an option, by the name it has in the program.
RIGHT = {
    "config": ["recipe.yaml"],
    "weights": ["runs/small/best.safetensors", "runs/small"],
    "model_dir": ["exported/small"],
    "photos": ["photos/eval", "photos/eval/ant/0.png", "list.txt"],
    "output": ["new", "new.csv", "new.png", "new.txt", "new.answers"],
    "target": ["new", "new.npz", "new.safetensors"],
    "save": ["new.csv", "new.json", "new.jsonl"],
    "engine": ["onednn", "paddle", "onnxruntime"],
    "models": ["ResNet18"],
    "model": ["EfficientNetLite0"],
    "mean": ["0.5"],
    "std": ["0.5"],
    "sheet": ["new.png"],
    "labels": ["names.txt"],
    "calibrate": ["photos/train"],
    "source": ["runs/small/best.safetensors", "photos/train", "list.txt"],
    "train": ["photos/train", "list.txt"],
    "eval": ["photos/eval"],
    "near": ["3"],
}


def values(random_: random.Random, action: argparse.Action, places: list[str]) -> list[str]:
    """What may stand behind an option, often what should not."""
    if action.nargs == 0:
        return []
    if "-o" in action.option_strings:
        return random_.choices(OVERRIDES + NASTY, k=random_.randint(1, 2))
    many = action.nargs in ("+", "*") or isinstance(action.nargs, int)
    count = random_.randint(1, 3) if many else 1
    if random_.random() < 0.75:
        choices = list(map(str, action.choices or []))[:8]
        return random_.choices(choices or RIGHT.get(action.dest, ["1", "2"]), k=count)
    return random_.choices([*NASTY, *places, *places], k=count)


def command_line(
    random_: random.Random, parser: argparse.ArgumentParser, places: list[str]
) -> list[str]:
    """A command, its words, and some of its options, required ones nearly always."""
    words: list[str] = []
    for action in parser._actions:
        named = action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            name = random_.choice(list(action.choices))
            return [*words, name, *command_line(random_, action.choices[name], places)]
        if LEFT_OUT & set(named) or random_.random() > (
            0.97 if action.required or not named else 0.25
        ):
            continue
        given = values(random_, action, places)
        if named and given and random_.random() < 0.5:
            words += [f"{named[-1]}={given[0]}", *given[1:]]
        else:
            words += [*named[-1:], *given]
    if random_.random() < 0.1:
        words.insert(random_.randint(0, len(words)), random_.choice(NASTY))
    return words


def bounded(words: list[str]) -> bool:
    """Whether a command line stays in its folder and ends soon: nothing of the repository's docs,
    no network that is measured or proven.
    """
    command, rest = words[0], words[1:]
    if command == "zoo":
        known = [word for word in rest if not word.startswith("-") and word != "verify"]
        return "verify" in rest and bool(known)  # without names it proves all networks
    if command == "bench":
        return not {"all", "ResNet18", "resnet18", "exported/small"} & {
            word.rpartition("=")[2] for word in rest
        }
    return True


def outcome(words: list[str], capfd: pytest.CaptureFixture) -> tuple[int, str]:
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    assert isinstance(code, int)
    sys.stdout.flush()
    captured = capfd.readouterr()
    return code, captured.out + captured.err


def hold(words: list[str], code: int, said: str) -> None:
    """The outcome of a command line is as it should be."""
    about = f"{words!r} ended with {code}: {said[-3000:]!r}"
    assert code in CODES, about
    assert "Traceback" not in said, about
    assert code != 2 or "error: " in said, about
    for line in said.split("\n"):
        assert len(line) <= LONGEST, about
        wrong = [c for c in line if unicodedata.category(c) in ("Cc", "Cs")]
        assert not wrong, f"{wrong!r} in {about}"


def try_lines(count: int, seed: int, workdir: Path, capfd, monkeypatch) -> None:
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    places = furnish_odd(workdir)
    random_ = random.Random(seed)
    parser, names = make_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    tried = 0
    while tried < count:
        name = names[tried % len(names)]
        words = [name, *command_line(random_, subparsers.choices[name], places)]
        if bounded(words):
            hold(words, *outcome(words, capfd))
            tried += 1


def test_eight_command_lines(workdir, exported, capfd, monkeypatch):
    try_lines(8, 0, workdir, capfd, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_command_lines(workdir, exported, capfd, monkeypatch):
    try_lines(1000, random.randrange(1 << 32), workdir, capfd, monkeypatch)
