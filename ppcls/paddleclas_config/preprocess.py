"""The evaluation's `transform_ops`: the recipe's `preprocess`."""

from typing import Any

from ppcls.data.preprocess import Preprocess, read_normalize
from ppcls.errors import UserError
from ppcls.paddleclas_config.geometry import decode
from ppcls.paddleclas_config.op import Train, resampling, side
from ppcls.paddleclas_config.page import Section


def normalization(op: Section) -> dict[str, Any]:
    """Mean and std of pixels from 0 to 1, where they are not those of ImageNet."""
    op.get("channel_num")  # of 4 the last is zeros, of which Arch.input_image_channel says more
    if op.get("output_fp16") and "Train" in op.at:
        op.remark("output_fp16", "photos reach the network in float32; train.precision narrows it")
    op.get("order")
    default = Preprocess()
    mean, std = op.get("mean", list(default.mean)), op.get("std", list(default.std))
    asked = {"mean": mean, "std": std, "scale": op.get("scale", 1 / 255), "order": ""}
    channels = len(mean) if isinstance(mean, list) else 3
    try:
        found = read_normalize({**asked, "channel_num": channels})
    except UserError as error:
        raise UserError(f"{op.page.place(op.at)}: {error}") from None
    return {key: value for key, value in found.items() if tuple(value) != getattr(default, key)}


def resized(op: Section) -> dict[str, Any]:
    op.get("return_numpy")
    if op.get("resize_short"):
        return {"resize": op.get("resize_short"), **resampling(op)}
    size = side(op)
    op.matters("size", f"a photo keeps its shape here: short side {size}, the middle is cut out")
    return {"resize": size, **resampling(op)}


def convert(parent: Section, key: str) -> dict[str, Any]:
    """The recipe's `preprocess` from a list of ops, without a size where they fix none."""
    found: dict[str, Any] = {}
    for name, op in parent.entries(key):
        if name == "DecodeImage":
            decode(op, Train())
        elif name in ("ResizeImage", "Resize"):
            found |= resized(op)
        elif name in ("CropImage", "CenterCrop"):
            found["crop"] = side(op)
        elif name in ("NormalizeImage", "Normalize"):
            found |= normalization(op)
        elif name != "ToCHWImage":
            op.lose("not carried over: photos are resized, cut and normalised here", name)
    for own, other in (("crop", "resize"), ("resize", "crop")):
        if other in found:
            found.setdefault(own, found[other])
    return found
