"""The engines by name, and opening one."""

import inspect
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppcls.inference.engines.base import Call, Engine, Opened, Settings, need
from ppcls.inference.exported_model import ExportedModel
from ppcls.utils import modules
from ppcls.utils.errors import UserError


class Entry(NamedTuple):
    """An engine: its file here, the module it needs, and the devices it runs on."""

    file: str
    module: str
    devices: tuple[str, ...]


ENGINES = {
    "paddle": Entry("paddle_inference", "paddle", ("cpu", "gpu")),
    "onednn": Entry("paddle_inference", "paddle", ("cpu",)),
    "onnxruntime": Entry("onnx_runtime", "onnxruntime", ("cpu", "gpu")),
    "openvino": Entry("openvino", "openvino", ("cpu",)),
    "tensorrt": Entry("tensorrt", "paddle", ("gpu",)),
    "onnxruntime-tensorrt": Entry("onnx_runtime", "onnxruntime", ("gpu",)),
}
EXTRAS = {"paddle": ("paddlepaddle", "cpu"), "onnxruntime": ("onnxruntime", "deploy")}


def open_engine(folder: ExportedModel, settings: Settings) -> Engine:
    """Open the network with an engine.

    Raises:
        UserError: the engine is unknown, not installed, not for this device or precision, or
            cannot read the files.
    """
    if "." in settings.engine:
        return open_own(folder, settings)
    if settings.engine not in ENGINES:
        raise UserError(f"engine {settings.engine}: unknown; known are auto, {', '.join(ENGINES)}")
    entry = ENGINES[settings.engine]
    if settings.device not in entry.devices:
        raise UserError(
            f"engine {settings.engine}: runs on a {' or '.join(entry.devices).upper()}, "
            f"not on a {settings.device.upper()}"
        )
    package, extra = EXTRAS.get(entry.module, (entry.module, "deploy"))
    need(entry.module, package, extra, settings.engine)
    module = import_module(f"ppcls.inference.engines.{entry.file}")
    return Engine(folder.path, settings, module.load(folder, settings))


class OwnEngine(Protocol):
    """An engine of one's own: a class that is made without arguments, named by its import path.

    `devices`, where it is there, says what it runs on: cpu, gpu or both; else a CPU alone.
    """

    def load(self, folder: ExportedModel, settings: Settings) -> Opened:
        """Open the network, in files that `folder` names or that are made of them.

        `Opened` has the call, from images as the network takes them ([N, …], float32 or uint8) to
        float32 [N, classes], or to a list of that and of the features of a network that has them
        as its second output; and the images' shape and dtype.
        """
        ...


def open_own(folder: ExportedModel, settings: Settings) -> Engine:
    """As `open_engine`, with an engine of one's own."""
    path = settings.engine
    try:
        found = modules.find(path)
    except ValueError as error:
        raise UserError(f"engine {path}: {error}") from None
    if not inspect.isclass(found) or not hasattr(found, "load"):
        raise UserError(f"engine {path}: should be a class with load(folder, settings)")
    devices = getattr(found, "devices", ("cpu",))
    if settings.device not in devices:
        raise UserError(
            f"engine {path}: runs on a {' or '.join(devices).upper()}, not on a "
            f"{settings.device.upper()}"
        )
    try:
        made: Any = found()
        opened = made.load(folder, settings)
    except UserError:
        raise
    except Exception as error:  # of somebody's code
        raise UserError(f"engine {path}: {modules.in_line(error)}") from error
    if not isinstance(opened, Opened):
        raise UserError(f"engine {path}: load should give a ppcls.inference.engines.base.Opened")
    copy = opened.copy
    call = listed(opened.call)
    opened = replace(opened, call=call, copy=(lambda: listed(copy())) if copy else None)
    return Engine(folder.path, settings, opened)


def listed(call: Callable[[np.ndarray], Any]) -> Call:
    """The call with its outputs in a list, where it gives one array."""

    def several(images: np.ndarray) -> list[np.ndarray]:
        found = call(images)
        return [found] if isinstance(found, np.ndarray) else list(found)

    return several


def installed(engine: str) -> bool:
    return find_spec(ENGINES[engine].module) is not None


def device_for(asked: str) -> str:
    """What `auto`, `cpu` or `gpu` comes to on this machine: `cpu` or `gpu`.

    Raises:
        UserError: a GPU was asked for, and no installed engine sees one.
    """
    if asked == "cpu" or (asked == "auto" and not gpu_driver()):
        return "cpu"
    if sees_gpu():
        return "gpu"
    if asked == "gpu":
        raise UserError(
            "--device gpu: neither paddlepaddle nor onnxruntime, as installed, sees a GPU; "
            "use --device cpu, or install paddlepaddle-gpu or onnxruntime-gpu"
        )
    return "cpu"


def gpu_driver() -> bool:
    """Whether NVIDIA's driver is here, which costs no import."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def sees_gpu() -> bool:
    if installed("paddle"):
        from paddle import device

        if device.is_compiled_with_cuda() and device.cuda.device_count():
            return True
    if installed("onnxruntime") and gpu_driver():
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return False
