"""Where downloaded files are kept, and whether they still are what was downloaded."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from ppcls import environment
from ppcls.errors import UserError
from ppcls.log import say
from ppcls.utils.files import write_text
from ppcls.utils.text import from_json, visible


def folder() -> Path:
    """The folder of downloaded weights: `weights` in $PPCLS_HOME or ~/.cache/ppcls."""
    return environment.home() / "weights"


def place(url: str) -> Path:
    """Where the file of a URL is kept: its own name, in a folder told by the whole address."""
    try:
        name = unquote(PurePosixPath(urlsplit(url).path).name)
        whole = url.encode()
    except ValueError as error:
        raise UserError(f"{visible(url)}: not an address: {visible(str(error))}") from None
    name = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    name = name.encode("utf-8", "replace")[-200:].decode(errors="ignore")
    if not name:
        raise UserError(f"{url}: not the address of a file: it should end with the file's name")
    return folder() / hashlib.sha256(whole).hexdigest()[:8] / name


def check(path: Path, sha256: str | None) -> None:
    """Refuse a file that is not the published one, or not the one that was recorded.

    Its sha256 is computed anew only where its size or time is not that of its record.
    """
    record = read_json(beside(path, ".json"))
    expected = sha256 or record.get("sha256")
    if expected and {"sha256": expected, **state(path)}.items() <= record.items():
        return
    found = digest(path)
    if expected and found != expected:
        origin, other = "published", ""
        if not sha256:
            origin, other = "recorded", f", or {beside(path, '.json')} to accept this one"
        raise UserError(
            f"{path}: its sha256 is {found}, the {origin} one is {expected}: "
            f"delete the file to download it again{other}"
        )
    try:
        note(path, path, found, published=bool(sha256))
    except OSError as error:  # a shared cache that only its owner writes
        say(f"note: the sha256 of {path} cannot be recorded beside it ({error.strerror})")


def note(path: Path, file: Path, sha256: str, published: bool) -> None:
    """Record what `file`, which is or becomes `path`, was when it was checked."""
    record = beside(path, ".json")
    write_json(record, {"sha256": sha256, **state(file)})
    if not published:
        say(f"no sha256 is published for {path.name}: {sha256} is recorded in {record}")


def state(path: Path) -> dict[str, int]:
    """What tells, without reading a file, that it has changed."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file, {} where there is none."""
    try:
        found = from_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged; delete it")
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process, and one of its threads, at a time write `path`; their end sets it free."""
    with path.with_name(f".{path.name}.lock").open("a") as file:
        waiting = False
        while not take(file):
            if not waiting:
                say(f"waiting for another process that downloads {path}")
            waiting = True
            time.sleep(0.1)
        yield


if sys.platform == "win32":
    import msvcrt

    def take(file: IO) -> bool:
        with suppress(PermissionError):
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False

else:
    import fcntl

    def take(file: IO) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
