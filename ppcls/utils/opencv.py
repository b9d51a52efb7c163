"""OpenCV of a version that reads images alike, or one line that says which packages to exchange.

`from ppcls.utils.opencv import cv2` takes the place of `import cv2`.
"""

import io
import re
import sys
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING

from ppcls.utils.errors import UserError

OLDEST = (4, 8)
# All bring the same folder cv2, so of several the one installed last has overwritten the others.
PACKAGES = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-python-rolling",
)
NEEDED = ("imdecode", "cvtColor", "setNumThreads")


def load() -> ModuleType:
    """The module cv2.

    Raises:
        UserError: it is not there, cannot be loaded, is too old, or half of it was removed.
    """
    said = io.StringIO()  # NumPy writes a page there where a module was built for an older one
    try:
        with redirect_stderr(said):
            import cv2
    except (ImportError, AttributeError, OSError, RecursionError, SystemError) as error:
        raise UserError(mistake(f"cannot be loaded ({first_line(error)})")) from None
    sys.stderr.write(said.getvalue())
    found = getattr(cv2, "__version__", "")
    numbers = tuple(map(int, re.findall(r"\d+", found)[:2]))
    if not found or not all(hasattr(cv2, name) for name in NEEDED):
        raise UserError(mistake("is not whole: another of its packages was removed or put over it"))
    if numbers < OLDEST:
        raise UserError(mistake(f"is too old ({found})"))
    return cv2


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def mistake(what: str) -> str:
    """One line: what is wrong with OpenCV, what is installed, and what to do."""
    installed = {name: found for name in PACKAGES if (found := version_of(name))}
    names = ", ".join(f"{name} {found}" for name, found in installed.items()) or "no package of it"
    least = ".".join(map(str, OLDEST))
    remove = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
    return (
        f"OpenCV {what}; installed: {names}; needed: {least} or later, built for this NumPy "
        f"{version_of('numpy')}: {remove}pip install 'opencv-python-headless>={least}'"
    )


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if TYPE_CHECKING:
    import cv2
else:
    cv2 = load()
