"""Engines: what runs an exported network. Each is opened on a folder and maps array to array."""

from pathlib import Path

import numpy as np

from ppcls import environment
from ppcls.errors import UserError

GPU_MEMORY_MB = 256  # taken at the start; Paddle grows it as needed


class PaddleInference:
    """Paddle Inference: oneDNN on the CPU, Paddle's own kernels on a GPU (not yet run on one)."""

    def __init__(self, folder: Path, device: str = "auto", threads: int | None = None):
        """Open `folder`.

        Args:
            device: auto, cpu or gpu.
            threads: CPU threads; None: the number ppcls found at import.

        Raises:
            UserError: files missing or damaged, or a GPU asked for that is not there.
        """
        from paddle import inference

        from ppcls.device import choose

        config = inference.Config(*program_files(folder))
        config.disable_glog_info()
        config.enable_new_executor(True)  # without it, memory_optim fails on Paddle 3's format
        config.enable_memory_optim()
        if choose(device) == "gpu":
            config.enable_use_gpu(GPU_MEMORY_MB, 0)
        else:
            config.disable_gpu()
            config.enable_mkldnn()
            config.set_cpu_math_library_num_threads(threads or environment.threads())
        try:
            self.predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(
                f"{folder}: inference.json or inference.pdiparams is damaged, or of another "
                f"version of Paddle; export it again ({reason})"
            ) from None
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        self.output = self.predictor.get_output_handle(self.predictor.get_output_names()[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, C, H, W] as the network was trained on → its output, float32 [N, classes]."""
        self.input.copy_from_cpu(np.ascontiguousarray(images))
        self.predictor.run()
        return self.output.copy_to_cpu()


def program_files(folder: Path) -> tuple[str, str]:
    """The program and the weights of an exported folder."""
    weights = folder / "inference.pdiparams"
    for name in ("inference.json", "inference.pdmodel"):  # Paddle 3's form, and the older one
        if (folder / name).is_file() and weights.is_file():
            return str(folder / name), str(weights)
    raise UserError(
        f"{folder}: no inference.json and inference.pdiparams; make them with tools/export.py"
    )
