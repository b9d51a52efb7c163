"""Which of the claims of docs/gpu.md hold on this machine, of each: pass, fail or impossible here.

    python tools/gpu_check.py                      # all, in at most 10 minutes
    python tools/gpu_check.py --only train-fp32 memory --minutes 3
    python tools/gpu_check.py --list

Each piece runs in a process of its own, so one that fails, crashes or hangs does not stop the rest.
What is found is kept in gpu_check/gpu_check.json, to which the pieces of later runs are added, and
gpu_check/gpu_check.md has the rows for docs/gpu.md; --docs writes them there. `--device cpu` runs
what a CPU can, to try the program itself.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
SHORTEST = 5.0  # seconds that a piece needs at least
LONGEST_REASON = 300

STEPS, BATCH = 6, 8  # of a run that is compared
SIDE = 64  # pixels of its images
SAME, CLOSE = 1e-2, 5e-2  # relative differences of losses: of float32, of half precisions
ALLOWED = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 2e-2, "int8": 0.1}  # of outputs, to their largest


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
    """

    device: str
    folder: Path
    gpus: int = 0
    network: str = "ResNet50_vd"
    batches: tuple[int, ...] = (1, 8, 32)


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
    return like_on_a_cpu(context, {"train.precision": "bf16"}, CLOSE)


@piece("train-fp16", "`train.precision: fp16` trains; its losses stay near float32's.")
def trains_fp16(context: Context) -> Found:
    return like_on_a_cpu(context, {"train.precision": "fp16"}, CLOSE)


@piece("recompute", "`train.recompute: true` leaves the losses as they are.", cpu=True)
def recomputes(context: Context) -> Found:
    return like_on_a_cpu(context, {"train.recompute": "true"}, SAME)


@piece("sync-norms-1", "`train.sync_norms: true` on one GPU is as without it.")
def syncs_alone(context: Context) -> Found:
    return like_on_a_cpu(context, {"train.sync_norms": "true"}, SAME)


