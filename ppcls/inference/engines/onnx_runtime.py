"""ONNX Runtime: CPU, and on a GPU the CUDA and TensorRT providers (not yet run on one)."""

from pathlib import Path
from typing import Any

import numpy as np

from ppcls.inference.engines.base import (
    Opened,
    Settings,
    free,
    in_batches,
    need,
    refuse_precision,
)
from ppcls.inference.exported_model import ExportedModel
from ppcls.inference.formats import with_onnx
from ppcls.utils.errors import UserError
from ppcls.utils.text import visible

ERRORS_ALONE = 3  # severity of what it logs


def load(folder: ExportedModel, settings: Settings) -> Opened:
    """Open the folder's ONNX file, made from Paddle's program where there is none."""
    gpu = settings.device == "gpu"
    need("onnxruntime", "onnxruntime", "deploy-gpu" if gpu else "deploy", settings.engine)
    import onnxruntime

    providers = providers_for(folder, settings)
    missing = {name for name, _ in providers} - set(onnxruntime.get_available_providers())
    if missing:
        raise UserError(
            f"engine {settings.engine}: the installed onnxruntime has no {missing.pop()}; "
            "pip install onnxruntime-gpu in its place"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = ERRORS_ALONE
    # Else its threads keep cores busy for milliseconds after a run, beside what comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def open_session(path: Path) -> onnxruntime.InferenceSession:
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its own kinds of errors have no common base of their own
            reason = " ".join(str(error).split())[-200:]
            raise UserError(
                f"{path}: damaged, or of a kind this onnxruntime cannot read; export it again "
                f"({reason})"
            ) from None

    session = with_onnx(folder, open_session)
    taken = session.get_inputs()
    if len(taken) != 1:
        names = ", ".join(visible(one.name) for one in taken)
        raise UserError(f"{folder.path}: takes {len(taken)} inputs ({names}), not images alone")
    given = taken[0]
    names = [given.name]
    batch = given.shape[0] if given.shape and isinstance(given.shape[0], int) else None

    def call(images: np.ndarray) -> list[np.ndarray]:
        return session.run(None, dict.fromkeys(names, images))  # type: ignore

    several = in_batches(call, batch if batch and batch > 0 else None)
    return Opened(
        several, free(given.shape), "uint8" if given.type == "tensor(uint8)" else "float32"
    )


def providers_for(folder: ExportedModel, settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """Execution providers with their options, the preferred one first."""
    cpu = ("CPUExecutionProvider", {})
    if settings.device == "cpu":
        refuse_precision(settings, "fp32")
        return [cpu]
    cuda = ("CUDAExecutionProvider", {"device_id": 0})
    if settings.engine == "onnxruntime":
        refuse_precision(settings, "fp32")
        return [cuda, cpu]
    refuse_precision(settings, "fp32", "fp16")
    options = {
        "device_id": 0,
        "trt_fp16_enable": settings.precision == "fp16",
        "trt_int8_enable": folder.manifest.precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder.cache()),
        "trt_timing_cache_enable": True,
    }
    return [("TensorrtExecutionProvider", options), cuda, cpu]
