"""`python -m ppcls …` is `ppcls …`."""

import sys

from ppcls.utils import environment

environment.forget_working_folder()  # as the command `ppcls` does not look there, either

try:
    from ppcls.cli import main
except KeyboardInterrupt:  # Ctrl-C while it is starting
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
