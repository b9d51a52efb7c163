"""PaddleClas's transforms, of training and evaluation, of images and batches."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.tree import dotted_name
from ppcls.data.preprocess import READ, Preprocess, read_normalize
from ppcls.migrate.sections import Section
from ppcls.utils.errors import UserError

Op = dict[str, Any]
Size = int | list[int]  # a side of a square, or height and width, as a recipe has it
LOG_ASPECT = "width / height is drawn on a log scale here, as use_log_aspect: True does"
SIZE = " size"  # of an op while the size of training is not known yet


@dataclass
class Train:
    """What the ops have said so far."""

    ops: list[Op] = field(default_factory=list)
    sources: list[Section] = field(default_factory=list)  # of each op
    size: Size | None = None  # after the last op that fixes it
    normalize: Section | None = None

    @property
    def hidden(self) -> str:
        """What 0 is: the mean colour once images are normalised, black before."""
        return "mean" if self.normalize else "constant"


def size_of(op: Section, default: float | None = None) -> Size:
    """An op's size, given as a number or as width and height; of more numbers PaddleClas, too,
    reads the first two.
    """
    many = isinstance(op.values.get("size"), list)
    sides = op.numbers("size") if many else [op.positive("size", default)]
    if not sides:
        raise UserError(f"{op.place('size')}: {op.name('size')} is empty")
    if not all(side > 0 and side == int(side) for side in sides):
        raise UserError(
            f"{op.place('size')}: {op.name('size')} should be whole numbers from 1, [width, height]"
        )
    if len(sides) > 2:
        op.matters("size", f"its first two numbers are read: {sides[0]} wide, {sides[1]} high")
    width = int(sides[0])
    height = int(sides[1]) if len(sides) > 1 else width
    return width if width == height else [height, width]


def both(size: Size) -> list[int]:
    """Height and width."""
    return size if isinstance(size, list) else [size, size]


def sized(op: Section, train: Train) -> Op:
    """The size an op leaves, for `settle`."""
    train.size = size_of(op, 224)
    return {SIZE: train.size}


def resampling(op: Section) -> Op:
    """Interpolation and backend; ours are OpenCV and bilinear unless said."""
    backend = str(op.get("backend", "cv2")).lower()
    name = op.get("interpolation", "bicubic" if backend == "pil" else "bilinear")
    ours = "random" if name == "random" else READ.get(str(name).upper())
    if ours is None:
        op.matters("interpolation", f"{name} is not known here: bilinear")
        ours = "bilinear"
    found = {"interpolation": ours} if ours != "bilinear" else {}
    return found | ({"backend": backend} if backend != "cv2" else {})


def maybe(prob: float, ops: list[Op]) -> list[Op]:
    """Ops that are applied with a probability."""
    return ops if prob >= 1 else [{"op": "random_apply", "prob": float(prob), "ops": ops}]


def fraction(op: Section, key: str, default: float) -> float:
    """A number above 0, which PaddleClas lets be written as 1.0/3.0."""
    text = str(op.get(key, default))
    top, _, bottom = text.partition("/")
    try:
        value = round(float(top) / float(bottom or 1), 6)
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not value > 0:
        raise UserError(f"{op.place(key)}: {op.name(key)} should be a number above 0 (got {text})")
    return value


# --------------------------------------------------------------------------
# PaddleClas's ops that decode, cut, resize, frame, mirror and turn an image


def decode(op: Section, train: Train) -> list[Op]:
    if not op.get("to_rgb", True):
        op.remark("to_rgb", "images are RGB here, whatever decodes them")
    for key in ("channel_first", "to_np", "backend", "img_mode"):
        op.get(key)
    return []


def crop_and_resize(op: Section, train: Train) -> list[Op]:
    found: Op = {"op": "random_resized_crop", **sized(op, train)}
    for key in ("scale", "ratio"):
        if key in op:
            found[key] = [float(value) for value in op.numbers(key)]
    if not op.get("use_log_aspect") and op.at[-1] == "RandCropImage":
        op.remark(None, LOG_ASPECT)
    if op.get("progress_size"):
        op.matters("progress_size", "not carried over: the size stays the same")
        op.page.lost.append("progressive sizes")
    return [found | resampling(op)]


def crop(op: Section, train: Train) -> list[Op]:
    return [{"op": "random_crop", **sized(op, train)}]


def center(op: Section, train: Train) -> list[Op]:
    return [{"op": "center_crop", **sized(op, train)}]


def resize(op: Section, train: Train) -> list[Op]:
    op.get("return_numpy")
    if op.get("resize_short"):
        pixels = op.get("resize_short")
        return [{"op": "resize_short", "pixels": pixels, **resampling(op)}]
    return [{"op": "resize", **sized(op, train), **resampling(op)}]


def flip(op: Section, train: Train) -> list[Op]:
    code = op.get("flip_code", 1)
    prob = op.number("prob", 0.5)
    given = {"prob": float(prob)} if prob != 0.5 else {}
    if code == -1:
        both = [{"op": f"{way}_flip", "prob": 1.0} for way in ("horizontal", "vertical")]
        return [{"op": "random_apply", "prob": float(prob), "ops": both}]
    return [{"op": "vertical_flip" if code == 0 else "horizontal_flip", **given}]


def rotation(op: Section, train: Train) -> list[Op]:
    many = isinstance(op.values.get("degrees"), list)
    degrees = op.numbers("degrees") if many else [op.number("degrees", 90)]
    low = degrees[0] if many else -degrees[0]
    high = degrees[-1]
    if op.get("interpolation", "nearest") != "bilinear":
        op.matters("interpolation" if "interpolation" in op else None, "sampled bilinearly here")
    turned = {"op": "rotation", "degrees": [float(low), float(high)]}
    return maybe(op.number("prob", 0.5), [turned])


def pad(op: Section, train: Train) -> list[Op]:
    mode = op.get("padding_mode", "constant")
    fill = op.get("fill", 0)
    if isinstance(fill, list):
        op.matters("fill", "one value for all channels here: the first")
        fill = fill[0]
    found: Op = {"op": "pad", "pixels": op.get("padding", 0), "fill": fill, "mode": mode}
    op.get("backend")
    return [{key: value for key, value in found.items() if value not in (0, "constant")}]


def pad_to_size(op: Section, train: Train) -> list[Op]:
    """What is missing is added on the right and below (0), all around (1), or left and above."""
    mode = op.get("pad_mode", 0)
    fill = op.get("fill_value", 127.5)
    op.get("size_divisor")
    extra = [-1]
    if op.values.get("size") and train.size:
        extra = [new - old for new, old in zip(both(size_of(op)), both(train.size), strict=True)]
    if mode not in (0, 1, 2) or min(extra) < 0:
        op.lose("not carried over: how much it adds is not known before an image is read")
        return []
    if isinstance(fill, list):
        op.matters("fill_value", "one value for all channels here: the first")
        fill = fill[0]
    top, left = ((0, more // 2, more)[mode] for more in extra)
    bottom, right = extra[0] - top, extra[1] - left
    return [{"op": "pad", "pixels": [left, top, right, bottom], "fill": int(fill)}]


# --------------------------------------------------------------------------
# PaddleClas's ops that change an image's colours, draw from a policy or hide a part

ROTATED = "images are rotated to both sides here, as in the paper; there to one"


def jitter(op: Section, train: Train) -> list[Op]:
    found: Op = {"op": "color_jitter"}
    for key in ("brightness", "contrast", "saturation", "hue"):
        if op.get(key):
            found[key] = float(op.number(key))
    return maybe(op.number("prob", 1), [found])


def grey(op: Section, train: Train) -> list[Op]:
    return [{"op": "grayscale", "prob": float(op.number("p", 0.1))}]


def lighting(op: Section, train: Train) -> list[Op]:
    return [{"op": "lighting", "std": float(op.number("alphastd", 0.1))}]


def auto(op: Section, train: Train) -> list[Op]:
    op.matters(None, ROTATED)
    return [{"op": "auto_augment"}]


def rand(op: Section, train: Train) -> list[Op]:
    layers = op.get("num_layers", 2)
    magnitude = op.number("magnitude", 5)
    op.matters(
        None, "of the paper's changes here: without invert; posterize and solarize grow stronger"
    )
    if op.at[-1] in ("RandAugment", "RandAugmentV4"):
        op.matters(None, ROTATED)
    return [{"op": "rand_augment", "num_ops": layers, "magnitude": float(magnitude)}]


def rand_of_another_kind(op: Section, train: Train) -> list[Op]:
    op.get("progress_magnitude")
    found = rand(op, train)
    op.matters(None, "its own table of changes is not known here: RandAugment's is used")
    return found


def timm(op: Section, train: Train) -> list[Op]:
    """timm's names of policies, such as rand-m9-mstd0.5-inc1, whose changes come one by one."""
    text = str(op.get("config_str", "rand-m9-mstd0.5-inc1"))
    op.get("img_size")
    if op.get("interpolation", "bilinear") != "bilinear":
        op.matters("interpolation", "policies are sampled bilinearly here")
    prob = op.number("prob", 1)
    kind, *settings = text.split("-")
    pairs = [re.fullmatch(r"([a-z]+)(\d+\.?\d*)", setting) for setting in settings]
    given = {pair[1]: float(pair[2]) for pair in pairs if pair}
    if kind == "augmix":
        found = {"op": "augmix", "severity": given.get("m", 3.0)}
        return maybe(prob, [found | ({"width": int(given["w"])} if "w" in given else {})])
    if kind != "rand":
        if kind != "original":
            op.matters("config_str", f"{text}: the policy of the paper here")
        return maybe(prob, [{"op": "auto_augment"}])
    op.matters(None, "drawn from the paper's changes here, without invert and solarize_add")
    if not given.get("inc"):
        op.matters("config_str", "changes grow stronger with the magnitude here, as inc1 asks for")
    one: Op = {"op": "rand_augment", "num_ops": 1, "magnitude": min(10.0, given.get("m", 10.0))}
    if given.get("mstd"):
        one["magnitude_std"] = given["mstd"]
    half = maybe(0.5, [one])  # timm applies each with this probability
    return maybe(prob, half * int(given.get("n", 2)))


