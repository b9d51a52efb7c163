"""Configuration files and `-o` overrides to one validated value of a node class.

All mistakes are reported at once, each with its place: `configs/x.yaml:10: unknown key
'train.transforms.0.scael'; did you mean 'scale'?`
"""

import copy
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ppcls.config.own import UNKNOWN, held
from ppcls.config.packaged import find_recipe
from ppcls.config.suggest import suggest
from ppcls.config.tree import TAGS, At, Tree, dotted_name, override, read
from ppcls.utils import yaml_files
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import at_most, quoted, visible

Node = TypeVar("Node")
SHOWN = 100  # characters of a value, in a message


def load(schema: type[Node], path: str | Path, overrides: Sequence[str] = ()) -> Node:
    """Read a YAML file, its bases and the overrides into `schema`.

    Args:
        path: the file, or the name of a recipe that comes with ppcls.

    Raises:
        UserError: one line for each mistake, with the file and line or the override.
    """
    renamed: dict[str, str] = getattr(schema, "renamed", {})
    said: list[str] = []
    tree = read(Path(find_recipe(str(path))), renamed, said)
    value = resolve(schema, tree, overrides, said)
    if said:
        say(f"note: {path}: {'; '.join(dict.fromkeys(said))}; the older names go on working")
    return value


def from_plain(schema: type[Node], value: Any, source: str, overrides: Sequence[str] = ()) -> Node:
    """Validate a plain tree, such as a checkpoint's recipe; `source` stands for it in errors.

    In Python, objects may stand where a recipe may name classes of one's own.
    """
    tree = Tree(copy.deepcopy(held(value)), {(): source})
    tree.rename(getattr(schema, "renamed", {}))
    return resolve(schema, tree, overrides, [])


def to_plain(value: Any) -> dict:
    """The node as nested dicts, lists and scalars; `from_plain` reads it back."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def to_yaml(value: Any) -> str:
    """The node as a YAML document that `load` reads back."""
    return yaml_files.to_yaml(to_plain(value))


def resolve(schema: type[Node], tree: Tree, overrides: Sequence[str], said: list[str]) -> Node:
    mistakes = []
    renamed: dict[str, str] = getattr(schema, "renamed", {})
    tree = copy.deepcopy(tree)
    # The kind of a thing comes first: a change of it would undo what is set of it.
    for item in sorted(
        overrides, key=lambda item: item.partition("=")[0].split(".")[-1] not in TAGS
    ):
        changed = copy.deepcopy(tree)
        try:
            override(changed, item, renamed, said)
            tree = changed
        except UserError as error:
            mistakes.append(str(error))
    value, errors = validate(schema, tree)
    mistakes += [explain(error, schema, tree) for error in errors]
    if mistakes or value is None:
        raise UserError(*dict.fromkeys(mistakes))
    return value


TEXT_WANTED = ("string_type", "path_type", "literal_error")


def validate(schema: type[Node], tree: Tree) -> tuple[Node | None, list[Any]]:
    """The value of the tree, or pydantic's errors, after both readings of each value are tried."""
    while True:
        try:
            return TypeAdapter(schema).validate_python(tree.value), []
        except ValidationError as error:
            errors: list[Any] = error.errors()
        wrong = {at for at in map(partial(misread, tree), errors) if at is not None}
        # A list of texts before the text of a list.
        inner = [at for at in wrong if not any(at != b and at == b[: len(at)] for b in wrong)]
        if not inner:
            return None, errors
        for at in inner:
            tree.swap(at)


def misread(tree: Tree, error: Any) -> At | None:
    """Where the value of an error stands, if its second reading may be the one that is meant."""
    at = tree.locate(error["loc"])[0]
    value = error["input"]
    kind = error["type"]
    if kind == "union_tag_invalid":
        at = (*at, error["ctx"]["discriminator"].strip("'"))
        value = error["ctx"]["tag"]
    meant = (isinstance(value, str) or kind in TEXT_WANTED) and error["loc"][-1:] != ("[key]",)
    return at if meant and at in tree.others else None


