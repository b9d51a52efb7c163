"""ONNX Runtime: CPU, and on a GPU the CUDA and TensorRT providers (not yet run on one)."""

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.inference import onnx_metadata
from ppcls.inference.engines.base import (
    NOT_ONE,
    SEVERAL_IMAGES,
    STALE,
    TENSORRT,
    Call,
    Opened,
    Settings,
    at_most,
    free,
    graph_holds,
    in_batches,
    need,
    refuse_precision,
    refuse_tensorrt,
    tensorrt_version,
)
from ppcls.inference.exported_model import ExportedModel
from ppcls.inference.formats import with_onnx
from ppcls.utils.errors import UserError
from ppcls.utils.text import visible

ERRORS_ALONE = 3  # severity of what it logs
OUTSIDE = "been partitioned to"  # in its words where TensorRT does not run all of a network
ENGINE = ".engine"  # what the names of the files that it builds end with


class Refused(Exception):  # noqa: N818  an error where it is known what it ends
    """The file is whole, and a GPU's provider does not take it, for the reason that this says."""


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
    if gpu:
        load_libraries(settings)
    try:
        session = open_session(folder, settings)
    except Refused as error:
        raise UserError(
            f"engine {settings.engine}: ONNX Runtime's {providers[0][0]} cannot start or run this "
            f"network here ({str(error)[-200:]})"
        ) from None
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
    dtype = "uint8" if given.type == "tensor(uint8)" else "float32"
    shape = free(given.shape)
    if settings.engine != "onnxruntime-tensorrt":
        return Opened(several, shape, dtype)
    if batch is None or batch < 1:
        several = at_most(call, settings.batch)
    if not is_settled(given.name, shape):
        return Opened(several, shape, dtype, why="the network takes images of any size")
    check_built(cache_of(folder, settings), settings)
    if settings.batch > 1:
        return Opened(several, shape, dtype, why=SEVERAL_IMAGES)
    graph, why = with_graph(folder, settings, shape[1:], dtype)  # type: ignore
    return Opened(graph or several, shape, dtype, graph=graph is not None, why=why)


def open_session(folder: ExportedModel, settings: Settings, graph: bool = False) -> Any:
    """The folder's ONNX file in the settings' provider.

    Raises:
        UserError: the file is damaged, or the provider cannot start.
        Refused: on a GPU, it cannot run the network.
    """
    import onnxruntime

    options = session_options(folder, settings)
    gpu = settings.device == "gpu"
    wanted = providers_for(folder, settings)[0][0]

    def open_file(path: Path) -> onnxruntime.InferenceSession:
        providers = providers_for(folder, settings, path, graph)
        try:
            # Else, where the GPU's provider fails, it goes on with another one and prints why.
            return onnxruntime.InferenceSession(
                str(path), options, providers=providers, enable_fallback=not gpu
            )
        except Exception as error:  # its own kinds of errors have no common base of their own
            reason = " ".join(str(error).split())
            if gpu and is_whole(path):
                raise Refused(reason) from None
            raise UserError(
                f"{path}: damaged, or of a kind this onnxruntime cannot read; export it again "
                f"({reason[-200:]})"
            ) from None

    session = with_onnx(folder, open_file)
    check_provider(session, wanted, settings)
    return session


