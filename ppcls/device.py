"""Which device a run uses."""

import paddle

from ppcls.errors import UserError


def select(device: str) -> str:
    """Make `auto`, `cpu` or `gpu` Paddle's device; returns the one taken, for the log."""
    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == "gpu" and not gpus:
        built = "sees no GPU" if paddle.device.is_compiled_with_cuda() else "is the CPU wheel"
        raise UserError(
            f"device: gpu was asked for, and the installed paddlepaddle {built}; "
            "use -o device=cpu, or install the extra [gpu] on a machine with a GPU"
        )
    chosen = "gpu" if gpus and device != "cpu" else "cpu"
    paddle.set_device(chosen)
    return chosen
