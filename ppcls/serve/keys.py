"""Keys that a service asks for: one a line of a file, which may change while it runs.

    # comment
    KEY [NAME] [admin]

NAME is what logs call who has the key; `admin` lets it change models.
"""

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ppcls.serve.problems import ProblemError
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file

LOOK = 0.5  # seconds between looks at the file
SHORTEST = 16  # characters of a key
ADMIN = "admin"


@dataclass(frozen=True)
class Holder:
    """Who may ask; `digest` is of the key."""

    digest: bytes
    name: str
    admin: bool


class Keys:
    """The keys of a file."""

    def __init__(self, path: Path):
        self.path = path
        self.state: object = None
        self.looked = 0.0
        self.holders: list[Holder] = []
        self.holders, self.state = self.read()

    def read(self) -> tuple[list[Holder], object]:
        try:
            status = self.path.stat()
            text = read_file(self.path).decode()
        except (OSError, UnicodeError) as error:
            raise UserError(f"--keys {self.path}: cannot be read ({error})") from None
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            where = f"--keys {self.path}:{number}"
            if not words[0].isascii():
                raise UserError(
                    f"{where}: the key has other characters than ASCII, which no HTTP has"
                )
            if len(words[0]) < SHORTEST:
                text = f"the key has fewer than {SHORTEST} characters; python -c 'import secrets; "
                raise UserError(f"{where}: {text}print(secrets.token_urlsafe())' makes one")
            admin = words[-1] == ADMIN and len(words) > 1
            names = words[1:-1] if admin else words[1:]
            if len(names) > 1:
                raise UserError(f"{where}: should be KEY [NAME] [admin]")
            name = names[0] if names else f"line {number}"
            found.append(Holder(sha256(words[0].encode()).digest(), name, admin))
        if not found:
            raise UserError(f"--keys {self.path}: holds no keys; write one a line")
        return found, (status.st_mtime_ns, status.st_size, status.st_ino)

    def refresh(self) -> str:
        """Read the file again where it has changed; what is wrong with it then, "" for nothing.

        The keys before stay in force where it cannot be read.
        """
        now = time.monotonic()
        if now - self.looked < LOOK:
            return ""
        self.looked = now
        try:
            status = self.path.stat()
            if (status.st_mtime_ns, status.st_size, status.st_ino) == self.state:
                return ""
            self.holders, self.state = self.read()
        except (OSError, UserError) as error:
            return str(error)
        return ""

    def find(self, headers: Mapping[bytes, bytes]) -> Holder:
        """Whose key came with a request.

        Args:
            headers: of the request, their names in small letters.

        Raises:
            ProblemError: none that is known.
        """
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        key = given if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        key = key.strip()
        digest = sha256(key).digest()
        found = None
        for holder in self.holders:  # all of them, so that the time tells nothing
            if hmac.compare_digest(holder.digest, digest):
                found = holder
        if found is None:
            what = "this key is not known" if key else "a key is needed"
            text = f"{what}: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            headers_back = {"WWW-Authenticate": "Bearer"}
            raise ProblemError(401, "key", text, headers=headers_back)
        return found
