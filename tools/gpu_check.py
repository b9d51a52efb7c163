"""Which of the claims of docs/gpu.md hold on this machine, of each: pass, fail or impossible here.

    python tools/gpu_check.py                      # all, in at most 9 minutes
    python tools/gpu_check.py --only train-fp32 memory --minutes 3
    python tools/gpu_check.py --list

Each piece runs in a process of its own, so one that fails, crashes or hangs does not stop the rest.
What is found is kept in gpu_check/gpu_check.json after each piece, to which the pieces of later
runs are added, and gpu_check/gpu_check.md has the rows for docs/gpu.md; --docs writes them there.
`--device cpu` runs what a CPU can, to try the program itself.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PASS, FAIL, IMPOSSIBLE = "pass", "fail", "impossible here"
NOT_YET = "not yet run"
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- gpu-check:begin -->", "<!-- gpu-check:end -->"
NO_GPU = "no CUDA device"
RESULT = "gpu_check result: "  # what the last line of a piece's process begins with
MINUTES = 9.0  # of all pieces
PIECE_SECONDS = 150.0  # of a piece at most
SHORTEST = 5.0  # seconds that a piece needs at least
INTERRUPTED = 130  # exit code of a program that a signal ended, as shells count it
LONGEST_REASON = 300

NETWORK = "ResNet18_vd"  # that is trained, and whose exports are compared
STEPS, BATCH = 6, 8  # of a run that is compared
SIDE = 64  # pixels of its images
COMPARED = 8  # images of an export, at least
SAME, CLOSE = 1e-2, 5e-2  # relative differences of losses: of float32, of half precisions
# Of outputs: in `ppcls bench` to what is expected, else to how far that tells images apart; what
# INT8 rounds by itself is 0.4 of that.
ALLOWED = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2}
ROUNDED = 1e-5  # relative difference that float32 stays below and FP16 does not
TOLD_APART = 0.05  # of the largest output, by which images differ at least
LINKS = "tensorrt_links"  # in the temporary folder: names of TensorRT that Paddle loads
NOTHING_BUILT = "no *.engine file is in the folder's cache: TensorRT has run nothing"


class Impossible(Exception):  # noqa: N818  no error: it is told and counted apart
    """What is claimed cannot be tried here, for the reason that this says."""


@dataclass
class Found:
    """What a piece found: whether the claim holds, in words and in figures."""

    holds: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Where a piece runs.

    Attributes:
        device: gpu, or cpu to try the program.
        folder: what one piece makes others find there.
        gpus: how many there are.
        network: by name, that memory and engines are measured with.
        batches: images a run, of engines.
        piece_seconds: that a piece may take.
    """

    device: str
    folder: Path
    gpus: int = 0
    network: str = "ResNet50_vd"
    batches: tuple[int, ...] = (1, 8, 32)
    piece_seconds: float = PIECE_SECONDS


@dataclass(frozen=True)
class Piece:
    """A claim, and what shows whether it holds. `gpus`: that it needs; `cpu`: whether it can be
    tried on a CPU.
    """

    name: str
    claim: str
    check: Callable[[Context], Found]
    gpus: int = 1
    cpu: bool = False


PIECES: list[Piece] = []


def piece(name: str, claim: str, gpus: int = 1, cpu: bool = False):
    """Makes a piece of a function."""

    def keep(check: Callable[[Context], Found]) -> Callable[[Context], Found]:
        PIECES.append(Piece(name, claim, check, gpus, cpu))
        return check

    return keep


# --------------------------------------------------------------------------
# Training, by the command, on made photos: the losses of each step beside those on a CPU


@piece("device", "`--device auto` and `device: auto` take the GPU that is there.")
def takes_the_gpu(context: Context) -> Found:
    from ppcls.inference.engines.table import device_for
    from ppcls.utils.device import choose

    found = choose("auto"), device_for("auto")
    return Found(found == ("gpu", "gpu"), f"training on {found[0]}, prediction on {found[1]}")


@piece("train-fp32", "A run in float32 has the losses that it has on a CPU.", cpu=True)
def trains_fp32(context: Context) -> Found:
    return like_on_a_cpu(context, {}, SAME)


@piece("train-bf16", "`train.precision: bf16` trains; its losses stay near float32's.")
def trains_bf16(context: Context) -> Found:
    return trains_in_half(context, "bf16")


@piece("train-fp16", "`train.precision: fp16` trains; its losses stay near float32's.")
def trains_fp16(context: Context) -> Found:
    return trains_in_half(context, "fp16")


def trains_in_half(context: Context, kind: str) -> Found:
    found = like_on_a_cpu(context, {"train.precision": kind}, CLOSE)
    if not found.holds:
        return found
    whole = run_of(context, {}, context.device)
    if near(found.figures["losses"], whole, ROUNDED).holds:
        words = f"the losses are float32's: nothing was computed in {kind}"
        return Found(False, words, found.figures)
    return found


@piece("train-qat", "`train.qat: true` trains; its losses stay near those on a CPU.")
def trains_for_int8(context: Context) -> Found:
    keys = {"train.qat": "true"}
    return near(run_of(context, keys, context.device), run_of(context, keys, "cpu"), CLOSE)


