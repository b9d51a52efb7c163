"""A trained network as a folder that predicts without ppcls's training half, checked before use."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import Tensor, nn

import ppcls
from ppcls.api import create_model
from ppcls.config.load import from_plain
from ppcls.data import builtin
from ppcls.data.preprocess import resize
from ppcls.inference import exported_model, formats, manifest, onnx_metadata, selfcheck
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import Origin, sizes, staged
from ppcls.inference.inputs import ImageInput, open_image
from ppcls.inference.predictor import link
from ppcls.models import registry
from ppcls.models.class_maps import METHODS, class_maps, why_inexact
from ppcls.models.fuse import save_program
from ppcls.models.layers import Normalize
from ppcls.paired import Spread
from ppcls.recipe import Recipe
from ppcls.thresholds import Chosen
from ppcls.train import frozen
from ppcls.train.checkpoint import IMAGENET_CLASSES, Trained
from ppcls.train.setup import eval_samples, open_trained, with_preprocess
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import staged_folder
from ppcls.utils.log import say
from ppcls.utils.text import did_you_mean, plural, visible

CHECKED = 8  # images that the exported and the trained network are compared on
TOLERANCE = 1e-4  # largest difference of a probability …
NOISE = 256  # pixels of a side of images that are made to compare on
ROUNDINGS = 10  # … or so many times what rounding the input does to the trained network itself, …
LIMIT = 0.05  # … but never more than this
FP16_TOLERANCE = 2e-3  # in place of TOLERANCE, of networks in FP16
IN_FLOAT = (0, 1 / 8, 1 / 4, 1 / 2)  # of their convolutions, the first ones: tried in this order

# PaddleX's names of networks → those they have here; of its own that give an image several labels.
PADDLEX = {name: own for family in registry.FAMILIES for name, own in family.paddlex.items()}
PADDLEX_SEVERAL = (
    "ResNet50_ML",
    "PP-LCNet_x1_0_ML",
    "PP-HGNetV2-B0_ML",
    "PP-HGNetV2-B4_ML",
    "PP-HGNetV2-B6_ML",
    "CLIP_vit_base_patch16_448_ML",
    "PP-LCNet_x1_0_pedestrian_attribute",
    "PP-LCNet_x1_0_vehicle_attribute",
)

# Forms of an exported network → the engine that it is checked with.
FORMATS = {"paddle": "onednn", "onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Form:
    """What to write.

    Attributes:
        formats: names in `FORMATS`.
        input: float32, normalised [N, C, H, W], or uint8, pixels [N, H, W, C].
        output: probabilities or logits.
        dynamic_size: take images of any height and width, not only the recipe's.
        fuse: fold batch norms into convolutions.
        features: give the pooled features, float32 [N, D], as a second output.
        explain: give every class's activation map, float32 [N, classes, h, w], as the last output.
        thresholds: of the classes, in place of the checkpoint's.
        precision: fp32, or fp16, of ONNX alone: of weights and arithmetic; inputs and outputs are
            as of fp32.
        paddlex: the name that PaddleX is to read the network under; None: its own, if it knows one.
    """

    formats: Sequence[str] = ("paddle",)
    input: Literal["float32", "uint8"] = "float32"
    output: str = "probabilities"
    dynamic_size: bool = False
    fuse: bool = True
    paddlex: str | None = None
    features: bool = False
    explain: bool = False
    thresholds: Chosen | None = None
    precision: Literal["fp32", "fp16"] = "fp32"

    @property
    def tolerance(self) -> float:
        return FP16_TOLERANCE if self.precision == "fp16" else TOLERANCE


class Answers(nn.Layer):
    """What is exported: images to logits or probabilities and, where asked for, pooled features and
    class activation maps.
    """

    def __init__(self, before: nn.Layer, net: nn.Layer, after: nn.Layer, form: Form):
        super().__init__()
        self.before = before
        self.net = net
        self.after = after
        self.features = form.features
        self.explain = form.explain

    def forward(self, images: Tensor):
        images = self.before(images)
        if not self.features and not self.explain:
            return self.after(self.net(images))
        features = self.net.features(images)
        pooled = self.net.pooled(features)
        outputs = (self.after(self.net.logits(pooled)),)
        if self.features:
            outputs = (*outputs, pooled)
        if self.explain:
            outputs = (*outputs, class_maps(self.net, features))
        return outputs


def export(
    trained: Trained,
    output: Path,
    images: Sequence[str] = (),
    form: Form | None = None,
    overwrite: bool = False,
    calibrates: bool = False,
) -> Path:
    """Write the network and `inference.yml` into the folder `output`.

    The files are written beside `output`, every format is compared with the trained network on
    real images, and only then do they take its place. An earlier export of the same weights is
    replaced.

    Args:
        images: images to compare on; default: of the evaluation data, else scikit-learn's two.
        form: default: Paddle's format, float32 in, probabilities out.
        overwrite: replace an export of other weights, too.
        calibrates: whether the caller calibrates it next.

    Raises:
        UserError: `output` is something else or not writable, a package is missing, or the
            networks differ.
    """
    form = form or Form()
    if form.precision == "fp16" and set(form.formats) != {"onnx"}:
        raise UserError(
            "--precision fp16: is for ONNX alone, give --format onnx; the other engines compute in "
            "fp16 from a float32 network (predict --precision fp16)"
        )
    check_paddlex(trained, form)
    check_features(trained, form)
    check_maps(trained, form)
    if "openvino" in form.formats:
        formats.require_openvino()
    output = output.resolve()
    origin = Origin(trained.recipe.model.title, str(trained.source), form.precision)
    with staged(output, origin, overwrite, calibrates) as temporary:
        write(trained, form, temporary)
        seen = [str(p) for p in images] or check_images(trained)
        kept = narrow(trained, form, temporary, seen) if form.precision == "fp16" else ""
        check = checked(trained, form, temporary, seen)
    say(f"{output}: exported {trained.source}; {words(check)}{kept}")
    return output


def export_checkpoint(checkpoint: Path, output: Path) -> None:
    """Write the exported folder that predicting with a checkpoint of ours runs, and say so.

    Raises:
        UserError: the checkpoint cannot be read, or `output` not written.
    """
    trained = open_trained(None, ["device=cpu"], str(checkpoint))
    form = Form(features=not lacking(trained))
    fix = "set PPCLS_HOME to another folder"
    with staged_folder(output, manifest.FILE, exported_model.OWN, fix=fix) as temporary:
        write(trained, form, temporary)
        checked(trained, form, temporary, noise(trained))
    say(f"{checkpoint}: exported into {output}, once")


def export_registered(name: str, tag: str) -> Path:
    """The folder in ppcls's own with a network of registered weights, which gives features, too.

    It is made where it is not there: as it comes, with its 1,000 classes, and in ONNX's format,
    too, where that can be made here, so that more engines can run it.

    Raises:
        UserError: the weights cannot be had, or the folder not written.
    """
    convertible = all(find_spec(module) for module in frozen.ONNX_NEEDS)
    form = Form(("paddle", "onnx") if convertible else ("paddle",), features=True)
    known = f"{name}-{tag}-{ppcls.__version__}-{'-'.join(form.formats)}"
    output = environment.home() / "exported" / known
    with suppress(UserError):  # else it is made anew
        return exported_model.open_exported(output).path
    keys: dict[str, Any] = {"model": {"name": name, "weights": tag}}
    keys["train"] = {"epochs": 1, "batch_size": 1, "schedule": {"lr": 1.0}}  # which nothing reads
    recipe = with_preprocess(from_plain(Recipe, keys, name))
    net = create_model(name, IMAGENET_CLASSES, tag)
    net.eval()
    trained = Trained(recipe, net, (), Path(tag), {})
    fix = "set PPCLS_HOME to another folder"
    with staged_folder(output, manifest.FILE, exported_model.OWN, fix=fix) as temporary:
        write(trained, form, temporary)
        checked(trained, form, temporary, noise(trained))
    say(f"{name} with its weights {tag}: exported into {output}, once")
    return output


def noise(trained: Trained) -> list[np.ndarray]:
    """Images of random spots, uint8 [H, W, C], to compare networks on where there are no others."""
    random = np.random.default_rng(0)
    channels = trained.recipe.preprocess.channels
    images = []
    for spots in (2, 4, 8, 16, NOISE):
        grid = random.integers(0, 256, (spots, spots, channels), np.uint8)
        images.append(resize(grid, NOISE, NOISE, "bilinear", "cv2"))
    return images


def checked(
    trained: Trained, form: Form, temporary: Path, images: Sequence[ImageInput]
) -> dict[str, Any]:
    """What comparing on images has shown, which the folder's manifest then says."""
    check = compare(trained, form, temporary, images)
    answers = made_answers(trained)
    if form.precision == "fp16":
        check["recorded"] = compare_recorded(trained, form, temporary, answers)
    recorded = selfcheck.record(answers, trained.recipe.preprocess)
    checks = {"check": check, selfcheck.KEY: recorded, "files": sizes(temporary)}
    about = describe(trained, form, checks)
    (temporary / manifest.FILE).write_text(about.to_yaml(), encoding="utf-8")
    return check


