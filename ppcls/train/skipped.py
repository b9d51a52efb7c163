"""Photos that a run could not read and left out, as `data.on_error: skip` asks."""

from collections.abc import Iterable
from pathlib import Path

from ppcls.log import KEEPS, say
from ppcls.utils.files import writing
from ppcls.utils.text import BYTES, escaped, plural

FILE = "skipped.txt"


class Skipped:
    """Each such photo once, with the reason; in the run's folder, a line each."""

    def __init__(self, folder: Path, writes: bool):
        self.path, self.writes = folder / FILE, writes
        known = read(self.path)
        self.lines, self.said = dict.fromkeys(known), len(known)
        self.last = ""  # the one met last

    def add(self, lines: Iterable[str]) -> None:
        met = dict.fromkeys(escaped(line, kept=BYTES) for line in lines)  # a line each
        self.last = next(reversed(met), self.last)
        new = [line for line in met if line not in self.lines]
        self.lines |= dict.fromkeys(new)
        if new and self.writes:
            text = "".join(f"{line}\n" for line in new)
            with writing(str(self.path), KEEPS), self.path.open("ab") as file:
                file.write(text.encode("utf-8", "surrogateescape"))

    def tell(self) -> None:
        """Say how many there are, when there are more than last time."""
        if len(self.lines) > self.said:
            self.said = len(self.lines)
            first = next(iter(self.lines))
            many = (
                plural(self.said, "photo cannot be read and is", "photos cannot be read and are")
                + " left out"
            )
            say(f"note: {many}, such as {first}; all of them: {self.path}")


def read(path: Path) -> list[str]:
    text = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
    return text.removesuffix("\n").split("\n") if text else []
