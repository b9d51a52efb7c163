"""What stands on the pages for people: sections, commands, code. And how a command is run here."""

import re
import shlex
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = {"benchmark": "bench"}  # whose command has another name


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def section(text, title):
    """What stands beneath a heading of the second level."""
    (found,) = re.findall(
        rf"^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    return found


def blocks(text, language="bash"):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """The lines of the page's bash blocks."""
    return [line for block in blocks(text) for line in block.splitlines()]


def arguments(line):
    """A command of a page as `ppcls.cli.main` takes it; the script exists where one is named."""
    program, *words = shlex.split(line, comments=True)
    if program == "ppcls":
        return words
    assert program == "python", line
    if words[:2] == ["-m", "ppcls"]:
        return words[2:]
    script = Path(words[0])
    assert (ROOT / script).is_file(), line
    name = script.stem.replace("_", "-")
    return [SCRIPTS.get(name, name), *words[1:]]


def tool(name):
    """A script of `tools/` as a module."""
    spec = spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