def augmix(op: Section, train: Train) -> list[Op]:
    depth = op.number("mixture_depth", 1)
    found = {
        "op": "augmix",
        "severity": float(op.number("aug_severity", 1)),
        "width": op.get("mixture_width", 3),
        "alpha": float(op.number("aug_prob_coeff", 0.1)),
    }
    prob = op.number("prob", 0.5)
    return maybe(prob, [found | ({"depth": depth} if depth > 0 else {})])


def erasing(op: Section, train: Train) -> list[Op]:
    mode = op.get("mode", "const")
    least = fraction(op, "r1", 0.3)
    mean = op.get("mean", [0.0, 0.0, 0.0])
    found: Op = {
        "op": "random_erasing",
        "prob": fraction(op, "EPSILON", 0.5),
        "scale": [fraction(op, "sl", 0.02), fraction(op, "sh", 0.4)],
        "ratio": [least, round(1 / least, 6)],
        "mode": "pixel" if mode in ("pixel", "rand") else train.hidden,
    }
    if mode == "rand":
        op.matters("mode", "each pixel is another random one here: pixel")
    elif mode == "const" and any(mean):
        op.matters("mean", f"painted {train.hidden} here: 0 after normalising is the mean colour")
    op.get("attempt")
    if not op.get("use_log_aspect"):
        op.remark(None, LOG_ASPECT)
    return [found]


