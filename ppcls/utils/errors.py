"""The one exception whose text is written for the user."""

import errno

from ppcls.utils.text import one_line, visible

TRY_AGAIN = 75  # exit code of what another try may not meet, as EX_TEMPFAIL
LATER = "start again later"  # what such an error says, in whatever another is made of its text


class UserError(ValueError):
    """A mistake the user can mend: says where it is and what to do.

    The command line prints it without a traceback and exits with its `code`. Each argument is a
    line of its own. Names and words of others stand in lines as they are: their line breaks and
    control characters are shown as `\\n` and `\\x1b`, and a line is cut to 2,000 characters.
    """

    def __init__(self, *lines: object):
        super().__init__(*(one_line(str(line)) for line in lines))

    @property
    def lines(self) -> tuple[str, ...]:
        return self.args

    def without(self, place: object) -> str:
        """The text, without the place that it begins with, whole or cut."""
        whole = str(self)
        starts = (f"{shown(str(place))}: " for shown in (one_line, visible))
        return next((whole[len(s) :] for s in starts if whole.startswith(s)), whole)

    @property
    def code(self) -> int:
        """The exit code of a command that it ends."""
        return TRY_AGAIN if LATER in str(self) else 2

    def __str__(self) -> str:
        return "\n".join(self.args)


class AwayError(UserError):
    """What holds the data, or the way to it, fails or lets nobody in; the data may be good."""


# Of a disk of another machine, which may be back a little later.
AWAY = {errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH}
AWAY |= {errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET}


class DataError(UserError):
    """Images that cannot be read; what was trained before them is still good."""
