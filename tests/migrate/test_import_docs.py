"""docs/from_paddleclas.md names every row of the tables, and its example is what comes out."""

import re
from pathlib import Path

import pytest

from ppcls.migrate.convert import convert, recipe_text
from ppcls.migrate.model import PAIRS
from ppcls.migrate.training import BETWEEN, LOSSES, OPTIMIZERS, SCHEDULES
from ppcls.migrate.transforms import MIXING, OPS

PAGE = (Path(__file__).parents[2] / "docs/from_paddleclas.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [OPS, MIXING, LOSSES, BETWEEN, PAIRS, OPTIMIZERS, SCHEDULES])
def test_every_name_is_on_the_page(table):
    assert [name for name in table if f"`{name}`" not in PAGE] == []


def test_the_example_is_what_comes_out(tmp_path):
    before, after = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "flowers.yaml"
    path.write_text(before)
    assert recipe_text(convert(path), path) == after
