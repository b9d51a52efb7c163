"""Class names: read from files, put in order, and one party's held against another's.

The only reader of class-name files. A class has a number and maybe a name; a folder, a list, a
label file, a checkpoint and an export each know one, the other or both, and meet here.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from ppcls.utils.errors import UserError
from ppcls.utils.files import split_lines
from ppcls.utils.remote import read_text
from ppcls.utils.text import (
    at_most,
    composed,
    did_you_mean,
    first_of,
    plural,
    quoted,
    visible,
    whole_number,
)
from ppcls.utils.yaml_files import compose

IMAGENET = "imagenet"  # in place of a file: the names that come with ppcls
IMAGENET_FILE = Path(__file__).with_name("imagenet.txt")
# `0 tench`, `000<TAB>tench`, `0: tench`, `0,tench`, `0. tench`, `0 - tench`: number and name; so
# with the full-width marks that Chinese and Japanese keyboards have.
NUMBERED = re.compile(
    r"([0-9]{1,18})(?:\s*[:,;|=\uff1a\uff0c\u3001\uff1b]\s*|[.\uff0e)\uff09]\s+|\s+-\s+|\s+)(\S.*)"
)
# `tench 0`, `tench<TAB>0`, `tench,0`, `tench: 0`: name and number.
NUMBERED_LAST = re.compile(
    r"(.*[^\s:,;|=\uff1a\uff0c\u3001\uff1b])(?:\s*[:,;|=\uff1a\uff0c\uff1b]\s*|\s+)([0-9]{1,18})"
)
NAME_COLUMNS = ("name", "class_name", "label_name", "label", "class", "category")
NUMBER_COLUMNS = (
    "id",
    "class_id",
    "label_id",
    "index",
    "idx",
    "number",
    "target",
    "class",
    "label",
)
KEYS = ("names", "id2label", "label_list")  # of documents that hold more than class names

TOO_DEEP = "lists stand too deep in each other: a list of class names is expected"

LONGEST_NUMBER = 1000  # digits of a name that counts as a number
Numbered = tuple[str, int, str]  # where it stands, number, name


def read_class_names(path: str | PathLike) -> tuple[str, ...]:
    """The class names of a file, of `imagenet` those that come with ppcls.

    A name a line, in order; or lines that all begin, or all end, with their class's number
    (`0 tench`), in any order; or a table (CSV) with a column of names and maybe one of numbers; or
    JSON or YAML: a list, or names and numbers by each other. A name may stand twice only where
    lines are numbered, as ImageNet's two cranes are.

    Raises:
        UserError: blank lines, repeated names, numbers that are not 0 to N-1, with file:line.
    """
    if path == IMAGENET:
        path = IMAGENET_FILE
    text = read_text(path)
    document = parsed(text, path)
    if document is not None:
        return from_document(document, path)
    lines = [composed(line.strip()) for line in split_lines(text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: holds no class names")
    table = tabular(lines) if str(path).lower().endswith(".csv") else None
    first = 1
    if table:
        lines = table
        first = 2
    elif is_header(lines[0]) and (numbered_last(lines[1:]) or are_numbered(lines[1:])):
        lines = lines[1:]
        first = 2
    if numbered_last(lines):
        lines = [NUMBERED_LAST.sub(r"\2 \1", line) for line in lines]
    fields = [NUMBERED.fullmatch(line) for line in lines]
    numbers = [int(field[1]) for field in fields if field]
    names = unquoted([field[2] for field in fields if field])
    if not belong_to_lines(numbers, names, len(lines)):
        return plain_names(unquoted(lines), path, first)
    mistakes = [
        f"{path}:{line}: {without_number(lines[line - first])}, as other lines have"
        for line, field in enumerate(fields, first)
        if not field
    ]
    if mistakes:
        raise UserError(*first_of(mistakes))
    places = [f"{path}:{line}" for line in range(first, first + len(lines))]
    return by_number(list(zip(places, numbers, names, strict=True)), path)


def without_number(line: str) -> str:
    """What is wrong with one line among numbered ones."""
    if not line:
        return "a blank line has no number and name"
    if is_index(line.rstrip(" \t:,;|=.")):
        return f"{line!r} has no name behind its number"
    return f"{line!r} has no number before its name"


def is_header(line: str) -> bool:
    """Whether a line only names columns, as `id,name` does."""
    words = [word.strip(" \"'").lower() for word in re.split(r"[,;\t]", line)]
    known = {*NAME_COLUMNS, *NUMBER_COLUMNS}
    return len(words) == 2 and known.issuperset(words) and words[0] != words[1]


def tabular(lines: Sequence[str]) -> list[str] | None:
    """The rows of CSV as lines `number name`, or names alone; None where no header names columns.

    One column alone is a header only where it is called `name` or the like, not `label`: a class
    may be called so.
    """
    mark = max(",;\t", key=lines[0].count)
    rows = list(csv.reader(lines, delimiter=mark))
    header = [field.strip().lower() for field in rows[0]]
    named = next((word for word in NAME_COLUMNS if word in header), None)
    number = next((word for word in NUMBER_COLUMNS if word in header and word != named), None)
    single = header in (["name"], ["class_name"], ["label_name"])
    if not named or not (number or single) or len(rows) != len(lines) or len(rows) < 2:
        return None
    place = header.index(named)
    other = header.index(number) if number else None
    names = [(row[place].strip() if place < len(row) else "") for row in rows[1:]]
    if other is None:
        return names
    numbers = [(row[other].strip() if other < len(row) else "") for row in rows[1:]]
    if number in ("class", "label") and not all(map(is_index, numbers)):
        return None
    return [f"{number} {name}".strip() for number, name in zip(numbers, names, strict=True)]


def are_numbered(lines: Sequence[str]) -> bool:
    return bool(lines) and all(NUMBERED.fullmatch(line) for line in lines)


def numbered_last(lines: Sequence[str]) -> bool:
    """Whether lines end with their classes' numbers.

    Only where these are 0 to N-1 and names differ without them: `level 0`, `level 1` are names.
    """
    if are_numbered(lines):
        return False
    found = [NUMBERED_LAST.fullmatch(line) for line in lines]
    names = {field[1] for field in found if field}
    numbers = {int(field[2]) for field in found if field}
    return len(lines) > 1 and len(names) == len(lines) and numbers == set(range(len(lines)))


def belong_to_lines(numbers: Sequence[int], names: Sequence[str], lines: int) -> bool:
    """Whether the numbers that lines begin with are their classes', and not a part of the names.

    `1 euro`, `2 euro`, `5 euro` are names, for without their numbers few would differ; so is
    `7 eleven` among names without numbers.
    """
    if set(numbers) == set(range(lines)):
        return True
    if len(numbers) == lines:
        return 2 * len(set(names)) > lines
    # One line without a number among many of 0 to N-1 is a mistake.
    near = 0 in numbers and set(numbers) <= set(range(lines))
    return near and 2 * len(numbers) > lines and len(set(numbers)) == len(numbers)


def by_number(entries: Sequence[Numbered], source: str | PathLike) -> tuple[str, ...]:
    """Names in the order of their numbers; UserError unless these are 0 to N-1."""
    count = len(entries)
    first = {}
    mistakes = []
    for place, number, _ in entries:
        if number in first:
            line = first[number].removeprefix(str(source)).replace(":", ", first in line ")
            mistakes.append(f"{place}: number {number} stands twice{line}")
        first.setdefault(number, place)
    if mistakes:
        raise UserError(*first_of(mistakes))
    _, number, name = entries[0]
    asked = f"; where the numbers belong to the names, number these: 0 {number} {visible(name, 60)}"
    if min(first) == 1 and max(first) == count:
        # PaddleClas would leave class 0 without a name, and name each class after its neighbour
        # where lists count from 0: which of the two is wrong, the numbers or a list, is not known.
        raise UserError(
            f"{first[1]}: classes are numbered from 1 to {count} here, and everywhere else from 0: "
            f"number them 0 to {count - 1}, or leave the numbers out{asked}"
        )
    beyond = [number for number in first if number >= count]
    if beyond:
        lacking = next(number for number in range(count) if number not in first)
        raise UserError(
            f"{first[beyond[0]]}: class {beyond[0]}, and there is no class {lacking}: "
            f"{count} names are numbered 0 to {count - 1}{asked}"
        )
    return tuple(name for _, _, name in sorted(entries, key=lambda entry: entry[1]))


def plain_names(lines: Sequence[str], path: str | PathLike, start: int = 1) -> tuple[str, ...]:
    """The lines as names; UserError for blank and repeated ones.

    Args:
        start: the number of the first line in the file.
    """
    first = {name: line for line, name in reversed(list(enumerate(lines, start)))}
    mistakes = []
    for line, name in enumerate(lines, start):
        if not name:
            mistakes.append(f"{path}:{line}: blank line where a class name should stand")
        elif first[name] < line:
            mistakes.append(f"{path}:{line}: {quoted(name)} already stands in line {first[name]}")
    if mistakes:
        raise UserError(*first_of(mistakes))
    return tuple(lines)


def unquoted(names: list[str]) -> list[str]:
    """The names without quotes where all of them have some, as in `0,"tench, Tinca tinca"`."""
    quoted = names and all(len(n) > 1 and n[0] == n[-1] and n[0] in "\"'" for n in names)
    return [name[1:-1] for name in names] if quoted else names


# --------------------------------------------------------------------------- JSON and the like


def parsed(text: str, path: str | PathLike) -> Any:
    """A list, or pairs, of a document in braces (JSON, Python's `{0: 'tench', …}`); else None.

    A file called .yaml is one without braces, too.
    """
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("{}", "[]"):
        if not str(path).lower().endswith((".yaml", ".yml")):
            return None
        try:
            document = plain(yaml.compose(text, yaml.BaseLoader)) if inner else None
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        return None if isinstance(document, str) else document
    try:
        return json.loads(inner, object_pairs_hook=Pairs)
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except ValueError:
        pass
    try:
        return plain(compose(inner, yaml.BaseLoader))
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except yaml.YAMLError as error:
        if str(path).lower().endswith(".json"):
            raise UserError(f"{path}: not JSON ({visible(' '.join(str(error).split()))})") from None
        return None


class Pairs(list):
    """The (key, value) pairs of a mapping."""


def plain(node: Any) -> Any:
    """A YAML node with all texts as they stand."""
    if isinstance(node, yaml.MappingNode):
        return Pairs((plain(key), plain(value)) for key, value in node.value)
    return [plain(v) for v in node.value] if isinstance(node, yaml.SequenceNode) else node.value


def is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def from_document(document: Any, path: str | PathLike) -> tuple[str, ...]:
    """Names of a list, of {number: name} or {name: number}; one key may stand around all."""
    if isinstance(document, Pairs):
        held = [own for key, own in document if key in KEYS and isinstance(own, list)]
        single = len(document) == 1 and isinstance(document[0][1], list)
        document = held[0] if held else document[0][1] if single else document
    if not document:
        raise UserError(f"{path}: holds no class names")
    if not isinstance(document, Pairs):
        if not all(is_name(name) for name in document):
            raise UserError(f"{path}: a list of class names is expected")
        return plain_names([composed(name.strip()) for name in document], path)
    if all(is_whole([str(key)]) for key, _ in document):
        pairs = [(int(key), v[-1] if isinstance(v, list) and v else v) for key, v in document]
    elif all(is_whole([str(value)]) for _, value in document):
        pairs = [(int(value), key) for key, value in document]
    else:
        pairs = []
    entries = [
        (str(path), number, composed(name.strip())) for number, name in pairs if is_name(name)
    ]
    if not entries or len(entries) < len(pairs):
        raise UserError(f'{path}: expected names by number, {{"0": "tench", …}}, or a list of them')
    return by_number(entries, path)


# --------------------------------------------------------------------------- order and number


def is_whole(names: Sequence[str]) -> bool:
    """Whether all names are whole numbers, no two of the same value."""
    numbers = {value_of(name) for name in names}
    return None not in numbers and len(numbers) == len(names) > 0


def value_of(name: str) -> int | None:
    """The number that a class is called; names may be longer than any class's number."""
    return whole_number(name, LONGEST_NUMBER)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names as classes are numbered: whole numbers by value (2 before 10), others as text."""
    names = sorted(names)
    return tuple(sorted(names, key=int)) if is_whole(names) else tuple(names)


def single_names(names: Sequence[str]) -> dict[str, int]:
    """The number of each name that belongs to one class only."""
    uses = Counter(names)
    return {name: number for number, name in enumerate(names) if uses[name] == 1}


def keys(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """What names are compared by: whole numbers on both sides by value, text in one form."""
    if is_whole(names) and is_whole(others):
        return [str(int(name)) for name in names]
    return [composed(name) for name in names]


def same_names(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether both name the same classes, in any order."""
    return sorted(keys(names, others)) == sorted(keys(others, names))


def label_numbers(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Each valid label's number: its place among the names, or the integer it is."""
    by_name = single_names(names)
    if is_whole(names):  # an integer means the class called so, `7` the one called `007`
        by_value = {value_of(name): number for number, name in enumerate(names)}
        values = {label: value_of(label) for label in labels}
        return {label: by_value[value] for label, value in values.items() if value in by_value}
    # Where a class is called '3' but is not number 3, an integer could mean either: names only.
    integers = all(not is_index(name) or int(name) == i for i, name in enumerate(names))
    numbers = {label: int(label) for label in labels if integers and is_index(label)}
    called = {label: composed(label) for label in labels}
    return numbers | {label: by_name[own] for label, own in called.items() if own in by_name}


def is_index(text: str) -> bool:
    """True for the digits of an integer ≥ 0 that fits into 64 bits."""
    return whole_number(text) is not None


# --------------------------------------------------------------------------- two parties


def places(
    names: Sequence[str], own: Sequence[str], classes: int, source: str, whose: str
) -> tuple[list[int], str]:
    """Which of the classes `own` of `whose` each of the names of `source` is, and what to say.

    By name. Where no name is in both, numbers that stand as names mean classes by their numbers;
    else classes are taken in order. Both is an assumption, and said.

    Args:
        own: () where only the number of its `classes` is known.

    Raises:
        UserError: some names are shared and others not, or there are not as many.
    """
    if tuple(names) == tuple(own):
        return list(range(len(own))), ""
    wanted = keys(names, own)
    there = keys(own, names)
    known = single_names(there)
    if all(name in known for name in wanted) and len(set(wanted)) == len(wanted):
        found = [known[name] for name in wanted]
        lacking = [repr(own[place]) for place in sorted(set(range(len(own))) - set(found))]
        note = f"note: {source} has no images of {at_most(lacking, limit=3)}, classes of {whose}"
        return found, note if lacking else ""
    if set(wanted) & set(there):
        surplus = [name for name, key in zip(names, wanted, strict=True) if key not in known]
        raise other_names(source, sorted(set(own) - set(names)), surplus, whose)
    found = by_value(names, own, classes)
    how = "by number"
    if not own and found == list(range(classes)):
        return found, ""
    if not found and len(names) == classes and ordered(names) and ordered(own):
        found = list(range(classes))
        how = "in order"
    if not found:
        mine = at_most(list(map(repr, names)), limit=3)
        theirs = at_most(list(map(repr, own)), limit=3) or f"{classes} without names"
        raise UserError(f"{source}: its classes, {mine}, are not those of {whose}, {theirs}")
    called = repr(own[found[-1]]) if own else f"class {found[-1]}"
    reason = "no name is in both" if own else "its classes have no names"
    return found, (
        f"note: {source}: {quoted(names[-1])} is taken for {called} of {whose} and so on, "
        f"{how}: {reason}"
    )


def by_value(names: Sequence[str], own: Sequence[str], classes: int) -> list[int]:
    """As `places`, where names on one side are numbers of classes on the other; [] elsewhere."""
    if is_whole(names) and all(int(name) < classes for name in names):
        return [int(name) for name in names]
    if is_whole(own) and sorted(map(int, own)) == list(range(len(names))):
        numbered = {int(name): place for place, name in enumerate(own)}
        return [numbered[number] for number in range(len(names))]
    return []


def ordered(names: Sequence[str]) -> bool:
    """Whether names that are numbers, if they are, stand in the order of their values."""
    return not is_whole(names) or tuple(names) == in_order(names)


def other_names(
    source: str, lacking: Sequence[str], surplus: Sequence[str], whose: str
) -> UserError:
    parts = [f"lacks {at_most(list(map(repr, lacking)))}"] if lacking else []
    parts += [f"has besides {at_most(list(map(repr, surplus)))}"] if surplus else []
    parts = parts or ["has a name that belongs to several classes"]
    return UserError(
        f"{source} {' and '.join(parts)}, compared with {whose}; make the classes the same, "
        "or open both with one label file that names them all"
    )


def first_clash(names: Sequence[str], own: Sequence[str]) -> int | None:
    """The first class that two parties call differently; None where they agree or cannot know.

    Whoever has numbers alone calls its classes so, where the other's names are these numbers, too.
    """
    numbers = [str(number) for number in range(len(names) or len(own))]
    unnamed = not (names and own)
    names = names or numbers
    own = own or numbers
    if len(names) != len(own) or (unnamed and not same_names(names, own)):
        return None
    pairs = zip(keys(names, own), keys(own, names), strict=True)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), None)