def write(trained: Trained, form: Form, temporary: Path) -> None:
    """The network's files in each format, and a manifest to check them with."""
    preprocess = trained.recipe.preprocess
    before = after = nn.Identity()
    if form.input == "uint8":
        before = Normalize(preprocess.scale, preprocess.offset)
    if form.output == "probabilities":
        after = nn.Sigmoid() if trained.recipe.task.multilabel else nn.Softmax()
    network = Answers(before, trained.net, after, form)
    network.eval()
    size = [None, None] if form.dynamic_size else [preprocess.height, preprocess.width]
    shape = [None, preprocess.channels, *size]
    if form.input == "uint8":
        shape = [None, *size, preprocess.channels]
    folded = trained.net if form.fuse else None
    save_program(network, temporary / exported_model.NAME, shape, form.input, folded)
    (temporary / manifest.FILE).write_text(describe(trained, form, {}).to_yaml(), encoding="utf-8")
    files = exported_model.open_exported(temporary)
    assert files.program
    onnx = temporary / exported_model.ONNX
    xml = temporary / exported_model.OPENVINO
    if set(form.formats) - {"paddle"}:
        formats.to_onnx(files.program, files.params, onnx)
        onnx_metadata.add(onnx, describe(trained, form, {}).to_texts())
    if "openvino" in form.formats:
        formats.to_openvino(onnx, xml)
    if "onnx" not in form.formats:
        for path in temporary.glob(f"{exported_model.ONNX}*"):
            path.unlink()
    if "paddle" not in form.formats:
        files.program.unlink()
        files.params.unlink()