def is_whole(path: Path) -> bool:
    """Whether ONNX Runtime can open the file on a CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ALONE
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # as above
        return False
    return True


def session_options(folder: ExportedModel, settings: Settings):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = ERRORS_ALONE
    # Else its threads keep cores busy for milliseconds after a run, beside what comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.engine == "onnxruntime-tensorrt" and folder.manifest.precision == "int8":
        # Else QuantizeLinear of weights is computed before TensorRT sees it, which wants the pair.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def load_libraries(settings: Settings) -> None:
    """Load CUDA's, cuDNN's and TensorRT's libraries from Python's packages, where they are there.

    Raises:
        UserError: there is no TensorRT, or one that ONNX Runtime cannot use.
    """
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
        onnxruntime.preload_dlls()
    if settings.engine != "onnxruntime-tensorrt":
        return
    version = tensorrt_version()
    if version:
        refuse_tensorrt(settings.engine, version)
        return
    with suppress(OSError):  # of the system, without Python's package
        ctypes.CDLL(f"libnvinfer.so.{TENSORRT}")
        return
    raise UserError(
        f"engine {settings.engine}: finds no TensorRT {TENSORRT}; "
        "pip install 'ppcls[tensorrt]' (docs/gpu.md has which for what)"
    )


def check_provider(session: Any, wanted: str, settings: Settings) -> None:
    """UserError where the session runs elsewhere: ONNX Runtime falls back with a mere log."""
    found = session.get_providers()
    if found[0] != wanted:
        raise UserError(
            f"engine {settings.engine}: ONNX Runtime cannot start {wanted} here and would run on "
            f"{found[0]}: its CUDA, cuDNN or TensorRT libraries are missing or of another version "
            "(docs/gpu.md has which for what)"
        )


def check_built(cache: Path, settings: Settings) -> None:
    """UserError where TensorRT has built nothing: CUDA or the CPU would then run all of it."""
    if not any(cache.rglob(f"*{ENGINE}")):
        raise UserError(
            f"engine {settings.engine}: TensorRT has built no engine of this network, which would "
            "run without it; --engine onnxruntime runs it on CUDA"
        )


def with_graph(
    folder: ExportedModel, settings: Settings, shape: tuple[int, ...], dtype: str
) -> tuple[Call | None, str]:
    """A call that launches the whole network as one CUDA graph; None, and why, where it needs
    several parts, or answers wrongly.
    """
    try:
        call = bound(open_session(folder, settings, graph=True), shape, dtype, "cuda")
        return (call, "") if graph_holds(call, shape, dtype) else (None, STALE)
    except Exception as error:  # its own kinds of errors have no common base of their own
        reason = " ".join(str(error).split())
        return None, NOT_ONE if OUTSIDE in reason else reason[-200:]


def bound(session: Any, shape: tuple[int, ...], dtype: str, device: str) -> Call:
    """A call for any number of images, one at a time, whose input and outputs lie in one place."""
    import onnxruntime

    lock = threading.Lock()
    binding = session.io_binding()
    place = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, *shape), dtype), device, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, place)
    session.run_with_iobinding(with_outputs(session, binding, device))  # which says their shapes
    for output, found in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(output.name, found)

    def one(images: np.ndarray) -> list[np.ndarray]:
        with lock:
            place.update_inplace(np.ascontiguousarray(images))
            session.run_with_iobinding(binding)
            return [np.array(output) for output in binding.copy_outputs_to_cpu()]

    return in_batches(one, 1)


def with_outputs(session: Any, binding: Any, device: str) -> Any:
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return binding


def providers_for(
    folder: ExportedModel, settings: Settings, path: Path | None = None, graph: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """Execution providers with their options, the preferred one first.

    Args:
        path: the ONNX file, where it is known.
        graph: launch the network as one CUDA graph, which holds where TensorRT runs all of it.
    """
    cpu = ("CPUExecutionProvider", {})
    if settings.device == "cpu":
        refuse_precision(settings, "fp32")
        return [cpu]
    cuda = ("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0})
    if settings.engine == "onnxruntime":
        refuse_precision(settings, "fp32")
        return [cuda, cpu]
    refuse_precision(settings, "fp32", "fp16")
    options = {
        "device_id": 0,
        "trt_fp16_enable": "fp16" in (settings.precision, folder.manifest.precision),
        "trt_int8_enable": folder.manifest.precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache_of(folder, settings)),
        "trt_timing_cache_enable": True,
    }
    if path:
        options |= profile(path, settings.batch)
    if graph:
        options["trt_cuda_graph_enable"] = True
    return [("TensorrtExecutionProvider", options), cuda, cpu]


def cache_of(folder: ExportedModel, settings: Settings) -> Path:
    """Where TensorRT's provider keeps what it builds with these settings."""
    return folder.cache() / f"ort_{settings.precision}_{settings.batch}"


def profile(path: Path, batch: int) -> dict[str, str]:
    """What TensorRT is to build for: 1 to `batch` images, where their number alone is free.

    Else it builds when it first sees images, and anew for each larger number of them.
    """
    open_ones = [item for item in onnx_metadata.inputs(path).items() if None in item[1]]
    if len(open_ones) != 1 or not is_settled(*open_ones[0]):
        return {}
    ((name, sides),) = open_ones
    smallest, largest = (
        f"{name}:{'x'.join(map(str, (count, *sides[1:])))}" for count in (1, batch)
    )
    return {
        "trt_profile_min_shapes": smallest,
        "trt_profile_opt_shapes": largest,
        "trt_profile_max_shapes": largest,
    }


def is_settled(name: str, sides: Sequence[int | None]) -> bool:
    """Whether all but the number of images is known before any is seen, and can be written down."""
    return None not in sides[1:] and not set(name) & set(":,")
