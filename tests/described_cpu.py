"""A processor other than this machine's, as its file in /proc tells of it."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def describe(monkeypatch, text: str) -> None:
    """Have this text read from /proc/cpuinfo."""
    whole = Path.read_text

    def read_text(self, *args, **kwargs):
        return text if self == CPUINFO else whole(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
