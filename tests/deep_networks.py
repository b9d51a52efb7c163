"""Which networks others of fewer blocks or channels stand for, where all would take long."""

import re

DEEP = re.compile(r"(101|152|154|200)(_|$)|_wsl|EfficientNetB[2-7]|_64x4d|_x(0_5|0_75|1_5|2_0)$")


def is_deep(name: str) -> bool:
    return bool(DEEP.search(name))