@piece(
    "sync-norms",
    "`train.sync_norms: true` on two GPUs has the losses of one process with all the images.",
    gpus=2,
)
def syncs(context: Context) -> Found:
    half = {"train.sync_norms": "true", "train.batch_size": str(BATCH // 2)}
    return like_on_a_cpu(context, half, SAME, processes=2)


@piece("processes", "`--processes 2` has, over NCCL, the losses that it has over gloo.", 2, True)
def trains_together(context: Context) -> Found:
    half = {"train.batch_size": str(BATCH // 2)}
    expected = run_of(context, half, "cpu", processes=2)
    found = run_of(context, half, context.device, processes=2)
    return near(found, expected, SAME)


@piece("nccl", "As many processes as there are GPUs add numbers up over NCCL.", cpu=True)
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
    largest = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    words = f"losses of {len(found)} steps differ by {largest:.1e} (allowed {allowed:.0e})"
    figures = {"losses": list(found), "on_a_cpu": list(expected), "largest": largest}
    return Found(largest <= allowed, words, figures)  # not where it is no number


def run_of(
    context: Context, keys: Mapping[str, str], device: str, processes: int = 1
) -> list[float]:
    """The losses of the steps of a short run of `ppcls train`; kept for the next piece."""
    words = [f"{key}={value}" for key, value in sorted(keys.items())]
    name = "_".join(["run", device, str(processes), *words]).replace("/", "_")
    place = context.folder / name
    if not (place / "losses.json").is_file():
        command = [sys.executable, "-m", "ppcls", "train", "-c", str(recipe(context))]
        command += ["--overwrite", "--processes", str(processes)]
        command += ["-o", f"output={place}", f"device={device}", *words]
        said = execute(command, context)
        asked = keys.get("train.precision", "fp32")
        if asked != "fp32" and f"precision {asked}" not in said:
            raise Impossible(f"this GPU does not compute in {asked}")
        from ppcls.utils.log import read_records

        records = [r for r in read_records(place / "run.jsonl") if r["event"] == "train"]
        (place / "losses.json").write_text(json.dumps([record["loss"] for record in records]))
    return json.loads((place / "losses.json").read_text())


def recipe(context: Context) -> Path:
    """Photos of two classes, and a run over them that draws nothing at random on the device."""
    place = context.folder / "photos"
    if not place.is_dir():
        import numpy as np
        from PIL import Image

        random = np.random.default_rng(0)
        for label, name in enumerate(("a", "b")):
            (place / name).mkdir(parents=True)
            for number in range(STEPS * BATCH // 2):
                coarse = random.integers(0, 256, (8 + 4 * label, 10, 3), np.uint8)
                image = Image.fromarray(coarse).resize((80, 72))
                image.save(place / name / f"{number}.png")
    path = context.folder / "recipe.yaml"
    path.write_text(
        "model: {name: ResNet18_vd}\n"
        f"data: {{train: {place}, eval: {place}, workers: 0}}\n"
        f"preprocess: {{resize: {SIDE + 8}, crop: {SIDE}}}\n"
        f"train: {{epochs: 1, batch_size: {BATCH}, log_every: 1, schedule: {{lr: 0.01}}}}\n"
    )
    return path


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

    claim = f"Engine `{engine}` {how} answers as on a CPU, at batches of 1, 8 and 32."
    piece(f"{engine}-{precision}", claim, cpu=cpu)(check)


def runs_in(context: Context, engine: str, precision: str) -> Found:
    batches = ",".join(map(str, context.batches))
    place = context.folder / f"bench_{engine}_{precision}"
    command = [sys.executable, "-m", "ppcls", "bench", "--models", context.network]
    command += ["--engines", engine, "--precisions", precision, "--batch-sizes", batches]
    command += ["--device", context.device, "--rounds", "2", "--seconds", "0.3"]
    execute([*command, "--output", str(place)], context, codes=(0, 1, 2))
    lines = [line for path in place.glob("*.jsonl") for line in path.read_text().splitlines()]
    cells = [cell for cell in map(json.loads, lines) if "batch" in cell]
    if not cells:
        raise Impossible(f"engine {engine} is not installed here")
    for cell in cells:
        if "failed" in cell:
            possible(cell["failed"])
            return Found(False, f"batch {cell['batch']}: {cell['failed']}", {"cells": cells})
    worst = max(cell["relative_error"] for cell in cells)
    times = ", ".join(f"{c['median_ms']:.2f} ms at {c['batch']}" for c in cells)
    words = f"{context.network}: {times}; relative error {worst:.1e}"
    kept = [{k: c[k] for k in ("batch", "median_ms", "relative_error", "agrees")} for c in cells]
    return Found(all(cell["agrees"] for cell in cells), words, {"cells": kept})


def runs_a_file(context: Context, engine: str, kind: str) -> Found:
    """An INT8 or FP16 file on the device beside the same file in ONNX Runtime on a CPU."""
    folder = context.folder / kind
    if not folder.is_dir():
        make_file(context, folder, kind)
    given = batch_of(context, max(context.batches))
    expected = opened(folder, "onnxruntime", "cpu", len(given)).run(given)
    largest = 0.0
    for batch in context.batches:
        output = opened(folder, engine, context.device, batch).run(given[:batch])
        scale = float(abs(expected).max())
        largest = max(largest, float(abs(output - expected[:batch]).max()) / scale)
    allowed = ALLOWED["int8" if kind == "int8" else "fp16"]
    return Found(largest <= allowed, f"outputs differ by {largest:.1e} (allowed {allowed:.0e})")


def make_file(context: Context, folder: Path, kind: str) -> None:
    weights = ["--weights", str(weights_of(context))]
    ppcls = [sys.executable, "-m", "ppcls"]
    if kind == "file":
        words = ["export", *weights, "--format", "onnx", "--precision", "fp16"]
        execute([*ppcls, *words, "--output", str(folder)], context)
        return
    source = exported(context)
    words = ["quantize", "--model-dir", str(source), "--calibrate", str(context.folder / "photos")]
    words += ["--engine", "onnxruntime-tensorrt", "--budget", "1", "--output", str(folder)]
    execute([*ppcls, *words], context)


def weights_of(context: Context) -> Path:
    """The checkpoint of the run on a CPU, which is made where it is not there."""
    run_of(context, {}, "cpu")
    return context.folder / "run_cpu_1" / "latest.safetensors"


def exported(context: Context) -> Path:
    """That run's network in float32, for all engines."""
    folder = context.folder / "exported"
    if not folder.is_dir():
        words = ["export", "--weights", str(weights_of(context)), "--format", "paddle", "onnx"]
        execute([sys.executable, "-m", "ppcls", *words, "--output", str(folder)], context)
    return folder


def batch_of(context: Context, count: int):
    """Images as the network takes them, float32 [N, 3, SIDE, SIDE]."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


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
    if "pip install" in reason or "runs on a GPU" in reason or "on a CPU, only" in reason:
        raise Impossible(reason)


for name, kinds in {
    "paddle": ("fp32", "fp16"),
    "onnxruntime": ("fp32", "file"),
    "tensorrt": ("fp32", "fp16"),
    "onnxruntime-tensorrt": ("fp32", "fp16", "int8", "file"),
}.items():
    for kind in kinds:
        engine_piece(name, kind, cpu=name in ("paddle", "onnxruntime") and kind != "fp16")


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
    given = batch_of(context, 8)
    times = []
    listings = []
    outputs = []
    for _ in range(2):
        start = time.perf_counter()
        outputs.append(opened(folder, engine, context.device, 8, "fp16").run(given))
        times.append(time.perf_counter() - start)
        files = [path for path in (folder / "engine_cache").rglob("*") if path.is_file()]
        listings.append({str(path): path.stat().st_mtime_ns for path in files})
    # The timing cache is written anew each time; engines and programs are not.
    built = [
        {path: when for path, when in listing.items() if not path.endswith(".timing")}
        for listing in listings
    ]
    same = bool(built[0]) and built[0] == built[1] and (outputs[0] == outputs[1]).all()
    words = f"opened in {times[0]:.1f} s, then in {times[1]:.1f} s"
    return Found(bool(same) and times[1] < times[0], words, {"seconds": times})


def graph_piece(engine: str) -> None:
    def check(context: Context) -> Found:
        return graphs_hold(context, engine)

    claim = f"At batch 1 `{engine}` answers through a CUDA graph as without one."
    piece(f"{engine}-graph", claim)(check)


def graphs_hold(context: Context, engine: str) -> Found:
    import numpy as np

    given = batch_of(context, 8)
    alone = opened(exported(context), engine, context.device, 1, "fp16")
    if not alone.graph:
        raise Impossible("no CUDA graph is used: the network is not one engine of TensorRT's")
    together = opened(exported(context), engine, context.device, 8, "fp16")
    outputs = np.concatenate([alone.run(image[None]) for image in given])
    expected = together.run(given)
    largest = float(abs(outputs - expected).max() / abs(expected).max())
    times = {}
    for name, one in (("with", alone), ("without", together)):
        spent = []
        for _ in range(200):
            start = time.perf_counter()
            one.run(given[:1])
            spent.append(time.perf_counter() - start)
        times[name] = 1000 * sorted(spent)[100]
    words = f"outputs differ by {largest:.1e}; {times['with']:.2f} ms, in an engine for 8 images "
    words += f"{times['without']:.2f} ms"
    return Found(largest <= ALLOWED["fp16"], words, {"milliseconds": times})


for name in ("tensorrt", "onnxruntime-tensorrt"):
    cache_piece(name)
    graph_piece(name)


# --------------------------------------------------------------------------
# A piece in a process of its own


def execute(command: Sequence[str], context: Context, codes: Sequence[int] = (0,)) -> str:
    """Run a command from the context's folder; what it said. RuntimeError for another exit code."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # Products of float32 in full: TF32 would be told from a mistake by its size alone.
    variables = {**os.environ, "PYTHONPATH": path, "NVIDIA_TF32_OVERRIDE": "0"}
    done = subprocess.run(
        command, cwd=context.folder, env=variables, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode not in codes:
        lines = [line for line in said.splitlines() if line.strip()]
        wrong = [line for line in lines if line.startswith("error:")] or lines[-1:]
        possible(" ".join(wrong))
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(wrong)}")
    return said


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
    detail = shortened(detail)
    seconds = round(time.monotonic() - start, 1)
    return {"status": status, "detail": detail, "seconds": seconds, "figures": figures}


def run_apart(one: Piece, context: Context, seconds: float) -> dict[str, Any]:
    """A piece in a process of its own, which is ended after so many seconds."""
    command = [sys.executable, str(Path(__file__).resolve()), "--piece", one.name]
    command += ["--device", context.device, "--folder", str(context.folder)]
    command += ["--network", context.network, "--gpus", str(context.gpus)]
    command += ["--batch-sizes", ",".join(map(str, context.batches))]
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, wrong = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end_all(process)
        reason = f"not done in the {seconds:.0f} s that were left: --only {one.name}"
        return {"status": IMPOSSIBLE, "detail": reason, "seconds": round(seconds, 1), "figures": {}}
    lines = [line for line in said.splitlines() if line.startswith(RESULT)]
    if lines:
        return json.loads(lines[-1].removeprefix(RESULT))
    last = next((line for line in reversed(wrong.splitlines()) if line.strip()), "no word")
    reason = f"its process ended with code {process.returncode} ({last})"
    spent = round(time.monotonic() - start, 1)
    return {"status": FAIL, "detail": shortened(reason), "seconds": spent, "figures": {}}


def end_all(process: subprocess.Popen) -> None:
    """End a process with all that it has started."""
    import signal

    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


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
    if device != "gpu" or not gpu_driver():
        return found
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        found["gpus"] = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    except OSError:
        pass
    return found


def obstacle(one: Piece, device: str, gpus: int) -> str:
    """Why a piece cannot be tried here, "" where it can."""
    if device == "cpu":
        return "" if one.cpu else "has no form for a CPU"
    if not gpus:
        return NO_GPU
    return "" if gpus >= one.gpus else f"needs {one.gpus} GPUs, {gpus} is here"


def check_all(
    pieces: Iterable[Piece],
    context: Context,
    minutes: float,
    run: Runner = run_apart,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = print,
) -> dict[str, dict[str, Any]]:
    """Every piece in its order, each told as it is done; none is begun when the time is over."""
    end = clock() + 60 * minutes
    found = {}
    for one in pieces:
        left = end - clock()
        why = obstacle(one, context.device, context.gpus)
        if not why and left < SHORTEST:
            why = f"the {minutes:g} minutes were over: --only {one.name}"
        result = {"status": IMPOSSIBLE, "detail": why, "seconds": 0.0, "figures": {}}
        if not why:
            result = run(one, context, left)
        found[one.name] = result
        tell(f"{one.name}: {words_of(result)} [{result['seconds']:.0f} s]")
    return found


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


def read_earlier(path: Path, machine: Mapping[str, Any], device: str) -> dict[str, dict[str, Any]]:
    """What earlier runs found on the same machine with the same packages."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        same = known["machine"] == machine and known["device"] == device
        return known["pieces"] if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PIECE", help="pieces to run; default: all")
    text = "time for all of them together; default: 10"
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help=text)
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
    if not 0 < options.minutes < math.inf:
        parser.error("--minutes: should be a number above 0")
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
    if options.piece:
        context = Context(
            options.device, options.folder, options.gpus or 0, options.network, batches
        )
        print(RESULT + json.dumps(run_here(known[options.piece], context)), flush=True)
        return 0
    return report(options, [known[name] for name in options.only or known], batches)


def report(options: argparse.Namespace, pieces: Sequence[Piece], batches: tuple[int, ...]) -> int:
    """Run the pieces, and write what they found; 1 where a claim does not hold."""
    machine = machine_of(options.device)
    gpus = len(machine["gpus"])
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "gpu_check.json"
    results = read_earlier(path, machine, options.device)
    with tempfile.TemporaryDirectory() as temporary:
        context = Context(options.device, Path(temporary), gpus, options.network, batches)
        found = check_all(pieces, context, options.minutes)
    results |= found
    lines = rows(results, place_of(machine))
    about = {"machine": machine, "device": options.device, "network": options.network}
    text = json.dumps({**about, "pieces": results}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    (options.output / "gpu_check.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.docs:
        into_page(PAGE, lines)
    count = {s: sum(r["status"] == s for r in found.values()) for s in (PASS, FAIL, IMPOSSIBLE)}
    said = ", ".join(f"{number} {status}" for status, number in count.items())
    print(f"{said}; {path} and gpu_check.md beside it have the table")
    return 1 if count[FAIL] else 0


if __name__ == "__main__":
    sys.exit(main())
