"""Which modules' code may be looked up: those that were named, and what is written in them."""

import subprocess
import sys

import pytest

import ppcls
from ppcls.utils.modules import find

TRAP = "open('trap', 'w').close()\n"


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A package in the working folder, which Python does not look into, and one beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("named_pkg", "named_pkg_not"):
        (tmp_path / name).mkdir()
    (tmp_path / "named_pkg" / "__init__.py").write_text(
        "from os import system\nfrom subprocess import run\nfrom shutil import rmtree as gone\n"
        "import os\nfrom named_pkg.inner import Inner\nnumber = 3\ncall = Inner()\n"
        "def own(): pass\n"
    )
    (tmp_path / "named_pkg" / "inner.py").write_text("class Inner:\n    def __call__(self): pass\n")
    (tmp_path / "named_pkg_not" / "__init__.py").write_text(f"{TRAP}class Inner: pass\n")
    ppcls.use("named_pkg")
    return tmp_path


def test_classes_and_functions_of_a_named_module_are_found(parts):
    assert find("named_pkg.own").__name__ == "own"
    assert find("named_pkg.inner.Inner") is find("named_pkg.Inner")


@pytest.mark.parametrize("path", ["named_pkg_not.Inner", "os.system", "subprocess.Popen"])
def test_what_lies_in_no_named_module_is_not_imported(parts, path):
    with pytest.raises(ValueError, match=f"--use {path.partition('.')[0]}, or ppcls.use"):
        find(path)
    assert not (parts / "trap").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("named_pkg.system", "no class or function that is written"),
        ("named_pkg.run", "no class or function that is written"),
        ("named_pkg.gone", "no class or function that is written"),
        ("named_pkg.number", "no class or function that is written"),
        ("named_pkg.call", "no class or function that is written"),
        ("named_pkg.os.system", "named_pkg.os is no module"),
        ("named_pkg.inner.Inner.__call__", "named_pkg.inner.Inner is no module"),
        ("named_pkg.Innner", "has no Innner; it has Inner, own"),
        ("named_pkg..own", "is no import path"),
        ("named_pkg", "is no import path"),
    ],
)
def test_what_a_module_only_imports_is_not_to_be_had_through_it(parts, path, words):
    with pytest.raises(ValueError, match=words):
        find(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("use_gone", None, "is no module that Python finds, nor one in"),
        (
            "use_lacking",
            "import nowhere_at_all",
            r"No module named 'nowhere_at_all' \(.*lacking.py:1",
        ),
        ("use_broken", "def f(", "SyntaxError"),
        ("use_fails", "x = 1\nraise RuntimeError('not\\ntoday')", r"not today \(.*fails.py:2\)"),
        ("../use_up", None, "should be a module's name"),
        ("", None, "should be a module's name"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(name, text, words, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ppcls.UserError, match=f"--use {name}: .*{words}"):
        ppcls.use(name)
    code, out, err = run("train", "-c", "recipe.yaml", f"--use={name}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    with pytest.raises(ValueError, match="--use"):  # it is not named afterwards
        find(f"{name}.X" if text else "use_gone.X")


def test_an_installed_module_goes_before_one_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colorsys.py").write_text(TRAP)
    sys.modules.pop("colorsys", None)
    ppcls.use("colorsys")
    assert not (tmp_path / "trap").exists()


def test_the_public_names_are_all_there_is_to_see():
    code = (
        "import sys, ppcls\n"
        "assert dir(ppcls) == sorted([*ppcls.__all__, '__version__']), dir(ppcls)\n"
        "assert 'paddle' not in sys.modules and 'numpy' not in sys.modules\n"
        "ppcls.use, ppcls.Recipe, ppcls.UserError\n"
        "assert 'paddle' not in sys.modules\n"
        "import ppcls.train.setup, ppcls.export\n"
        "from ppcls.train import checkpoint\n"
        "assert [callable(getattr(ppcls, name)) for name in ppcls.__all__] == [True] * "
        "len(ppcls.__all__)\n"
        "assert ppcls.train.__module__ == ppcls.export.__module__ == 'ppcls.library'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
