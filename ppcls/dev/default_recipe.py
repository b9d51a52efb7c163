"""Write configs/default.yaml: every key of a recipe with its default and what it means.

    python -m ppcls.dev.default_recipe

The comments are those of the source, in ppcls/recipe.py and the nodes it names; the kinds that may
stand in one place follow below the recipe, each with its own keys.
"""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ppcls.config.commented import above, beside, one_line
from ppcls.config.load import node_classes
from ppcls.config.node import Span
from ppcls.config.tree import TAGS
from ppcls.recipe import Recipe

MISSING = dataclasses.MISSING
FILE = Path(__file__).resolve().parents[2] / "configs" / "default.yaml"
# Keys without a default, as a recipe might have them.
NEEDED: dict[str, Any] = {
    "model.name": "ResNet50_vd",
    "train.epochs": 120,
    "train.batch_size": 64,
    "train.schedule.lr": 0.1,
}
REQUIRED = "every recipe says it"
HEAD = (
    "Every key of a recipe, with its default and what it means: a page to look things up in. A "
    "recipe holds only what differs from it. Made from the source by "
    "python -m ppcls.dev.default_recipe."
)
WIDTH = 98
# What keys mean that mean the same wherever they stand.
COMMON = {
    "interpolation": "how pixels are computed in resizing",
    "backend": "what resizes: OpenCV, Pillow",
    "prob": "how often it is applied",
    "mode": "what is put in",
    "weight": "of this loss in the sum",
    "temperature": "divides the logits",
    "weight_decay": "pull of the weights to 0",
    "momentum": "share of the last change",
    "beta1": "decay of the mean gradient",
    "beta2": "decay of the mean square",
    "epsilon": "least divisor",
    "smoothing": "share of a target that all classes get",
}


def nodes_in(hint: Any) -> list[type]:
    """The node classes that a type mentions; a length of training is a text."""
    return [cls for cls in node_classes(hint) if cls is not Span]


@cache
def comments(cls: type) -> dict[str, str]:
    """What is said of a node's own fields, behind them, and of others by the classes below it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        lines = {
            token.start[0]: token.string.removeprefix("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        for statement in body.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                # "None: " is how Python writes what YAML writes as null.
                text = lines.get(statement.end_lineno or 0, "").replace("None: ", "null: ")
                text = "" if text.startswith(("noqa", "type:")) else text
                name = statement.target.id
                text = text or argument(base, name) or COMMON.get(name, "")
                if text:
                    found[name] = text
    return found


def argument(cls: type, name: str) -> str:
    """What a docstring's list of attributes says of one."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    starts = [place for place, line in enumerate(lines) if line.strip().startswith(f"{name}: ")]
    if not starts:
        return ""
    first = lines[starts[0]]
    indent = len(first) - len(first.lstrip())
    words = [first.strip().removeprefix(f"{name}: ")]
    for line in lines[starts[0] + 1 :]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        words.append(line.strip())
    return " ".join(words)