def narrow(trained: Trained, form: Form, temporary: Path, images: Sequence[ImageInput]) -> str:
    """Turn the ONNX file into FP16, with as many convolutions in float32 as its answers need; what
    to tell of these.

    Rounding their weights is what changes the answers, and that of the first ones does most of it.
    """
    path = temporary / exported_model.ONNX
    own = [path, temporary / exported_model.ONNX_DATA]
    with tempfile.TemporaryDirectory(dir=temporary.parent) as folder:
        whole = [shutil.copy(file, folder) for file in own if file.is_file()]
        for share in IN_FLOAT:
            for file in whole:
                shutil.copy(file, temporary)
            kept, count = formats.to_fp16(path, share)
            try:
                compare(trained, form, temporary, images)
                compare_recorded(trained, form, temporary, made_answers(trained))
                break
            except UserError:
                if share == IN_FLOAT[-1]:
                    raise
    return f"; {kept} of {plural(count, 'convolution')} stay in float32 for that" if kept else ""


def made_answers(trained: Trained) -> np.ndarray:
    """The trained network's probabilities, [N, classes], of the images that every export keeps
    answers to.
    """
    preprocess = trained.recipe.preprocess
    inputs = preprocess.normalize(selfcheck.images(preprocess))
    trained.net.eval()
    with paddle.no_grad():
        logits = trained.net(paddle.to_tensor(inputs)).numpy()
    return link(logits, trained.recipe.task.answers)


def check_images(trained: Trained) -> list[str]:
    """Evaluation images spread over the data set or, where it is not here, scikit-learn's two."""
    try:
        samples = eval_samples(trained)
    except UserError as error:
        why = "; ".join(error.lines)
        say(f"note: compared on scikit-learn's sample images, for lack of evaluation data: {why}")
        return [str(path) for path in builtin.sample_images()]
    chosen = np.linspace(0, len(samples) - 1, min(CHECKED, len(samples))).astype(int)
    return [samples.paths[index] for index in chosen]


def compare(
    trained: Trained, form: Form, temporary: Path, images: Sequence[ImageInput]
) -> dict[str, Any]:
    """All on the same images; an error when a format differs by more than the tolerance."""
    preprocess = trained.recipe.preprocess
    task = trained.recipe.task.answers
    pixels = np.stack([open_image(image, preprocess) for image in images])
    inputs = preprocess.normalize(pixels)
    rounding = np.float32(1) + np.finfo(np.float32).eps
    trained.net.eval()
    with paddle.no_grad():
        expected = link(trained.net(paddle.to_tensor(inputs)).numpy(), task)
        rounded = link(trained.net(paddle.to_tensor(inputs * rounding)).numpy(), task)
    given = pixels if form.input == "uint8" else inputs
    outputs = {format: run(temporary, format, given) for format in form.formats}
    answers = {format: found[0] for format, found in outputs.items()}
    if form.output == "logits":
        answers = {format: link(found, task) for format, found in answers.items()}
    allowed = allowance(expected, rounded, form.tolerance)
    differences = held_against(expected, answers, allowed, "a probability", trained, len(images))
    check: dict[str, Any] = {
        "photos": len(images),
        "largest_difference": max(differences.values()),
        "allowed": allowed,
        "formats": differences,
    }
    more = {"features": (form.features, pooled, "a feature", 1)}
    more["maps"] = (form.explain, all_maps, "a class activation map", -1)
    for name, (asked, of, what, place) in more.items():
        if not asked:
            continue
        expected = of(trained, inputs)
        scale = float(np.abs(expected).max()) or 1.0
        rounded = of(trained, inputs * rounding)
        allowed = allowance(expected / scale, rounded / scale, form.tolerance)
        others = {format: found[place] / scale for format, found in outputs.items()}
        differences = held_against(
            expected / scale, others, allowed, f"{what}, relative to the largest", trained,
            len(images),
        )  # fmt: skip
        check[name] = {"largest_difference": max(differences.values()), "formats": differences}
    return check