def cutout(op: Section, train: Train) -> list[Op]:
    holes = op.get("n_holes", 1)
    length = op.get("length", 112)
    return [{"op": "cutout", "holes": holes, "length": length, "mode": train.hidden}]


def hide_and_seek(op: Section, train: Train) -> list[Op]:
    return [{"op": "hide_and_seek", "mode": train.hidden}]


def grid_mask(op: Section, train: Train) -> list[Op]:
    turn = op.number("rotate", 1) - 1  # drawn from whole degrees below it
    if op.get("mode", 0) != 1:
        op.matters(
            "mode", "the squares are hidden here, as mode: 1 does, not the bars between them"
        )
    found: Op = {
        "op": "grid_mask",
        "prob": float(op.number("prob", 1)),
        "unit": [op.get("d1", 96), op.number("d2", 224) - 1],
        "ratio": float(op.number("ratio", 0.5)),
        "mode": train.hidden,
    }
    op.matters(None, "its probability does not grow with the epochs")
    return [found | ({"rotate": float(turn)} if turn > 0 else {})]


# --------------------------------------------------------------------------
# `transform_ops` of the training images: for each op of PaddleClas what of ours says the same


def apply(op: Section, train: Train) -> list[Op]:
    inner = Train(normalize=train.normalize)
    read(op, "transforms", inner)
    train.size = inner.size or train.size
    prob = float(op.number("p", 0.5))
    return [{"op": "random_apply", "prob": prob, "ops": inner.ops}] if inner.ops else []


def normalize(op: Section, train: Train) -> list[Op]:
    train.normalize = op
    return []