def explain(error: Any, schema: type, tree: Tree) -> str:
    """One line for one of pydantic's errors."""
    at, place = tree.locate(error["loc"])
    name = visible(dotted_name(at), SHOWN)
    kind = error["type"]
    context = error.get("ctx", {})
    if at in tree.problems:
        return tree.problems[at]
    if kind == UNKNOWN:  # of a part of one's own
        advice = suggest(str(at[-1]), context["keys"])
        return f"{place}: unknown key {name!r}; {advice}"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        if kinds_with := homes(schema, at):
            return f"{place}: unknown key {name!r}; only {at_most(kinds_with)} has it"
        own = known(schema, error["loc"][:-1])
        advice = suggest(str(at[-1]), own, others(schema, at))
        return f"{place}: unknown key {name!r}; {advice}"
    if kind == "missing":
        return f"{place}: missing key {error['loc'][-1]!r} under {name or 'the top'!r}"
    if kind == "union_tag_not_found":
        return f"{place}: missing key {context['discriminator']} under {name!r}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        key = f"{name}.{context['discriminator'].strip(chr(39))}"
        _, place = tree.locate((*at, context["discriminator"].strip("'")))
        here = dotted_name(tuple(part for part in at if isinstance(part, str)))
        away = [(where, kind) for where, kind in kinds(schema) if where != here]
        advice = suggest(str(context["tag"]), tags, kinds=away)
        return f"{place}: {key}: unknown {quoted(context['tag'])}; {advice}"
    if kind == "dataclass_type":
        return f"{place}: {name} should be a mapping with keys {', '.join(known(schema, at))}"
    if kind == "model_attributes_type":
        tag = next((tag for tag in TAGS if homes(schema, (*at, tag))), None)
        advice = f", with {tag} among its keys: {{{tag}: {error['input']}}}" if tag else ""
        return f"{place}: {name}: should be a mapping{advice} ({got(tree, at, error['input'])})"
    if kind == "tuple_type":
        return f"{place}: {name}: should be a list, [ … ] ({got(tree, at, error['input'])})"
    if kind == "value_error":
        return f"{tree.overridden(at, place)}: {name + ': ' if name else ''}{context['error']}"
    message = error["msg"].removeprefix("Input ")
    return f"{place}: {name}: {message} ({got(tree, at, error['input'])})"


def got(tree: Tree, at: At, value: Any) -> str:
    """What stands in the place of what is wanted, as it is written there."""
    written = tree.others.get(at)
    if isinstance(written, str) and not isinstance(value, str):
        return f"got {visible(written, SHOWN)}"
    decimal = re.fullmatch("([-+]?)0+([0-9]+)", value) if isinstance(value, str) else None
    short = decimal and len(value) <= SHOWN
    advice = f"; write {decimal[1]}{decimal[2]}" if decimal and short else ""
    if isinstance(value, (str, int)):
        return f"got {quoted(value, SHOWN)}{advice}"
    return f"got {visible(repr(value), SHOWN)}"


def known(schema: type, loc: Sequence[str | int]) -> list[str]:
    """The key names of the node that validation had reached at `loc`."""
    classes = [schema]
    for part in loc:
        hints: dict[type, dict[Any, Any]] = {
            cls: typing.get_type_hints(cls, include_extras=True) for cls in classes
        }
        # Of several kinds the tag says which one: it comes before a field of the same name.
        inner = [c for c in classes if any(part in typing.get_args(hints[c].get(t)) for t in TAGS)]
        if len(classes) == 1 or not inner:
            inner = [found for cls in classes for found in node_classes(hints[cls].get(part))]
        classes = inner or classes  # a list index leads nowhere new
    return sorted({f.name for cls in classes for f in fields(cls)})


def homes(schema: type, at: At) -> list[str]:
    """The kinds that may stand where `at` leads to and have its last key."""
    classes = [schema]
    for part in at[:-1]:
        if isinstance(part, str):
            hints = [typing.get_type_hints(cls, include_extras=True).get(part) for cls in classes]
            classes = [found for hint in hints for found in node_classes(hint)]
    found = [cls for cls in classes if at[-1] in {f.name for f in fields(cls)}]
    hints = [typing.get_type_hints(cls, include_extras=True) for cls in found]
    return sorted({kind for own in hints for tag in TAGS for kind in typing.get_args(own.get(tag))})


def others(schema: type, at: At) -> list[str]:
    """All keys outside of lists, dotted, those next to `at` first."""
    parent = [str(part) for part in at[:-1]]

    def far(key: str) -> tuple[int, int]:
        parts = key.split(".")
        shared = 0
        while parts[shared : shared + 1] == parent[shared : shared + 1] != []:
            shared += 1
        return -shared, len(parts)

    return sorted(dict.fromkeys(keys(schema)), key=far)


def keys(cls: type, start: str = "") -> Iterator[str]:
    """The dotted keys under a node class, of every kind that may stand there."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        yield start + field.name
        if "tuple" not in str(hints[field.name]).partition("[")[0]:
            for inner in node_classes(hints[field.name]):
                yield from keys(inner, f"{start}{field.name}.")


def kinds(cls: type, start: str = "", seen: tuple[type, ...] = ()) -> Iterator[tuple[str, str]]:
    """Where one of several kinds may stand, and the name of each, the outer ones first."""
    hints = typing.get_type_hints(cls, include_extras=True)
    inner = [(field.name, own) for field in fields(cls) for own in node_classes(hints[field.name])]
    for name, own in inner:
        tags = typing.get_type_hints(own, include_extras=True)
        for tag in TAGS:
            yield from ((start + name, kind) for kind in typing.get_args(tags.get(tag)))
    for name, own in inner:
        if own not in seen:
            yield from kinds(own, f"{start}{name}.", (*seen, own))


def node_classes(hint: Any) -> list[type]:
    """The node classes a type annotation mentions."""
    if is_dataclass(hint) and isinstance(hint, type):  # pydantic annotates with dataclasses' values
        return [hint]
    return [cls for arg in typing.get_args(hint) for cls in node_classes(arg)]
