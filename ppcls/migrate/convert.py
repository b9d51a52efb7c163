"""A config of PaddleClas to a recipe of ours, with remarks on what differs."""

import math
import os
import posixpath
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ppcls.config.load import resolve
from ppcls.config.tree import EXPONENT, Tree
from ppcls.migrate import distillation, model, training, transforms
from ppcls.migrate.model import CLASSES
from ppcls.migrate.sections import Rank, Remark, Section, explain, open_page
from ppcls.recipe import Recipe
from ppcls.utils import yaml_files
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text, writing
from ppcls.utils.text import one_line, plural, visible

MANY = ("MultiLabelDataset", "MLClsDataset")
LISTS = ("ImageNetDataset", "ClsDataset", "CommonDataset", *MANY, None)
SAMPLERS = ("DistributedBatchSampler", "BatchSampler", None)


def plain(path: Any) -> str:
    """A path without "./" and a slash at the end."""
    return posixpath.normpath(str(path))


def list_file(dataset: Section) -> str | None:
    """The list of images and labels, where the data set is one that there is here."""
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
    """Whether an image may have several labels."""
    train = root.section("DataLoader").section("Train").section("dataset")
    asked = root.section("Global").get("use_multilabel")
    return bool(asked) or train.get("name") in MANY


def root_of(train: Section, evaluation: Section) -> str | None:
    """`data.root`: None where images lie beside their list, as ppcls takes them."""
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
    """`data.class_names`, from what the predictions are named with."""
    post = root.section("Infer").section("PostProcess")
    file = post.get("class_id_map_file")
    if not file:
        return None
    if "imagenet1k_label_list" not in str(file):
        if not os.path.isfile(str(file)):
            text = "there is no such file here, and training needs none; data.class_names names one"
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
        sampler.matters("name", f"{name} is not known here: each image is drawn once an epoch")
        if training:
            part.page.lost.append(str(name))
    if sampler.get("shuffle", training) != training:
        text = "images are shuffled in training" if training else "the order does not matter"
        sampler.remark("shuffle", text)
    drop = bool(sampler.get("drop_last", False))
    if drop and not training:
        sampler.remark("drop_last", "every image is scored here")
    return {"batch_size": sampler.get("batch_size"), "drop_last": drop}


def convert_data(root: Section, classes: int) -> dict[str, Any]:
    """The recipe's `data`."""
    train = root.section("DataLoader").section("Train")
    evaluation = root.section("DataLoader").section("Eval")
    found: dict[str, Any] = {
        "train": list_file(train.section("dataset")),
        "eval": list_file(evaluation.section("dataset")),
    }
    found["root"] = root_of(train.section("dataset"), evaluation.section("dataset"))
    found["class_names"] = class_names(root, classes)
    relabelled = [part.section("dataset").get("relabel") for part in (train, evaluation)]
    if any(relabelled) and not is_many(root):
        found["number_labels"] = True
        if found.pop("class_names"):
            text = "classes are called by their labels in the list: class_id_map_file is left out"
            train.section("dataset").remark("relabel", text)
    found["workers"] = train.section("loader").get("num_workers")
    return {key: value for key, value in found.items() if value is not None}


# --------------------------------------------------------------------------
# A PaddleClas config to a recipe, and what cannot be said in one

DEVICES = ("gpu", "cpu")  # gpu: auto, which takes one where there is one


@dataclass(frozen=True)
class Converted:
    """A recipe as plain values that load as one, and what is said of the config's keys, by line."""

    recipe: dict[str, Any]
    remarks: list[Remark]


class Draft:
    """The recipe being written, each value with the place of what it came from."""

    def __init__(self, path: Path):
        self.tree = Tree({}, {(): str(path)})

    def put(self, key: str, value: Any, source: Section, at: str | None = None) -> None:
        """Set a dotted key; nothing for None."""
        if value is None:
            return
        *parents, last = key.split(".")
        place = source.place(at) if at else source.page.place(source.at)
        node: dict[str, Any] = self.tree.value
        for depth, parent in enumerate(parents):
            node = node.setdefault(parent, {})
            self.tree.places.setdefault(tuple(parents[: depth + 1]), place)
        node[last] = value
        self.tree.places[tuple(key.split("."))] = place

    def put_each(self, key: str, values: dict[str, Any], source: Section) -> None:
        for name, value in values.items():
            self.put(f"{key}.{name}", value, source)


