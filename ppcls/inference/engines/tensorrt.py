"""Paddle Inference with TensorRT, FP32 and FP16. Not yet run on a GPU.

Paddle 3's programs (`.json`) go through `paddle.tensorrt.convert`, which writes a program with
TensorRT's parts in it; older ones (`.pdmodel`) through `Config.enable_tensorrt_engine`. What is
built is kept in the folder's cache: it holds for one GPU, one TensorRT and one batch size.
INT8 networks of `tools/quantize.py --engine onnxruntime-tensorrt` are for that engine.

At batch 1 the network is launched as one CUDA graph, where the converter puts all of it into one
engine of TensorRT's.
"""

import inspect
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from ppcls.inference.engines.base import (
    NOT_ONE,
    SEVERAL_IMAGES,
    STALE,
    Call,
    Opened,
    Settings,
    at_most,
    graph_holds,
    in_batches,
    refuse_precision,
    refuse_tensorrt,
    tensorrt_version,
)
from ppcls.inference.engines.paddle_inference import GPU_MEMORY_MB, open_program, program_of
from ppcls.inference.exported_model import ExportedModel
from ppcls.utils.errors import UserError

WORKSPACE_BYTES = 1 << 30
WRONG = "graph_answers_wrongly"  # a file beside a program whose CUDA graph is not to be used
SUBGRAPH = 3  # operations at least in a part that TensorRT takes over
BUILT = "inference.json"  # what the converter has made of a program
# Operations in such files: TensorRT's part, and what is beside it in any program.
ENGINE = "1.tensorrt_engine"
BESIDE = ("p", "1.data", "1.feed", "1.fetch")
BUILTIN = "0."
FROM_TEN = 100  # what Paddle takes for the least major version of TensorRT 10


def load(folder: ExportedModel, settings: Settings) -> Opened:
    if settings.precision == "bf16":
        raise UserError(
            "engine tensorrt: Paddle's converter leaves a network for bf16 in float32 without a "
            "word (it looks for a misspelt attribute of TensorRT's); use fp16 or fp32"
        )
    refuse_precision(settings, "fp32", "fp16")
    program, params = program_of(folder, settings)
    built_for = check_installed()
    if program.suffix == ".pdmodel":
        return load_old(folder, program, params, settings)
    if tensorrt_version() is None:
        raise UserError(
            "engine tensorrt: Paddle's converter calls TensorRT's Python package; pip install "
            f"'tensorrt>={built_for},<{built_for + 1}' (docs/gpu.md has which for what)"
        )
    why = SEVERAL_IMAGES
    if settings.batch == 1:
        opened = load_graph(folder, program, settings)
        if isinstance(opened, Opened):
            return opened
        why = opened
    return replace(load_built(folder, program, settings, graph=False), why=why)


def load_graph(folder: ExportedModel, program: Path, settings: Settings) -> Opened | str:
    """The network for one image, built to be launched as one CUDA graph; why not, where it has to
    be built without.
    """
    if not has_graphs():
        return "the installed Paddle's converter knows none"
    place = place_of(folder, settings, graph=True)
    wrong = place / WRONG
    if wrong.is_file():
        return STALE
    opened = load_built(folder, program, settings, graph=True)
    kept = with_lock(opened.call)
    if not graph_holds(kept, tuple(shapes(folder, 1)[0][1:]), folder.manifest.input):
        wrong.touch()
        return STALE
    one = is_one_engine(place / BUILT)  # else the converter leaves the graph out without a word
    why = "" if one else NOT_ONE
    call = in_batches(kept, 1)
    return replace(opened, call=call, copy=None, of_threads=False, graph=one, why=why)


def load_built(folder: ExportedModel, program: Path, settings: Settings, graph: bool) -> Opened:
    """The network as it was built before, else built now."""
    built = place_of(folder, settings, graph) / BUILT
    if not built.is_file():
        convert(folder, program, settings, built.with_suffix(""), graph)
    files = built, built.with_suffix(".pdiparams")
    opened = open_program(configure(*files), program, folder.manifest.input)
    copy = opened.copy
    return replace(
        opened,
        call=at_most(opened.call, settings.batch),
        copy=(lambda: at_most(copy(), settings.batch)) if copy else None,
    )


