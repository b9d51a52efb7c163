"""What a wrong word probably means: typing errors, other projects' words, keys of another place."""

import re
from collections.abc import Sequence

from ppcls.utils.text import LONGEST_WORD, nearest

# Words of PaddleClas, torch, torchvision, timm, albumentations and Keras, without capitals and
# what parts words; to each the keys, ops or kinds that it may mean here, the likeliest first.
ELSEWHERE = {
    # operations on images
    "flip": "horizontal_flip",
    "hflip": "horizontal_flip",
    "fliplr": "horizontal_flip",
    "vflip": "vertical_flip",
    "flipud": "vertical_flip",
    "rotate": "rotation",
    "shiftscalerotate": "rotation",
    "sizedcrop": "random_resized_crop",
    "rrc": "random_resized_crop",
    "crop": "random_crop random_resized_crop center_crop crop",
    "randcropimage": "random_resized_crop",
    "cropv2": "random_crop",
    "randcropimagev2": "random_crop",
    "smallestmaxsize": "resize_short",
    "brightness": "color_jitter",
    "contrast": "color_jitter",
    "saturation": "color_jitter",
    "hue": "color_jitter",
    "brightnesscontrast": "color_jitter",
    "huesaturationvalue": "color_jitter",
    "colourjitter": "color_jitter",
    "gray": "grayscale",
    "togray": "grayscale",
    "blur": "gaussian_blur",
    "pcalighting": "lighting",
    "fancypca": "lighting",
    "timmautoaugment": "auto_augment",
    "autoaugmentpolicy": "auto_augment",
    "aa": "auto_augment",
    "augmentv2": "rand_augment",
    "augmentv3": "rand_augment",
    "augmentv4": "rand_augment",
    "augment": "rand_augment ops",
    "augmentation": "rand_augment ops",
    "aug": "rand_augment ops",
    "trivialaugmentwide": "trivial_augment",
    "erase": "random_erasing",
    "coarsedropout": "cutout",
    "choice": "one_of",
    "padifneeded": "pad",
    "padv2": "pad",
    # optimizers, schedules, losses, samplers
    "adamwdl": "adamw",
    "nesterov": "nesterov momentum",
    "cosineannealing": "cosine",
    "cosineannealingwarmrestarts": "cosine",
    "onecyclepolicy": "one_cycle",
    "multistep": "piecewise step",
    "reduceonplateau": "plateau",
    "reducelronplateau": "plateau",
    "poly": "polynomial",
    "linear": "polynomial",
    "fixed": "constant",
    "ce": "cross_entropy",
    "softmax": "cross_entropy",
    "softmaxcrossentropy": "cross_entropy",
    "multilabel": "multilabel bce",
    "binarycrossentropy": "bce",
    "bcewithlogits": "bce",
    "asl": "asymmetric",
    "kldiv": "kl",
    "random": "shuffle",
    "distributedbatchsampler": "shuffle",
    "weightedrandomsampler": "weighted",
    # keys
    "p": "prob",
    "probability": "prob",
    "always": "prob",
    "learningrate": "lr",
    "baselr": "lr",
    "lr0": "lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "regularizer": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "numepochs": "epochs",
    "maxepochs": "epochs",
    "nepochs": "epochs",
    "classnum": "num_classes",
    "classes": "num_classes",
    "nc": "num_classes",
    "nbclasses": "num_classes",
    "pretrained": "weights",
    "pretrainedmodel": "weights",
    "checkpoint": "weights",
    "labelsmoothing": "smoothing",
    "smooth": "smoothing",
    "warmupepoch": "warmup",
    "warmupepochs": "warmup",
    "usenesterov": "nesterov",
    "eps": "epsilon",
    "numworkers": "workers",
    "outputdir": "output",
    "savedir": "output",
    "out": "output",
    "imagesize": "size crop",
    "size": "crop",
    "imgsize": "size crop",
    "inputsize": "size crop",
    "imgsz": "size crop",
    "cropsize": "crop",
    "arch": "model name",
    "backbone": "name",
    "val": "eval",
    "valid": "eval",
    "test": "eval",
    "validation": "eval",
    "imageroot": "root",
    "labelfile": "class_names",
    "classnames": "class_names",
    "valsplit": "holdout",
    "validationsplit": "holdout",
    "kfold": "folds",
    "kfolds": "folds",
    "nsplits": "folds",
    "groups": "group_by",
    "groupcolumn": "group_by",
    "printbatchstep": "log_every",
    "logfreq": "log_every",
    "loginterval": "log_every",
    "saveinterval": "save_every",
    "evalinterval": "every",
    "interval": "every",
    "patience": "early_stop patience",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "half": "precision",
    "mixedprecision": "precision",
    "shuffle": "sampler",
    "mixup": "batch_transforms",
    "cutmix": "batch_transforms",
    "clipgrad": "clip_norm",
    "gradclip": "clip_norm",
    "updatefreq": "accumulate",
    "gradaccumulation": "accumulate",
    "accumulationsteps": "accumulate",
    "droppathrate": "drop_path",
    "transformops": "transforms",
    "augmentations": "transforms",
    "batchtransformops": "batch_transforms",
    "useema": "ema",
    "emadecay": "ema",
    "lossfn": "loss",
    "optim": "optimizer",
    "opt": "optimizer",
    "scheduler": "schedule",
    "lrscheduler": "schedule",
    "sched": "schedule",
    "mode": "interpolation",
    "inchannels": "in_channels",
    "inchans": "in_channels",
}
# What is said of words to which nothing corresponds.
ADVICE = {
    "normalize": "preprocess.mean and preprocess.std normalise; leave it out",
    "totensor": "images become tensors by themselves; leave it out",
    "tochw": "images become tensors by themselves; leave it out",
    "resume": "it is an option of the command and no key: --resume",
    "overwrite": "it is an option of the command and no key: --overwrite",
    "decode": "images are decoded by themselves; leave it out",
}
PADDLECLAS = ("Global", "Arch", "DataLoader", "Infer", "Metric", "ProfilerOptions")
IMPORT = "a config of PaddleClas becomes a recipe with tools/import_paddleclas.py OLD.yaml"
EDGES = re.compile(r"^(random|rand)|(image|operator|lr|loss|decay|sampler|op)$")
# likeness
SURE = 0.75
NEAR = 0.6