def convert(path: Path, cards: int = 4) -> Converted:
    """The recipe that says the same as a PaddleClas config.

    Args:
        cards: GPUs the config's learning rate was chosen for; the published ones are for 4.

    Raises:
        UserError: file:line of what cannot be read, is no config of a classifier or names a network
            that is not here.
    """
    root = open_page(path)
    draft = Draft(path)
    networks = model.find(root)
    student = networks.student.network
    converted = model.convert_model(student, root)
    draft.put("model", converted, student)
    scale = model.rates(student, converted["name"])
    draft.put("data", convert_data(root, converted["num_classes"]), root.section("DataLoader"))
    put_images(draft, root)
    put_task(draft, root, networks)
    put_training(draft, root, scale)
    put_optimizer(draft, root, cards)
    put_rest(draft, root, converted["name"])
    metrics(root, is_many(root))
    explain(root.page)
    if root.page.lost:
        draft.tree.value["train"]["without"] = list(dict.fromkeys(root.page.lost))
    resolve(Recipe, draft.tree, [], [])
    return Converted(
        ordered(draft.tree.value), sorted(root.page.remarks, key=lambda r: (r.rank, r.line))
    )


def put_images(draft: Draft, root: Section) -> None:
    """Sizes, ops and normalisation: `preprocess`, `train.size`, `train.transforms`."""
    loaders = root.section("DataLoader")
    training, evaluation = (loaders.section(part).section("dataset") for part in ("Train", "Eval"))
    train = transforms.convert_transforms(training)
    seen = transforms.convert_preprocess(evaluation, "transform_ops")
    shown = transforms.convert_preprocess(root.section("Infer"), "transforms")
    if seen and shown and seen != shown:
        root.section("Infer").remark(
            "transforms", "predictions go through the evaluation's ops here"
        )
    seen = seen or shown
    size = train.size or seen.get("crop", 224)
    if "crop" not in seen:
        seen = {"resize": max(transforms.both(size)), "crop": size, **seen}
    seen = {key: seen[key] for key in (*transforms.SIZES, *seen) if key in seen}
    own = transforms.normalization(train.normalize) if train.normalize else {}
    for key in ("mean", "std"):
        if train.normalize and own.get(key) != seen.get(key):
            train.normalize.matters(key, "images are normalised as for evaluation here")
    draft.put_each("preprocess", seen, evaluation)
    draft.put("train.size", size if size != seen["crop"] else None, training)
    draft.put("train.transforms", train.ops, training, "transform_ops")
    for index, source in enumerate(train.sources):
        draft.tree.places[("train", "transforms", index)] = root.page.place(source.at)
    shape = root.section("Global").get("image_shape")
    if shape and (not isinstance(shape, list) or shape[1:] != transforms.both(seen["crop"])):
        text = f"an export takes images of preprocess.crop, {seen['crop']}"
        root.section("Global").remark("image_shape", text)


def put_task(draft: Draft, root: Section, networks: model.Parties) -> None:
    """What is learnt from: labels, and in a distillation a teacher."""
    classes = draft.tree.value["model"]["num_classes"]
    labels = training.convert_losses(root, classes, is_many(root), networks.student.name)
    training.evaluated(root, labels.many)
    size = draft.tree.value["train"].get("size", draft.tree.value["preprocess"]["crop"])
    height, width = transforms.both(size)
    task, places = distillation.convert_distillation(
        networks, root, labels, classes, (height, width)
    )
    draft.put_each("task", task or training.alone(labels), root.section("Loss"))
    for at, source in places.items():
        draft.tree.places[("task", *at)] = root.page.place(source.at)


def put_training(draft: Draft, root: Section, scale: dict[str, float]) -> None:
    """Batches, epochs, what is mixed, moving average and precision."""
    whole = root.section("Global")
    loaders = root.section("DataLoader")
    training = loaders.section("Train")
    evaluation = loaders.section("Eval")
    sampler = training.section("sampler")
    draft.put("train.epochs", whole.number("epochs"), whole, "epochs")
    own = batches(training, True)
    sampler.number("batch_size")
    draft.put("train.batch_size", own["batch_size"], sampler, "batch_size")
    draft.put("train.drop_last", own["drop_last"], sampler, "drop_last")
    mixed, smoothing = transforms.convert_batch_transforms(training.section("dataset"))
    draft.put(
        "train.batch_transforms", mixed or None, training.section("dataset"), "batch_transform_ops"
    )
    loss = draft.tree.value["task"].get("loss", {})
    if smoothing and loss.get("kind") == "cross_entropy":
        loss["smoothing"] = smoothing
    if mixed:
        mixed_labels(root, draft.tree.value["model"]["num_classes"])
    draft.put("train.lr_scale", scale or None, training)
    draft.put("train.ema", moving_average(root), root.section("EMA"))
    put_precision(draft, root)
    if evaluation.values:
        size = batches(evaluation, False)["batch_size"]
        draft.put("eval.batch_size", size, evaluation.section("sampler"), "batch_size")