def hints_of(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def is_many(hint: Any) -> bool:
    """Whether a list of nodes stands there."""
    return "tuple" in str(hint).partition("[")[0]


def tag_of(cls: type) -> str:
    """The kind that a node is, "" where it is the only one."""
    hints = hints_of(cls)
    return next((kind for tag in TAGS for kind in typing.get_args(hints.get(tag))), "")


def plain_default(node_field: dataclasses.Field, at: str) -> Any:
    """A field's default as plain values; MISSING where it has none."""
    if node_field.default is not dataclasses.MISSING:
        value = node_field.default
    elif node_field.default_factory is not dataclasses.MISSING:
        value = node_field.default_factory()
    else:
        return NEEDED.get(at, MISSING)
    value = getattr(value, "default", value) if type(value).__name__ == "FieldInfo" else value
    if isinstance(value, Span):
        return str(value)
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def lines_of(cls: type, at: str, indent: str) -> Iterator[str]:
    """A line for each key of a node, with those of the nodes inside it below."""
    hints = hints_of(cls)
    said = comments(cls)
    for node_field in dataclasses.fields(cls):
        name = node_field.name
        key = f"{at}{name}"
        text = said.get(name, "")
        inner = nodes_in(hints[name])
        default = plain_default(node_field, key)
        if key in NEEDED:
            text = f"{text}; {REQUIRED}" if text else REQUIRED
        options = kinds_of(hints[name])
        if options:
            text = f"{text}; " * bool(text) + f"one of {', '.join(options)}"
        if inner and not is_many(hints[name]) and (default is not None or len(inner) == 1):
            chosen = default_class(inner, default)
            if default is None and key not in NEEDED:
                yield from beside(f"{indent}{name}: null", text, indent)
                yield from (f"{indent}# {line}" for line in example(chosen, key))
                continue
            yield from above(text or first_line(chosen), indent)
            yield f"{indent}{name}:"
            yield from lines_of(chosen, f"{key}.", indent + "  ")
        elif isinstance(default, list) and default and isinstance(default[0], dict):
            yield from beside(f"{indent}{name}:", text, indent)
            yield from (f"{indent}  - {one_line(entry)}" for entry in default)
        else:
            yield from beside(f"{indent}{name}: {one_line(default)}", text, indent)


def example(cls: type, key: str) -> Iterator[str]:
    """The lines of a node that stands nowhere unless it is asked for."""
    yield f"{key.rpartition('.')[2]}:"
    yield from keys_of(cls, "  ")


def keys_of(cls: type, indent: str) -> Iterator[str]:
    """A node's own keys, what is needed as `…`."""
    said = comments(cls)
    hints = hints_of(cls)
    for node_field in dataclasses.fields(cls):
        default = plain_default(node_field, "")
        value = "…" if default is MISSING else one_line(default)
        text = said.get(node_field.name, "")
        options = literals(hints[node_field.name])
        if len(options) > 1:
            text = f"{text}; " * bool(text) + f"one of {', '.join(options)}"
        yield from beside(f"{indent}{node_field.name}: {value}", text, indent)


def literals(hint: Any) -> list[str]:
    """The words that may stand there."""
    if typing.get_origin(hint) is typing.Literal:
        return list(map(str, typing.get_args(hint)))
    return []


def kinds_of(hint: Any) -> list[str]:
    """The words, or kinds of node, that may stand there, where there are several."""
    inner = [tag_of(cls) for cls in nodes_in(hint)]
    options = [kind for kind in dict.fromkeys(inner) if kind] or literals(hint)
    return options if len(options) > 1 else []


def default_class(inner: list[type], default: Any) -> type:
    """The class of a default value among those that may stand there."""
    tag = next((default[tag] for tag in TAGS if isinstance(default, dict) and tag in default), "")
    return next((cls for cls in inner if tag_of(cls) == tag), inner[0])


def first_line(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def groups(
    cls: type, at: str = "", seen: tuple[type, ...] = ()
) -> Iterator[tuple[str, list[type]]]:
    """Each key where nodes of several kinds may stand, and these; the outer ones first."""
    hints = hints_of(cls)
    for node_field in dataclasses.fields(cls):
        inner = [own for own in nodes_in(hints[node_field.name]) if own not in seen]
        key = f"{at}{node_field.name}"
        tagged = [own for own in inner if tag_of(own)]
        if tagged:
            yield key, tagged
        for own in inner:
            yield from groups(own, f"{key}.", (*seen, own))


def document() -> str:
    """The whole file."""
    lines = [f"# {line}" for line in textwrap.wrap(HEAD, WIDTH)]
    lines += lines_of(Recipe, "", "")
    lines += ["", "# What may stand where there are several kinds, each with its own keys:"]
    done: set[type] = set()
    for key, inner in groups(Recipe):
        new = [cls for cls in dict.fromkeys(inner) if cls not in done]
        done |= set(new)
        if not new:
            continue
        lines += ["#", f"# ---- {key}"]
        for cls in new:
            lines += ["#", *(f"# {line}" for line in textwrap.wrap(first_line(cls), WIDTH))]
            lines += [f"#   {line}" for line in keys_of(cls, "")]
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
