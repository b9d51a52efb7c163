"""`python tools/check_data.py …` is `ppcls check-data …`, also from a clone not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ppcls_main import script

if __name__ == "__main__":
    script("check-data")
