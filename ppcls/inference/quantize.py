"""INT8: an exported model quantized, compared with its original, and written where it is good.

An ONNX network in INT8, by ONNX Runtime's quantizer: what is quantized stands between
QuantizeLinear and DequantizeLinear (QDQ), the rest stays float.

The range of an activation is the mean over calibration images of each one's least and greatest
value, so that a single odd image does not coarsen all steps. Scales of weights are per output
channel. Softmax and the output of the last layer stay float.
"""

import copy
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppcls.data.datasets import Dataset, find_parts, labels_as, missing, open_samples
from ppcls.inference import exported_model, onnx_metadata, selfcheck
from ppcls.inference.auto import Clock, milliseconds
from ppcls.inference.engines.base import Engine, Settings, need
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import (
    ONNX,
    ONNX_DATA,
    OPENVINO,
    ExportedModel,
    Origin,
    open_exported,
    sizes,
)
from ppcls.inference.formats import onnx_of, to_openvino
from ppcls.inference.inputs import ON_ERROR, find_images, one_of, open_image
from ppcls.inference.manifest import FILE, WEIGHT_BITS, Manifest
from ppcls.inference.predictor import are_finite, link
from ppcls.paired import Difference, difference_of
from ppcls.utils import environment
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import Progress, say
from ppcls.utils.text import at_most, plural

PRODUCTS = ("Conv", "Gemm", "MatMul")
COMPUTED = ("Add", "Mul", "Sigmoid", "GlobalAveragePool", "AveragePool")
PASSED = ("Relu", "Clip", "MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Split", "Slice")
OPSET = 13  # from which on scales may differ by channel
ERRORS_ALONE = 3  # severity of what ONNX Runtime logs


@dataclass(frozen=True)
class Scheme:
    """What an engine runs fastest.

    Attributes:
        ops: kinds of operations to quantize.
        float_outputs: those whose outputs are quantized only where a quantized one takes them.
        tensorrt: as TensorRT reads it: activations symmetric, too, float biases, and weights in
            float with a pair of QuantizeLinear and DequantizeLinear of their own.
    """

    ops: tuple[str, ...]
    float_outputs: tuple[str, ...]
    tensorrt: bool = False

    def options(self) -> dict[str, Any]:
        """The quantizer's own names for this."""
        common = {"OpTypesToExcludeOutputQuantization": list(self.float_outputs)}
        if not self.tensorrt:
            return common
        return common | {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
        }