def mixed_labels(root: Section, classes: int) -> None:
    """Say what PaddleClas's losses make of labels that are mixed."""
    for name, loss in root.section("Loss").entries("Train"):
        if name in ("CELoss", training.GROUND_TRUTH) and not training.epsilon(loss):
            share = math.e / (math.e + classes - 1)
            text = "mixed labels are learnt as they are here; PaddleClas takes the softmax of them "
            text += f"where epsilon is not above 0: {share:.2g} for the one class of {classes}"
            loss.matters(None, text)
        if name == "MultiLabelAsymmetricLoss":
            text = "of a mixed label both terms count here, by its shares; there one between them"
            loss.matters(None, text)


def moving_average(root: Section) -> dict[str, Any] | None:
    """`train.ema`; in older configs it stands under Global and begins slowly."""
    older = root.section("Global").section("ema")
    if older.values:
        on = older.get("enable", False)
        decay = older.number("decay", 0.9999)
        return {"decay": float(decay), "warmup": True} if on else None
    if not root.values.get("EMA"):
        root.get("EMA")
        return None
    return {"decay": float(root.section("EMA").number("decay", 0.9999)), "warmup": False}


def put_precision(draft: Draft, root: Section) -> None:
    """In older configs a section AMP is enough to turn it on."""
    if "AMP_BF16" in root:
        pure = root.section("AMP_BF16").get("use_pure_bf16")
        draft.put("train.precision", "bf16", root, "AMP_BF16")
        draft.put("train.amp_level", "O2" if pure else None, root, "AMP_BF16")
    mixed = root.section("AMP")
    pure = "O2" if mixed.get("use_pure_fp16") else "O1"  # as it was written before
    level = mixed.get("level", mixed.get("amp_level", pure))
    if not mixed.values or not mixed.get("use_amp", True):
        for key in mixed.values:
            mixed.get(key)
        return
    draft.put("train.precision", "fp16", mixed)
    draft.put("train.amp_level", level if level != "O1" else None, mixed, "level")


def put_optimizer(draft: Draft, root: Section, cards: int) -> None:
    """The optimizer and its learning rate, with the batch that is meant for."""
    whole = root.section("Global")
    section = training.find(root)
    lr = section.section("lr")
    optimizer = training.convert_optimizer(section)
    model = draft.tree.value["model"]["name"]
    draft.put("train.optimizer", optimizer, section)
    draft.put_each("train", training.other_keys(section, optimizer["kind"], model), section)
    every = abs(whole.number("eval_interval", 1))
    schedule = training.convert_schedule(lr, whole.number("epochs"), every)
    steps = whole.number("update_freq", 1)
    batch = draft.tree.value["train"]["batch_size"]
    peak = {"lr": schedule.pop("lr"), "for_batch": batch * cards * steps}
    draft.put("train.schedule", {**peak, **schedule}, lr)
    draft.put("train.accumulate", steps if steps != 1 else None, whole, "update_freq")
    words = f"{plural(cards, 'card')} of {batch * steps}"
    key = next((k for k in ("learning_rate", "max_learning_rate", "values") if k in lr), None)
    lr.remark(
        key,
        f"taken as chosen for {plural(peak['for_batch'], 'image')} a step ({words}; --cards N says "
        "otherwise) and scaled to the batch in use",
    )


def put_rest(draft: Draft, root: Section, name: str) -> None:
    """`Global`: how often, where and with what seed."""
    whole = root.section("Global")
    for key, ours, default in (
        ("print_batch_step", "train.log_every", 10),
        ("seed", "seed", None),
    ):
        value = whole.get(key)
        if key == "print_batch_step" and isinstance(value, int):
            value = abs(value)  # PaddleClas looks at the remainder alone
        draft.put(ours, value if value != default else None, whole, key)
    saved = whole.number("save_interval", 1)
    if saved > 0 and saved != 1:
        draft.put("train.save_every", f"{saved} epochs", whole, "save_interval")
    if "save_interval" in whole:
        text = "the latest and the best weights are kept, not a file for each"
        whole.remark("save_interval", text, Rank.ALWAYS)
    every = abs(whole.number("eval_interval", 1))
    if not whole.get("eval_during_train", True):
        every = whole.number("epochs")
        whole.remark("eval_during_train", "it is evaluated after the last epoch")
    draft.put("eval.every", every if every != 1 else None, whole, "eval_interval")
    folder = whole.get("output_dir")
    draft.put("output", f"{plain(folder)}/{name}" if folder else None, whole, "output_dir")
    device = whole.get("device", "gpu")
    if device not in DEVICES:
        whole.remark("device", f"{device} is not known here: auto takes a GPU or the CPU")
    draft.put("device", "cpu" if device == "cpu" else None, whole, "device")


