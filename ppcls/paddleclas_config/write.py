"""The recipe as a short YAML file, with what was not carried over as comments at its end."""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from ppcls.config.tree import EXPONENT
from ppcls.errors import UserError
from ppcls.paddleclas_config.convert import Converted
from ppcls.paddleclas_config.page import Rank, Remark
from ppcls.utils import yaml_text
from ppcls.utils.files import write_text, writing
from ppcls.utils.text import one_line, visible

WIDTH = 100


class Dumper(yaml_text.Dumper):
    """YAML as PyYAML writes it, with numbers as they are typed: 7e-5."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def number(dumper: Dumper, value: float) -> yaml.ScalarNode:
    mantissa, _, exponent = repr(value).partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


Dumper.add_representer(float, number)
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def flow(value: Any) -> str:
    """A value on one line."""
    text = yaml_text.to_yaml(value, Dumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def block(value: dict[str, Any], indent: str = "") -> list[str]:
    """Lines of a mapping: what fits on a line stands on one, but for `train` and lists of ops."""
    lines = []
    for key, child in value.items():
        line = f"{indent}{key}: {flow(child)}"
        ops = isinstance(child, list) and any(isinstance(item, dict) for item in child)
        if ops:
            lines += [f"{indent}{key}:", *(f"{indent}  - {flow(item)}" for item in child)]
        elif isinstance(child, dict) and (key == "train" or len(line) > WIDTH):
            lines += [f"{indent}{key}:", *block(child, indent + "  ")]
        else:
            lines.append(line)
    return lines


HEADS = {
    Rank.NUMBERS: "# Here a run's numbers are others than PaddleClas's:",
    Rank.MEANING: "# Said otherwise, or without a place here:",
    Rank.ALWAYS: "# As of every config:",
}


def comments(remarks: list[Remark], name: str) -> list[str]:
    """The remarks as comments, their file without its folder, under a line for each rank."""
    lines = []
    for index, remark in enumerate(remarks):
        if not index or remark.rank != remarks[index - 1].rank:
            lines.append(HEADS[remark.rank])
        text = one_line(f"{name}:{remark.line}: {remark.key}: {remark.text}")
        lines += textwrap.wrap(
            text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
    return lines


def text(converted: Converted, source: Path) -> str:
    """The whole file."""
    name = visible(source.name)
    head = [f"# Converted from PaddleClas's {name} by `ppcls import-paddleclas`."]
    if converted.remarks:
        head.append("# What was not carried over or means something else here stands at the end.")
    tail = ["", *comments(converted.remarks, name)] if converted.remarks else []
    return "\n".join([*head, *block(converted.recipe), *tail]) + "\n"


def write(content: str, path: Path, source: Path, overwrite: bool) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: it exists and is not to be replaced, is the config itself, or cannot be written.
    """
    if path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path}: this is the config that is read; --output names another file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: --overwrite replaces it, --output names another")
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
