"""YAML that any editor and terminal can show, whatever stands in its texts."""

import re
from typing import Any

import yaml

from ppcls.utils.text import escaped, is_seen


class Dumper(yaml.SafeDumper):
    """Texts with characters that nobody sees, line breaks among them, stand in double quotes."""


def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if escaped(text) == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Dumper.add_representer(str, represent)


def to_yaml(value: Any, dumper: type[yaml.SafeDumper] = Dumper, **options: Any) -> str:
    """A document in the order of the value's keys, readable, without commands to a terminal."""
    options = {"width": 100, **options}
    text = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, **options)
    # PyYAML leaves some of them; they stand in double quotes.
    return re.sub(r"[^\n -~]", shown, text)


def shown(found: re.Match[str]) -> str:
    character = found[0]
    if is_seen(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
