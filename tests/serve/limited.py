"""Serves a folder as `ppcls serve` does, with limits that the command has no options for.

python limited.py FOLDER '{"slow": 0.5}' [ACCESS-LOG]
"""

import json
import sys
from pathlib import Path

from ppcls.serve import connection
from ppcls.serve.server import serve
from ppcls.serve.settings import Limits, ServeSettings

if __name__ == "__main__":
    folder, limits = sys.argv[1:3]
    connection.LINGER = 0.1
    sys.exit(
        serve(
            ServeSettings(
                models=((None, Path(folder)),),
                port=0,
                limits=Limits(**json.loads(limits)),
                access_log=sys.argv[3] if len(sys.argv) > 3 else None,
                options={"engine": "onnxruntime"},
            )
        )
    )
