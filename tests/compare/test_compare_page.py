"""The commands of docs/compare.md run as they stand there, on a few small images."""

import shutil
from pathlib import Path

import pages
import pytest

PAGE = pages.text_of("docs/compare.md")
COMMANDS = pages.commands(PAGE)


@pytest.fixture
def place(exported, workdir):
    """The folders that the page names, all made from one run."""
    for part in ("runs", "exported"):
        (workdir / part / "small").rename(workdir / part / "own_photos")
    shutil.copytree(workdir / "runs/own_photos", workdir / "runs/longer")
    shutil.copytree(workdir / "exported/own_photos", workdir / "exported/int8")
    (workdir / "photos/eval").rename(workdir / "photos/val")


@pytest.mark.slow
def test_every_command_runs_in_order(place, run):
    pytest.importorskip("openvino")
    assert len(COMMANDS) == 4
    for line in COMMANDS:
        code, out, err = run(*pages.arguments(line))
        assert (code, err) == (0, ""), line
        assert "no difference between A and B can be seen" in out
    assert Path("compared.json").is_file()


def test_the_page_names_each_kind_of_cause():
    from ppcls.compare.causes import KINDS

    assert all(f"`{kind}`" in PAGE for kind in KINDS)
