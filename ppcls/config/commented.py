"""YAML with a comment behind, or above, each key that has one: recipes for people to read."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from ppcls.utils.yaml_files import Dumper

WIDTH = 100  # characters of a line
STEP = "  "
OPEN = 2  # levels of mappings that have a line for each key; deeper ones stand in one line


class Flow(Dumper):
    """Everything in one line."""


def one_line(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.dump(
        value,
        Dumper=Flow,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("\n...")


def commented(plain: Mapping[str, Any], comments: Mapping[str, str], head: str = "") -> str:
    """The document, whose keys keep their order.

    Args:
        comments: dotted key → what is said of it.
        head: stands above all, as comments.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    lines += section(plain, comments, (), "")
    return "\n".join(lines) + "\n"


def section(
    plain: Mapping[str, Any], comments: Mapping[str, str], at: tuple[str, ...], indent: str
) -> list[str]:
    lines = []
    for key, value in plain.items():
        here = (*at, key)
        comment = comments.get(".".join(here), "")
        name = one_line(key)
        if isinstance(value, Mapping) and value and len(here) < OPEN:
            lines += above(comment, indent)
            lines.append(f"{indent}{name}:")
            lines += section(value, comments, here, indent + STEP)
        elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            lines += beside(f"{indent}{name}:", comment, indent)
            lines += [f"{indent}{STEP}- {one_line(entry)}" for entry in value]
        else:
            lines += beside(f"{indent}{name}: {one_line(value)}", comment, indent)
    return lines


def beside(line: str, comment: str, indent: str) -> list[str]:
    """A line with its comment behind it, or above where that is too long."""
    if comment and len(line) + 4 + len(comment) <= WIDTH:
        return [f"{line}  # {comment}"]
    return [*above(comment, indent), line]


def above(comment: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(comment, WIDTH - len(indent) - 2)]
