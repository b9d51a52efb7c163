"""Modules outside ppcls whose code may run because the user named them, and no others.

A recipe, a checkpoint or an exported folder may name a class by its import path. That is looked up
only where `ppcls.use` or `--use` named the module: files from elsewhere run nothing.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ppcls.utils.errors import UserError
from ppcls.utils.text import visible

allowed: list[str] = []  # in the order in which they were named
folders: list[str] = []  # working folders in which they are looked for, too


class InWorkingFolder:
    """Finds modules that were named, and what lies in them, in the folder one works in.

    Python looks there for scripts alone, and the command `ppcls` nowhere at all. Asked last, so
    that a file there hides no installed module.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if path is not None or name not in {one.partition(".")[0] for one in allowed}:
            return None
        found: ModuleSpec | None = PathFinder.find_spec(name, folders)
        return found if found and found.loader else None


def use(*modules: str | ModuleType) -> None:
    """Import modules of one's own, whose classes recipes and commands may then name.

    Args:
        modules: names as `import` takes them, or modules. `my_pkg` allows `my_pkg.losses`, too.

    Raises:
        UserError: there is no such module, or it cannot be imported.
    """
    for module in modules:
        name = module.__name__ if isinstance(module, ModuleType) else module
        if not isinstance(name, str) or not is_path(name):
            raise UserError(f"--use {visible(str(name))}: should be a module's name, as my_pkg")
        before = tuple(allowed)
        allow([name], [os.getcwd()])
        try:
            import_module(name)
        except Exception as error:
            allowed[:] = before
            raise UserError(f"--use {name}: {why_not(error, name)}") from error


def allow(names: Sequence[str], places: Sequence[str]) -> None:
    """Let modules be looked up, in these folders after all others; imports nothing."""
    allowed.extend(name for name in names if name not in allowed)
    folders.extend(place for place in places if place not in folders)
    if InWorkingFolder not in sys.meta_path:
        sys.meta_path.append(InWorkingFolder)  # type: ignore[arg-type]
    invalidate_caches()  # a file may have been written since


def is_path(text: str) -> bool:
    """Whether a text can be a dotted name of Python."""
    return all(part.isidentifier() for part in text.split("."))


def is_allowed(module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in allowed)


def find(path: str) -> Callable[..., Any]:
    """The class or function of an import path, in a module that was named.

    Raises:
        ValueError: no such module was named, which then is not imported; or it holds none.
    """
    module, _, name = path.rpartition(".")
    if not is_path(path) or not module:
        raise ValueError(f"{visible(path)} is no import path, such as my_pkg.losses.Mine")
    if not is_allowed(module):
        top = path.partition(".")[0]
        raise ValueError(
            f"{visible(path)} is code outside ppcls, which only runs where its module is named: "
            f"--use {visible(top)}, or ppcls.use({top!r}) in Python, if you trust it"
        )
    try:
        found = getattr(import_module(module), name, None)
    except Exception as error:
        raise ValueError(f"{module} {why_not(error, module)}") from error
    if found is None:
        own = [key for key, value in vars(sys.modules[module]).items() if is_own(value)]
        raise ValueError(f"{module} has no {name}; it has {', '.join(own) or 'no class'}")
    if not is_own(found):
        raise ValueError(f"{path} is no class or function that is written in a module named")
    return found


def is_own(value: Any) -> bool:
    """Whether this is a class or function of a module named, not one that is imported there."""
    code = inspect.isclass(value) or inspect.isfunction(value)
    return code and is_allowed(str(value.__module__))


def path_of(value: Any) -> str:
    """The import path of a class or function, of an object that of its class."""
    while isinstance(value, partial):
        value = value.func
    kind = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def why_not(error: Exception, module: str) -> str:
    """Why a module was not imported."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return f"is no module that Python finds, nor one in {os.getcwd()}"
    return f"cannot be imported: {in_line(error)}"


def in_line(error: BaseException) -> str:
    """An error of somebody's code in one line, with the place in that code it came from."""
    text = " ".join(str(error).split())
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return words
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [f for f in frames if is_allowed(f.f_globals.get("__name__", ""))]
    own = own or [f for f in frames if not is_library(f.f_code.co_filename)]
    if not own:
        return visible(words, 500)
    line = [n for f, n in traceback.walk_tb(error.__traceback__) if f is own[-1]][-1]
    return f"{visible(words, 500)} ({own[-1].f_code.co_filename}:{line})"


def is_library(file: str) -> bool:
    """Whether a source file is ppcls's own, Python's or an installed package's."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return file.startswith((here, sys.prefix, sys.base_prefix, "<"))
