"""Checks of what is given to `Predictor`: a mistake is one line that names the argument."""

import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from os import PathLike
from typing import Any

import numpy as np

from ppcls import environment
from ppcls.data.class_names import by_number, is_index, is_name
from ppcls.errors import UserError
from ppcls.utils.text import did_you_mean, plural, visible

ON_ERROR = ("stop", "skip")
ALIKE = {"cuda": "gpu", "half": "fp16", "float16": "fp16", "float32": "fp32", "bfloat16": "bf16"}


def whole_number(name: str, value: Any) -> int:
    """A number from 1 of any integer type."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise UserError(f"{name} ({shown(value)}) should be a whole number from 1")
    return number


def thread_count(value: Any) -> int:
    """A number of CPU threads that a machine can start: libraries crash, or wait, with more."""
    number = whole_number("threads", value)
    cores, most = environment.core_count(), environment.most_at_once()
    if number > most:
        raise UserError(
            f"threads ({number}): more than {plural(cores, 'core')} can serve, {most} at most; "
            f"{cores} are as many as compute at once"
        )
    return number


def share(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:
        raise UserError(f"{name} ({shown(value)}) should be a number from 0 to 1")
    return float(value)


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    word = ALIKE.get(value.lower(), value) if isinstance(value, str) else ""
    hint = f"; did you mean {word!r}?" if word in known else did_you_mean(word, known)
    raise UserError(f"{name} ({shown(value)}) is unknown{hint}; known are {', '.join(known)}")


def folder_name(value: Any) -> str | PathLike[str]:
    if not isinstance(value, (str, PathLike)):
        raise UserError(f"folder ({shown(value)}) should be the path of an exported folder")
    return value


def numbered(value: Mapping[Any, Any]) -> list[tuple[int, str]]:
    """Names by their numbers, `{0: "tench"}`, or numbers by their names; UserError for others."""
    pairs = list(value.items())
    if pairs and all(isinstance(name, (int, np.integer)) for _, name in pairs):
        pairs = [(number, name) for name, number in pairs]
    found = [(int(key), name) for key, name in pairs if is_index(str(key)) and is_name(name)]
    if not pairs or len(found) < len(pairs):
        text = f"labels ({shown(value)}) should be names by number, {{0: 'tench', …}}, or a list"
        raise UserError(text)
    return found


def class_names(value: Any) -> str | PathLike[str] | Sequence[str]:
    """A file of names (or `imagenet`), a sequence of them, or names and numbers by each other."""
    if isinstance(value, (str, PathLike)):
        return value
    if isinstance(value, (bytes, Set)) or not isinstance(value, Iterable):
        text = f"labels ({shown(value)}) should be a list of class names, or a file of them"
        raise UserError(text)
    if isinstance(value, Mapping):
        return by_number([("labels", number, name) for number, name in numbered(value)], "labels")
    names = list(value)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise UserError(f"labels: {shown(wrong[0])} should be a class name in quotes")
    return names


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{name} is no argument of Predictor{hint}; known: {', '.join(known)}")


def shown(value: Any) -> str:
    return visible(repr(value), 80)