class Quantizer:
    """A float network with the ranges of its tensors; writes it in INT8.

    `layers` are the names of the operations that are quantized and may be left in float;
    `weight_bits` is what weights are rounded to.
    """

    def __init__(
        self,
        source: Path,
        scheme: Scheme,
        images: Iterable[np.ndarray],
        count: int,
        weight_bits: int = 8,
    ):
        """Fold batch norms, and run the network on `count` images, each as it takes them, [1, …].

        Args:
            weight_bits: 7 or 8, that the network was trained for; 8 become 7 where this CPU needs
                that.

        Raises:
            UserError: `source` is above 2 GB, or of an opset without scales per channel.
        """
        import onnx
        import onnxruntime
        from onnxruntime.quantization import quant_pre_process

        onnxruntime.set_default_logger_severity(ERRORS_ALONE)  # of the quantizer's own sessions
        check(source)
        self.scheme = scheme
        self.weight_bits = min(weight_bits, most_weight_bits(scheme))
        with tempfile.TemporaryDirectory() as temporary:
            folded = Path(temporary) / "folded.onnx"
            quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
            self.model = onnx.load(str(folded))
            del self.model.metadata_props[:]  # of the float network
            self.given = self.model.graph.input[0].name
            feeds = ({self.given: image} for image in Progress(images, "calibrating", count))
            self.ranges = calibrate(folded, scheme, feeds)
        nodes = self.model.graph.node
        # What stands before the first convolution normalises pixels, which 8 bits would blur.
        self.before = [node.name for node in takewhile(lambda n: n.op_type != "Conv", nodes)]
        self.layers = [
            node.name
            for node in nodes
            if node.op_type in scheme.ops
            and node.op_type not in PASSED
            and node.name not in self.before
        ]

    def write(self, target: Path, in_float: Sequence[str]) -> None:
        """Write the network with the layers `in_float` left as they are."""
        self.quantized((), in_float).save_model_to_file(str(target))

    def quantized(self, alone: Sequence[str], in_float: Sequence[str]):
        """The network, wrapped; `alone`: the only layers to quantize, () for all."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        quantizer = QDQQuantizer(
            copy.deepcopy(self.model),
            per_channel=True,
            reduce_range=self.weight_bits < 8,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self.scheme.tensorrt else QuantType.QUInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=list(alone),
            nodes_to_exclude=[*self.before, *in_float],
            op_types_to_quantize=list(self.scheme.ops),
            extra_options=self.scheme.options(),
        )
        quantizer.quantize_model()
        return quantizer.model

    def rank(self, images: np.ndarray) -> list[str]:
        """The layers, first the one that, quantized alone, changes the outputs on `images` most."""
        expected = self.run(self.model, images)
        errors = {}
        for name in Progress(self.layers, "trying layers", len(self.layers)):
            found = self.run(self.quantized([name], ()).model, images)
            errors[name] = float(np.square(found - expected).sum())
        return sorted(errors, key=lambda name: errors[name], reverse=True)

    def run(self, model, images: np.ndarray) -> np.ndarray:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = environment.threads()
        options.log_severity_level = ERRORS_ALONE
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {self.given: images})[0])


def most_weight_bits(scheme: Scheme) -> int:
    """8, or 7 for x86 without VNNI, where a sum of two 8-bit products overflows 16 bits."""
    vnni = "_vnni" in environment.read("proc/cpuinfo")
    return 7 if environment.X86 and not vnni and not scheme.tensorrt else 8


def check(source: Path) -> None:
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    if source.with_name(ONNX_DATA).exists():
        raise UserError(f"{source}: is above 2 GB, which ONNX Runtime's quantizer cannot read")
    found = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if found < OPSET:
        raise UserError(f"{source}: has ONNX opset {found}; convert it with {OPSET} or later")


def calibrate(source: Path, scheme: Scheme, feeds: Iterable[dict[str, np.ndarray]]):
    """The mean over images of the least and the greatest value of each tensor."""
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):
        rest = iter(feeds)

        def get_next(self):
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as temporary:
        augmented = Path(temporary) / "augmented.onnx"
        mean = {"moving_average": True}  # over what is collected at once, a plain mean
        calibrator = create_calibrator(str(source), scheme.ops, str(augmented), extra_options=mean)
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


# --------------------------------------------------------------------------
# How well a network in INT8 does beside the one in float: answers, and time

NO_IMAGE = "no image to compare answers on can be read"
BATCH = 8
COMPARED = 500  # unlabelled images at most


@dataclass(frozen=True)
class Score:
    """How INT8 scores beside float, None for unlabelled images; and the share of equal answers.

    An answer is an image's class (`name` top1) or each of its labels (label_accuracy).
    """

    difference: Difference | None
    agreement: float
    name: str = "top1"

    @property
    def loss(self) -> float:
        """What the budget is held against."""
        return self.difference.loss if self.difference else 1 - self.agreement

    def __str__(self) -> str:
        answer, words = ("class", "top-1") if self.name == "top1" else ("labels", "labels right")
        same = f"the same {answer} on {100 * self.agreement:.1f} %"
        if not self.difference:
            return same
        before, after = (100 * share for share in (self.difference.before, self.difference.after))
        return f"{words} {before:.1f} % in float, {after:.1f} % in int8, {same}"

    def about(self) -> dict[str, Any]:
        own = self.difference
        if own is None:
            return {self.name: None, "agreement": self.agreement}
        right = {"float": own.before, "int8": own.after}
        compared = {key: own.to_plain()[key] for key in ("low", "high", "p", "lost", "won")}
        return {self.name: right, "agreement": self.agreement, "difference": compared}


@dataclass(frozen=True, eq=False)
class AccuracyCheck:
    """Images, the float network's answers on them and, None when unknown, the right ones: classes
    int64 [N], or 0 and 1 [N, classes] in multilabel.
    """

    source: str
    paths: Sequence[str]
    labels: np.ndarray | None
    manifest: Manifest
    expected: np.ndarray

    def score(self, engine: Engine) -> Score:
        found = answers(engine, self.manifest, self.paths).found
        agreement = float((found == self.expected).mean())
        name = "top1" if self.manifest.task == "classify" else "label_accuracy"
        if self.labels is None:
            return Score(None, agreement, name)
        return Score(difference_of(self.labels, self.expected, found), agreement, name)

    @property
    def advice(self) -> str:
        if self.labels is None:
            return "--eval labelled images: another class is not always a worse one"
        return "--images, to calibrate with more"


def labelled(
    source: Path, manifest: Manifest, in_float: Engine, skip: bool = False
) -> AccuracyCheck:
    """UserError for images whose classes are not the network's and, unless `skip`, missing ones."""
    samples = open_labelled("--eval", source, manifest, in_float, skip)
    paths = list(samples.paths)
    known = answers(in_float, manifest, paths, skip)
    labels = samples.labels[known.places]
    paths = [paths[place] for place in known.places]
    return AccuracyCheck(samples.source, paths, labels, manifest, known.found)


