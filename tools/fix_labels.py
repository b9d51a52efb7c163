"""`python tools/fix_labels.py …` is `ppcls fix-labels …`, also from a clone not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ppcls_main import script

if __name__ == "__main__":
    script("fix-labels")
