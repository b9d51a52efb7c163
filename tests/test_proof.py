"""`tools/zoo.py`: the tables are up to date, plots are drawn, and networks are proved."""

import cv2
import pytest

from ppcls.docs import plots, table
from ppcls.figures import read
from ppcls.verify import verify


def test_the_tables_are_up_to_date(run):
    assert table.write_tables(check=True) == [], "run tools/zoo.py table"
    assert run("zoo", "table", "--check")[:2] == (0, "up to date\n")


def test_a_table_needs_its_markers(tmp_path):
    (tmp_path / "a.md").write_text("no markers\n")
    with pytest.raises(ValueError, match="should have one line <!-- models:begin -->"):
        table.filled(tmp_path / "a.md", "x")


def test_plots_are_drawn(tmp_path):
    for path in plots.write_plots(["ResNet18", "ResNet50_vd", "EfficientNetB0"], tmp_path):
        assert min(cv2.imread(str(path)).shape[:2]) > 400


def test_two_networks_are_proved(capsys):
    assert verify(["ResNet18", "SE_ResNet18_vd"], read())
    out = capsys.readouterr().out
    assert "2 networks: 2 passed, 0 failed" in out
    assert "FAILED" not in out


def test_a_network_that_computes_otherwise_fails(capsys):
    given = read()
    wrong = given.logits["paddleclas"]["ResNet18"]
    key = next(k for k, v in wrong.items() if isinstance(v, list))
    wrong[key] = [value + 0.01 for value in wrong[key]]
    assert not verify(["ResNet18"], given)
    assert "FAILED" in capsys.readouterr().out


def test_an_unknown_name(run):
    code, _, err = run("zoo", "verify", "ResNet18_vdd")
    assert code == 2
    assert "did you mean 'ResNet18_vd'" in err
