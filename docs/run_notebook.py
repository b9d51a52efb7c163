"""Runs docs/ppcls_in_python.ipynb in an empty folder, and writes what its cells give into it.

`python docs/run_notebook.py` from the repository's root. Cells are run as Python's own code, with
matplotlib drawing into PNG: neither Jupyter nor a kernel is needed.
"""

import ast
import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

NOTEBOOK = Path(__file__).parent / "ppcls_in_python.ipynb"
WIDEST = 800  # pixels of a picture that is kept


def read(path: Path = NOTEBOOK) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those with code."""
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def run(notebook: dict[str, Any], folder: Path) -> None:
    """Run all cells in a folder, in a module of the name that a notebook's has."""
    from matplotlib import pyplot

    module = ModuleType("__main__")
    script = sys.modules["__main__"]
    before = os.getcwd()
    os.chdir(folder)
    sys.modules["__main__"] = module
    try:
        for number, cell in enumerate(cells(notebook), 1):
            said = io.StringIO()
            with redirect_stdout(said):
                value = execute("".join(cell["source"]), module)
            text = said.getvalue().replace(f"{folder.resolve()}/", "")
            cell["execution_count"] = number
            cell["outputs"] = [stream(text)] if text else []
            for figure in map(pyplot.figure, pyplot.get_fignums()):
                file = io.BytesIO()
                figure.savefig(file, dpi=72, bbox_inches="tight")
                cell["outputs"].append(picture(file.getvalue()))
            pyplot.close("all")
            if value is not None:
                cell["outputs"].append(result(value, number))
    finally:
        os.chdir(before)
        sys.modules["__main__"] = script


def execute(code: str, module: ModuleType) -> Any:
    """Run a cell's code; what its last line gives, None where that is no expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), module.__dict__)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), module.__dict__)


def stream(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}


def picture(png: bytes) -> dict[str, Any]:
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": ["<picture>"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def result(value: Any, number: int) -> dict[str, Any]:
    from PIL import Image

    if isinstance(value, Image.Image):
        image = value.convert("RGB")
        image.thumbnail((WIDEST, WIDEST))
        file = io.BytesIO()
        image.quantize(64).save(file, "PNG", optimize=True)
        return picture(file.getvalue())
    return {
        "output_type": "execute_result",
        "execution_count": number,
        "data": {"text/plain": repr(value).splitlines(keepends=True)},
        "metadata": {},
    }


def main() -> None:
    notebook = read()
    with tempfile.TemporaryDirectory() as folder:
        run(notebook, Path(folder))
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    NOTEBOOK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