def nothing(op: Section, train: Train) -> list[Op]:
    return []


OPS: dict[str, Callable[[Section, Train], list[Op]]] = {
    "DecodeImage": decode,
    "NormalizeImage": normalize,
    "Normalize": normalize,
    "ToCHWImage": nothing,
    "ToTensor": nothing,
    "RandCropImage": crop_and_resize,
    "RandomResizedCrop": crop_and_resize,
    "RandCropImageV2": crop,
    "RandomCropImage": crop,
    "CropImage": center,
    "CenterCrop": center,
    "ResizeImage": resize,
    "Resize": resize,
    "RandFlipImage": flip,
    "RandomHorizontalFlip": flip,
    "RandomRotation": rotation,
    "ColorJitter": jitter,
    "RandomGrayscale": grey,
    "PCALighting": lighting,
    "Pad": pad,
    "Padv2": pad_to_size,
    "RandomApply": apply,
    "AutoAugment": auto,
    "RandAugment": rand,
    "RandAugmentV2": rand_of_another_kind,
    "RandAugmentV3": rand_of_another_kind,
    "RandAugmentV4": rand_of_another_kind,
    "TimmAutoAugment": timm,
    "AugMix": augmix,
    "RandomErasing": erasing,
    "Cutout": cutout,
    "HideAndSeek": hide_and_seek,
    "GridMask": grid_mask,
}


def read(section: Section, key: str, train: Train) -> None:
    """Add what the ops under a key say; one that is never applied says nothing."""
    for name, op in section.entries(key):
        if 0 in (op.values.get(key) for key in ("prob", "p", "EPSILON")):
            op.page.used.add(op.at)
            continue
        if name not in OPS:
            op.lose("this op is not known here: not carried over", name)
            continue
        found = OPS[name](op, train)
        train.ops += found
        train.sources += [op] * len(found)


def settle(ops: list[Op], sources: list[Section], final: Size | None) -> None:
    """Ops work at the one size of training: one that leaves another becomes what comes nearest."""
    for op, source in zip(ops, sources, strict=True):
        settle(op.get("ops", []), [source] * len(op.get("ops", [])), final)
        own = op.pop(SIZE, final)
        if own == final:
            continue
        if op["op"] == "resize":
            op |= {"op": "resize_short", "pixels": min(both(own))}
            source.matters(
                "size", "an image keeps its shape here, its short side is resized to this"
            )
        else:
            text = f"all ops work at the size of training here, {final}"
            source.matters("size", text)


def convert_transforms(dataset: Section) -> Train:
    """The recipe's `train.transforms`, the size images end in, and how they are normalised."""
    train = Train()
    read(dataset, "transform_ops", train)
    settle(train.ops, train.sources, train.size)
    return train


# --------------------------------------------------------------------------
# The evaluation's `transform_ops`: the recipe's `preprocess`


def normalization(op: Section) -> dict[str, Any]:
    """Mean and std of pixels from 0 to 1, where they are not those of ImageNet."""
    op.get("channel_num")  # of 4 the last is zeros, of which Arch.input_image_channel says more
    if op.get("output_fp16") and "Train" in op.at:
        op.remark("output_fp16", "images reach the network in float32; train.precision narrows it")
    op.get("order")
    default = Preprocess()
    mean = op.get("mean", list(default.mean))
    std = op.get("std", list(default.std))
    asked = {"mean": mean, "std": std, "scale": op.get("scale", 1 / 255), "order": ""}
    channels = len(mean) if isinstance(mean, list) else 3
    try:
        found = read_normalize({**asked, "channel_num": channels})
    except UserError as error:
        raise UserError(f"{op.page.place(op.at)}: {error}") from None
    return {key: value for key, value in found.items() if tuple(value) != getattr(default, key)}


SIZES = ("fit", "resize", "crop")  # which a recipe has first


def resized(op: Section) -> dict[str, Any]:
    op.get("return_numpy")
    if op.get("resize_short"):
        return {"resize": op.get("resize_short"), **resampling(op)}
    return {"resize": both(size_of(op)), **resampling(op)}


