"""An exported network in INT8: quantized after training, with real photos, and compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls import environment
from ppcls.data.datasets import find_photos
from ppcls.errors import UserError
from ppcls.inference.convert import onnx_of, to_openvino
from ppcls.inference.engines.base import Engine, Settings, need
from ppcls.inference.engines.table import open_engine
from ppcls.inference.folder import ONNX, OPENVINO, Folder, open_folder
from ppcls.inference.manifest import FILE
from ppcls.inference.quantize_judge import Judge, Score, labelled, milliseconds, prepare, unlabelled
from ppcls.inference.quantize_onnx import PRODUCTS, Quantizer, Scheme
from ppcls.inference.quantize_onnx import COMPUTED, PASSED  # isort: skip
from ppcls.inference.target import sizes, staged
from ppcls.log import say

RANKED_ON = 16  # photos that single layers are tried on

# What was measured to be fastest (docs/int8.md); TensorRT's has not been run on a GPU.
SCHEMES = {
    "onnxruntime": Scheme((*PRODUCTS, *COMPUTED, *PASSED), ("Gemm", "MatMul")),
    "openvino": Scheme(PRODUCTS, PRODUCTS),
    "onnxruntime-tensorrt": Scheme(PRODUCTS, PRODUCTS, tensorrt=True),
}
RUNS_IN = {"onnxruntime-tensorrt": "onnxruntime"}  # what stands in for an engine without a GPU


@dataclass(frozen=True)
class Candidate:
    """A network in INT8: its folder, the layers left in float, how well it does."""

    folder: Folder
    in_float: Sequence[str]
    score: Score


def quantize(
    source: Path,
    calibrate: Path,
    engine: str,
    output: Path | None = None,
    evaluate: Path | None = None,
    budget: float = 0.01,
    photos: int = 200,
) -> Path:
    """Write an exported folder's network in INT8 into a folder of its own, which is returned.

    Where all layers together cost more than the budget, the most sensitive 1, 2, 4, … of them, to
    half of all, stay in float.

    Args:
        source: exported folder in float.
        calibrate: folder or list of photos, unlabelled, such as the network will see.
        engine: what is to run it: onnxruntime, openvino or onnxruntime-tensorrt.
        output: default: `source` with "-int8" behind its name.
        evaluate: labelled photos: a folder per class, or a list file. Without, answers are
            compared on up to 500 photos of `calibrate`.
        budget: the loss allowed, 0 … 1: of top-1 on labelled photos, else the share of photos
            that are put into another class than by the float network.
        photos: how many to calibrate with.

    Raises:
        UserError: something is missing, or the budget cannot be kept; nothing is written.
    """
    check_engine(engine)
    folder = open_folder(source)
    if folder.manifest.precision != "fp32":
        raise UserError(f"{source}: is in {folder.manifest.precision} already; give a float export")
    output = (output or source.resolve().with_name(f"{source.resolve().name}-int8")).resolve()
    if output == source.resolve():
        raise UserError(f"{output}: is the float network; --output another FOLDER")
    found = find_photos(calibrate)
    chosen = [found[i] for i in spread(len(found), photos)]
    in_float = open_for(folder, engine)
    judge = (
        labelled(evaluate, folder.manifest, in_float)
        if evaluate
        else unlabelled(found, chosen, folder.manifest, in_float)
    )
    with staged(output) as temporary:
        quantizer = Quantizer(
            onnx_of(folder),
            SCHEMES[engine],
            (prepare(folder.manifest, [photo]) for photo in chosen),
            len(chosen),
        )
        best = search(folder, quantizer, engine, judge, budget, temporary, chosen)
        about = describe(folder, quantizer, engine, judge, best, in_float)
        about["calibrated_on"] = f"{len(chosen)} photos of {calibrate}"
        about["budget"] = budget
        network = replace(
            folder.manifest,
            precision="int8",
            about=folder.manifest.about | {"files": sizes(temporary), "int8": about},
        )
        (temporary / FILE).write_text(network.to_yaml(), encoding="utf-8")
    say(f"{output}: {source} in int8 for {engine}\n" + "\n".join(words(about)))
    return output


def check_engine(engine: str) -> None:
    if engine == "paddle":
        raise UserError(
            "--engine paddle: Paddle 3's own INT8 does not run on CPUs (docs/int8.md has what it "
            "says); use --engine onnxruntime or openvino"
        )
    if engine not in SCHEMES:
        raise UserError(f"--engine {engine}: INT8 is for {', '.join(SCHEMES)}")
    for module in ("onnxruntime", "onnx"):
        need(module, module, "deploy", engine)


def spread(total: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly spread, so that every class has its share."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)).tolist()


def open_for(folder: Folder, engine: str) -> Engine:
    """The folder opened with what runs it here."""
    return open_engine(folder, Settings(RUNS_IN.get(engine, engine), threads=environment.threads()))


def search(
    folder: Folder,
    quantizer: Quantizer,
    engine: str,
    judge: Judge,
    budget: float,
    temporary: Path,
    photos: Sequence[str],
) -> Candidate:
    """The network with as few layers in float as keep the loss within the budget."""
    layers = quantizer.layers
    tried = [attempt(folder, quantizer, engine, judge, temporary, [])]
    if tried[-1].score.loss > budget:
        say(f"{tried[-1].score.words()}: above the budget; looking for the layers that cost most")
        few = [photos[i] for i in spread(len(photos), RANKED_ON)]
        layers = quantizer.rank(prepare(folder.manifest, few))
    count = 1
    while tried[-1].score.loss > budget and count <= len(layers) // 2:
        tried.append(attempt(folder, quantizer, engine, judge, temporary, layers[:count]))
        say(f"{count} of {len(layers)} layers in float: {tried[-1].score.words()}")
        count *= 2
    if tried[-1].score.loss <= budget:
        return tried[-1]
    least = min(tried, key=lambda candidate: candidate.score.loss)
    raise UserError(
        f"{folder.path}: int8 costs {points(tried[0].score.loss)} ({tried[0].score.words()}), and "
        f"still {points(least.score.loss)} with {len(least.in_float)} of {len(layers)} layers in "
        f"float; the budget is {points(budget)}: nothing was written; "
        f"{judge.advice()}raise --budget, or give more --photos"
    )


def attempt(
    folder: Folder,
    quantizer: Quantizer,
    engine: str,
    judge: Judge,
    temporary: Path,
    in_float: Sequence[str],
) -> Candidate:
    """Write the network and see how it does."""
    onnx, xml = temporary / ONNX, temporary / OPENVINO
    quantizer.write(onnx, in_float)
    made = Folder(temporary, replace(folder.manifest, precision="int8"), onnx=onnx)
    if engine == "openvino":
        to_openvino(onnx, xml)
        onnx.unlink()
        made = replace(made, onnx=None, openvino=xml)
    return Candidate(made, in_float, judge.score(open_for(made, engine)))


def points(share: float) -> str:
    return f"{100 * share:.1f} points"


# --------------------------------------------------------------------------- what is reported


def describe(
    folder: Folder,
    quantizer: Quantizer,
    engine: str,
    judge: Judge,
    best: Candidate,
    in_float: Engine,
) -> dict[str, Any]:
    """What is kept in the manifest about the quantized network."""
    import onnxruntime

    quantized = open_for(best.folder, engine)
    bytes = {
        "float": onnx_of(folder).stat().st_size,
        "int8": sum(path.stat().st_size for path in best.folder.files),
    }
    return {
        "engine": engine,
        "measured_in": in_float.settings.engine,
        "threads": in_float.settings.threads,
        "compared_on": f"{len(judge.paths)} photos of {judge.source}",
        **best.score.about(),
        "bytes": bytes,
        "milliseconds": milliseconds([in_float, quantized], folder.manifest),
        "layers": len(quantizer.layers),
        "layers_in_float": list(best.in_float),
        "weight_bits": 7 if quantizer.reduced_range else 8,
        "versions": {"onnxruntime": onnxruntime.__version__},
    }


def words(about: dict[str, Any]) -> list[str]:
    """The report, a line for each thing measured."""
    before, after = (about["bytes"][key] / 1e6 for key in ("float", "int8"))
    lines = [
        f"  {about['compared_on']}: {Score.of(about).words()}",
        f"  size: {before:.1f} MB in float, {after:.1f} MB in int8",
    ]
    for batch, (before, after) in about["milliseconds"].items():
        lines.append(
            f"  {about['measured_in']}, {about['threads']} threads, batch {batch}: "
            f"{before:.1f} ms in float, {after:.1f} ms in int8: {before / after:.2f} times as fast"
        )
    left = about["layers_in_float"]
    share = f"{len(left)} of {about['layers']}"
    return [*lines, f"  layers in float: {share}: {', '.join(left)}" if left else "  no layer in float"]
