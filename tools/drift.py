"""`python tools/drift.py …` is `ppcls drift …`, also from a clone that is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ppcls_main import script

if __name__ == "__main__":
    script("drift")