def open_labelled(
    option: str, source: Path, manifest: Manifest, engine: Engine, skip: bool = False
) -> Dataset:
    """Labelled images, their labels as the network of an export numbers its classes.

    Args:
        option: begins messages: `--eval`.
        skip: missing images are left to who reads them.

    Raises:
        UserError: images of other classes, or missing ones.
    """
    source = Path(find_parts(None, str(source))[1] or source)
    samples = open_samples(source, multilabel=manifest.task == "multilabel")
    lost = [] if skip else missing(samples)
    if lost:
        raise UserError(f"{option}: images that do not exist: {'; '.join(lost)}")
    classes = classes_of(engine, manifest, list(samples.paths), skip)
    return replace(samples, labels=labels_as(samples, manifest.labels, classes, option))


def unlabelled(
    source: Path,
    found: Sequence[str],
    chosen: Sequence[str],
    manifest: Manifest,
    in_float: Engine,
    skip: bool = False,
) -> AccuracyCheck:
    """Images that are not calibrated with or, where those are fewer, all."""
    used = set(chosen)
    others = [path for path in found if path not in used]
    paths = others if len(others) >= len(chosen) else found
    paths = [paths[i] for i in spread(len(paths), COMPARED)]
    known = answers(in_float, manifest, paths, skip)
    paths = [paths[place] for place in known.places]
    return AccuracyCheck(str(source), paths, None, manifest, known.found)


