"""The files beside the list that is made."""

from pathlib import Path

FOREIGN = "not a file of `ppcls select-unlabeled`: give another --output"


def beside(output: Path, kind: str) -> Path:
    """`unlabeled.txt` and "scores" to `unlabeled.txt.scores`."""
    return output.with_name(f"{output.name}.{kind}")