def is_one_engine(program: Path) -> bool:
    """Whether TensorRT computes all of the converted program, in one engine."""
    try:
        regions = json.loads(program.read_text(encoding="utf-8"))["program"]["regions"]
        names = [op["#"] for region in regions for block in region["blocks"] for op in block["ops"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return [n for n in names if n not in BESIDE and not n.startswith(BUILTIN)] == [ENGINE]


def place_of(folder: ExportedModel, settings: Settings, graph: bool) -> Path:
    kind = "_graph" if graph else ""
    return folder.cache() / f"tensorrt_{settings.precision}_{settings.batch}{kind}"


def has_graphs() -> bool:
    """Whether this Paddle's converter knows CUDA graphs."""
    from paddle import tensorrt  # type: ignore  # not in the CPU wheel

    return "use_cuda_graph" in inspect.signature(tensorrt.TensorRTConfig).parameters


def with_lock(call: Call) -> Call:
    """A call for one caller at a time: a CUDA graph has its input and output in one place."""
    lock = threading.Lock()

    def alone(images: np.ndarray) -> list[np.ndarray]:
        with lock:
            return [output.copy() for output in call(images)]

    return alone


def check_installed() -> int:
    """TensorRT's major version that Paddle calls; UserError where Paddle, TensorRT and the GPU do
    not go together.
    """
    from paddle import device, inference

    if not device.is_compiled_with_cuda():
        raise UserError(
            "engine tensorrt: the installed paddlepaddle is the CPU wheel; it needs a GPU"
        )
    built_for = inference.get_trt_compile_version()[0]  # 8 in the wheels for CUDA 11.8
    if not built_for:
        raise UserError(
            "engine tensorrt: the installed Paddle was built without TensorRT; take another of its "
            "wheels (docs/gpu.md has which for what)"
        )
    package = tensorrt_version()  # which the converter calls
    library = library_version()  # which runs what it has made
    for version in (package, library):
        if version:
            refuse_tensorrt("tensorrt", version, built_for)
    if not library and package:
        raise UserError(
            "engine tensorrt: Paddle loads libnvinfer.so and libnvinfer_plugin.so, and pip's "
            f"TensorRT has libnvinfer.so.{built_for} and libnvinfer_plugin.so.{built_for}: put "
            "links of the shorter names beside them, and their folder into LD_LIBRARY_PATH "
            "(docs/gpu.md has the commands)"
        )
    if not library:
        raise UserError(
            "engine tensorrt: Paddle finds no TensorRT; pip install "
            f"'tensorrt>={built_for},<{built_for + 1}' (docs/gpu.md has which for what)"
        )
    return built_for


def library_version() -> tuple[int, ...] | None:
    """Of the TensorRT that Paddle loads; None where it finds none.

    Paddle takes its number apart as up to TensorRT 9, 8601 for 8.6.1; from 10 on it is 100500 for
    10.5.0, of which Paddle makes 100, 5, 0.
    """
    from paddle import inference

    try:
        major, minor, patch = inference.get_trt_runtime_version()
    except Exception:  # kinds of Paddle's own
        return None
    if major >= FROM_TEN:
        whole = 1000 * major + 100 * minor + patch
        return whole // 10000, whole // 100 % 100, whole % 100
    return (major, minor, patch) if major else None


def shapes(folder: ExportedModel, batch: int) -> tuple[list[int], ...]:
    """Smallest, usual and largest input, as TensorRT plans for."""
    about = folder.manifest
    size = [about.preprocess.height, about.preprocess.width]
    channels = about.preprocess.channels
    image = [channels, *size] if about.input == "float32" else [*size, channels]
    return [1, *image], [batch, *image], [batch, *image]


def convert(
    folder: ExportedModel, program: Path, settings: Settings, built: Path, graph: bool
) -> None:
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
        **({"use_cuda_graph": True} if graph else {}),  # not where it needs several engines
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