@piece("recompute", "`train.recompute: true` leaves the losses as they are.", cpu=True)
def recomputes(context: Context) -> Found:
    return like_on_a_cpu(context, {"train.recompute": "true"}, SAME)


@piece(
    "resume",
    "A run that goes on with `--resume` has the losses of one that was not interrupted.",
    cpu=True,
)
def goes_on(context: Context) -> Found:
    whole = run_of(context, {"train.epochs": "2"}, context.device)
    place = context.folder / "resumed"
    for epochs, flag in (("1", "--overwrite"), ("2", "--resume")):
        train(context, {"train.epochs": epochs}, context.device, place, flag)
    return near(losses_of(place), whole, SAME)


@piece("sync-norms-1", "`train.sync_norms: true` on one GPU is as without it.")
def syncs_alone(context: Context) -> Found:
    return like_on_a_cpu(context, {"train.sync_norms": "true"}, SAME)


@piece(
    "sync-norms",
    "`train.sync_norms: true` on two GPUs has the losses of one process with all the images.",
    gpus=2,
)
def syncs(context: Context) -> Found:
    half = {"train.batch_size": str(BATCH // 2)}
    found = like_on_a_cpu(context, {**half, "train.sync_norms": "true"}, SAME, processes=2)
    without = like_on_a_cpu(context, half, SAME, processes=2)
    if found.holds and without.holds:
        return Found(False, f"without it {without.detail}, too: nothing is told by them")
    return found


@piece("processes", "`--processes 2` has, over NCCL, the losses that it has over gloo.", 2, True)
def trains_together(context: Context) -> Found:
    half = {"train.batch_size": str(BATCH // 2)}
    expected = run_of(context, half, "cpu", processes=2)
    found = run_of(context, half, context.device, processes=2)
    return near(found, expected, SAME)


@piece(
    "accumulate",
    "`train.accumulate` in two processes has the losses of one process with all their batches.",
    gpus=2,
    cpu=True,
)
def accumulates(context: Context) -> Found:
    batches = {"train.batch_size": str(BATCH // 2)}
    expected = run_of(context, {**batches, "train.accumulate": "4"}, "cpu")
    found = run_of(context, {**batches, "train.accumulate": "2"}, context.device, processes=2)
    return near(found, expected, SAME)


@piece("nccl", "Processes on two GPUs or more, one on each, add numbers up over NCCL.", 2, True)
def adds_up(context: Context) -> Found:
    count = context.gpus if context.device == "gpu" else 2
    place = context.folder / "nccl"
    place.mkdir(exist_ok=True)
    script = place / "add_up.py"
    script.write_text(ADD_UP.format(root=str(ROOT), device=context.device))
    backend = "nccl" if context.device == "gpu" else "gloo"
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(count)]
    command += ["--backend", backend, "--log_dir", str(place / "log"), str(script), str(place)]
    execute(command, context)
    sums = [json.loads((place / f"{rank}.json").read_text()) for rank in range(count)]
    wanted = count * (count + 1) / 2
    return Found(all(one == wanted for one in sums), f"{count} processes over {backend}: {sums}")


ADD_UP = """
import json, sys
sys.path.insert(0, {root!r})
import ppcls
import paddle
from paddle import distributed
paddle.set_device({device!r} if {device!r} == "cpu" else "gpu")
distributed.init_parallel_env()
rank = distributed.get_rank()
value = paddle.full([1000], rank + 1.0)
distributed.all_reduce(value)
assert float(value.min()) == float(value.max())
open(f"{{sys.argv[1]}}/{{rank}}.json", "w").write(json.dumps(float(value[0])))
"""


@piece(
    "memory",
    "bf16 and `train.recompute`, each and together, need less memory than float32 without.",
)
def needs_less(context: Context) -> Found:
    import paddle

    paddle.set_device("gpu")
    kinds = [(kind, again) for again in (False, True) for kind in ("fp32", "bf16")]
    found = {}
    for kind, again in kinds:
        found[f"{kind}{', recompute' if again else ''}"] = step_of(context, kind, again)
    most = {name: mib for name, (mib, _) in found.items()}
    plain = most.pop("fp32")
    words = "; ".join(f"{n}: {mib:.0f} MiB, {speed:.0f} img/s" for n, (mib, speed) in found.items())
    figures = {
        name: {"mib": mib, "images_per_second": speed} for name, (mib, speed) in found.items()
    }
    return Found(max(most.values()) < plain, f"{context.network}, 64 of 224 px: {words}", figures)


def step_of(context: Context, kind: Any, again: bool) -> tuple[float, float]:
    """Peak memory in MiB, and images a second, of training steps on images in memory."""
    import gc

    import paddle
    from paddle.nn import functional

    import ppcls
    from ppcls.models.recompute import recompute_blocks
    from ppcls.train.step import Precision

    precision = Precision(kind, "O1")
    if precision.kind != kind:
        raise Impossible(f"this GPU does not compute in {kind}")
    gc.collect()
    paddle.device.cuda.empty_cache()
    paddle.device.cuda.reset_max_memory_allocated()
    net = ppcls.create_model(context.network)
    if again:
        recompute_blocks(net)
    net.train()
    optimizer = paddle.optimizer.Momentum(1e-3, 0.9, net.parameters())
    images = paddle.randn([64, 3, 224, 224])
    labels = paddle.randint(0, 1000, [64])
    forward = precision.around(net)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        loss: Any = functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)  # waits for it
        times.append(time.perf_counter() - start)
    mib = paddle.device.cuda.max_memory_allocated() / 2**20
    return mib, 64 / sorted(times[2:])[len(times[2:]) // 2]


def like_on_a_cpu(
    context: Context, keys: Mapping[str, str], allowed: float, processes: int = 1
) -> Found:
    """A run with these keys on the device beside the plain one of one process on a CPU."""
    expected = run_of(context, {}, "cpu")
    found = run_of(context, keys, context.device, processes)
    return near(found, expected, allowed)


def near(found: Sequence[float], expected: Sequence[float], allowed: float) -> Found:
    if len(found) != len(expected):
        return Found(False, f"{len(found)} steps in place of {len(expected)}")
    largest = worst(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    words = f"losses of {len(found)} steps differ by {largest:.1e} (allowed {allowed:.0e})"
    figures = {"losses": list(found), "expected": list(expected), "largest": largest}
    return Found(largest <= allowed, words, figures)  # not where it is no number


def worst(differences: Iterable[float]) -> float:
    """The largest; no number where one of them is none."""
    return max(differences, key=lambda found: (math.isnan(found), found))


def run_of(
    context: Context, keys: Mapping[str, str], device: str, processes: int = 1
) -> list[float]:
    """The losses of the steps of a short run of `ppcls train`; kept for the next piece."""
    words = [f"{key}={value}" for key, value in sorted(keys.items())]
    place = context.folder / "_".join(["run", device, str(processes), *words])
    done = place / "done"
    if not done.is_file():
        said = train(context, keys, device, place, "--overwrite", processes)
        asked = keys.get("train.precision", "fp32")
        if asked != "fp32" and f"precision {asked}" not in said:
            raise Impossible(f"this GPU does not compute in {asked}")
        done.touch()
    return losses_of(place)


def train(
    context: Context,
    keys: Mapping[str, str],
    device: str,
    place: Path,
    flag: str,
    processes: int = 1,
) -> str:
    """`ppcls train` into a folder; what it said."""
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(recipe(context)), flag]
    command += ["--processes", str(processes), "-o", f"output={place}", f"device={device}"]
    return execute([*command, *(f"{key}={value}" for key, value in keys.items())], context)


def losses_of(place: Path) -> list[float]:
    """Of a run's steps, as its log has them."""
    from ppcls.utils.log import read_records

    return [r["loss"] for r in read_records(place / "run.jsonl") if r["event"] == "train"]


def recipe(context: Context) -> Path:
    """Photos of two classes, and a run over them that draws nothing at random on the device: its
    first weights are drawn here, on a CPU, for a GPU's generator draws others.
    """
    place = context.folder / "photos"
    if not place.is_dir():
        make_photos(place)
    weights = context.folder / "weights.safetensors"
    if not weights.is_file():
        execute([sys.executable, "-c", DRAW, NETWORK, str(weights)], context)
    path = context.folder / "recipe.yaml"
    path.write_text(
        f"model: {{name: {NETWORK}, weights: {weights}}}\n"
        f"data: {{train: {place}, eval: {place}, workers: 0}}\n"
        f"preprocess: {{resize: {SIDE + 8}, crop: {SIDE}}}\n"
        f"train: {{epochs: 1, batch_size: {BATCH}, log_every: 1,\n"
        "  schedule: {lr: 0.01, decay: {kind: constant}}}\n"
    )
    return path


def make_photos(place: Path) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for label, name in enumerate(("a", "b")):
        (place / name).mkdir(parents=True)
        for number in range(STEPS * BATCH // 2):
            coarse = random.integers(0, 256, (8 + 4 * label, 10, 3), np.uint8)
            image = Image.fromarray(coarse).resize((80, 72))
            image.save(place / name / f"{number}.png")


DRAW = """
import sys
import ppcls
import paddle
from ppcls.weights.files import write_safetensors
paddle.set_device("cpu")
paddle.seed(0)
net = ppcls.create_model(sys.argv[1], 2)
tensors = {name: value.numpy() for name, value in net.state_dict().items()}
write_safetensors(sys.argv[2], tensors, {})
"""


# --------------------------------------------------------------------------
# Engines: each precision and batch size beside the CPU's float32, and TensorRT's own


def engine_piece(engine: str, precision: str, cpu: bool = False) -> None:
    """Timed and compared by `ppcls bench`, whose reference is the network itself on a CPU."""
    where = {"int8": "INT8 networks of `quantize`", "file": "FP16 files of `export`"}
    how = f"in {precision}" if precision not in where else f"with {where[precision]}"

    def check(context: Context) -> Found:
        if precision in where:
            return runs_a_file(context, engine, precision)
        return runs_in(context, engine, precision)

    claim = f"Engine `{engine}` {how} answers as on a CPU, at each batch size."
    piece(f"{engine}-{precision}", claim, cpu=cpu)(check)


def runs_in(context: Context, engine: str, precision: str) -> Found:
    batches = ",".join(map(str, context.batches))
    place = context.folder / f"bench_{engine}_{precision}"
    command = [sys.executable, "-m", "ppcls", "bench", "--models", context.network, "--keep"]
    command += ["--engines", engine, "--precisions", precision, "--batch-sizes", batches]
    command += ["--device", context.device, "--rounds", "2", "--seconds", "0.3"]
    said = execute([*command, "--output", str(place)], context, codes=(0, 1, 2))
    lines = [line for path in place.glob("*.jsonl") for line in path.read_text().splitlines()]
    cells = [cell for cell in map(json.loads, lines) if "batch" in cell]
    if not cells:
        return Found(False, f"ppcls bench measured nothing: {last_line(said)}")
    for cell in cells:
        if "failed" in cell:
            possible(cell["failed"])
            words = f"batch {cell['batch']}: {cell['failed']}"
            if cell["failed"].startswith("skipped: "):  # for want of memory, or too slow
                raise Impossible(words)
            return Found(False, words, {"cells": cells})
    found = judged(context.network, precision, cells)
    if engine == "onnxruntime-tensorrt" and not any(place.rglob("*.engine")):
        return Found(False, NOTHING_BUILT, found.figures)
    return found


def judged(network: str, precision: str, cells: Sequence[Mapping[str, Any]]) -> Found:
    """What the cells of a benchmark say of one precision."""
    errors = [math.nan if c["relative_error"] is None else c["relative_error"] for c in cells]
    largest = worst(errors)
    times = ", ".join(f"{c['median_ms']:.2f} ms at {c['batch']}" for c in cells)
    words = f"{network}: {times}; relative error {largest:.1e}"
    kept = [{k: c[k] for k in ("batch", "median_ms", "relative_error", "agrees")} for c in cells]
    if precision == "fp16" and min(errors) < ROUNDED:
        words = f"answers as float32 does: nothing was computed in FP16 ({words})"
        return Found(False, words, {"cells": kept})
    exact = all(cell["agrees"] for cell in cells)  # by the benchmark's own limit
    holds = exact if precision == "fp32" else largest <= ALLOWED[precision]
    return Found(holds, words, {"cells": kept})


def runs_a_file(context: Context, engine: str, kind: str) -> Found:
    """An INT8 or FP16 file on the device beside the same file in ONNX Runtime on a CPU."""
    folder = file_of(context, kind)
    given = batch_of(max(*context.batches, COMPARED))
    expected = opened(folder, "onnxruntime", "cpu", len(given)).run(given)
    found = []
    for batch in context.batches:
        output = opened(folder, engine, context.device, batch).run(given[:batch])
        found.append(difference(output, expected))
    if engine == "onnxruntime-tensorrt" and not any(folder.rglob("*.engine")):
        return Found(False, NOTHING_BUILT)
    allowed = ALLOWED["int8" if kind == "int8" else "fp16"]
    words = f"{NETWORK}: logits differ by {worst(found):.1e} of what tells images apart "
    words += f"(allowed {allowed:.0e}) at batches of {', '.join(map(str, context.batches))}"
    return Found(worst(found) <= allowed, words, {"differences": found})


def difference(found: Any, expected: Any) -> float:
    """The largest of outputs from the first of those that are expected, to how far these tell
    images apart.
    """
    apart = float(abs(expected - expected.mean(0)).max())
    largest = float(abs(expected).max())
    if not apart > TOLD_APART * largest:
        raise RuntimeError(
            f"{NETWORK} tells these images apart by {apart:.1e} of {largest:.1e}: too little to "
            "compare by"
        )
    return float(abs(found - expected[: len(found)]).max()) / apart


def file_of(context: Context, kind: str) -> Path:
    """The trained network as a file of FP16 or, quantized, of INT8."""
    folder = context.folder / kind
    if folder.is_dir():
        return folder
    ppcls = [sys.executable, "-m", "ppcls"]
    if kind == "file":
        words = ["export", "--weights", str(weights_of(context)), "--format", "onnx", "--logits"]
        words += ["--precision", "fp16"]
    else:
        words = ["quantize", "--model-dir", str(exported(context)), "--engine"]
        words += ["onnxruntime-tensorrt", "--calibrate", str(context.folder / "photos")]
        words += ["--budget", "1"]
    execute([*ppcls, *words, "--output", str(folder)], context)
    return folder


def weights_of(context: Context) -> Path:
    """The checkpoint of the run on a CPU, which is made where it is not there."""
    run_of(context, {}, "cpu")
    return context.folder / "run_cpu_1" / "latest.safetensors"


def exported(context: Context) -> Path:
    """That run's network in float32, giving logits, for all engines."""
    folder = context.folder / "exported"
    if not folder.is_dir():
        words = ["export", "--weights", str(weights_of(context)), "--format", "paddle", "onnx"]
        words += ["--logits", "--output", str(folder)]
        execute([sys.executable, "-m", "ppcls", *words], context)
    return folder


def batch_of(count: int):
    """Images as the network takes them, float32 [N, 3, SIDE, SIDE], of different colours and
    contrasts.
    """
    import numpy as np

    random = np.random.default_rng(0)
    spots = random.standard_normal((count, 3, 8, 8)).repeat(SIDE // 8, 2).repeat(SIDE // 8, 3)
    contrast = random.uniform(0.1, 2, (count, 1, 1, 1))
    colour = random.uniform(-2, 2, (count, 3, 1, 1))
    return (contrast * spots + colour).clip(-2, 2).astype(np.float32)  # as pixels are


def opened(folder: Path, engine: str, device: str, batch: int, precision: str = "fp32"):
    """The folder in an engine; `Impossible` where something is not installed."""
    from ppcls.inference.engines.base import Settings
    from ppcls.inference.engines.table import open_engine
    from ppcls.inference.exported_model import open_exported
    from ppcls.utils.errors import UserError

    try:
        return open_engine(open_exported(folder), Settings(engine, device, precision, batch=batch))
    except UserError as error:
        possible(str(error))
        raise


def possible(reason: str) -> None:
    """`Impossible` where an engine asks for something to be installed, or a CPU for a GPU."""
    lacking = ("pip install", "built without TensorRT", "runs on a GPU", "on a CPU, only")
    if any(words in reason for words in lacking):
        raise Impossible(reason)


for name, kinds in {
    "paddle": ("fp32", "fp16"),
    "onnxruntime": ("fp32", "file"),
    "tensorrt": ("fp32", "fp16"),
    "onnxruntime-tensorrt": ("fp32", "fp16", "int8", "file"),
}.items():
    for kind in kinds:
        engine_piece(name, kind, cpu=name in ("paddle", "onnxruntime") and kind != "fp16")


@piece("file-size", "A file of FP16 is about half as large as that of float32.", cpu=True)
def halves(context: Context) -> Found:
    whole, half = (
        (folder / "inference.onnx").stat().st_size
        for folder in (exported(context), file_of(context, "file"))
    )
    words = f"{NETWORK}: {half / 1e6:.1f} in place of {whole / 1e6:.1f} MB"
    return Found(0.45 < half / whole < 0.6, words, {"bytes": half, "bytes_fp32": whole})


@piece(
    "onnxruntime-tensorrt-int8-size",
    "TensorRT keeps the weights of INT8 networks in 8 bits: its engine is less than half as large "
    "as the network in float32.",
)
def keeps_8_bits(context: Context) -> Found:
    folder = file_of(context, "int8")
    opened(folder, "onnxruntime-tensorrt", context.device, 1).run(batch_of(1))
    engines = list(folder.rglob("ort_fp32_1/*.engine"))
    if not engines:
        return Found(False, NOTHING_BUILT)
    built = sum(path.stat().st_size for path in engines)
    whole = (exported(context) / "inference.onnx").stat().st_size
    words = f"{NETWORK}: {built / 1e6:.1f} MB, in float32 {whole / 1e6:.1f} MB"
    return Found(built < whole / 2, words, {"bytes": built, "bytes_fp32": whole})


@piece(
    "cuda-libraries",
    "Where pip has installed CUDA's and cuDNN's libraries, ONNX Runtime computes with those.",
)
def takes_pips(context: Context) -> Found:
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    named = (spec.submodule_search_locations or ()) if spec else ()
    places = [Path(place).resolve() for place in named]
    known = {path.name.partition(".so")[0] for place in places for path in place.rglob("lib*.so*")}
    wanted = sorted(known & {"libcudart", "libcublas", "libcudnn"})
    if not wanted:
        raise Impossible("pip has installed no libraries of CUDA's here")
    opened(exported(context), "onnxruntime", context.device, 1).run(batch_of(1))
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = {Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line}
    found = {}
    for name in wanted:
        paths = [path for path in loaded if path.name.partition(".so")[0] == name]
        own = [path for path in paths if any(path.is_relative_to(place) for place in places)]
        found[name] = "pip's" if paths and own == paths else ", ".join(map(str, paths)) or "none"
    words = "; ".join(f"{name}: {whose}" for name, whose in found.items())
    return Found(set(found.values()) == {"pip's"}, words)


@piece("tensorrt-bf16", "Engine `tensorrt` refuses bf16, which Paddle would run in float32.")
def refuses_bf16(context: Context) -> Found:
    from ppcls.utils.errors import UserError

    try:
        opened(exported(context), "tensorrt", context.device, 1, "bf16")
    except UserError as error:
        return Found("misspelt" in str(error), str(error))
    return Found(False, "it was opened")


def cache_piece(engine: str) -> None:
    def check(context: Context) -> Found:
        return keeps_what_it_built(context, engine)

    claim = f"What `{engine}` builds is kept in `engine_cache`: a second opening builds nothing."
    piece(f"{engine}-cache", claim)(check)


def keeps_what_it_built(context: Context, engine: str) -> Found:
    import shutil

    folder = context.folder / f"cache_{engine}"
    shutil.copytree(exported(context), folder, ignore=shutil.ignore_patterns("engine_cache"))
    given = batch_of(COMPARED)
    expected = opened(folder, "onnxruntime", "cpu", len(given)).run(given)
    times = []
    listings = []
    outputs = []
    for _ in range(2):
        start = time.perf_counter()
        outputs.append(opened(folder, engine, context.device, len(given), "fp16").run(given))
        times.append(time.perf_counter() - start)
        files = [path for path in (folder / "engine_cache").rglob("*") if path.is_file()]
        listings.append({str(path): path.stat().st_mtime_ns for path in files})
    # The timing cache is written anew each time; engines and programs are not.
    built = [
        {path: when for path, when in listing.items() if not path.endswith(".timing")}
        for listing in listings
    ]
    far = worst(difference(output, expected) for output in outputs)
    kept = bool(built[0]) and built[0] == built[1] and times[1] < times[0]
    words = f"{NETWORK}: opened in {times[0]:.1f} s, then in {times[1]:.1f} s; logits differ from "
    words += f"a CPU's by {far:.1e} of what tells images apart"
    return Found(kept and far <= ALLOWED["fp16"], words, {"seconds": times, "difference": far})


def graph_piece(engine: str) -> None:
    def check(context: Context) -> Found:
        return graphs_hold(context, engine)

    claim = f"At batch 1 `{engine}` answers through a CUDA graph as without one."
    piece(f"{engine}-graph", claim)(check)


def graphs_hold(context: Context, engine: str) -> Found:
    import numpy as np

    from ppcls.inference.engines.base import NOT_ONE

    given = batch_of(COMPARED)
    expected = opened(exported(context), "onnxruntime", "cpu", len(given)).run(given)
    alone = opened(exported(context), engine, context.device, 1, "fp16")
    if not alone.graph:
        words = f"{NETWORK}: no CUDA graph is used: {alone.why}"
        if alone.why == NOT_ONE:
            raise Impossible(words)
        return Found(False, words)
    together = opened(exported(context), engine, context.device, len(given), "fp16")
    outputs = np.concatenate([alone.run(image[None]) for image in given])
    far = worst(difference(output, expected) for output in (outputs, together.run(given)))
    times = {}
    for name, one in (("with", alone), ("without", together)):
        spent = []
        for _ in range(200):
            start = time.perf_counter()
            one.run(given[:1])
            spent.append(time.perf_counter() - start)
        times[name] = 1000 * sorted(spent)[100]
    words = f"{NETWORK}: logits differ from a CPU's by {far:.1e} of what tells images apart; "
    words += f"{times['with']:.2f} ms, in an engine for {len(given)} images "
    words += f"{times['without']:.2f} ms"
    return Found(far <= ALLOWED["fp16"], words, {"milliseconds": times, "difference": far})


for name in ("tensorrt", "onnxruntime-tensorrt"):
    cache_piece(name)
    graph_piece(name)


# --------------------------------------------------------------------------
# A piece in a process of its own


def execute(command: Sequence[str], context: Context, codes: Sequence[int] = (0,)) -> str:
    """Run a command from the context's folder; what it said. RuntimeError for another exit code."""
    done = subprocess.run(
        command,
        cwd=context.folder,
        env=variables(context.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode not in codes:
        lines = [line for line in said.splitlines() if line.startswith("error:")]
        wrong = " ".join(lines or [last_line(said)])
        possible(wrong)
        raise RuntimeError(f"exit code {done.returncode}: {wrong}")
    return said


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no word")


def variables(folder: Path) -> dict[str, str]:
    """The environment of pieces and of what they start."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # Products of float32 in full: TF32 would be told from a mistake by its size alone.
    found = {**os.environ, "PYTHONPATH": path, "NVIDIA_TF32_OVERRIDE": "0"}
    links = sorted((folder / LINKS).iterdir()) if (folder / LINKS).is_dir() else []
    if links:
        before = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
        own = [str(folder / LINKS), *(str(link.readlink().parent) for link in links)]
        found["LD_LIBRARY_PATH"] = os.pathsep.join(dict.fromkeys([*own, *before]))
    return found


def link_tensorrt(folder: Path) -> None:
    """Links to the files of pip's TensorRT, where it is there, by the names that Paddle loads."""
    from importlib.util import find_spec

    spec = find_spec("tensorrt_libs")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("libnvinfer.so", "libnvinfer_plugin.so"):
            link = folder / LINKS / name
            files = sorted(Path(place).glob(f"{name}.*"), key=lambda path: len(path.name))
            if files and not link.exists():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(files[0].resolve())


def run_here(one: Piece, context: Context) -> dict[str, Any]:
    """A piece in this process: its status, and why."""
    start = time.monotonic()
    figures: dict[str, Any] = {}
    try:
        found = one.check(context)
        status = PASS if found.holds else FAIL
        detail = found.detail
        figures = found.figures
    except Impossible as error:
        status = IMPOSSIBLE
        detail = str(error)
    except Exception as error:  # whatever a piece meets is what it tells
        status = FAIL
        detail = f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - start, 1)
    return result(status, shortened(detail), seconds, figures)


def result(
    status: str,
    detail: str,
    seconds: float = 0.0,
    figures: Mapping[str, Any] | None = None,
    late: bool = False,
) -> dict[str, Any]:
    """What is kept of a piece. `late`: nothing but that there was no time for it."""
    found = {"status": status, "detail": detail, "seconds": seconds, "figures": figures or {}}
    return found | ({"late": True} if late else {})


def run_apart(one: Piece, context: Context, seconds: float) -> dict[str, Any]:
    """A piece in a process of its own, which is ended after so many seconds."""
    command = [sys.executable, str(Path(__file__).resolve()), "--piece", one.name]
    command += ["--device", context.device, "--folder", str(context.folder)]
    command += ["--network", context.network, "--gpus", str(context.gpus)]
    command += ["--batch-sizes", ",".join(map(str, context.batches))]
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        env=variables(context.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, wrong = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        spent = round(seconds, 1)
        if seconds >= context.piece_seconds:
            return result(FAIL, f"did not end in {seconds:.0f} s", spent)
        reason = f"not done in the {seconds:.0f} s that were left: --only {one.name}"
        return result(IMPOSSIBLE, reason, spent, late=True)
    finally:
        end_all(process)
    lines = [line for line in said.splitlines() if line.startswith(RESULT)]
    if lines:
        return json.loads(lines[-1].removeprefix(RESULT))
    reason = f"its process ended with code {process.returncode} ({last_line(wrong)})"
    return result(FAIL, shortened(reason), round(time.monotonic() - start, 1))


def end_all(process: subprocess.Popen) -> None:
    """End a process, where it still runs, with all that it has started, in other sessions too."""
    import signal
    from contextlib import suppress

    if process.poll() is None:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(OSError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=SHORTEST)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have; the last ones first."""
    try:
        import psutil
    except ImportError:
        return descendants_listed(pid)
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)][::-1]
    except psutil.Error:
        return []


def descendants_listed(pid: int) -> list[int]:
    """As `descendants`, without psutil, where the system lists processes in /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        # PID (NAME) STATE PARENT …, of which the name may have anything in it
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[:0:-1]


def shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


# --------------------------------------------------------------------------
# The machine, the plan, the table

Runner = Callable[[Piece, Context, float], dict[str, Any]]


def machine_of(device: str) -> dict[str, Any]:
    """What the machine is, without an import of Paddle where NVIDIA's driver is not there."""
    from ppcls.inference.auto import PACKAGES, installed_version, processor
    from ppcls.inference.engines.table import gpu_driver

    packages = (*PACKAGES, "tensorrt", "ppcls")
    known = {name: version for name in packages if (version := installed_version(name))}
    found: dict[str, Any] = {"processor": processor(), "gpus": [], "versions": known}
    if device == "gpu" and gpu_driver():
        found["gpus"] = visible(listed_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return found


def listed_gpus() -> dict[str, str]:
    """Each GPU as NVIDIA's driver describes it, by its unique name."""
    command = ["nvidia-smi", "--query-gpu=uuid,name,driver_version,compute_cap,memory.total"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:
        return {}
    if done.returncode:  # it then prints why
        return {}
    lines = (line.partition(",") for line in done.stdout.splitlines() if line.strip())
    return {name.strip(): about.strip() for name, _, about in lines}


def visible(gpus: Mapping[str, str], asked: str | None) -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: numbers or unique names, which may be shortened,
    up to the first that names none.
    """
    every = list(gpus.values())
    if asked is None:
        return every
    found = []
    for word in map(str.strip, asked.split(",")):
        named = [about for name, about in gpus.items() if word and name.startswith(word)]
        if word.isdecimal() and int(word) < len(every):
            found.append(every[int(word)])
        elif len(named) == 1:
            found += named
        elif word.startswith("MIG-") and every:  # a part of one
            found.append(every[0])
        else:
            break
    return found


def obstacle(one: Piece, device: str, gpus: int) -> str:
    """Why a piece cannot be tried here, "" where it can."""
    if device == "cpu":
        return "" if one.cpu else "has no form for a CPU"
    if not gpus:
        return NO_GPU
    return "" if gpus >= one.gpus else f"needs {one.gpus} GPUs, {gpus} is here"


def say(line: str) -> None:
    print(line, flush=True)  # the next piece takes its time


def check_all(
    pieces: Iterable[Piece],
    context: Context,
    minutes: float,
    run: Runner = run_apart,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = say,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the result of every piece in its order, each told as it is done; none is begun
    when the time is over.
    """
    end = clock() + 60 * minutes
    for one in pieces:
        left = end - clock()
        why = obstacle(one, context.device, context.gpus)
        if why:
            found = result(IMPOSSIBLE, why)
        elif left < SHORTEST:
            reason = f"the {minutes:g} minutes were over: --only {one.name}"
            found = result(IMPOSSIBLE, reason, late=True)
        else:
            found = run(one, context, min(left, context.piece_seconds))
        tell(f"{one.name}: {words_of(found)} [{found['seconds']:.0f} s]")
        yield one.name, found


def words_of(result: Mapping[str, Any] | None) -> str:
    """`pass, losses differ by …`, `fail (…)`, `impossible here (…)`."""
    if result is None:
        return NOT_YET
    if result["status"] == PASS:
        return f"{PASS}: {result['detail']}"
    return f"{result['status']} ({result['detail']})"


def rows(results: Mapping[str, Mapping[str, Any]], where: str = "found") -> list[str]:
    """The table of docs/gpu.md: every claim with its piece and what was found."""
    lines = [f"| claim | piece | {where} |", "|---|---|---|"]
    for one in PIECES:
        said = words_of(results.get(one.name)).replace("|", "\\|")
        lines.append(f"| {one.claim} | `{one.name}` | {said} |")
    return lines


def place_of(machine: Mapping[str, Any]) -> str:
    gpus = [gpu.partition(",")[0] for gpu in machine["gpus"]]
    if not gpus:
        return "found"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{len(gpus)} of {gpus[0]}; {versions}"


def into_page(page: Path, lines: Sequence[str]) -> None:
    """Put the rows between the page's marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join([BEGIN, *lines, END])
    page.write_text(f"{before}{text}{after}", encoding="utf-8")


def read_earlier(path: Path, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What earlier runs found of the same, on the same machine with the same packages."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        same = all(known[key] == value for key, value in about.items())
        return known["pieces"] if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PIECE", help="pieces to run; default: all")
    text = f"time for all of them together; default: {MINUTES:g}"
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="N", help=text)
    text = f"time for each of them; default: {PIECE_SECONDS:g}"
    parser.add_argument(
        "--piece-seconds", type=float, default=PIECE_SECONDS, metavar="N", help=text
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    text = "folder to write into, and to add to; default: gpu_check"
    parser.add_argument(
        "--output", type=Path, default=Path("gpu_check"), metavar="FOLDER", help=text
    )
    text = "network to measure memory and engines with; default: ResNet50_vd"
    parser.add_argument("--network", default="ResNet50_vd", metavar="NAME", help=text)
    text = "images a run, of engines; default: 1,8,32"
    parser.add_argument("--batch-sizes", default="1,8,32", metavar="N,…", help=text)
    parser.add_argument("--docs", action="store_true", help="write docs/gpu.md's table, too")
    parser.add_argument("--list", action="store_true", help="say the claims, and run nothing")
    for name, kind in (("--piece", str), ("--folder", Path), ("--gpus", int)):  # of its processes
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    known = {one.name: one for one in PIECES}
    unknown = set(options.only or ()) - set(known)
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: unknown; known are {', '.join(known)}")
    for name in ("minutes", "piece_seconds"):
        if not 0 < getattr(options, name) < math.inf:
            parser.error(f"--{name.replace('_', '-')}: should be a number above 0")
    try:
        batches = tuple(int(number) for number in options.batch_sizes.split(","))
    except ValueError:
        batches = ()
    if not batches or min(batches) < 1:
        parser.error("--batch-sizes: should be numbers from 1, such as 1,8,32")
    if options.list:
        for one in PIECES:
            print(f"{one.name}: {one.claim}")
        return 0
    folder = options.folder or Path()
    gpus = options.gpus or 0
    context = Context(options.device, folder, gpus, options.network, batches, options.piece_seconds)
    if options.piece:
        print(RESULT + json.dumps(run_here(known[options.piece], context)), flush=True)
        return 0
    from ppcls.utils.errors import UserError

    try:
        return report(options, [known[name] for name in options.only or known], context)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report(options: argparse.Namespace, pieces: Sequence[Piece], context: Context) -> int:
    """Run the pieces, and write what they found after each; 1 where a claim does not hold."""
    from ppcls.utils.files import write_text, writing
    from ppcls.utils.signals import signals_interrupt

    machine = machine_of(options.device)
    with writing(str(options.output), "--output FOLDER"):
        options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "gpu_check.json"
    about = {"machine": machine, "device": options.device, "network": options.network}
    about["batch_sizes"] = list(context.batches)
    results = read_earlier(path, about)
    found = {}
    code = 0

    def keep() -> None:
        text = json.dumps({**about, "pieces": results}, indent=1)
        write_text(path, f"{text}\n")
        lines = "\n".join(rows(results, place_of(machine)))
        write_text(options.output / "gpu_check.md", f"{lines}\n")

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        signals_interrupt(),
    ):
        folder = Path(temporary)
        link_tensorrt(folder)
        context = replace(context, folder=folder, gpus=len(machine["gpus"]))
        try:
            for name, one in check_all(pieces, context, options.minutes):
                found[name] = one
                if not (one.get("late") and name in results):
                    results[name] = one
                keep()
        except KeyboardInterrupt:
            code = INTERRUPTED
            keep()
    if options.docs and results:
        into_page(PAGE, rows(results, place_of(machine)))
    count = {s: sum(r["status"] == s for r in found.values()) for s in (PASS, FAIL, IMPOSSIBLE)}
    said = ", ".join(f"{number} {status}" for status, number in count.items())
    said += " before it was interrupted" if code else ""
    print(f"{said}; {path} and gpu_check.md beside it have the table")
    return code or (1 if count[FAIL] else 0)


if __name__ == "__main__":
    sys.exit(main())
