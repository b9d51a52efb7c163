"""OpenVINO on CPUs.

The stack that signal handlers run on, kept from OpenVINO's replacement of it.

On CPUs with AMX, OpenVINO gives the thread that loads it a signal stack of its own, too small for
Python's handlers: a Ctrl-C would end in a segmentation fault.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ppcls.inference.engines.base import (
    Call,
    Opened,
    Settings,
    in_batches,
    need,
    refuse_precision,
)
from ppcls.inference.exported_model import ExportedModel
from ppcls.inference.formats import openvino_model, with_onnx
from ppcls.utils.errors import UserError


class SignalStack(ctypes.Structure):
    """The C library's stack_t."""

    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def kept() -> Iterator[None]:
    """The thread's signal stack is afterwards what it was before."""
    if not sys.platform.startswith("linux"):
        yield
        return
    library = ctypes.CDLL(None)
    before = SignalStack()
    known = library.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            library.sigaltstack(ctypes.byref(before), None)


# --------------------------------------------------------------------------
# OpenVINO on the CPU, FP32 and, where the CPU multiplies it, BF16

HINTS = {"fp32": "f32", "bf16": "bf16"}


def load(folder: ExportedModel, settings: Settings) -> Opened:
    """Open the folder's OpenVINO files or else its ONNX file, made where there is none."""
    need("openvino", "openvino", "deploy", settings.engine)
    with kept():
        return load_here(folder, settings)


def load_here(folder: ExportedModel, settings: Settings) -> Opened:
    import openvino

    if settings.device != "cpu":
        raise UserError("engine openvino: runs on the CPU; use --device cpu")
    refuse_precision(settings, *HINTS)
    core = openvino.Core()
    known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if settings.precision == "bf16" and "BF16" not in known:
        raise UserError(f"engine {settings.engine}: this CPU has no bf16; use fp32")
    config = {
        "INFERENCE_PRECISION_HINT": HINTS[settings.precision],  # its default is bf16 where it can
        "INFERENCE_NUM_THREADS": settings.threads * settings.streams,
        "NUM_STREAMS": settings.streams,
    }

    def compiled(path: Path) -> openvino.CompiledModel:
        try:
            return core.compile_model(openvino_model(path), "CPU", config)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(
                f"{path}: damaged, or of a kind this openvino cannot read; export it again "
                f"({reason})"
            ) from None

    network = compiled(folder.openvino) if folder.openvino else with_onnx(folder, compiled)

    def copy() -> Call:
        request = network.create_infer_request()
        count = len(network.outputs)

        def call(images: np.ndarray) -> list[np.ndarray]:
            found = request.infer([images], share_inputs=True)
            return [np.array(found[place]) for place in range(count)]

        return in_batches(call, sides[0])

    if len(network.inputs) != 1:
        raise UserError(f"{folder.path}: takes {len(network.inputs)} inputs, not images alone")
    given = network.input(0)
    sides = [s.get_length() if s.is_static else None for s in given.partial_shape]
    dtype = "uint8" if given.element_type == openvino.Type.u8 else "float32"
    return Opened(copy(), (None, *sides[1:]), dtype, copy)
