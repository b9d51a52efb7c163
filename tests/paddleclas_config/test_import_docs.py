"""docs/from_paddleclas.md names every row of the tables, and its example is what comes out."""

import re
from pathlib import Path

import pytest

from ppcls.paddleclas_config.batch_ops import MIXING
from ppcls.paddleclas_config.between import BETWEEN
from ppcls.paddleclas_config.convert import convert
from ppcls.paddleclas_config.features import PAIRS
from ppcls.paddleclas_config.losses import LOSSES
from ppcls.paddleclas_config.ops import OPS
from ppcls.paddleclas_config.optimizers import OPTIMIZERS
from ppcls.paddleclas_config.schedules import SCHEDULES
from ppcls.paddleclas_config.write import text

PAGE = (Path(__file__).parents[2] / "docs/from_paddleclas.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [OPS, MIXING, LOSSES, BETWEEN, PAIRS, OPTIMIZERS, SCHEDULES])
def test_every_name_is_on_the_page(table):
    assert [name for name in table if f"`{name}`" not in PAGE] == []


def test_the_example_is_what_comes_out(tmp_path):
    before, after = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "flowers.yaml"
    path.write_text(before)
    assert text(convert(path), path) == after
