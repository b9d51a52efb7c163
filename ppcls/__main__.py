"""`python -m ppcls …` is `ppcls …`."""

import sys

try:
    from ppcls.cli import main
except KeyboardInterrupt:  # Ctrl-C while it is starting
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
