"""`python -m ppcls …` is `ppcls …`."""

import sys

from ppcls.cli import main

if __name__ == "__main__":
    sys.exit(main())
