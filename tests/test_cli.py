"""The command line's own words."""

import pytest

from ppcls import __version__
from ppcls.models.zoo import list_models


@pytest.mark.parametrize(
    "command",
    ["train", "eval", "export", "predict", "models", "weights", "data", "show-data", "check-data"]
    + ["teach", "select-unlabeled"]
    + ["import-paddleclas"],
)
def test_every_command_explains_itself(run, capsys, command):
    with pytest.raises(SystemExit) as ended:
        run(command, "--help")
    assert ended.value.code == 0
    assert f"usage: ppcls {command}" in capsys.readouterr().out


def test_version_and_no_command(run, capsys):
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out == f"ppcls {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_models_are_listed_by_pattern(run):
    code, out, _ = run("models", "resnet*_vd")
    assert code == 0
    assert out.split() == [
        "ResNet18_vd", "ResNet34_vd", "ResNet50_vd", "ResNet101_vd", "ResNet152_vd", "ResNet200_vd",
    ]  # fmt: skip
    assert run("models")[1].split() == list_models()
    code, _, err = run("models", "vgg*")
    assert code == 2
    assert "no network's name matches 'vgg*'" in err


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
