"""`~` is the home folder wherever a path is meant."""

import os
import shutil
from pathlib import Path

import pytest

from ppcls.data.datasets import open_samples
from ppcls.inference.inputs import find_images
from ppcls.utils import environment


@pytest.fixture
def home(workdir, monkeypatch):
    """A home folder that holds the images; the working directory is another one."""
    home = workdir / "home"
    home.mkdir()
    shutil.move(workdir / "photos", home / "photos")
    monkeypatch.setenv("HOME", str(home))
    return home


def test_on_the_command_line_and_in_a_recipe(home, run):
    text = Path("recipe.yaml").read_text()
    Path("recipe.yaml").write_text(text.replace("photos/train", "~/photos/train"))
    shutil.move("recipe.yaml", home)
    given = ("show-data", "--config=~/recipe.yaml", "-o", "data.eval=~/photos/eval")
    code, _, err = run(*given, "--count", "1", "--epochs", "1", "--output=~/sheets/one.png")
    assert code == 0, err
    assert (home / "sheets" / "one.png").is_file()
    assert not Path("~").exists()
    assert run("check-data", "~/photos/train", "~/photos/eval", "--output=~/found.csv")[0] == 0
    assert (home / "found.csv").is_file()
    Path("~").mkdir()
    assert run("check-data", "~/photos/train", "--output=./~/found.csv")[0] == 0
    assert os.listdir("~") == ["found.csv"]


def test_in_python_in_lists_and_in_the_environment(home, monkeypatch):
    assert len(open_samples("~/photos/train")) == 12
    assert len(find_images("~/photos/eval")) == 6
    Path("list.txt").write_text("~/photos/train/ant/0.png 0\n~/photos/train/bee/1.png 1\n")
    samples = open_samples("list.txt")
    assert samples.paths[1] == str(home / "photos" / "train" / "bee" / "1.png")
    assert not list(samples.paths.missing())
    assert find_images("list.txt") == list(samples.paths)
    for value, meant in (("~/kept", home / "kept"), ("~nobody_x/y", Path("~nobody_x/y"))):
        monkeypatch.setenv("PPCLS_HOME", value)
        assert environment.home() == meant
