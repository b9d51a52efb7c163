"""docs/ppcls_in_python.ipynb: its cells run, and what stands in it is what they give."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def notebooks():
    spec = spec_from_file_location("run_notebook", DOCS / "run_notebook.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds(notebook):
    """Of each cell what it gives: text, pictures, values."""
    return [
        [sorted(output.get("data", {"text": ""})) for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_was_run_and_has_pictures(notebooks):
    notebook = notebooks.read()
    numbers = [cell["execution_count"] for cell in notebooks.cells(notebook)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert str(notebook).count("image/png") >= 4
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(name in str(notebook) for name in ("/tmp", "/root", "/home", "Traceback"))


@pytest.mark.slow
def test_its_cells_run(notebooks, tmp_path):
    notebook = notebooks.read()
    before = kinds(notebook)
    script = sys.modules["__main__"]
    notebooks.run(notebook, tmp_path)
    assert sys.modules["__main__"] is script
    assert kinds(notebook) == before
    last = list(notebooks.cells(notebook))[-1]["outputs"][-1]["data"]["text/plain"]
    scores = eval("".join(last))
    assert all(score > 0.9 for score in scores.values()), scores