def spread(total: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly spread: images often stand by class."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


class Answers(NamedTuple):
    """The answers on images as `decide` gives them, and which of the images those are."""

    found: np.ndarray
    places: list[int]


def classes_of(engine: Engine, manifest: Manifest, paths: Sequence[str], skip: bool) -> int:
    """How many classes the network has, seen from an image."""
    for path in paths:
        kept, images = readable(manifest, [path], skip)
        if kept:
            return engine.run(images).shape[1]
    raise UserError(NO_IMAGE)


def answers(
    engine: Engine, manifest: Manifest, paths: Sequence[str], skip: bool = False
) -> Answers:
    """With `skip` of the images that can be read; UserError where that is none."""
    places: list[int] = []
    found = []
    starts = range(0, len(paths), BATCH)
    for start in Progress(starts, "comparing", len(starts)):
        batch = paths[start : start + BATCH]
        kept, images = readable(manifest, batch, skip)
        if not kept:
            continue
        output = engine.run(images)
        for place, whole in zip(kept, are_finite(output), strict=True):
            if not whole:
                raise UserError(
                    f"{batch[place]}: the output of {engine.path} is not finite (NaN or infinite, "
                    f"by {engine.settings}): its weights are damaged or it overflows"
                )
        found.append(decide(manifest, output))
        places += [start + place for place in kept]
    if len(places) < len(paths):
        lost = f"{plural(len(paths) - len(places), 'image')} of {len(paths):,}"
        say(f"note: compared without {lost} that cannot be read")
    if not places:
        raise UserError(NO_IMAGE)
    return Answers(np.concatenate(found), places)


def decide(manifest: Manifest, output: np.ndarray) -> np.ndarray:
    """Of outputs [N, classes] the likeliest classes int64 [N] or, in multilabel, 0 and 1 of all."""
    if manifest.task == "classify" and manifest.default is None:
        return output.argmax(axis=1)
    return manifest.answers(link(output, manifest.task) if manifest.output == "logits" else output)


def prepare(manifest: Manifest, paths: Sequence[str]) -> np.ndarray:
    """Images as the network takes them."""
    return readable(manifest, paths, skip=False)[1]


def readable(manifest: Manifest, paths: Sequence[str], skip: bool) -> tuple[list[int], np.ndarray]:
    """Images as the network takes them and which of the paths they are; UserError for a broken one
    unless `skip`.
    """
    kept = []
    pixels = []
    for place, path in enumerate(paths):
        try:
            pixels.append(open_image(path, manifest.preprocess))
            kept.append(place)
        except DataError:
            if not skip:
                raise
    if not pixels:
        return kept, np.empty(0, np.uint8)
    return kept, manifest.preprocess.network_input(np.stack(pixels), manifest.input)


# --------------------------------------------------------------------------
# An exported network in INT8: quantized after training, with real images, and compared

RANKED_ON = 16  # images that single layers are tried on

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
    images: int = 200,
    on_error: str = "stop",
    overwrite: bool = False,
    clock: Clock = time.perf_counter,
) -> Path:
    """Write an exported folder's network in INT8 into a folder of its own, which is returned.

    Where all layers together cost more than the budget, the most sensitive 1, 2, 4, … of them, up
    to half of all, stay in float.

    Args:
        source: exported folder in float.
        calibrate: folder or list of images such as the network will see; labels are not read.
        engine: what is to run it: onnxruntime, openvino or onnxruntime-tensorrt.
        output: default: `source` with "-int8" behind its name.
        evaluate: labelled images: a folder per class, or a list file. Without, answers are
            compared on up to 500 images of `calibrate`.
        budget: the loss allowed, 0 … 1: of top-1 on labelled images, else the share of images
            that are put into another class than by the float network.
        images: how many to calibrate with.
        on_error: at an image that is missing or broken: stop, or skip to leave it out.
        overwrite: replace an export of another network, too; one of the same in INT8 always is.
        clock: by which both networks are timed.

    Raises:
        UserError: something is missing, or the budget cannot be kept; nothing is written.
    """
    check_engine(engine)
    skip = one_of("on_error", on_error, ON_ERROR) == "skip"
    folder = open_exported(source)
    if folder.manifest.precision != "fp32":
        raise UserError(f"{source}: is in {folder.manifest.precision} already; give a float export")
    output = (output or source.resolve().with_name(f"{source.resolve().name}-int8")).resolve()
    if output == source.resolve():
        raise UserError(f"{output}: is the float network; --output another FOLDER")
    known = Origin.of(folder.manifest)
    origin = replace(known, source=known.source or str(source), precision="int8")
    exported_model.check(output, origin, overwrite)  # before anything that takes long
    found = find_images(calibrate, skip)
    chosen = [found[i] for i in spread(len(found), images)]
    in_float = open_for(folder, engine)
    if evaluate:
        judge = labelled(evaluate, folder.manifest, in_float, skip)
    else:
        given = calibrate, found, chosen, folder.manifest, in_float, skip
        judge = unlabelled(*given)
    if skip:
        chosen = calibrating(chosen, folder.manifest, calibrate)
    with exported_model.staged(output, origin, overwrite) as temporary:
        inputs = (prepare(folder.manifest, [image]) for image in chosen)
        trained_for = folder.manifest.about.get(WEIGHT_BITS, 8)
        bits = trained_for if trained_for in (7, 8) else 8
        quantizer = Quantizer(onnx_of(folder), SCHEMES[engine], inputs, len(chosen), bits)
        job = Job(folder, engine, quantizer, judge, temporary, clock)
        best = job.search(budget, chosen)
        about = {
            "calibrated_on": f"{plural(len(chosen), 'image')} of {calibrate}",
            "budget": budget,
        }
        about |= job.describe(best, in_float)
        if best.folder.onnx:
            network = replace(
                folder.manifest,
                precision="int8",
                about={"source": origin.source},
                calibration=None,  # it is the float network's
            )
            onnx_metadata.add(best.folder.onnx, network.to_texts())
        kept = {**folder.manifest.about, "source": origin.source}
        kept |= {"files": sizes(temporary), "int8": about, selfcheck.KEY: job.recorded(best)}
        network = replace(folder.manifest, precision="int8", about=kept, calibration=None)
        (temporary / FILE).write_text(network.to_yaml(), encoding="utf-8")
    about_it = (f"  {line}" for line in report(about, best.score))
    say(f"{output}: {source} in int8 for {engine}", *about_it)
    if folder.manifest.calibration:
        say(f"note: {source} is calibrated and {output} is not: ppcls calibrate does it anew")
    return output


