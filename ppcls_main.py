"""The door to ppcls: the command `ppcls`, tools/*.py and deploy/*.py begin here.

PaddleClas calls its package `ppcls`, too. Where Python finds that one first, which happens in a
checkout of PaddleClas and with one in PYTHONPATH, nothing of this package can be imported. This
module, which has a name of its own, says so.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

INTERRUPTED = 130  # exit code of what Ctrl-C ended, as shells count it
HERE = Path(__file__).resolve().parent / "ppcls"


def require_own() -> None:
    """End the program with one line where `ppcls` is another package than the one beside this."""
    found = find_spec("ppcls")
    places = [Path(place).resolve() for place in (found and found.submodule_search_locations) or ()]
    if HERE in places[:1]:
        return
    if not places:
        sys.exit(f"error: no package ppcls in {shown(HERE.parent)}: install it again")
    other = places[0]
    whose = (
        "PaddleClas's" if (other / "arch").is_dir() or (other / "engine").is_dir() else "another"
    )
    print(
        f"error: {shown(other)} is {whose} package of the name ppcls and hides this one "
        f"({shown(HERE)}): leave that folder, or take {shown(other.parent)} out of PYTHONPATH",
        file=sys.stderr,
    )
    sys.exit(2)


def shown(path: Path) -> str:
    """A folder's name without commands to a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))


def main() -> int:
    """The command `ppcls`; returns the exit code."""
    return door(lambda cli: cli.main())


def script(command: str) -> None:
    """What a script of tools/ or deploy/ does: the command with the script's own arguments."""
    sys.exit(door(lambda cli: cli.main([command, *sys.argv[1:]])))


def door(run: Callable[[ModuleType], int]) -> int:
    """The exit code of what `ppcls.cli` runs, which knows what to say of all but its import."""
    try:
        require_own()
        from ppcls import cli
    except ImportError as error:
        reason = " ".join(str(error).split())
        sys.exit(f"error: ppcls cannot be started, a package is missing or broken: {reason}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    return run(cli)
