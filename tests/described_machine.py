"""A machine other than this one, as its files in /proc tell of it."""

from pathlib import Path


def describe(monkeypatch, path: str, text: str) -> None:
    """Have this text read from a file such as /proc/cpuinfo."""
    whole = Path.read_text

    def read_text(self, *args, **kwargs):
        return text if self == Path(path) else whole(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
