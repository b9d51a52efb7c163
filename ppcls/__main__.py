"""`python -m ppcls …` is `ppcls …`."""

import sys

from ppcls import environment

environment.forget_working_folder()  # as the command `ppcls` does not look there, either

from ppcls.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