def metrics(root: Section, many: bool) -> None:
    """Top-1 and top-5 are what a run is scored by, with several labels an image mAP and F1."""
    section = root.section("Metric")
    known = ("MultiLabelMAP",) if many else ("TopkAcc", "DistillationTopkAcc", "Topk")
    scores = "mAP and F1" if many else "top-1 and top-5"
    for part in ("Train", "Eval"):
        entries = section.entries(part)
        if not entries:
            section.get(part)
        for name, metric in entries:
            root.page.used.add(metric.at)
            if name not in known:
                metric.remark(None, f"not computed here: {scores} are")
            elif not many and metric.get("topk", metric.get("k", [1, 5])) not in ([1, 5], [1], 1):
                metric.remark("topk", "top-1 and top-5 are computed here")


ORDER = ("model", "data", "preprocess", "task", "train", "eval", "device", "seed", "output")
TRAIN = (
    "epochs", "batch_size", "drop_last", "accumulate", "size", "transforms", "batch_transforms",
    "optimizer",
    "decay_norms", "decay_biases", "lr_scale", "clip_norm", "schedule", "ema", "precision",
    "amp_level", "log_every", "save_every", "without",
)  # fmt: skip


def ordered(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its keys in the order of ppcls's own."""
    train = {key: recipe["train"][key] for key in TRAIN if key in recipe["train"]}
    whole = {**recipe, "train": train}
    assert set(whole) <= set(ORDER)
    assert train == recipe["train"]
    return {key: whole[key] for key in ORDER if key in whole}


# --------------------------------------------------------------------------
# The recipe as a short YAML file, with what was not carried over as comments at its end

WIDTH = 100


class Dumper(yaml_files.Dumper):
    """YAML as PyYAML writes it, with numbers as they are typed: 7e-5."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def number(dumper: Dumper, value: float) -> yaml.ScalarNode:
    mantissa, _, exponent = repr(value).partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


Dumper.add_representer(float, number)
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def flow(value: Any) -> str:
    """A value on one line."""
    text = yaml_files.to_yaml(value, Dumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def block(value: dict[str, Any], indent: str = "") -> list[str]:
    """Lines of a mapping: what fits on a line stands on one, but for `train` and lists of ops."""
    lines = []
    for key, child in value.items():
        line = f"{indent}{key}: {flow(child)}"
        ops = isinstance(child, list) and any(isinstance(item, dict) for item in child)
        if ops:
            lines += [f"{indent}{key}:", *(f"{indent}  - {flow(item)}" for item in child)]
        elif isinstance(child, dict) and (key == "train" or len(line) > WIDTH):
            lines += [f"{indent}{key}:", *block(child, indent + "  ")]
        else:
            lines.append(line)
    return lines


HEADS = {
    Rank.NUMBERS: "# Here a run's numbers are others than PaddleClas's:",
    Rank.MEANING: "# Said otherwise, or without a place here:",
    Rank.ALWAYS: "# As of every config:",
}


def comments(remarks: list[Remark], name: str) -> list[str]:
    """The remarks as comments, their file without its folder, under a line for each rank."""
    lines = []
    for index, remark in enumerate(remarks):
        if not index or remark.rank != remarks[index - 1].rank:
            lines.append(HEADS[remark.rank])
        text = one_line(f"{name}:{remark.line}: {remark.key}: {remark.text}")
        lines += textwrap.wrap(
            text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
    return lines


def recipe_text(converted: Converted, source: Path) -> str:
    """The whole file."""
    name = visible(source.name)
    head = [f"# Converted from PaddleClas's {name} by `ppcls import-paddleclas`."]
    if converted.remarks:
        head.append("# What was not carried over or means something else here stands at the end.")
    tail = ["", *comments(converted.remarks, name)] if converted.remarks else []
    return "\n".join([*head, *block(converted.recipe), *tail]) + "\n"


def write_recipe(content: str, path: Path, source: Path, overwrite: bool) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: it exists and is not to be replaced, is the config itself, or cannot be written.
    """
    if path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path}: this is the config that is read; --output names another file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: --overwrite replaces it, --output names another")
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
