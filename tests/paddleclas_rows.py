"""What the tests here compare with."""

from typing import Any


def subset(part: Any, whole: Any) -> bool:
    """Whether everything that is said in `part` stands in `whole`."""
    if isinstance(part, dict):
        return all(key in whole and subset(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(subset, part, whole))
    return part == whole