def calibrating(chosen: Sequence[str], manifest: Manifest, source: Path) -> list[str]:
    """The images that can be read; those that cannot are said."""
    kept = [path for path in chosen if readable(manifest, [path], skip=True)[0]]
    lost = [path for path in chosen if path not in set(kept)]
    if lost:
        what = plural(len(lost), "image")
        say(f"note: {source}: {what} to calibrate with cannot be read: {at_most(lost)}")
    if not kept:
        raise UserError(f"{source}: none of the images to calibrate with can be read")
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


def open_for(folder: ExportedModel, engine: str) -> Engine:
    """The folder opened with what runs it here."""
    settings = Settings(RUNS_IN.get(engine, engine), threads=environment.threads())
    return open_engine(folder, settings)


@dataclass(frozen=True)
class Candidate:
    """A network in INT8: its folder, the layers left in float, how well it does."""

    folder: ExportedModel
    in_float: Sequence[str]
    score: Score


@dataclass(frozen=True)
class Job:
    """A network to quantize for an engine, and the folder to write it into."""

    folder: ExportedModel
    engine: str
    quantizer: Quantizer
    judge: AccuracyCheck
    temporary: Path
    clock: Clock = time.perf_counter

    def search(self, budget: float, images: Sequence[str]) -> Candidate:
        """The network with as few layers in float as keep the loss within the budget."""
        layers = self.quantizer.layers
        tried = [self.attempt([])]
        if tried[0].score.loss > budget:
            say(f"{tried[0].score}: above the budget; looking for the layers that cost most")
            few = [images[i] for i in spread(len(images), RANKED_ON)]
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
        onnx = self.temporary / ONNX
        xml = self.temporary / OPENVINO
        self.quantizer.write(onnx, in_float)
        made = ExportedModel(
            self.temporary, replace(self.folder.manifest, precision="int8"), onnx=onnx
        )
        if self.engine == "openvino":
            to_openvino(onnx, xml)
            onnx.unlink()
            made = replace(made, onnx=None, openvino=xml)
        return Candidate(made, in_float, self.judge.score(open_for(made, self.engine)))

    def recorded(self, best: Candidate) -> dict[str, Any]:
        """Answers of the quantized network to the images that every export keeps them to."""
        manifest = self.folder.manifest
        pixels = selfcheck.images(manifest.preprocess)
        given = manifest.preprocess.network_input(pixels, manifest.input)
        found = open_for(best.folder, self.engine).run(given)
        if manifest.output == "logits":
            found = link(found, manifest.task)
        return selfcheck.record(found, manifest.preprocess)

    def describe(self, best: Candidate, in_float: Engine) -> dict[str, Any]:
        """What is kept in the manifest about the quantized network."""
        opened = {
            "float": (in_float, self.folder),
            "int8": (open_for(best.folder, self.engine), best.folder),
        }
        return {
            "engine": self.engine,
            "measured_in": str(in_float.settings),
            "compared_on": f"{plural(len(self.judge.paths), 'image')} of {self.judge.source}",
            **best.score.about(),
            "bytes": {
                "float": onnx_of(self.folder).stat().st_size,
                "int8": sum(path.stat().st_size for path in best.folder.files),
            },
            "milliseconds": milliseconds(opened, self.clock),
            "layers": len(self.quantizer.layers),
            "layers_in_float": list(best.in_float),
            "weight_bits": self.quantizer.weight_bits,
        }


def points(share: float) -> str:
    return f"{100 * share:.1f} points"


def report(about: dict[str, Any], score: Score) -> list[str]:
    """A line for each thing measured."""
    left = ", ".join(about["layers_in_float"]) or "none"
    lines = [f"{about['compared_on']}: {score}"]
    if score.difference:
        lines.append(score.difference.words(("float", "int8")))
    lines += [
        "{float:,} bytes in float, {int8:,} in int8".format(**about["bytes"]),
        f"of {plural(about['layers'], 'layer')} left in float: {left}",
    ]
    for batch, times in about["milliseconds"].items():
        lines.append(
            f"{about['measured_in']}, {batch}: {times['float']} ms in float, {times['int8']} in "
            f"int8, {times['float'] / times['int8']:.2f} times as fast"
        )
    return lines