def convert_preprocess(parent: Section, key: str) -> dict[str, Any]:
    """The recipe's `preprocess` from a list of ops, without a size where they fix none."""
    found: dict[str, Any] = {}
    for name, op in parent.entries(key):
        if name == "DecodeImage":
            decode(op, Train())
        elif name in ("ResizeImage", "Resize"):
            found |= resized(op)
        elif name in ("CropImage", "CenterCrop"):
            found["crop"] = size_of(op)
        elif name in ("NormalizeImage", "Normalize"):
            found |= normalization(op)
        elif name != "ToCHWImage":
            op.lose("not carried over: images are resized, cut and normalised here", name)
    resize = found.get("resize")
    if isinstance(resize, list) and both(found.get("crop", resize)) == resize:  # nothing is cut
        del found["resize"]
        return {"fit": "squash", "crop": resize[0] if len(set(resize)) == 1 else resize, **found}
    if resize is not None:
        found.setdefault("crop", resize)
    elif "crop" in found:
        found["resize"] = max(both(found["crop"]))
    return found


# --------------------------------------------------------------------------
# `batch_transform_ops`: images of a batch mixed with one another

Ops = list[dict[str, Any]]


def with_prob(op: dict[str, Any], prob: float) -> dict[str, Any]:
    return op | ({"prob": round(float(prob), 6)} if prob != 1 else {})


def mixup(op: Section, prob: float = 1) -> Ops:
    return [with_prob({"op": "mixup", "alpha": float(op.number("alpha", 1))}, prob)]


def cutmix(op: Section, prob: float = 1) -> Ops:
    return [with_prob({"op": "cutmix", "alpha": float(op.number("alpha", 0.2))}, prob)]


def fmix(op: Section, prob: float = 1) -> Ops:
    for key in ("max_soft", "reformulate"):
        if op.get(key):
            op.matters(key, "not carried over: the mask has hard edges")
    alpha = float(op.number("alpha", 1))
    power = float(op.number("decay_power", 3))
    return [with_prob({"op": "fmix", "alpha": alpha, "decay_power": power}, prob)]


def sampler(op: Section, prob: float = 1) -> Ops:
    """One of several, each with its `prob`; PaddleClas takes 0 where it is left out."""
    found: Ops = []
    op.get("class_num")  # as many as the network has
    total = 0
    for name in [key for key in op.values if key != "class_num"]:
        inner = op.section(name)
        if name in MIXING:
            share = inner.number("prob", 0)
            total += share
            found += MIXING[name](inner, share) if share else []
        else:
            inner.lose("this op is not known here: not carried over", name)
    if total > 1:
        place = op.page.place(op.at)
        name = dotted_name(op.at)
        raise UserError(f"{place}: {name}: the probs sum to {total:g}: they may sum to 1 at most")
    return found


def hybrid(op: Section, prob: float = 1) -> Ops:
    """timm's mixup or cutmix."""
    prob = op.number("prob", 1)
    switch = op.number("switch_prob", 0.5)
    alphas = {"mixup": op.number("mixup_alpha", 1), "cutmix": op.number("cutmix_alpha", 0)}
    if op.get("cutmix_minmax"):
        op.matters(
            "cutmix_minmax", "not carried over: the box is drawn as cutmix_alpha: 1 draws it"
        )
        alphas["cutmix"] = 1
    if op.get("mode", "batch") != "batch":
        op.matters("mode", "one draw for each batch here")
    if not op.get("correct_lam", True):
        op.matters("correct_lam", "targets are mixed by the area that is left")
    op.get("num_classes")
    shares = {"mixup": prob * (1 - switch), "cutmix": prob * switch}
    used = [kind for kind in alphas if alphas[kind]]
    if len(used) == 1:
        shares[used[0]] = prob
    return [with_prob({"op": kind, "alpha": float(alphas[kind])}, shares[kind]) for kind in used]


MIXING: dict[str, Callable[[Section, float], Ops]] = {
    "MixupOperator": mixup,
    "CutmixOperator": cutmix,
    "FmixOperator": fmix,
    "OpSampler": sampler,
    "MixupCutmixHybrid": hybrid,
}


def convert_batch_transforms(dataset: Section) -> tuple[Ops, float]:
    """The recipe's `train.batch_transforms`, and the label smoothing that a hybrid has."""
    found: Ops = []
    smoothing = 0.0
    for name, op in dataset.entries("batch_transform_ops"):
        if name not in MIXING:
            op.lose("this op is not known here: not carried over", name)
        elif found:
            op.lose("a second op on the same batch: one at most is applied here", name)
        else:
            found = MIXING[name](op, 1)
            if name == "MixupCutmixHybrid":
                smoothing = float(op.number("label_smoothing", 0.1))
    return found, smoothing
