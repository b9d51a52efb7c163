"""Which device a run uses."""

import numpy as np
import paddle
from paddle import Tensor

from ppcls.utils.errors import UserError


def choose(device: str) -> str:
    """What `auto`, `cpu` or `gpu` comes to on this machine: `cpu` or `gpu`.

    Raises:
        UserError: a GPU was asked for and there is none.
    """
    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == "gpu" and not gpus:
        built = "sees no GPU" if paddle.device.is_compiled_with_cuda() else "is the CPU wheel"
        raise UserError(
            f"device: gpu was asked for, and the installed paddlepaddle {built}; "
            "use -o device=cpu, or install the extra [gpu] on a machine with a GPU"
        )
    return "gpu" if gpus and device != "cpu" else "cpu"


def select(device: str) -> str:
    """Make the device that `choose` chooses Paddle's; returns it, for the log."""
    chosen = choose(device)
    paddle.set_device(chosen)
    return chosen


def on_device(array: np.ndarray) -> Tensor:
    """An array on the current device.

    To a GPU it goes by way of pinned memory, so that nobody waits: while a step is computed, the
    images of the next one are on their way. This way has not been tried on a GPU yet.
    """
    if not paddle.get_device().startswith("gpu"):
        return paddle.to_tensor(array)
    return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)
