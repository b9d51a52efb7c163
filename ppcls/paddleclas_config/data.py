"""`DataLoader`, `Infer` and the recipe's `data`: where photos and class names are."""

import os
import posixpath
from typing import Any

from ppcls.paddleclas_config.arch import CLASSES
from ppcls.paddleclas_config.page import Section

MANY = ("MultiLabelDataset", "MLClsDataset")
LISTS = ("ImageNetDataset", "ClsDataset", "CommonDataset", *MANY, None)
SAMPLERS = ("DistributedBatchSampler", "BatchSampler", None)


def plain(path: Any) -> str:
    """A path without "./" and a slash at the end."""
    return posixpath.normpath(str(path))


def list_file(dataset: Section) -> str | None:
    """The list of photos and labels, where the data set is one that there is here."""
    name = dataset.get("name")
    if name not in LISTS:
        dataset.matters("name", f"{name} is not known here: give data.train and data.eval")
        dataset.page.lost.append(f"data set {name}")
        return None
    if dataset.get("delimiter", " ") not in (" ", "\t"):
        dataset.matters("delimiter", "a tab or spaces divide a list's fields here")
    path = dataset.get("cls_label_path")
    return plain(path) if path else None


def is_many(root: Section) -> bool:
    """Whether a photo may have several labels."""
    train = root.section("DataLoader").section("Train").section("dataset")
    asked = root.section("Global").get("use_multilabel")
    return bool(asked) or train.get("name") in MANY


def root_of(train: Section, evaluation: Section) -> str | None:
    """`data.root`: None where photos lie beside their list, as ppcls takes them."""
    pairs = [
        (part, part.get("image_root"), part.get("cls_label_path")) for part in (train, evaluation)
    ]
    roots = [(part, plain(root), plain(path)) for part, root, path in pairs if root and path]
    if all(
        posixpath.dirname(path) == root.removeprefix(".")
        or (posixpath.dirname(path) or ".") == root
        for _, root, path in roots
    ):
        return None
    first = roots[0][1]
    for part, root, _ in roots[1:]:
        if root != first:
            part.matters("image_root", f"one root for both lists here: {first}")
    return first


def class_names(root: Section, classes: int) -> str | None:
    """`data.labels`, from what the predictions are named with."""
    post = root.section("Infer").section("PostProcess")
    file = post.get("class_id_map_file")
    if not file:
        return None
    if "imagenet1k_label_list" not in str(file):
        if not os.path.isfile(str(file)):
            text = "there is no such file here, and training needs none: data.labels=FILE names one"
            post.remark("class_id_map_file", text)
            return None
        return plain(file)
    if classes == CLASSES:
        return "imagenet"
    post.remark("class_id_map_file", f"ImageNet's names for {classes} classes: left out")
    return None


def batches(part: Section, training: bool) -> dict[str, Any]:
    """Batch size and what to do with the last batch."""
    sampler = part.section("sampler")
    name = sampler.get("name")
    if name not in SAMPLERS:
        sampler.matters("name", f"{name} is not known here: each photo is drawn once an epoch")
        if training:
            part.page.lost.append(str(name))
    if sampler.get("shuffle", training) != training:
        text = "photos are shuffled in training" if training else "the order does not matter"
        sampler.remark("shuffle", text)
    drop = bool(sampler.get("drop_last", False))
    if drop and not training:
        sampler.remark("drop_last", "every photo is scored here")
    return {"batch_size": sampler.get("batch_size"), "drop_last": drop}


def convert(root: Section, classes: int) -> dict[str, Any]:
    """The recipe's `data`."""
    train = root.section("DataLoader").section("Train")
    evaluation = root.section("DataLoader").section("Eval")
    found: dict[str, Any] = {
        "train": list_file(train.section("dataset")),
        "eval": list_file(evaluation.section("dataset")),
    }
    found["root"] = root_of(train.section("dataset"), evaluation.section("dataset"))
    found["labels"] = class_names(root, classes)
    relabelled = [part.section("dataset").get("relabel") for part in (train, evaluation)]
    if any(relabelled) and not is_many(root):
        found["number_labels"] = True
        if found.pop("labels"):
            text = "classes are called by their labels in the list: class_id_map_file is left out"
            train.section("dataset").remark("relabel", text)
    found["workers"] = train.section("loader").get("num_workers")
    return {key: value for key, value in found.items() if value is not None}
