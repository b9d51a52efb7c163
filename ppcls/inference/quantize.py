"""An exported network in INT8: quantized after training, with real photos, and compared."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ppcls import environment
from ppcls.data.datasets import find_photos
from ppcls.errors import UserError
from ppcls.inference import quantize_judge, target
from ppcls.inference.arguments import ON_ERROR, one_of
from ppcls.inference.convert import onnx_of, to_openvino
from ppcls.inference.engines.base import Engine, Settings, need
from ppcls.inference.engines.table import open_engine
from ppcls.inference.folder import ONNX, OPENVINO, Folder, open_folder
from ppcls.inference.manifest import FILE, Manifest
from ppcls.inference.quantize_judge import Judge, Score, prepare, readable, spread
from ppcls.inference.quantize_onnx import COMPUTED, PASSED, PRODUCTS, Quantizer, Scheme
from ppcls.inference.target import Origin, sizes
from ppcls.inference.timing import Clock
from ppcls.log import say
from ppcls.utils.text import at_most, plural

RANKED_ON = 16  # photos that single layers are tried on

# What was measured to be fastest (docs/int8.md); TensorRT's has not been run on a GPU.
SCHEMES = {
    "onnxruntime": Scheme((*PRODUCTS, *COMPUTED, *PASSED), ("Gemm", "MatMul")),
    "openvino": Scheme(PRODUCTS, PRODUCTS),
    "onnxruntime-tensorrt": Scheme(PRODUCTS, PRODUCTS, tensorrt=True),
}
RUNS_IN = {"onnxruntime-tensorrt": "onnxruntime"}  # what stands in for a GPU's engine


def quantize(
    source: Path,
    calibrate: Path,
    engine: str,
    output: Path | None = None,
    evaluate: Path | None = None,
    budget: float = 0.01,
    photos: int = 200,
    on_error: str = "stop",
    overwrite: bool = False,
    clock: Clock = time.perf_counter,
) -> Path:
    """Write an exported folder's network in INT8 into a folder of its own, which is returned.

    Where all layers together cost more than the budget, the most sensitive 1, 2, 4, … of them, up
    to half of all, stay in float.

    Args:
        source: exported folder in float.
        calibrate: folder or list of photos such as the network will see; labels are not read.
        engine: what is to run it: onnxruntime, openvino or onnxruntime-tensorrt.
        output: default: `source` with "-int8" behind its name.
        evaluate: labelled photos: a folder per class, or a list file. Without, answers are
            compared on up to 500 photos of `calibrate`.
        budget: the loss allowed, 0 … 1: of top-1 on labelled photos, else the share of photos
            that are put into another class than by the float network.
        photos: how many to calibrate with.
        on_error: at a photo that is missing or broken: stop, or skip to leave it out.
        overwrite: replace an export of another network, too; one of the same in INT8 always is.
        clock: by which both networks are timed.

    Raises:
        UserError: something is missing, or the budget cannot be kept; nothing is written.
    """
    check_engine(engine)
    skip = one_of("on_error", on_error, ON_ERROR) == "skip"
    folder = open_folder(source)
    if folder.manifest.precision != "fp32":
        raise UserError(f"{source}: is in {folder.manifest.precision} already; give a float export")
    output = (output or source.resolve().with_name(f"{source.resolve().name}-int8")).resolve()
    if output == source.resolve():
        raise UserError(f"{output}: is the float network; --output another FOLDER")
    known = Origin.of(folder.manifest)
    origin = replace(known, source=known.source or str(source), precision="int8")
    target.check(output, origin, overwrite)  # before anything that takes long
    found = find_photos(calibrate, skip)
    chosen = [found[i] for i in spread(len(found), photos)]
    in_float = open_for(folder, engine)
    if evaluate:
        judge = quantize_judge.labelled(evaluate, folder.manifest, in_float, skip)
    else:
        given = calibrate, found, chosen, folder.manifest, in_float, skip
        judge = quantize_judge.unlabelled(*given)
    if skip:
        chosen = calibrating(chosen, folder.manifest, calibrate)
    with target.staged(output, origin, overwrite) as temporary:
        inputs = (prepare(folder.manifest, [photo]) for photo in chosen)
        quantizer = Quantizer(onnx_of(folder), SCHEMES[engine], inputs, len(chosen))
        job = Job(folder, engine, quantizer, judge, temporary, clock)
        best = job.search(budget, chosen)
        about = {
            "calibrated_on": f"{plural(len(chosen), 'photo')} of {calibrate}",
            "budget": budget,
        }
        about |= job.describe(best, in_float)
        kept = {**folder.manifest.about, "source": origin.source}
        kept |= {"files": sizes(temporary), "int8": about}
        network = replace(folder.manifest, precision="int8", about=kept)
        (temporary / FILE).write_text(network.to_yaml(), encoding="utf-8")
    about_it = (f"  {line}" for line in report(about, best.score))
    say(f"{output}: {source} in int8 for {engine}", *about_it)
    return output


def calibrating(chosen: Sequence[str], manifest: Manifest, source: Path) -> list[str]:
    """The photos that can be read; those that cannot are said."""
    kept = [path for path in chosen if readable(manifest, [path], skip=True)[0]]
    lost = [path for path in chosen if path not in set(kept)]
    if lost:
        what = plural(len(lost), "photo")
        say(f"note: {source}: {what} to calibrate with cannot be read: {at_most(lost)}")
    if not kept:
        raise UserError(f"{source}: none of the photos to calibrate with can be read")
    return kept


def check_engine(engine: str) -> None:
    if engine == "paddle":
        raise UserError(
            "--engine paddle: Paddle's own INT8 does not run on CPUs (docs/int8.md has the error); "
            "use --engine onnxruntime or openvino"
        )
    if engine not in SCHEMES:
        raise UserError(f"--engine {engine}: INT8 is for {', '.join(SCHEMES)}")
    for module in ("onnxruntime", "onnx", "ml_dtypes"):
        need(module, module, "deploy", engine)


def open_for(folder: Folder, engine: str) -> Engine:
    """The folder opened with what runs it here."""
    settings = Settings(RUNS_IN.get(engine, engine), threads=environment.threads())
    return open_engine(folder, settings)


@dataclass(frozen=True)
class Candidate:
    """A network in INT8: its folder, the layers left in float, how well it does."""

    folder: Folder
    in_float: Sequence[str]
    score: Score


@dataclass(frozen=True)
class Job:
    """A network to quantize for an engine, and the folder to write it into."""

    folder: Folder
    engine: str
    quantizer: Quantizer
    judge: Judge
    temporary: Path
    clock: Clock = time.perf_counter

    def search(self, budget: float, photos: Sequence[str]) -> Candidate:
        """The network with as few layers in float as keep the loss within the budget."""
        layers = self.quantizer.layers
        tried = [self.attempt([])]
        if tried[0].score.loss > budget:
            say(f"{tried[0].score}: above the budget; looking for the layers that cost most")
            few = [photos[i] for i in spread(len(photos), RANKED_ON)]
            layers = self.quantizer.rank(prepare(self.folder.manifest, few))
        count = 1
        while tried[-1].score.loss > budget and count <= len(layers) // 2:
            tried.append(self.attempt(layers[:count]))
            say(f"{count} of {plural(len(layers), 'layer')} in float: {tried[-1].score}")
            count *= 2
        if tried[-1].score.loss <= budget:
            return tried[-1]
        least = min(tried, key=lambda candidate: candidate.score.loss)
        raise UserError(
            f"{self.folder.path}: int8 costs {points(tried[0].score.loss)} ({tried[0].score}), and "
            f"{points(least.score.loss)} with {len(least.in_float)} of "
            f"{plural(len(layers), 'layer')} in "
            f"float, where {points(budget)} are allowed; nothing was written: "
            f"raise --budget, or {self.judge.advice}"
        )

    def attempt(self, in_float: Sequence[str]) -> Candidate:
        """Write the network and see how it does."""
        onnx, xml = self.temporary / ONNX, self.temporary / OPENVINO
        self.quantizer.write(onnx, in_float)
        made = Folder(self.temporary, replace(self.folder.manifest, precision="int8"), onnx=onnx)
        if self.engine == "openvino":
            to_openvino(onnx, xml)
            onnx.unlink()
            made = replace(made, onnx=None, openvino=xml)
        return Candidate(made, in_float, self.judge.score(open_for(made, self.engine)))

    def describe(self, best: Candidate, in_float: Engine) -> dict[str, Any]:
        """What is kept in the manifest about the quantized network."""
        engines = {"float": in_float, "int8": open_for(best.folder, self.engine)}
        return {
            "engine": self.engine,
            "measured_in": str(in_float.settings),
            "compared_on": f"{plural(len(self.judge.paths), 'photo')} of {self.judge.source}",
            **best.score.about(),
            "bytes": {
                "float": onnx_of(self.folder).stat().st_size,
                "int8": sum(path.stat().st_size for path in best.folder.files),
            },
            "milliseconds": quantize_judge.milliseconds(engines, self.folder, self.clock),
            "layers": len(self.quantizer.layers),
            "layers_in_float": list(best.in_float),
            "weight_bits": self.quantizer.weight_bits,
        }


def points(share: float) -> str:
    return f"{100 * share:.1f} points"


def report(about: dict[str, Any], score: Score) -> list[str]:
    """A line for each thing measured."""
    left = ", ".join(about["layers_in_float"]) or "none"
    lines = [
        f"{about['compared_on']}: {score}",
        "{float:,} bytes in float, {int8:,} in int8".format(**about["bytes"]),
        f"of {plural(about['layers'], 'layer')} left in float: {left}",
    ]
    for batch, times in about["milliseconds"].items():
        lines.append(
            f"{about['measured_in']}, {batch}: {times['float']} ms in float, {times['int8']} in "
            f"int8, {times['float'] / times['int8']:.2f} times as fast"
        )
    return lines
