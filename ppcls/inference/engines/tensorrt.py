"""Paddle Inference with TensorRT, FP32 and FP16. Not yet run on a GPU.

Paddle 3's programs (`.json`) go through `paddle.tensorrt.convert`, which writes a program with
TensorRT's parts in it; older ones (`.pdmodel`) through `Config.enable_tensorrt_engine`. What is
built is kept in the folder's cache: it holds for one GPU, one TensorRT and one batch size.
INT8 networks of `tools/quantize.py --engine onnxruntime-tensorrt` are for that engine.
"""

from pathlib import Path

from ppcls.inference.engines.base import Opened, Settings, refuse_precision
from ppcls.inference.engines.paddle_inference import GPU_MEMORY_MB, open_program, program_of
from ppcls.inference.exported_model import ExportedModel
from ppcls.utils.errors import UserError

WORKSPACE_BYTES = 1 << 30
SUBGRAPH = 3  # operations at least in a part that TensorRT takes over


def load(folder: ExportedModel, settings: Settings) -> Opened:
    refuse_precision(settings, "fp32", "fp16")
    program, params = program_of(folder, settings)
    check_installed()
    if program.suffix == ".pdmodel":
        return load_old(folder, program, params, settings)
    built = folder.cache() / f"tensorrt_{settings.precision}_{settings.batch}" / "inference"
    if not built.with_suffix(".json").is_file():
        convert(folder, program, settings, built)
    files = built.with_suffix(".json"), built.with_suffix(".pdiparams")
    return open_program(configure(*files), program, folder.manifest.input)


def check_installed() -> None:
    from paddle import device, inference

    if not device.is_compiled_with_cuda():
        raise UserError(
            "engine tensorrt: the installed paddlepaddle is the CPU wheel; it needs a GPU"
        )
    if not any(inference.get_trt_runtime_version()):
        raise UserError(
            "engine tensorrt: Paddle finds no TensorRT; pip install tensorrt, in the version "
            "that the paddlepaddle-gpu wheel was built for"
        )


def shapes(folder: ExportedModel, batch: int) -> tuple[list[int], ...]:
    """Smallest, usual and largest input, as TensorRT plans for."""
    about = folder.manifest
    size = [about.preprocess.height, about.preprocess.width]
    channels = about.preprocess.channels
    image = [channels, *size] if about.input == "float32" else [*size, channels]
    return [1, *image], [batch, *image], [batch, *image]


def convert(folder: ExportedModel, program: Path, settings: Settings, built: Path) -> None:
    from paddle import tensorrt  # type: ignore  # not in the CPU wheel

    smallest, usual, largest = shapes(folder, settings.batch)
    given = tensorrt.Input(
        min_input_shape=tuple(smallest),
        optim_input_shape=tuple(usual),
        max_input_shape=tuple(largest),
        input_data_type=folder.manifest.input,
    )
    config = tensorrt.TensorRTConfig(
        inputs=[given],
        min_subgraph_size=SUBGRAPH,
        save_model_dir=str(built),
        workspace_size=WORKSPACE_BYTES,
        precision_mode=tensorrt.PrecisionMode[settings.precision.upper()],
    )
    tensorrt.convert(str(program.with_suffix("")), config)


def configure(program: Path, params: Path):
    from paddle import inference

    config = inference.Config(str(program), str(params))
    config.disable_glog_info()
    config.enable_use_gpu(GPU_MEMORY_MB, 0)
    config.enable_new_executor(True)
    config.enable_memory_optim()
    return config


def load_old(folder: ExportedModel, program: Path, params: Path, settings: Settings) -> Opened:
    from paddle import inference

    config = configure(program, params)
    half = settings.precision == "fp16"
    config.enable_tensorrt_engine(
        workspace_size=WORKSPACE_BYTES,
        max_batch_size=settings.batch,
        min_subgraph_size=SUBGRAPH,
        precision_mode=inference.PrecisionType.Half if half else inference.PrecisionType.Float32,
        use_static=True,
        use_calib_mode=False,
    )
    config.set_optim_cache_dir(str(folder.cache()))
    name = input_name(program, params)
    smallest, usual, largest = shapes(folder, settings.batch)
    config.set_trt_dynamic_shape_info({name: smallest}, {name: largest}, {name: usual})
    return open_program(config, program, folder.manifest.input)


def input_name(program: Path, params: Path) -> str:
    from paddle import inference

    config = inference.Config(str(program), str(params))
    config.disable_glog_info()
    return inference.create_predictor(config).get_input_names()[0]
