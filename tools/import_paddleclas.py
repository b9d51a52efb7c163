"""`python tools/import_paddleclas.py …` is `ppcls import-paddleclas …`, also without installing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ppcls_main import script

if __name__ == "__main__":
    script("import-paddleclas")
