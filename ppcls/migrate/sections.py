"""A PaddleClas config with its lines: what was read of it, and what is to be said about it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ppcls.config.tree import At, Tree, dotted_name, read
from ppcls.utils.errors import UserError

# PaddleClas evaluates strings, so a quoted number is a number.
WORDS = {"True": True, "False": False, "None": None}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# Keys of configs from before 2.2.
OLD: tuple[At, ...] = (("ARCHITECTURE",), ("LEARNING_RATE",), ("DataLoader", "Train", "file_list"))


class Rank(IntEnum):
    """How much a remark matters; remarks are listed in this order."""

    NUMBERS = 0  # a run's numbers are others than PaddleClas's
    MEANING = 1  # something is said otherwise, or has no place here
    ALWAYS = 2  # stands on nearly every config


@dataclass(frozen=True)
class Remark:
    """What is said of one key; `place` is its `file:line`."""

    place: str
    key: str
    text: str
    rank: Rank = Rank.MEANING

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.text}"

    @property
    def line(self) -> int:
        return int(self.place.rpartition(":")[2])


@dataclass
class Page:
    """The whole config; `lost` names what belongs to the training and was not carried over."""

    tree: Tree
    used: set[At] = field(default_factory=set)
    remarks: list[Remark] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def place(self, at: At) -> str:
        return self.tree.locate(at)[1]

    def remark(self, at: At, text: str, rank: Rank = Rank.MEANING) -> None:
        self.used.add(at)
        self.remarks.append(Remark(self.place(at), dotted_name(at), text, rank))

    def unused(self, at: At = (), value: Any = None) -> Iterator[tuple[At, Any]]:
        """Everything that nothing has asked for, a mapping of which nothing is used as one."""
        value = value if at else self.tree.value
        if at in self.used:
            return
        inner = children(value)
        touched = any(used[: len(at)] == at for used in self.used)
        if at and not (inner and touched):
            yield at, value
            return
        for key, child in inner:
            yield from self.unused((*at, key), child)


def children(value: Any) -> list[tuple[str | int, Any]]:
    """The parts of a mapping, or of a list with mappings in it."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return list(enumerate(value))
    return []


