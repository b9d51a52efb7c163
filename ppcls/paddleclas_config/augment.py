"""PaddleClas's ops that change a photo's colours, draw from a policy or hide a part."""

import re

from ppcls.paddleclas_config.op import LOG_ASPECT, Op, Train, fraction, maybe
from ppcls.paddleclas_config.page import Section

ROTATED = "photos are rotated to both sides here, as in the paper; there to one"


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
    layers, magnitude = op.get("num_layers", 2), op.number("magnitude", 5)
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
    mode, least = op.get("mode", "const"), fraction(op, "r1", 0.3)
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
    holes, length = op.get("n_holes", 1), op.get("length", 112)
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