def compare_recorded(
    trained: Trained, form: Form, temporary: Path, expected: np.ndarray
) -> dict[str, float]:
    """The largest difference of each format on the images that every export keeps answers to."""
    preprocess = trained.recipe.preprocess
    given = preprocess.network_input(selfcheck.images(preprocess), form.input)
    answers = {format: run(temporary, format, given)[0] for format in form.formats}
    if form.output == "logits":
        task = trained.recipe.task.answers
        answers = {format: link(found, task) for format, found in answers.items()}
    what = "a probability"
    return held_against(expected, answers, form.tolerance, what, trained, len(given))


def allowance(expected: np.ndarray, rounded: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """The largest difference that is no mistake.

    A hardly trained network can be so unsteady that no other order of additions agrees with it.
    """
    unsteady = ROUNDINGS * float(np.abs(rounded - expected).max())
    return min(max(tolerance, unsteady), LIMIT)


def held_against(
    expected: np.ndarray,
    found: Mapping[str, np.ndarray],
    allowed: float,
    what: str,
    trained: Trained,
    images: int,
) -> dict[str, float]:
    """The largest difference of each format; UserError where it is more than is allowed."""
    differences = {}
    for format, output in found.items():
        differences[format] = Spread.of(expected, output).largest
        if not differences[format] <= allowed:  # also when it is not a number
            raise UserError(
                f"the exported network ({format}) differs from {trained.source} by "
                f"{differences[format]:.2g} in {what} on "
                f"{plural(images, 'image')} (at most "
                f"{allowed:.2g} is allowed); nothing was exported"
            )
    return differences


def pooled(trained: Trained, inputs: np.ndarray) -> np.ndarray:
    """The features that the classifier takes, float32 [N, D]."""
    with paddle.no_grad():
        net: Any = trained.net
        return net.pooled(net.features(paddle.to_tensor(inputs))).numpy()


def all_maps(trained: Trained, inputs: np.ndarray) -> np.ndarray:
    """The activation maps of all classes, float32 [N, classes, h, w]."""
    with paddle.no_grad():
        net: Any = trained.net
        return class_maps(net, net.features(paddle.to_tensor(inputs))).numpy()


def black(trained: Trained) -> np.ndarray:
    """An image as the network takes it, to see shapes by, float32 [1, C, H, W]."""
    preprocess = trained.recipe.preprocess
    image = preprocess(np.zeros((64, 64, preprocess.channels), np.uint8))
    return preprocess.normalize(image[None])


def run(temporary: Path, format: str, given: np.ndarray) -> list[np.ndarray]:
    """The outputs of the network in one of its formats."""
    files = exported_model.open_exported(temporary)
    kept = {"paddle": files.program, "onnx": files.onnx, "openvino": files.openvino}
    alone = {name: path if name == format else None for name, path in kept.items()}
    files = replace(files, program=alone["paddle"], onnx=alone["onnx"], openvino=alone["openvino"])
    settings = Settings(FORMATS[format], threads=environment.threads())
    return open_engine(files, settings).run_all(given)


def words(check: dict[str, Any]) -> str:
    return (
        f"on {plural(check['photos'], 'image')} its probabilities differ from the trained "
        "network's by "
        f"{check['largest_difference']:.1e} at most (allowed: {check['allowed']:.1e})"
    )


def describe(trained: Trained, form: Form, checks: dict[str, Any]) -> manifest.Manifest:
    recipe = trained.recipe
    about = {
        "source": str(trained.source),
        "num_classes": trained.classes,
        "scores": trained.scores,
        **checks,
        "versions": {"ppcls": ppcls.__version__, "paddle": paddle.__version__},
    }
    if qat := recipe.train.qat:
        about[manifest.WEIGHT_BITS] = qat.weight_bits
    paddlex = paddlex_name(trained, form)
    names = trained.names
    several = recipe.task.multilabel
    thresholds = trained.thresholds
    if form.thresholds:
        thresholds = form.thresholds.values
        about["thresholds"] = form.thresholds.to_plain()
    if form.paddlex and several:
        names = names or tuple(map(str, range(trained.classes)))  # PaddleX needs some
    return manifest.Manifest(
        recipe.model.title,
        recipe.preprocess,
        names,
        input=form.input,
        output=form.output,
        precision=form.precision,
        dynamic_size=form.dynamic_size,
        features=pooled(trained, black(trained)).shape[1] if form.features else 0,
        maps=manifest.MapShape(*all_maps(trained, black(trained)).shape[1:])
        if form.explain
        else None,
        task=recipe.task.answers,
        threshold=thresholds
        if several and thresholds
        else (thresholds or (manifest.THRESHOLD,))[0],
        default=0 if form.thresholds and not several else None,
        about=about,
        paddlex=paddlex if paddlex != recipe.model.title else None,
    )


def check_features(trained: Trained, form: Form) -> None:
    """UserError where the network does not say what its classifier takes."""
    if form.features and (missing := lacking(trained)):
        raise UserError(
            f"--features: {trained.recipe.model.name} has no method {missing[0]}; its class needs "
            f"{', '.join(METHODS)}, as the networks of ppcls have them"
        )


def check_maps(trained: Trained, form: Form) -> None:
    """UserError where what is exported would not be the network's class activation maps."""
    if not form.explain:
        return
    preprocess = trained.recipe.preprocess
    images = np.stack([preprocess(image) for image in noise(trained)[1:3]])
    trained.net.eval()
    why = why_inexact(trained.net, paddle.to_tensor(preprocess.normalize(images)))
    if why:
        raise UserError(
            f"--explain: {trained.recipe.model.name} {why}, so its maps cannot be exported; from "
            "the checkpoint itself, predict --explain draws Grad-CAM"
        )


def lacking(trained: Trained) -> list[str]:
    """What a network needs for its features to be exported, and has not."""
    return [name for name in METHODS if not callable(getattr(trained.net, name, None))]


def paddlex_name(trained: Trained, form: Form) -> str | None:
    """What PaddleX is to call the network: as asked, or its name of the same structure."""
    readable = form.input == "float32" and form.output == "probabilities"
    readable = readable and trained.recipe.preprocess.fit != "letterbox"
    if form.paddlex or trained.recipe.task.multilabel or not readable:
        return form.paddlex
    if trained.recipe.model.given:
        return None
    own = registry.spec_of(trained.recipe.model.name)
    return next((name for name, ours in PADDLEX.items() if registry.spec_of(ours) == own), None)


def check_paddlex(trained: Trained, form: Form) -> None:
    """UserError where PaddleX could not read the network under the name that is asked for."""
    name = form.paddlex
    recipe = trained.recipe
    if name is None:
        return
    multilabel = recipe.task.multilabel
    preprocess = recipe.preprocess
    known = PADDLEX_SEVERAL if multilabel else tuple(PADDLEX)
    if name not in known:
        kind = "several labels an image" if multilabel else "one label an image"
        raise UserError(
            f"--paddlex-name: PaddleX has no network {visible(name)!r} of {kind}"
            f"{did_you_mean(name, known)}; it knows {', '.join(known)}"
        )
    reasons = {
        "float32 images: leave out --input uint8": form.input != "float32",
        "probabilities: leave out --logits": form.output != "probabilities",
        "images of three channels": preprocess.channels != 3,
        "Paddle's or ONNX's format": not {"paddle", "onnx"} & set(form.formats),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"--paddlex-name: PaddleX takes {reason}")
    if preprocess.fit == "letterbox":
        raise UserError(
            "--paddlex-name: PaddleX has no letterbox: train with -o preprocess.fit=squash or crop"
        )
    if multilabel and preprocess.fit == "crop" and preprocess.resize != preprocess.crop:
        raise UserError(
            "--paddlex-name: PaddleX does not cut the middle out of an image of several labels: "
            f"-o preprocess.resize={preprocess.crop}, as the crop, and images that are square, or "
            "-o preprocess.fit=squash"
        )
    own = None if recipe.model.given else registry.spec_of(recipe.model.name)
    if multilabel or registry.spec_of(PADDLEX[name]) != own:
        say(f"note: PaddleX's own network {name} is built otherwise than {recipe.model.title}")
