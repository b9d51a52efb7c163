"""`tools/zoo.py`: the tables are up to date, plots are drawn, and networks are proved."""

import json
from pathlib import Path

import cv2
import pytest

from ppcls.dev import facts, model_plots, model_tables
from ppcls.dev.golden import read
from ppcls.dev.verify import verify
from ppcls.models.complexity import Complexity, count_by_name

COUNTED = json.loads((Path(__file__).parents[1] / "golden/complexity.json").read_text())


@pytest.fixture
def counts(monkeypatch, no_stacks):
    """Networks are not counted again whose counts are the golden ones, as tests/models proves;
    EfficientNets' own are less than these.
    """

    def count(name):
        golden = COUNTED.get(name)
        if golden is None or name.startswith("EfficientNet"):
            return count_by_name(name)
        return Complexity(golden["params"], golden["macs"])

    monkeypatch.setattr(facts.complexity, "count_by_name", count)
    facts.facts.cache_clear()
    yield
    facts.facts.cache_clear()


def test_the_tables_are_up_to_date(counts, run):
    assert run("zoo", "table", "--check")[:2] == (0, "up to date\n"), "run tools/zoo.py table"


def test_a_table_needs_its_markers(tmp_path):
    (tmp_path / "a.md").write_text("no markers\n")
    with pytest.raises(ValueError, match="should have one line <!-- models:begin -->"):
        model_tables.filled(tmp_path / "a.md", "x")


def test_plots_are_drawn(tmp_path):
    for path in model_plots.write_plots(["ResNet18", "ResNet50_vd", "EfficientNetB0"], tmp_path):
        assert min(cv2.imread(str(path)).shape[:2]) > 400


@pytest.mark.slow
def test_networks_are_proved_and_one_that_computes_otherwise_is_not(capsys):
    given = read()
    wrong = given.logits["paddleclas"]["ResNet18"]
    key = next(k for k, v in wrong.items() if isinstance(v, list))
    wrong[key] = [value + 0.01 for value in wrong[key]]
    assert not verify(["ResNet18", "SE_ResNet18_vd"], given)
    out = capsys.readouterr().out
    assert "2 networks: 1 passed, 1 failed" in out
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["ResNet18"].split()[5:].count("FAILED") == 1
    assert "FAILED" not in rows["SE_ResNet18_vd"]


def test_an_unknown_name(run):
    code, _, err = run("zoo", "verify", "ResNet18_vdd")
    assert code == 2
    assert "did you mean 'ResNet18_vd'" in err
