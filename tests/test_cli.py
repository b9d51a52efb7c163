"""The command line's own words."""

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from ppcls import __version__
from ppcls.cli import COMMANDS, main, parse
from ppcls.models.registry import list_models

WIDTH = 100


def helped(*command: str) -> str:
    """What `--help` prints on a terminal of WIDTH columns."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", str(WIDTH))
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
    assert ended.value.code == 0
    return out.getvalue()


def commands() -> list[tuple[str, ...]]:
    """Every command that `ppcls --help` lists, and those below `weights`."""
    listed = helped().partition("COMMAND\n")[2].partition("\n\n")[0]
    names = re.findall(r"^    ([a-z][a-z-]+)", listed, re.MULTILINE)
    return [*((name,) for name in names), ("weights", "convert")]


def texts(text: str) -> dict[str, str]:
    """Of each option and positional in a help text, what is said of it."""
    sections = text.partition("\n\n")[2].partition("\nexample")[0]
    found, last = {}, ""
    for line in sections.splitlines():
        if head := re.match(r"  (\S.*?)(?:  +(.*))?$", line):
            last = head[1]
            found[last] = head[2] or ""
        elif last and line.startswith(" " * 10):
            found[last] += f" {line.strip()}"
    return found


def test_all_commands_are_tried():
    assert len(commands()) == len(COMMANDS) + 1


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(command):
    text = helped(*command)
    assert f"usage: ppcls {' '.join(command)} " in text
    assert max(map(len, text.splitlines())) <= WIDTH
    about = texts(text)
    assert "-h, --help" in about
    for option, words in about.items():
        if option != "ACTION":
            assert len(words.split()) >= 3, option
            assert not re.match(r"(of|in|to|on|that|which|default|by) ", words.rstrip()) or (
                words.startswith("which ")
            ), f"{option}: {words}"
    examples = re.findall(r"^  (ppcls .*)$", text.partition("\nexample")[2], re.MULTILINE)
    assert 1 <= len(examples) <= 3
    for example in examples:
        assert parse(shlex.split(example)[1:]).run
        assert example.startswith(f"ppcls {' '.join(command)} ") or example == f"ppcls {command[0]}"


def test_examples_of_ppcls_itself():
    *examples, last = re.findall(r"^  (ppcls .*)$", helped(), re.MULTILINE)
    assert last == "ppcls predict --help"
    for example in examples:
        assert parse(shlex.split(example)[1:]).run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "predict x.jpg",
            "ppcls predict: error: the following arguments are required: --model-dir",
        ),
        (
            "predict --model-dir x y.jpg --topkk=3",
            "ppcls predict: error: unknown argument: --topkk=3; did you mean '--topk'?",
        ),
        (
            "train -c x --procceses 2",
            "ppcls train: error: unknown argument: --procceses; did you mean",
        ),
        ("eval -c x more", "ppcls eval: error: unknown argument: more"),
        (
            "predict --model-dir x y --device tpu",
            "ppcls predict: error: argument --device: invalid",
        ),
        (
            "weights convert a b --to x",
            "ppcls weights convert: error: argument --to: invalid choice",
        ),
        ("weights", "ppcls weights: error: the following arguments are required: ACTION"),
        ("trian -c x", "ppcls: error: unknown command 'trian'; did you mean 'train'?"),
        ("", "ppcls: error: the following arguments are required: COMMAND"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_command(run, capsys, line, said):
    with pytest.raises(SystemExit) as ended:
        run(*line.split())
    assert ended.value.code == 2
    (err,) = capsys.readouterr().err.splitlines()
    assert err.startswith(said)
    assert err.endswith(f"; see {said.partition(':')[0]} --help")


def test_version_and_no_command(run, capsys):
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out == f"ppcls {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_models_are_listed_by_pattern(run):
    code, out, _ = run("models", "resnet*_vd", "--names")
    assert code == 0
    assert out.split() == [
        "ResNet18_vd", "ResNet34_vd", "ResNet50_vd", "ResNet101_vd", "ResNet152_vd", "ResNet200_vd",
    ]  # fmt: skip
    assert run("models", "--names")[1].split() == list_models()
    code, _, err = run("models", "vgg*")
    assert code == 2
    assert "no network's name matches 'vgg*'" in err


def test_models_are_a_table(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path))
    monkeypatch.delenv("PPCLS_OFFLINE", raising=False)
    code, out, _ = run("models")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split("  ")[0] == "network"
    rows = {line.split()[0]: line.split() for line in lines[1 : lines.index("")]}
    assert list(rows) == list_models()
    expected = "ResNet50_vd 79.10 25.58 4.33 224 102.3 imagenet (download), ssld (download)"
    assert rows["ResNet50_vd"] == expected.split()
    assert rows["EfficientNetLite0"] == [
        "EfficientNetLite0",
        "75.10",
        "4.65",
        "0.39",
        "224",
        "18.6",
    ] + [
        "imagenet",
        "(here)",
    ]
    assert rows["EfficientNetLite4"][1] == rows["EfficientNetLite4"][-1] == "-"
    file = tmp_path / "weights/ResNet50_vd_pretrained.pdparams"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    out = run("models", "ResNet50_vd")[1]
    assert "imagenet (here), ssld (not here)" in out
    assert "not here: would have to be fetched, which PPCLS_OFFLINE forbids" in out


def test_the_tables_figures_are_those_of_independent_sources():
    from ppcls.weights.store import counted

    golden = json.loads((Path(__file__).parent / "golden/complexity.json").read_text())
    for name, own in golden.items():
        assert counted()[name]["params"] == own["params"]
        assert counted()[name]["macs"] == pytest.approx(own["macs"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_the_tables_figures_are_those_of_the_networks(name):
    from ppcls.models.complexity import count_by_name
    from ppcls.weights.store import counted

    found = count_by_name(name)
    assert counted()[name] == {"params": found.params, "macs": found.macs}


def test_one_is_not_several(run, workdir):
    for photo in sorted(workdir.glob("photos/*/*/*.png"))[1:]:
        photo.unlink()
    for folder in ("photos/eval/bee", "photos/train/bee"):
        (workdir / folder).rmdir()
    _, out, _ = run("check-data", "photos/eval")
    assert "1 image, 1 class\n" in out
    assert "1 image looked at" in out
    assert out.endswith(": 1 finding\n")  # that there is one class


def test_data_sets_are_written_by_hand(run, workdir):
    code, out, _ = run("data", "digits", "--to", "somewhere/digits")
    assert code == 0
    assert "Licence" in out
    assert len(list((workdir / "somewhere/digits/train").iterdir())) == 10
    code, _, err = run("data", "digit")
    assert code == 2
    assert "did you mean 'digits'?" in err
    code, out, _ = run("data", "photos")
    assert code == 0
    assert (workdir / "data/photos/china.jpg").is_file()


def test_predict_refuses_odd_numbers(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("predict", "--model-dir", "x", "y.jpg", "--topk", "0")
    assert ended.value.code == 2
    assert "'0' should be a number from 1" in capsys.readouterr().err
