"""A YAML document as plain values, each remembered with the place it was written at."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded, read_file
from ppcls.utils.text import quoted, visible, whole_number
from ppcls.utils.yaml_files import DEEPEST, TooMuch, compose

At = tuple[str | int, ...]  # the keys and list indices that lead to a value
MOST = 10_000  # values of a document; aliases of aliases could stand for any number
LONGEST_PLACE = 150  # characters of an override, in a message
TAGS = ("kind", "op")  # the keys that say which member of a union a mapping is


@dataclass
class Tree:
    """Nested dicts and lists, and for each path of keys the `file:line` or `-o` it came from.

    `others` are the second readings of values: which one is meant, their types tell. A value that
    YAML takes for a number, a truth or a list is kept as the text that it is written as, too.
    `problems` say why YAML could not read a value that stands there as text.
    """

    value: Any
    places: dict[At, str] = field(default_factory=dict)
    others: dict[At, Any] = field(default_factory=dict)
    problems: dict[At, str] = field(default_factory=dict)

    def locate(self, loc: tuple) -> tuple[At, str]:
        """The part of `loc` that is in the document, and the nearest place known for it."""
        at: At = ()
        value = self.value
        place = self.places.get((), "")
        for part in loc:
            inside = (isinstance(value, dict) and part in value) or (
                isinstance(value, list) and isinstance(part, int) and part < len(value)
            )
            if inside:  # validation also lists union members, which are in no document
                at = (*at, part)
                value = value[part]
                place = self.places.get(at, place)
        return at, place

    def overridden(self, at: At, place: str) -> str:
        """The last override of something under `at`, else `place`."""
        items = [p for key, p in self.places.items() if key[: len(at)] == at and p[:3] == "-o "]
        return items[-1] if items else place

    def under(self, over: "Tree") -> "Tree":
        """This tree with another one laid over it."""
        others = {at: value for at, value in self.others.items() if at not in over.places}
        value = merge(self.value, over.value)
        return Tree(value, self.places | over.places, others | over.others)

    def rename(self, renamed: Mapping[str, str], under: str = "") -> list[str]:
        """Give keys their new names; returns the words that say which.

        Args:
            renamed: dotted name → new dotted name.
            under: what the tree's own keys stand under, as "train.".

        Raises:
            UserError: a key stands there under both names.
        """
        said = []
        for old, new in renamed.items():
            if not old.startswith(under):
                continue
            *parents, last = old.removeprefix(under).split(".")
            key = new.split(".")[-1]
            node = self.value
            for part in parents:
                node = node.get(part) if isinstance(node, dict) else None
            if not isinstance(node, dict) or last not in node:
                continue
            if key in node:
                place = self.places.get((*parents, last), "")
                raise UserError(f"{place}: {old} is an older name of {new}: give one of them")
            items = [(key if name == last else name, value) for name, value in node.items()]
            node.clear()
            node.update(items)  # in the same order
            start = (*parents, last)
            for known in (self.places, self.others, self.problems):
                for at in [at for at in known if at[: len(start)] == start]:
                    known[(*parents, key, *at[len(start) :])] = known.pop(at)
            said.append(f"{old} is called {new} now")
        return said

    def swap(self, at: At) -> bool:
        """Take the second reading of the value at `at`; False where there is none (any more)."""
        if at not in self.others:
            return False
        other = self.others.pop(at)
        if not at:
            self.value = other
            return True
        node = self.value
        for part in at[:-1]:
            node = node[part]
        node[at[-1]] = other
        return True


class Loader(yaml.SafeLoader):
    """YAML in which only what everyone reads alike is more than text.

    Truths and null are those of YAML 1.1. Numbers are decimal (or 0x…), with exponents also without
    a point; 010, 0b1 and 12:30, which YAML 1.1 takes for 8, 1 and 750, are text, and so are dates.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # of the class, as PyYAML has it
        first: [(tag, known) for tag, known in resolvers if tag.endswith((":bool", ":null"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
FLOAT = re.compile(
    rf"(?:{EXPONENT.pattern}|[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)$|[-+]?\.(?:inf|Inf|INF)$"
    r"|\.(?:nan|NaN|NAN)$)",
    re.ASCII,
)
INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]*[0-9a-fA-F])$")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
NULLS = ("", "~", "null", "Null", "NULL")  # how an override says that a key has no value


def read(
    path: Path,
    renamed: Mapping[str, str] | None = None,
    said: list[str] | None = None,
    ancestors: tuple[Path, ...] = (),
) -> Tree:
    """The file's tree merged over the trees of the files its `_base_` names.

    Args:
        renamed: older names of keys → what they are called now, as the tree has them.
        said: takes what was given by an older name.
    """
    renamed = renamed or {}
    said = [] if said is None else said
    try:
        text = read_file(path).decode().replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise UserError(
            f"{visible(str(path))}: cannot be read: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    try:
        own = parse(text, str(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not YAML: {visible(str(error.problem))}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {visible(str(error).replace(chr(10), ' '))}") from None
    if own.value is None:
        own.value = {}
    if not isinstance(own.value, dict):
        raise UserError(f"{path}:1: a recipe is a mapping of keys, such as 'model:'")
    merged = Tree({})
    for base in bases(own, path):
        if base.resolve() in ancestors:
            raise UserError(f"{own.places[('_base_',)]}: _base_ leads back to {base}")
        merged = merged.under(read(base, renamed, said, (*ancestors, path.resolve())))
    said += own.rename(renamed)
    return merged.under(own)


def bases(own: Tree, path: Path) -> list[Path]:
    """The existing files named by `_base_`, which is taken out of the tree."""
    while any(own.swap(at) for at in list(own.others) if at[0] == "_base_"):
        pass  # names are texts, also that of a file called 2024
    names = own.value.pop("_base_", [])
    names = [names] if isinstance(names, str) else names
    place = own.places.get(("_base_",), "")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{place}: _base_ should be a file name or a list of them")
    files = [path.parent / expanded(name) for name in names]
    for file in files:
        if not os.path.isfile(file):  # False also for a name that no file can have
            raise UserError(f"{place}: _base_ names {file}, which does not exist")
    return files


def parse(text: str, source: str) -> Tree:
    """A YAML text as plain values, None for an empty one; `source` begins its places."""
    try:
        node = compose(text, Loader)
    except TooMuch as error:
        line = error.problem_mark and error.problem_mark.line + 1
        place = f"{source}:{line}" if line and not source.startswith("-o ") else source
        raise UserError(f"{place}: {error.problem}") from None
    tree = Tree(None, {} if node else {(): source})
    tree.value = construct(node, source, (), tree) if node else None
    return tree


def spot(source: str, node: yaml.Node) -> str:
    """A node's line in its file; an override is short enough to stand for itself."""
    return source if source.startswith("-o ") else f"{source}:{node.start_mark.line + 1}"


def construct(node: yaml.Node, source: str, at: At, tree: Tree) -> Any:
    """The plain value of a YAML node; fills the tree's places and second readings."""
    places = tree.places
    places.setdefault(at, spot(source, node))
    if len(at) > DEEPEST or len(places) > MOST:
        problem = "an alias (*name) that stands for something it is part of, or far too much"
        raise UserError(f"{places[at[:1]]}: {problem}")
    if isinstance(node, yaml.MappingNode):
        mapping = {}
        for key_node, value in node.value:
            key = key_node.value
            place = spot(source, key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{place}: a key should be a word")
            if key in mapping:
                raise UserError(f"{place}: key {quoted(key)} stands twice")
            places[(*at, key)] = place
            mapping[key] = construct(value, source, (*at, key), tree)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [construct(v, source, (*at, i), tree) for i, v in enumerate(node.value)]
    try:
        value = Loader("").construct_object(node)
    except Exception:  # PyYAML raises many kinds at a text that is not of its tag.
        problem = f"{quoted(node.value)} cannot be read as {visible(node.tag)}; quote it?"
        raise UserError(f"{places[at]}: {problem}") from None
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and isinstance(value, bool | int | float):
        tree.others[at] = node.value
    return value


def merge(base: Any, over: Any) -> Any:
    """Mappings merge key by key, unless their tags differ; anything else is replaced whole."""
    if not (isinstance(base, dict) and isinstance(over, dict)) or tags_differ(base, over):
        return over
    return {**base, **{k: merge(base[k], v) if k in base else v for k, v in over.items()}}


def tags_differ(base: dict, over: dict) -> bool:
    """Whether the two are different members of a union, so that the base's keys mean nothing."""
    return any(tag in base and tag in over and base[tag] != over[tag] for tag in TAGS)


def override(tree: Tree, item: str, renamed: Mapping[str, str], said: list[str]) -> None:
    """Set `a.b.0.c=value` in the tree; the value is YAML, or text as it stands.

    Args:
        renamed: older names of keys → what they are called now.
        said: takes what was given by an older name.
    """
    dotted, equals, text = item.partition("=")
    place = visible(f"-o {item}", LONGEST_PLACE)
    if not equals or not dotted:
        raise UserError(f"{place}: should be key.key=value")
    given = reading(text, place)
    for old, new in renamed.items():
        if f"{dotted}.".startswith(f"{old}."):
            dotted = new + dotted.removeprefix(old)
            said.append(f"{old} is called {new} now")
    said += given.rename(renamed, f"{dotted}.")
    *parents, last = dotted.split(".")
    node = tree.value
    at = ()
    for part in parents:
        key = child_key(node, part, place, at)
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
        at = (*at, key)
        tree.places.setdefault(at, place)
    key = child_key(node, last, place, at)
    if isinstance(node, dict) and tags_differ(node, {key: given.value}):
        node.clear()
    node[key] = merge(node.get(key), given.value) if isinstance(node, dict) else given.value
    at = (*at, key)
    own = {(*at, *inner): where for inner, where in given.places.items()} | {at: place}
    tree.places |= own
    for old, new in ((tree.others, given.others), (tree.problems, given.problems)):
        for replaced in own.keys() & old.keys():
            del old[replaced]
        old.update({(*at, *inner): value for inner, value in new.items()})


def reading(text: str, place: str) -> Tree:
    """The text of an override as YAML, and its second reading as the text it is, or the reverse.

    Text comes first where YAML would only shorten it: by a comment, or spaces at its ends. Quotes
    around all of it are YAML's; what YAML cannot read is text.
    """
    if text.strip(" \t") in NULLS:
        return Tree(None)
    try:
        given = parse(text, place)
        node = compose(text, Loader)
    except yaml.YAMLError:
        return Tree(text, problems={(): f"{place}: {quoted(text)} is not YAML; quote it?"})
    except UserError as error:
        return Tree(text, problems={(): str(error)})
    if given.value is None:  # nothing but a comment, maybe
        return Tree(text, others={(): None})
    if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"'):
        return given
    if isinstance(given.value, str):
        return Tree(text, others={} if given.value == text else {(): given.value})
    given.others[()] = text
    return given


def child_key(node: Any, part: str, place: str, at: At) -> str | int:
    """`part` as the key of a mapping or the index of a list."""
    if isinstance(node, dict):
        if whole_number(part) is not None and part not in node:
            name = dotted_name(at)
            raise UserError(f"{place}: the file has no list {name}; give it whole, -o {name}=[…]")
        return part
    if not isinstance(node, list):
        raise UserError(f"{place}: {dotted_name(at)} is a value, not a mapping")
    number = whole_number(part)
    if number is None or number >= len(node):
        name = dotted_name(at)
        raise UserError(f"{place}: {name} is a list of {len(node)}; its entries count from 0")
    return number


def dotted_name(at: At) -> str:
    return ".".join(map(str, at))


def differences(old: Any, new: Any, at: At = ()) -> dict[str, str]:
    """Each key whose value differs between two plain trees, with the words "old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict) and not tags_differ(old, new):
        found = {}
        for key in sorted(set(old) | set(new)):
            found |= differences(old.get(key), new.get(key), (*at, key))
        return found
    return {} if old == new else {dotted_name(at): f"{old} -> {new}"}
