"""The one exception whose text is written for the user."""


class UserError(ValueError):
    """A mistake the user can mend: says where it is and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class DataError(UserError):
    """Photos that cannot be read; what was trained before them is still good."""