@dataclass(frozen=True)
class Section:
    """A mapping of the page; what is read of it counts as used."""

    page: Page
    at: At = ()

    @property
    def values(self) -> dict[str, Any]:
        found, _ = self.page.tree.locate(self.at)
        value: Any = self.page.tree.value if found == self.at else {}
        for key in found if value else ():
            value = value[key]
        return value if isinstance(value, dict) else {}

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` where it is left out or null."""
        self.page.used.add((*self.at, key))
        value = self.values.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> Any:
        """As `get`; UserError unless it is a number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            problem = f"should be a number (got {value!r})" if key in self else "is missing"
            raise UserError(f"{self.place(key)}: {self.name(key)} {problem}")
        return value

    def positive(self, key: str, default: float | None = None) -> Any:
        """As `number`; UserError unless it is above 0."""
        value = self.number(key, default)
        if value <= 0:
            raise UserError(f"{self.place(key)}: {self.name(key)} should be above 0 (got {value})")
        return value

    def numbers(self, key: str, default: list[float] | None = None) -> list[float]:
        """A list of numbers; UserError unless it is one."""
        value = self.get(key, default)
        good = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
        if not good:
            problem = (
                f"should be a list of numbers (got {value!r})" if key in self else "is missing"
            )
            raise UserError(f"{self.place(key)}: {self.name(key)} {problem}")
        return value

    def section(self, key: str) -> "Section":
        """The mapping under a key, empty where it is left out or null."""
        value = self.values.get(key)
        if not isinstance(value, dict | None):
            raise UserError(f"{self.place(key)}: {self.name(key)} should be a mapping of keys")
        if not value:
            self.page.used.add((*self.at, key))
        return Section(self.page, (*self.at, key))

    def entries(self, key: str) -> list[tuple[str, "Section"]]:
        """Of a list of `Name: {arguments}`: each name and its arguments."""
        items = self.values.get(key) or []
        if not items:
            self.page.used.add((*self.at, key))
        found = []
        for index, item in enumerate(items if isinstance(items, list) else [items]):
            at = (*self.at, key, index) if isinstance(items, list) else (*self.at, key)
            if isinstance(item, str):  # PaddleClas lets ops without arguments stand bare
                self.page.used.add(at)
                found.append((item, Section(self.page, at)))
                continue
            if not isinstance(item, dict) or len(item) != 1:
                problem = "should be one name with its arguments, such as CropImage: {size: 224}"
                raise UserError(f"{self.page.place(at)}: {dotted_name(at)} {problem}")
            ((name, given),) = item.items()
            if not isinstance(given, dict | None):
                raise UserError(f"{self.page.place(at)}: {name} should be a mapping of arguments")
            if not given:
                self.page.used.add((*at, name))
            found.append((name, Section(self.page, (*at, name))))
        return found

    def remark(self, key: str | None, text: str, rank: Rank = Rank.MEANING) -> None:
        """Say something of a key, or of the whole section."""
        self.page.remark((*self.at, key) if key is not None else self.at, text, rank)

    def matters(self, key: str | None, text: str) -> None:
        """Say why a run's numbers are others than PaddleClas's."""
        self.remark(key, text, Rank.NUMBERS)

    def lose(self, text: str, name: str = "") -> None:
        """Say that the whole section is not carried over, though the training depends on it."""
        self.matters(None, text)
        self.page.lost.append(name or str(self.at[-1]))

    def place(self, key: str) -> str:
        return self.page.place((*self.at, key))

    def name(self, key: str) -> str:
        return dotted_name((*self.at, key))


def open_page(path: Path) -> Section:
    """Read a config.

    Raises:
        UserError: one line with file:line: not YAML, or not a config of PaddleClas 2.2 or later.
    """
    tree = read(path)
    old = [at for at in OLD if at in tree.places]
    if old:
        place = tree.places[old[0]]
        name = dotted_name(old[0])
        raise UserError(
            f"{place}: {name}: a config from before PaddleClas 2.2, which has other keys; "
            "start from the config of the same name in a later release"
        )
    for key in ("Global", "Arch", "DataLoader", "Optimizer"):
        if not tree.value.get(key):
            hint = "this is a ppcls recipe already" if "train" in tree.value else f"it has no {key}"
            raise UserError(f"{path}:1: not a training config of PaddleClas: {hint}")
    tree.value = evaluated(tree.value)
    return Section(Page(tree))


def evaluated(value: Any) -> Any:
    """Strings that PaddleClas reads as something else."""
    if isinstance(value, dict):
        return {key: evaluated(child) for key, child in value.items()}
    if isinstance(value, list):
        return [evaluated(child) for child in value]
    if not isinstance(value, str):
        return value
    if NUMBER.fullmatch(value):
        return float(value) if set(value) & set(".eE") else int(value)
    return WORDS.get(value, value)


# --------------------------------------------------------------------------
# Keys that a recipe has no use for: why, and at which values nothing need be said

Silent = tuple[Any, ...] | None  # values of which nothing is said
ANY: Silent = None
OFF: Silent = (None, False, 0, "")
EXPORT = "`ppcls export` has its own options"

# Pattern → the silent values, and what is said of others.
EXPLAINED: dict[str, tuple[Silent, str]] = {
    "Global.checkpoints": (
        OFF,
        "a run goes on with --resume, after one of ppcls; as weights: -o model.weights=FILE",
    ),
    "Global.use_visualdl": ((), "VisualDL scalars are written where it is installed"),
    "Global.save_inference_dir": ((), "`ppcls export --output` names the folder"),
    "Global.image_channel": (ANY, ""),
    "Global.use_gpu": (OFF, "device: auto takes a GPU where there is one"),
    "Global.use_dali": (OFF, "images are read on the CPU"),
    "Global.to_static": (OFF, "networks are trained as they are, not compiled"),
    "Global.eval_mode": (("classification", None), "evaluation is by top-1 and top-5"),
    "Global.start_eval_epoch": ((None, 0, 1), "evaluation begins with the first epoch"),
    "Global.train_mode": ((None, "efficientnetv2"), "another way of training: not carried over"),
    "Global.iter_per_epoch": ((None,), "an epoch is all images once"),
    "Global.log_ranks": ((None, "0", 0), "one process writes the log"),
    "Global.print_mem_info": ((None, True, False), ""),
    "Global.infer_config_path": ((None,), EXPORT),
    "Global.export_for_fd": ((), "every export holds inference.yml"),
    "Global.uniform_output_enabled": ((), "run.jsonl holds a run's figures"),
    "Global.pdx_model_name": ((), "`ppcls export --paddlex-name`"),
    "Global.hpi_config_path": ((), EXPORT),
    "Global.amp": (OFF, "train.precision: fp16 turns it on"),
    "AMP.scale_loss": ((), "the loss scale starts at 65536 and finds its own value"),
    "AMP.use_dynamic_loss_scaling": ((True,), "the loss scale is always dynamic"),
    "AMP.use_fp16_test": ((None, False), "evaluation is in float32"),
    "AMP.use_promote": ((None, False), "Paddle's own choice"),
    "*.use_sync_bn": (OFF, "each card would have its own statistics; there is one process"),
    "*.data_format": ((None, "NCHW"), "the layout in memory is Paddle's own, NCHW"),
    "*.use_ssld": (OFF, "says which weights; none are asked for"),
    "*.return_patterns": ((None,), "outputs of inner layers serve distillation"),
    "*.return_stages": ((None,), "outputs of inner layers serve distillation"),
    "*.infer_add_softmax": ((None, True), "`ppcls export --logits` leaves softmax out"),
    "Optimizer*.multi_precision": ((None, True), "weights stay in float32 in any case"),
    "Optimizer*.lr.by_epoch": ((True, False, None), ""),
    "Optimizer*.lr.step_each_epoch": ((), "counted from the data"),
    "Optimizer*.lr.last_epoch": ((None, -1), "a run goes on with --resume"),
    "*.layerwise_decay": (
        (),
        "not carried over: one learning rate for all layers (train.lr_scale)",
    ),
    "Loss.Train.*.reduction": ((None, "mean"), "the mean over images"),
    "Loss.Train.*.sum_across_class_dim": (OFF, "the sum over classes, the mean over images"),
    "DataLoader.*.loader.num_workers": (ANY, ""),
    "DataLoader.*.loader.use_shared_memory": (ANY, ""),
    "DataLoader.*.dataset.image_root": (ANY, ""),
    "DataLoader.*.dataset.label_ratio": (ANY, ""),  # counted where a loss asks for it
    "DataLoader.UnLabelTrain": ((), "images without labels: not carried over"),
    "UnLabelLoss": ((), "images without labels: not carried over"),
    "SSL": ((), "learning without labels: not carried over"),
    "Slim": ((), "not carried over: `ppcls quantize` makes INT8 of an export; nothing prunes"),
    "MLDecoder": ((), "not known here: not carried over"),
    "Infer.infer_imgs": (ANY, ""),
    "Infer.infer_list": (ANY, ""),
    "Infer.batch_size": (ANY, ""),
    "Infer.save_dir": ((None,), "`ppcls predict --save FILE`"),
    "Infer.PostProcess.name": (
        (None, "Topk", "DistillationPostProcess"),
        "predictions are the best classes",
    ),
    "Infer.PostProcess.func": ((None, "Topk"), "predictions are the best classes"),
    "Infer.PostProcess.topk": ((1, 5), "`ppcls predict --topk`"),
    "Infer.PostProcess.delimiter": (ANY, ""),
    "Infer.PostProcess.main_indicator": (("Topk",), "predictions are the best classes"),
}

# Of these, what every config has, and what makes a run's numbers others than PaddleClas's.
ON_EVERY_CONFIG = ("Global.use_visualdl", "Global.save_inference_dir")
NUMBERS = (
    "Global.train_mode",
    "Global.iter_per_epoch",
    "*.use_sync_bn",
    "*.layerwise_decay",
    "Loss.Train.*",
    "DataLoader.UnLabelTrain",
    "UnLabelLoss",
    "SSL",
    "MLDecoder",
)


def explain(page: Page) -> None:
    """Say something of all that nothing has asked for."""
    for at, value in list(page.unused()):
        explain_one(page, at, value)


def explain_one(page: Page, at: At, value: Any) -> None:
    name = dotted_name(at)
    patterns = [pattern for pattern in EXPLAINED if fnmatchcase(name, pattern)]
    if patterns:
        silent, text = EXPLAINED[patterns[0]]
        if silent is not None and value not in silent:
            page.remark(at, text, rank(name))
        return
    within = any(pattern.startswith(f"{name}.") for pattern in EXPLAINED)
    inner = children(value)
    if inner and (within or name.count(".") or name in ("Global", "AMP", "Loss", "Infer")):
        for key, child in inner:
            explain_one(page, (*at, key), child)
        return
    trained = at[0] in ("Arch", "Loss", "Optimizer")
    page.remark(at, "not known here: not carried over", Rank.NUMBERS if trained else Rank.MEANING)
    if trained:
        page.lost.append(name)


def rank(name: str) -> Rank:
    """How much it matters that a key has no place here."""
    if name in ON_EVERY_CONFIG:
        return Rank.ALWAYS
    return Rank.NUMBERS if any(fnmatchcase(name, p) for p in NUMBERS) else Rank.MEANING