def renamed(
    own: Sequence[str], given: Sequence[str], source: str, whose: str, numbers: bool = False
) -> tuple[tuple[str, ...], str]:
    """The names, out of a file, of the classes of `whose`, which it calls `own`; and what to say.

    The file may name them anew, in their order; but where it has the same names in another order,
    the network's own order is the right one.

    Args:
        numbers: whether a network without names is known to have learnt the numbers 0 to N-1.

    Raises:
        UserError: another number of names, or some the same but not at their places.
    """
    counted = tuple(map(str, range(len(given))))
    if numbers and not own and same_names(counted, given):
        own = counted
    if not own or not given or tuple(own) == tuple(given):
        return tuple(given or own), ""
    if same_names(own, given):
        same = keys(own, given) == keys(given, own)
        note = f"note: {source} has the classes of {whose} in another order, which does not count"
        return tuple(own), "" if same else note
    if len(own) != len(given):
        raise UserError(
            f"{source}: there are {plural(len(given), 'class name')} and the network has "
            f"{plural(len(own), 'class')} "
            f"({whose}: {at_most(list(own), limit=3)}): give the names of these classes"
        )
    shared = set(keys(own, given)) & set(keys(given, own))
    if is_whole(own) and not shared and max(map(int, own)) < len(given):
        names = tuple(given[int(name)] for name in own)
        note = f"note: {source}: class {own[-1]} of {whose} is called {quoted(names[-1])} and so on"
        return names, note
    moved = [a for a, b in zip(own, given, strict=True) if a != b and (a in shared or b in shared)]
    if moved:
        near = "" if moved[0] in given else did_you_mean(moved[0], given)
        raise UserError(
            f"{source}: {quoted(moved[0])} is at another place than in {whose}, and other names "
            f"differ, too{near}; give its names in its order: {at_most(list(map(str, own)))}"
        )
    first = next(i for i, pair in enumerate(zip(own, given, strict=True)) if pair[0] != pair[1])
    pair = f"{quoted(own[first])} of {whose} is called {quoted(given[first])}"
    note = f"note: {source}: {pair}, in order"
    return tuple(given), note
