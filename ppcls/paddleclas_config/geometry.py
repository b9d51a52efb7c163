"""PaddleClas's ops that decode, cut, resize, frame, mirror and turn a photo."""

from ppcls.paddleclas_config.op import LOG_ASPECT, Op, Train, maybe, resampling, side, sized
from ppcls.paddleclas_config.page import Section


def decode(op: Section, train: Train) -> list[Op]:
    if not op.get("to_rgb", True):
        op.remark("to_rgb", "photos are RGB here, whatever decodes them")
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
    code, prob = op.get("flip_code", 1), op.number("prob", 0.5)
    given = {"prob": float(prob)} if prob != 0.5 else {}
    if code == -1:
        both = [{"op": f"{way}_flip", "prob": 1.0} for way in ("horizontal", "vertical")]
        return [{"op": "random_apply", "prob": float(prob), "ops": both}]
    return [{"op": "vertical_flip" if code == 0 else "horizontal_flip", **given}]


def rotation(op: Section, train: Train) -> list[Op]:
    many = isinstance(op.values.get("degrees"), list)
    degrees = op.numbers("degrees") if many else [op.number("degrees", 90)]
    low, high = degrees[0] if many else -degrees[0], degrees[-1]
    if op.get("interpolation", "nearest") != "bilinear":
        op.matters("interpolation" if "interpolation" in op else None, "sampled bilinearly here")
    turned = {"op": "rotation", "degrees": [float(low), float(high)]}
    return maybe(op.number("prob", 0.5), [turned])


def pad(op: Section, train: Train) -> list[Op]:
    mode, fill = op.get("padding_mode", "constant"), op.get("fill", 0)
    if isinstance(fill, list):
        op.matters("fill", "one value for all channels here: the first")
        fill = fill[0]
    found: Op = {"op": "pad", "pixels": op.get("padding", 0), "fill": fill, "mode": mode}
    op.get("backend")
    return [{key: value for key, value in found.items() if value not in (0, "constant")}]


def pad_to_size(op: Section, train: Train) -> list[Op]:
    """What is missing is added on the right and below (0), all around (1), or left and above."""
    mode, fill = op.get("pad_mode", 0), op.get("fill_value", 127.5)
    op.get("size_divisor")
    extra = side(op) - train.size if op.values.get("size") and train.size else -1
    if mode not in (0, 1, 2) or extra < 0:
        op.lose("not carried over: how much it adds is not known before a photo is read")
        return []
    if isinstance(fill, list):
        op.matters("fill_value", "one value for all channels here: the first")
        fill = fill[0]
    first = (0, extra // 2, extra)[mode]
    rest = extra - first
    return [{"op": "pad", "pixels": [first, first, rest, rest], "fill": int(fill)}]
