"""Checks of what is given to `Predictor`: a mistake is one line that names the argument."""

import operator
from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np

from ppcls import environment
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
    """A number of CPU threads that a machine of so many cores can bear."""
    number, cores = whole_number("threads", value), environment.core_count()
    if number > max(64, 16 * cores):
        raise UserError(
            f"threads ({number}): this machine has {plural(cores, 'core')}, and more threads than "
            f"these gain nothing; leave threads out, or give 1 to {cores}"
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


def class_names(value: Any) -> str | PathLike[str] | list[str]:
    """A file of names (or `imagenet`), or a sequence of them."""
    if isinstance(value, (str, PathLike)):
        return value
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        text = f"labels ({shown(value)}) should be a list of class names, or a file of them"
        raise UserError(text)
    names = list(value)
    wrong = [name for name in names if not isinstance(name, str)]
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
