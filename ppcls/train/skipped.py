"""Photos that a run could not read and left out, as `data.on_error: skip` asks."""

from collections.abc import Iterable
from pathlib import Path

from ppcls.log import say
from ppcls.utils.text import plural

FILE = "skipped.txt"


class Skipped:
    """Each such photo once, with the reason; in the run's folder, a line each."""

    def __init__(self, folder: Path, writes: bool):
        self.path, self.writes = folder / FILE, writes
        known = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.lines, self.said = dict.fromkeys(known), len(known)

    def add(self, lines: Iterable[str]) -> None:
        new = [line for line in dict.fromkeys(lines) if line not in self.lines]
        self.lines |= dict.fromkeys(new)
        if new and self.writes:
            with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in new)

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
