"""YAML that is read in time and memory in proportion to its text, whatever stands there.

The one door of all YAML: recipes, configs of PaddleClas, manifests and lists of class names.
Eleven lines of aliases (`&b [*a, *a, …]`) may stand for more values than a machine can hold.
"""

import re
from functools import cache
from typing import Any

import yaml

from ppcls.utils.text import escaped, is_seen

LONGEST = 1 << 24  # characters; PyYAML reads about a million a second
DEEPEST = 50  # lists and mappings in each other
SCANNED = 200  # brackets in each other, of which the place is not said any more
# Values and characters that aliases may make of each character, and of any text.
COPIES = 4
MORE_COPIES = 10_000
LONGEST_NUMBER = 400  # characters; a float ends at 10**308, and Python reads no int of 4,300 digits
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


ALIAS = "an alias (*name) that stands for something it is part of, or far too much"
TOO_DEEP = "lists or mappings stand too deep in each other"


class TooMuch(yaml.MarkedYAMLError):
    """YAML, and more of it than is read here; `problem_mark` is None where that has no place."""


def compose(text: str, loader: Any = yaml.SafeLoader) -> yaml.Node | None:
    """The node of a document, None of an empty one, from which values can be made safely.

    Raises:
        TooMuch: the text is too long, too deep, or has aliases that multiply it.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > LONGEST:
        raise TooMuch(problem=f"{len(text):,} characters are more than {LONGEST:,}")
    try:
        node = yaml.compose(text, shallow(loader))
    except RecursionError:
        raise TooMuch(problem=TOO_DEEP) from None
    except (ValueError, OverflowError):  # PyYAML's, at "\UFFFFFFFF" and `%YAML 1.9999…`
        raise yaml.YAMLError("a character or version that does not exist") from None
    if node:
        check(node, COPIES * len(text) + MORE_COPIES)
    return node


@cache
def shallow(loader: Any) -> Any:
    """The loader, ending at brackets too deep in each other: PyYAML takes the square of their
    number in time.
    """

    class Shallow(loader):
        def fetch_flow_collection_start(self, *given: Any) -> None:
            if self.flow_level > SCANNED:
                raise TooMuch(problem=TOO_DEEP)
            super().fetch_flow_collection_start(*given)

    return Shallow


def construct(node: yaml.Node, loader: Any = yaml.SafeLoader) -> Any:
    """The value of a node that `compose` gave; YAMLError for a text that is not of its kind."""
    maker = loader("")
    try:
        return maker.construct_document(node)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML raises many kinds at a text that is not of its tag
        raise yaml.YAMLError(f"a value that is none of its kind ({error})") from None
    finally:
        maker.dispose()


def check(root: yaml.Node, budget: int) -> None:
    """TooMuch where aliases multiply what is there, or lead back to what they are in."""
    waiting = [(root, 0, root)]
    while waiting:
        node, depth, top = waiting.pop()
        top = node if depth == 1 else top  # the place that people find
        budget -= 1
        if isinstance(node, yaml.ScalarNode):
            budget -= len(node.value)
            if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise too_much(f"a number of {len(node.value):,} characters", node)
        else:
            pairs = isinstance(node, yaml.MappingNode)
            parts = [part for pair in node.value for part in pair] if pairs else node.value
            waiting += [(part, depth + 1, top) for part in reversed(parts)]
        if depth > DEEPEST or budget < len(waiting):
            raise too_much(ALIAS, top)


def too_much(text: str, node: yaml.Node) -> TooMuch:
    return TooMuch(problem=text, problem_mark=node.start_mark)


# --------------------------------------------------------------------------
# YAML that any editor and terminal can show, whatever stands in its texts


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
