"""An engine for `--use slow_engine --engine slow_engine.SlowEngine`.

It is ONNX Runtime, after the seconds that the file PPCLS_TEST_SECONDS has, where it is there.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from ppcls.inference.engines import onnx_runtime


class SlowEngine:
    """Made by ppcls."""

    def load(self, folder, settings):
        opened = onnx_runtime.load(folder, replace(settings, engine="onnxruntime"))

        def call(images):
            wanted = Path(os.environ["PPCLS_TEST_SECONDS"])
            if wanted.exists():
                time.sleep(float(wanted.read_text()))
            return opened.call(images)

        return replace(opened, call=call, copy=None)
