"""`ppcls import-paddleclas`: what it writes, and when it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from ppcls.config.load import load
from ppcls.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old.write()
    return tmp_path


def test_it_writes_a_recipe_and_lists_the_rest(here, old, run):
    code, out, err = run("import-paddleclas", "old.yaml")
    assert (code, err) == (0, "")
    *remarks, last = out.splitlines()
    assert last == "old.ppcls.yaml: ResNet18, 1 remark"
    assert remarks[0].startswith("old.yaml:")
    assert ": Optimizer.lr.learning_rate: taken as chosen for 256 images a step" in remarks[0]
    written = (here / "old.ppcls.yaml").read_text()
    assert "Optimizer.lr.learning_rate: taken as" in written
    assert load(Recipe, here / "old.ppcls.yaml").train.epochs == 20
    assert {path.name for path in here.iterdir()} == {"old.yaml", "old.ppcls.yaml"}


def test_the_number_of_cards(here, run):
    code, _, _ = run("import-paddleclas", "old.yaml", "--cards", "1", "--output", "new/one.yaml")
    assert code == 0
    assert load(Recipe, here / "new/one.yaml").train.schedule.for_batch == 64


def test_nothing_is_overwritten_unasked(here, run):
    (here / "new.yaml").write_text("mine")
    code, _, err = run("import-paddleclas", "old.yaml", "--output", "new.yaml")
    assert code == 2
    assert "new.yaml exists already: --overwrite replaces it" in err
    assert (here / "new.yaml").read_text() == "mine"
    assert run("import-paddleclas", "old.yaml", "--output", "new.yaml", "--overwrite")[0] == 0
    assert load(Recipe, here / "new.yaml").model.name == "ResNet18"
    before = (here / "old.yaml").read_text()
    code, _, err = run("import-paddleclas", "old.yaml", "--output", "old.yaml", "--overwrite")
    assert code == 2
    assert "this is the config that is read" in err
    assert (here / "old.yaml").read_text() == before


def test_a_mistake_leaves_no_file(here, old, run):
    old.set("Arch.name", "ResNet18_vdd").write()
    code, out, err = run("import-paddleclas", "old.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("error: old.yaml:6: Arch.name: unknown model 'ResNet18_vdd'; did you")
    assert [path.name for path in here.iterdir()] == ["old.yaml"]
    code, _, err = run("import-paddleclas", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml: cannot be read" in err


def test_what_cannot_be_written_is_one_error(here, run):
    (here / "file").write_text("")
    code, _, err = run("import-paddleclas", "old.yaml", "--output", "file/new.yaml")
    assert code == 2
    assert len(err.splitlines()) == 1


def test_the_script_needs_no_paddle(here):
    code = "import sys; sys.modules['paddle'] = None; sys.argv = ['x', 'old.yaml']; import runpy; "
    code += f"runpy.run_path({str(ROOT / 'tools/import_paddleclas.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "old.ppcls.yaml").is_file()


ODD = "a\x1b[31m\n- b: c\u2028# d\x85\u202e"


def test_values_and_keys_of_others_break_out_of_no_line(here, old, run):
    old.set("Global.output_dir", ODD).set("DataLoader.Train.dataset.cls_label_path", f"{ODD}.txt")
    old.set(f"Global.{ODD}", 1).set("Optimizer.lr.odd", ODD).write()
    code, out, err = run("import-paddleclas", "old.yaml", "--output", "odd.yaml")
    assert (code, err) == (0, "")
    assert not set(out) & set("\x1b\u2028\x85\u202e")
    assert all(line.startswith(("old.yaml:", "odd.yaml: ")) for line in out.splitlines())
    written = (here / "odd.yaml").read_text()
    assert not set(written) & set("\x1b\u2028\x85\u202e")
    recipe = load(Recipe, here / "odd.yaml")
    assert recipe.data.train.endswith(f"{ODD}.txt")
