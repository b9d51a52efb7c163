"""Text files of users: read as UTF-8, divided into lines as editors do."""

import codecs
from os import PathLike

from ppcls.errors import UserError
from ppcls.utils.files import existing, expanded, read_file
from ppcls.utils.text import visible


def read_text(path: str | PathLike) -> str:
    """The file's text without a byte order mark; UserError names a line that is not UTF-8."""
    try:
        data = read_file(existing(expanded(path))).removeprefix(codecs.BOM_UTF8)
        text = data.decode()
        broken = text.find("\0")  # UTF-16 without its mark passes as UTF-8, full of zeros
    except OSError as error:
        raise UserError(f"{visible(str(path))}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        text, broken = error.object.decode("latin-1"), error.start
    if broken >= 0:
        line = text.count("\n", 0, broken) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` would also break at form feeds and the like."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines
