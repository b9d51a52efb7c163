"""Images that belong together: by a column of a list, or by what a pattern finds in their paths.

A pattern comes out of a recipe, which may be anybody's, and Python's matching of some patterns
never ends: so paths are matched in a process of its own, which is ended after a time.
"""

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import ValidationError

from ppcls.config.node import node
from ppcls.data.samples import Dataset, Groups, Members
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.text import plural, quoted

LONGEST_PATTERN = 500  # characters
LONGEST_PATH = 4096  # characters of a path that is matched, the most that Linux has
SHOWN = 3  # paths without a group
# Seconds that matching may take, and the paths for which it may take one more; the usual pattern
# takes a second for a million.
PATIENCE = 10
PATHS_A_SECOND = 10_000
# Reads a JSON list of a pattern and paths, and writes one of the groups: null for no match.
MATCH = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, *paths = json.loads(sys.stdin.buffer.read())
search = re.compile(pattern).search
found = map(search, paths)
groups = [m and ("/".join(part or "" for part in m.groups()) if m.re.groups else m[0])
          for m in found]
sys.stdout.buffer.write(json.dumps(groups).encode())
"""


@node
class GroupBy:
    """What says which images belong together, as all photos of one patient do.

    Exactly one of: the column of a CSV file, or a regular expression that is searched for in each
    path as it stands below the data set's folder, in the list, or in the tar. What stands in its
    parentheses is the group, or all that it matches where it has none.
    """

    column: str | None = None
    path: str | None = None

    def __post_init__(self):
        if bool(self.column) == bool(self.path):
            raise ValueError(
                "group_by takes one of column, as in {column: patient}, and path, a regular "
                r"expression, as in {path: 'patient\d+'}"
            )
        if self.path:
            check_pattern(self.path)

    def __str__(self) -> str:
        return f"column {quoted(self.column)}" if self.column else f"path {quoted(self.path)}"


def group_by_of(column: str | None, path: str | None) -> GroupBy:
    """As a command line says it.

    Raises:
        UserError: no regular expression, or an empty text.
    """
    try:
        return GroupBy(column=column, path=path)
    except ValidationError as error:
        option = "--group-column" if path is None else "--group-path"
        problem = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("path: ")
        raise UserError(f"{option}: {problem}") from None


def check_pattern(pattern: str) -> None:
    """ValueError for what is no regular expression, or a very long one."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(
            f"path: a pattern of {len(pattern):,} characters; {LONGEST_PATTERN} are the most"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"path: {quoted(pattern)} is no regular expression ({error})") from None


def with_groups(samples: Dataset, pattern: str) -> Dataset:
    """The samples in the groups that a pattern finds in their paths.

    Raises:
        UserError: paths in which it finds nothing, or a pattern that takes very long.
    """
    found = matches(pattern, list(inner_paths(samples)))
    lost = [index for index, group in enumerate(found) if not group]
    if lost:
        places = ", ".join(samples.where(index) for index in lost[:SHOWN])
        more = f" and {len(lost) - SHOWN:,} more" if len(lost) > SHOWN else ""
        raise UserError(
            f"data.group_by.path: {quoted(pattern)} finds nothing in {len(lost):,} of "
            f"{plural(len(found), 'path')}: {places}{more}; every image needs a group"
        )
    return replace(samples, groups=Groups.of([group or "" for group in found]))


def inner_paths(samples: Dataset) -> Iterator[str]:
    """Each path below the data set's folder, as the list has it, or in its tar; with slashes."""
    if isinstance(samples.paths, Members):
        yield from samples.paths.inside
        return
    start = os.path.join(samples.source, "") if os.path.isdir(samples.source) else ""
    for block in samples.paths.blocks():
        for path in os.fsdecode(block).split("\0"):
            yield path.removeprefix(start).replace(os.sep, "/")


def matches(pattern: str, paths: Sequence[str]) -> list[str | None]:
    """For each path what the pattern's parentheses, or all of it, matched; None: nothing.

    Raises:
        UserError: a path of more than LONGEST_PATH characters, or no end for a long time.
    """
    longest = max(paths, key=len, default="")
    if len(longest) > LONGEST_PATH:
        raise UserError(
            f"data.group_by.path: a path of {len(longest):,} characters, {quoted(longest)}; "
            f"{LONGEST_PATH:,} are the most that are matched"
        )
    patience = PATIENCE + len(paths) / PATHS_A_SECOND
    command = [sys.executable, "-I", "-S", "-c", MATCH]
    try:
        with environment.without_working_folder():
            done = subprocess.run(
                command,
                input=json.dumps([pattern, *paths]).encode(),
                capture_output=True,
                timeout=patience,
                check=True,
            )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"data.group_by.path: {quoted(pattern)} has not done with {plural(len(paths), 'path')} "
            f"in {plural(round(patience), 'second')}: some patterns never end; write a simpler "
            r"one, without repeats inside of repeats, such as 'patient\d+'"
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"data.group_by.path: {quoted(pattern)} could not be matched ({error})"
        ) from None
    return json.loads(done.stdout)