def squeezed(word: str) -> str:
    """`RandomResizedCrop`, `random-resized crop` and `random_resized_crop` alike."""
    return re.sub(r"[\W_]", "", word).lower()


def core(word: str) -> str:
    """Without what projects put around the same word, as in RandomRotation, StepLR, FocalLoss."""
    return EDGES.sub("", squeezed(word)) or squeezed(word)


def meant(word: str, choices: Sequence[str]) -> str | None:
    """The one of the choices that is the same word, or another project's word for it."""
    for form in (squeezed, core):
        same = [choice for choice in choices if squeezed(choice) == squeezed(word)]
        same += [own for own in ELSEWHERE.get(form(word), "").split() if own in choices]
        same += [choice for choice in choices if form(choice) == form(word)]
        if same:
            return same[0]
    return None


def alike(word: str, choices: Sequence[str], cutoff: float) -> str | None:
    """The nearest of the choices; None for a word too short to tell."""
    if len(word) < 2:
        return None
    return next(iter(nearest(word, choices, cutoff=cutoff)), None)


def suggest(
    word: str,
    choices: Sequence[str],
    keys: Sequence[str] = (),
    kinds: Sequence[tuple[str, str]] = (),
) -> str:
    """What was meant, as a question; a place where it stands; or all choices.

    Args:
        keys: dotted ones of other places, the nearest first.
        kinds: that may stand at other places, each with its place.
    """
    word = word[:LONGEST_WORD]  # a longer one is near to nothing, and slow to compare
    if keys and word in PADDLECLAS:
        return IMPORT
    if found := meant(word, choices) or alike(word, choices, SURE):
        return f"did you mean {found!r}?"
    if advice := ADVICE.get(core(word)):
        return advice
    if moved := meant(word, [key.rpartition(".")[2] for key in keys]):
        places = [key for key in keys if key.rpartition(".")[2] == moved]
        return f"it is {' or '.join(map(repr, places[:2]))}"
    if moved := meant(word, [name for _, name in kinds]):
        place = next(place for place, name in kinds if name == moved)
        return f"{moved!r} stands under {place}"
    if found := alike(word, choices, NEAR):
        return f"did you mean {found!r}?"
    return f"known: {', '.join(choices)}"
