"""Paddle Inference: Paddle's own kernels, or oneDNN's on CPUs."""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

from ppcls.inference.engines.base import Call, Opened, Settings, free, refuse_precision
from ppcls.inference.exported_model import ExportedModel
from ppcls.utils import environment
from ppcls.utils.errors import UserError


@contextmanager
def quiet() -> Iterator[None]:
    """Let go what C++ and Python print."""
    flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None where the program was started with it closed
            stream.flush()


# Paddle's library of matrix products and its OpenMP, with what asks for the threads and sets them.
MATH = (
    ("libmklml_intel.so", "MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("mklml.dll", "MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("libiomp5.so", "omp_get_max_threads", "omp_set_num_threads"),
    ("libiomp5md.dll", "omp_get_max_threads", "omp_set_num_threads"),
)


@cache
def math_libraries() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """What tells and sets the number of threads of what Paddle computes with, in this process."""
    import paddle

    folder = Path(paddle.__file__).parent / "libs"
    found = []
    for name, ask, order in MATH:
        if (folder / name).is_file():
            with suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(folder / name))
                found.append((getattr(library, ask), getattr(library, order)))
    return found


@contextmanager
def threads_kept() -> Iterator[None]:
    """Paddle computes with as many threads afterwards as before.

    A run of Paddle Inference leaves all of the process with one, which training would then have.
    """
    before = [ask() for ask, _ in math_libraries()]
    try:
        yield
    finally:
        for number, (_, order) in zip(before, math_libraries(), strict=True):
            order(number)


# --------------------------------------------------------------------------
# Paddle Inference: its own CPU kernels, oneDNN, or a GPU (not yet run on one)

GPU_MEMORY_MB = 256  # taken at the start; Paddle grows it as needed
BF16_FLAGS = ("avx512_bf16", "amx_bf16")  # of /proc/cpuinfo

# In Paddle 3's programs: the operation that takes the input, its shape and its dtype.
DATA = re.compile(
    r'"#":"1\.data".{0,200}?"1\.a_intarray","D":\[([-\d,]+)\].{0,80}?"1\.a_dtype","D":"(\w+)"'
)
IMAGE_AXES = 4


def load(folder: ExportedModel, settings: Settings) -> Opened:
    """Open with Paddle Inference: engine paddle or onednn on the CPU, paddle on a GPU."""
    program, params = program_of(folder, settings)
    return open_program(configure(program, params, settings), program, folder.manifest.input)


def program_of(folder: ExportedModel, settings: Settings) -> tuple[Path, Path]:
    if not folder.program:
        raise UserError(
            f"{folder.path}: engine {settings.engine} needs inference.json and "
            "inference.pdiparams; export with --format paddle"
        )
    return folder.program, folder.params


def configure(program: Path, params: Path, settings: Settings):
    from paddle import inference

    config = inference.Config(str(program), str(params))
    config.disable_glog_info()
    config.enable_new_executor(True)  # without it, memory_optim fails on Paddle 3's format
    config.enable_memory_optim()
    if settings.device == "gpu":
        refuse_precision(settings, "fp32", "fp16")
        half = settings.precision == "fp16"
        kind = inference.PrecisionType.Half if half else inference.PrecisionType.Float32
        config.enable_use_gpu(GPU_MEMORY_MB, 0, kind)
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(settings.threads)
    if settings.engine == "paddle":
        refuse_precision(settings, "fp32")
        config.disable_mkldnn()
        return config
    refuse_precision(settings, "fp32", "bf16")
    config.enable_mkldnn()
    if settings.precision == "bf16":
        if not any(f" {flag}" in environment.read("proc/cpuinfo") for flag in BF16_FLAGS):
            raise UserError(f"engine {settings.engine}: this CPU has no bf16; use fp32")
        config.enable_mkldnn_bfloat16()
    return config


def open_program(config, program: Path, dtype: str) -> Opened:
    from paddle import inference

    try:
        with quiet():  # of what its passes do
            predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[-200:]
        raise UserError(
            f"{program}: this file or the .pdiparams beside it is damaged, or of a version of "
            f"Paddle that the installed one cannot read; export it again ({reason})"
        ) from None
    # Copies share its weights. oneDNN prepares its kernels for each thread anew.
    return Opened(
        call_of(predictor),
        *input_of(program, dtype),
        copy=lambda: call_of(predictor.clone()),
        of_threads=True,
    )


def call_of(predictor) -> Call:
    def call(images: np.ndarray) -> list[np.ndarray]:
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
        predictor.run()
        names = predictor.get_output_names()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in names]

    return call


def input_of(program: Path, dtype: str) -> tuple[tuple[int | None, ...], str]:
    """Shape and dtype, read in Paddle 3's form; an older one, which is binary, fits any size."""
    if program.suffix == ".json":
        found = re.search(DATA, program.read_text(encoding="utf-8"))
        if found:
            return free([int(side) for side in found[1].split(",")]), found[2]
    return (None,) * IMAGE_AXES, dtype
