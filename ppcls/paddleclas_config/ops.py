"""`transform_ops` of the training photos: for each op of PaddleClas what of ours says the same."""

from collections.abc import Callable

from ppcls.paddleclas_config import augment, geometry
from ppcls.paddleclas_config.op import SIZE, Op, Train
from ppcls.paddleclas_config.page import Section


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
    "DecodeImage": geometry.decode,
    "NormalizeImage": normalize,
    "Normalize": normalize,
    "ToCHWImage": nothing,
    "ToTensor": nothing,
    "RandCropImage": geometry.crop_and_resize,
    "RandomResizedCrop": geometry.crop_and_resize,
    "RandCropImageV2": geometry.crop,
    "RandomCropImage": geometry.crop,
    "CropImage": geometry.center,
    "CenterCrop": geometry.center,
    "ResizeImage": geometry.resize,
    "Resize": geometry.resize,
    "RandFlipImage": geometry.flip,
    "RandomHorizontalFlip": geometry.flip,
    "RandomRotation": geometry.rotation,
    "ColorJitter": augment.jitter,
    "RandomGrayscale": augment.grey,
    "PCALighting": augment.lighting,
    "Pad": geometry.pad,
    "Padv2": geometry.pad_to_size,
    "RandomApply": apply,
    "AutoAugment": augment.auto,
    "RandAugment": augment.rand,
    "RandAugmentV2": augment.rand_of_another_kind,
    "RandAugmentV3": augment.rand_of_another_kind,
    "RandAugmentV4": augment.rand_of_another_kind,
    "TimmAutoAugment": augment.timm,
    "AugMix": augment.augmix,
    "RandomErasing": augment.erasing,
    "Cutout": augment.cutout,
    "HideAndSeek": augment.hide_and_seek,
    "GridMask": augment.grid_mask,
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


def settle(ops: list[Op], sources: list[Section], final: int | None) -> None:
    """Ops work at the one size of training: one that leaves another becomes what comes nearest."""
    for op, source in zip(ops, sources, strict=True):
        settle(op.get("ops", []), [source] * len(op.get("ops", [])), final)
        own = op.pop(SIZE, final)
        if own == final:
            continue
        if op["op"] == "resize":
            op |= {"op": "resize_short", "pixels": own}
            source.matters(
                "size", "a photo keeps its shape here, its short side is resized to this"
            )
        else:
            text = f"all ops work at the size of training here, {final}"
            source.matters("size", text)


def convert(dataset: Section) -> Train:
    """The recipe's `train.ops`, the size photos end in, and how they are normalised."""
    train = Train()
    read(dataset, "transform_ops", train)
    settle(train.ops, train.sources, train.size)
    return train
