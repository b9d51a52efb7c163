"""A run as one frozen, typed value: this page is what a recipe file may say."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
)

from ppcls.config.load import from_plain, load, to_yaml
from ppcls.config.node import (
    BelowOne,
    Classes,
    Count,
    Duration,
    Flag,
    Folds,
    Int,
    NotNegative,
    PathText,
    Positive,
    Seed,
    Share,
    Span,
    Times,
    Workers,
    node,
)
from ppcls.config.own import OrOwn
from ppcls.data.batch_transforms import BatchTransform
from ppcls.data.batch_transforms import check as check_batch_transforms
from ppcls.data.builtin import NAMES
from ppcls.data.groups import GroupBy
from ppcls.data.own_dataset import OwnDataset
from ppcls.data.preprocess import Preprocess
from ppcls.data.sampler import Sampler, Shuffle
from ppcls.data.transforms import AnySize, HorizontalFlip, RandomResizedCrop, Size, Transform
from ppcls.data.unlabeled import Unlabeled
from ppcls.losses.distill import WITH_LABELS
from ppcls.metrics import Score
from ppcls.models.own import register_model
from ppcls.models.registry import ModelName, Weights
from ppcls.optim.ema import Ema
from ppcls.optim.optimizers import AnyOptimizer, Momentum
from ppcls.optim.parameters import Freeze
from ppcls.optim.schedules import EarlyStop, Schedule
from ppcls.tasks import Classify, Distill, Task
from ppcls.utils import modules
from ppcls.utils.files import expanded, write_text
from ppcls.utils.remote import check_address
from ppcls.utils.text import did_you_mean, plural, quoted


def known_builtin(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(NAMES)}")
    return name


GIVEN_MODEL = "given:"  # begins the name of a network that is an object of Python


def network_name(name: Any, known: Callable[[Any], str]) -> str:
    """A network's name; one that was given in Python needs no other."""
    if not isinstance(name, str) or name.startswith(GIVEN_MODEL):
        return name if isinstance(name, str) else known(name)
    try:
        return known(name)
    except ValidationError as error:
        if "." not in name or "did you mean" in str(error):
            raise
    found = modules.find(name)  # an import path, which says so where it is none
    register_model(name)(found)
    return name


# of this machine or, without a password in it, elsewhere: s3://, gs://, https://
Place = Annotated[PathText, AfterValidator(check_address)]
Source = Annotated[Place, OrOwn(OwnDataset)]


@node
class Model:
    """The network and what its weights start from."""

    name: Annotated[ModelName, WrapValidator(network_name)]  # of `ppcls models`
    num_classes: Classes | None = None  # None: as many as the training data has
    in_channels: Literal[1, 3, 4] = 3  # grey, RGB, RGBA
    weights: Weights | None = None  # file, URL, hf://org/name, registered tag; true: the default
    new_head: Flag = False  # start the classifier afresh where its size differs from the weights'
    drop_path: BelowOne | None = None  # of the last block, in training; None: the network's own
    freeze: Freeze = ()  # left as it is: a share from the start, as in 50%; names, as in ["stem.*"]

    def __post_init__(self):
        if self.given and (self.weights or self.new_head or self.drop_path is not None):
            raise ValueError(
                f"{self.title} was given in Python with its weights: leave out weights, new_head "
                "and drop_path"
            )

    @property
    def given(self) -> bool:
        """Whether the network is an object of Python, which no name leads to."""
        return self.name.startswith(GIVEN_MODEL)

    @property
    def title(self) -> str:
        """What the network is called."""
        return self.name.removeprefix(GIVEN_MODEL)


@node
class Data:
    """Images and labels: folders with one sub-folder per class, list files, or tar shards."""

    builtin: Annotated[str, AfterValidator(known_builtin)] | None = None  # written to data/<name>
    train: Source | None = None  # a folder, list or shards to learn from
    eval: Source | None = None  # the same, to be scored on
    root: Place | None = None  # where relative paths of list files start; None: beside the list
    class_names: Place | None = None  # a file of class names, or "imagenet"
    number_labels: Flag = False  # labels of lists are names, as ids are: number them in order
    fetch: Flag | None = None  # shards from elsewhere are copied here first; None: from https://
    holdout: Share = 0.0  # share of `train` kept for evaluation when there is no `eval`
    folds: Folds | None = None  # parts of `train`, each kept for evaluation by one of so many runs
    fold: Count | None = None  # which of the folds, from 1, this run keeps; None: each in turn
    fixes: PathText | None = None  # labels to change and images to leave out: ppcls fix-labels
    group_by: GroupBy | None = None  # images that are kept, or dealt to folds, together
    labeled: Share = 1.0  # share of each class of `train` to use, as if the rest had no labels
    unlabeled: Unlabeled | None = None  # more images to train on, for task.kind: distill
    on_error: Literal["stop", "skip"] = "stop"  # at an image that cannot be read
    workers: Workers = 2  # processes that read images; 0: the training one

    def __post_init__(self):
        if self.builtin and (self.train or self.eval):
            raise ValueError(
                "builtin stands for train and eval: give one or the other, "
                "-o data.train=null data.eval=null or -o data.builtin=null"
            )
        if self.eval and self.holdout:
            raise ValueError(
                "holdout takes evaluation images from train: give eval or holdout, "
                "-o data.eval=null or -o data.holdout=0"
            )
        if self.number_labels and self.class_names:
            raise ValueError(
                "number_labels makes names of the labels, and class_names names the classes: give "
                "one, -o data.class_names=null or -o data.number_labels=false"
            )
        if self.fixes and isinstance(self.train or self.eval, OwnDataset):
            raise ValueError(
                "fixes is for images in folders, lists and shards; a dataset of your own gives "
                "other targets itself: -o data.fixes=null"
            )
        self.check_folds()
        if self.holdout == 1:
            raise ValueError("holdout=1 leaves nothing to train on; 0.2 keeps a fifth")
        if not self.labeled:
            raise ValueError("labeled=0 leaves nothing to train on; 0.1 uses a tenth")

    def check_folds(self) -> None:
        if self.folds and self.eval:
            raise ValueError(
                "folds takes evaluation images from train: give eval or folds, "
                "-o data.eval=null or -o data.folds=null data.fold=null"
            )
        if self.folds and self.holdout:
            raise ValueError(
                "folds and holdout both take evaluation images from train: give one, "
                "-o data.holdout=0 or -o data.folds=null data.fold=null"
            )
        if self.fold and self.fold > (self.folds or 0):
            among = f"among {self.folds} folds" if self.folds else "without folds"
            raise ValueError(f"there is no fold {self.fold} {among}; -o data.folds=5 data.fold=1")

    @property
    def holds_out(self) -> bool:
        """Whether evaluation images are taken from those to train on."""
        return bool(self.folds) or (self.holdout > 0 and not self.eval)


@node
class Qat:
    """Quantization-aware training: numbers are rounded as INT8 does (arXiv:1712.05877)."""

    weight_bits: Literal[7, 8] = 7  # 7 is right for any CPU: 8 overflow on x86 without VNNI


def with_defaults(value: Any) -> Any:
    """`true` stands for a part with its defaults, `false` for none."""
    return ({} if value else None) if isinstance(value, bool) else value


# auto: the fastest there is, where that is worth the trouble; none: Paddle's own layers
FrozenEngine = Literal["auto", "none", "paddle", "onnxruntime", "openvino"]


@node
class Train:
    """How long, on what crops, and with which optimizer."""

    epochs: Count  # rounds through all images
    batch_size: Count  # images at a time, in each process
    drop_last: Flag = True  # leave out an epoch's last, smaller batch
    sampler: Sampler = Shuffle()  # which images an epoch shows, and how often
    repeats: Times = 1  # showings of a drawn image in a step, each augmented differently
    size: AnySize | None = None  # of training images, or [height, width]; None: of evaluation
    transforms: tuple[Transform, ...] = (RandomResizedCrop(), HorizontalFlip())
    batch_transforms: tuple[BatchTransform, ...] = ()  # of which one at most is applied
    optimizer: AnyOptimizer = Momentum()  # what changes the weights
    schedule: Schedule  # of the learning rate
    accumulate: Count = 1  # batches to one optimizer step, as if they were one batch
    clip_norm: Positive | None = None  # the longest that all gradients together may be
    decay_norms: Flag = True  # decay the parameters of norms, too
    decay_biases: Flag | None = None  # decay biases of other layers, too; None: as decay_norms
    lr_scale: dict[str, NotNegative] = field(default_factory=dict)  # as in {"head.*": 10}
    ema: Ema | None = None  # evaluate and hand on a moving average of the weights
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of numbers, on a GPU
    amp_level: Literal["O1", "O2"] = "O1"  # what runs in a narrow precision: O2 is nearly all
    qat: Annotated[Qat | None, BeforeValidator(with_defaults)] = None  # true: train for INT8
    sync_norms: Flag = False  # batch norms with the statistics of all GPUs' batches together
    recompute: Flag = False  # compute blocks twice instead of keeping what is in them
    frozen_engine: FrozenEngine = "auto"  # of frozen first layers and of teachers, on a CPU
    without: tuple[str, ...] = ()  # what the published recipe has beyond this one; said in the log
    early_stop: EarlyStop | None = None  # where evaluations get no better
    keep: Annotated[Int, Field(ge=0)] = 0  # checkpoints beside latest and best, of the last saves
    log_every: Count = 10  # steps
    save_every: Duration = Span(1, "epochs")  # also at the end

    def __post_init__(self):
        check_batch_transforms(self.batch_transforms)
        if self.batch_size % self.repeats:
            raise ValueError(
                f"a batch_size of {self.batch_size} is no multiple of repeats: {self.repeats}; "
                "all showings of an image belong into one batch"
            )
        warmup = self.schedule.warmup
        longest = {"epochs": self.epochs, "percent": 100, "steps": math.inf}[warmup.unit]
        if warmup.amount > longest:
            raise ValueError(
                f"a warm-up of {warmup} is longer than the run of {plural(self.epochs, 'epoch')}"
            )
        if self.qat and self.precision != "fp32":
            raise ValueError(
                f"qat rounds numbers in float32, and precision is {self.precision}: "
                "-o train.precision=fp32 or -o train.qat=false"
            )
        if self.qat and self.recompute:
            raise ValueError(
                "qat looks at what goes through each layer once, and recompute computes it twice: "
                "-o train.recompute=false or -o train.qat=false"
            )
        if not self.save_every.amount:
            raise ValueError("save_every should be more than 0, such as 1 epoch or 500 steps")

    @property
    def images_per_step(self) -> int:
        """How many images one optimizer step learns from."""
        return self.batch_size * self.accumulate


@node
class Eval:
    """When and in what batches the evaluation images are classified."""

    batch_size: Count = 64  # images at a time
    every: Count = 1  # epochs
    best: Score | None = None  # that chooses the best weights; None: top1, in multilabel map


Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
SCHEMES = ("http", "https", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def tracking_uri(uri: str) -> str:
    """A place that MLflow knows: a server, a database, a folder; ValueError for another."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return expanded(uri)
    if scheme.partition("+")[0] not in SCHEMES:
        near = did_you_mean(scheme, SCHEMES)
        raise ValueError(f"{quoted(scheme)} is no kind of address{near or ', as http is'}")
    user, found, _ = rest.partition("/")[0].rpartition("@")
    if found and ":" in user:
        raise ValueError(
            "its password would stand in every checkpoint: give the address by the variable "
            "MLFLOW_TRACKING_URI"
        )
    return uri


@node
class VisualDL:
    """Scalars for `visualdl --logdir RUN/vdl`."""

    kind: Literal["visualdl"] = "visualdl"


@node
class TensorBoard:
    """Scalars for `tensorboard --logdir RUN/tensorboard`."""

    kind: Literal["tensorboard"] = "tensorboard"


@node
class MLflow:
    """A run of an MLflow experiment."""

    kind: Literal["mlflow"] = "mlflow"
    uri: Annotated[Name, AfterValidator(tracking_uri)] | None = None  # None: as MLflow is set up
    experiment: Name = "ppcls"
    name: Name | None = None  # of the run; None: that of its folder


@node
class Wandb:
    """A run of a project of Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: Name = "ppcls"
    entity: Name | None = None  # user or team; None: as wandb is set up
    name: Name | None = None  # of the run; None: that of its folder
    mode: Literal["online", "offline"] | None = None  # None: as wandb is set up


def with_kind(value: Any) -> Any:
    """The kind's name alone stands for it with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


def as_list(value: Any) -> Any:
    """One tracker alone stands for a list of it."""
    return [value] if isinstance(value, str | dict) else value


def once_each(trackers: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    kinds = [tracker.kind for tracker in trackers or ()]
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        raise ValueError(f"{twice[0]} stands there twice: once is enough")
    return trackers


Tracker = Annotated[
    Annotated[VisualDL | TensorBoard | MLflow | Wandb, Field(discriminator="kind")],
    BeforeValidator(with_kind),
]
Trackers = Annotated[tuple[Tracker, ...], BeforeValidator(as_list), AfterValidator(once_each)]


@node
class Recipe:
    """Everything a run is made from; written into the run's folder and its checkpoints."""

    # Keys of version 0.1 and what they are called now; both work.
    renamed: ClassVar[dict[str, str]] = {
        "data.labels": "data.class_names",
        "data.unlabeled.photos": "data.unlabeled.images",
        "train.ops": "train.transforms",
        "train.batch_ops": "train.batch_transforms",
    }

    model: Model
    data: Data = field(default_factory=Data)
    preprocess: Preprocess = field(default_factory=Preprocess)  # not stated: as model.weights says
    task: Task = Classify()
    train: Train
    eval: Eval = field(default_factory=Eval)
    log: Trackers | None = None  # beside run.jsonl; None: visualdl where it is installed
    device: Literal["auto", "cpu", "gpu"] = "auto"  # auto: a GPU where there is one
    seed: Seed = 0  # of everything that is random
    output: PathText | None = None  # None: runs/<model name>

    @field_validator("preprocess")
    @classmethod
    def fits(cls, preprocess: Preprocess, known: ValidationInfo) -> Preprocess:
        """What is not stated may still come from the weights."""
        model = known.data.get("model")
        if not (model and model.weights):
            preprocess.check()
        return preprocess

    def __post_init__(self):
        later = self.model.weights and not {"mean", "std"} <= self.preprocess.stated
        if not later and self.preprocess.channels != self.model.in_channels:
            raise ValueError(
                f"preprocess.mean and std have {self.preprocess.channels} values and "
                f"model.in_channels is {self.model.in_channels}: give one value per channel"
            )
        if self.data.number_labels and self.task.multilabel:
            raise ValueError(
                "data.number_labels is for lists with one label an image: "
                "-o data.number_labels=false"
            )
        if self.data.fixes and self.task.multilabel:
            raise ValueError("data.fixes is for images with one label: -o data.fixes=null")
        if self.data.unlabeled:
            self.check_unlabeled()

    def check_unlabeled(self) -> None:
        """ValueError where images without labels do not fit the rest."""
        if not isinstance(self.task, Distill):
            raise ValueError(
                f"data.unlabeled needs a teacher that says what they show, and task.kind is "
                f"{self.task.kind}: give task: {{kind: distill, …}} or -o data.unlabeled=null"
            )
        if self.task.multilabel:
            raise ValueError(
                "data.unlabeled goes with one label an image: -o data.unlabeled=null, or "
                "task.kind=distill"
            )
        needy = [loss.kind for loss in self.task.losses if isinstance(loss, WITH_LABELS)]
        if needy:
            raise ValueError(
                f"{needy[0]} needs the label of every image and data.unlabeled has none: "
                "another of task.losses, such as symmetric_kl or kl, or -o data.unlabeled=null"
            )
        if self.train.repeats > 1:
            raise ValueError("data.unlabeled shows each image once: -o train.repeats=1")
        if self.train.batch_transforms and self.task.labels_weight:
            raise ValueError(
                "train.batch_transforms would mix images with labels and without: "
                "-o task.labels_weight=0 or train.batch_transforms=[]"
            )

    @classmethod
    def load(cls, path: str | PathLike[str], overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe of a file; `overrides` are as of `-o`: `["train.epochs=10"]`.

        Raises:
            UserError: one line for each mistake, with the file and line or the override.
        """
        return load(cls, str(path), overrides)

    @classmethod
    def of(cls, keys: Mapping[str, Any], source: str = "the recipe") -> "Recipe":
        """The recipe of nested mappings: `Recipe.of({"model": {"name": "ResNet18"}, …})`.

        An object may stand wherever a recipe may name a class of one's own.

        Args:
            source: begins the lines of errors, in place of a file's name.

        Raises:
            UserError: one line for each mistake.
        """
        return from_plain(cls, keys, source)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the recipe, with all its defaults, as a file that `load` reads.

        Objects of Python are not in it: `kind: given` stands for them.
        """
        write_text(Path(expanded(path)), to_yaml(self))

    @property
    def folder(self) -> Path:
        """Where the run writes its log and checkpoints."""
        return Path(self.output or f"runs/{self.model.title}")

    @property
    def best(self) -> Score:
        """The score that chooses the best weights."""
        return self.eval.best or self.task.best

    @property
    def train_size(self) -> Size:
        """Size or sizes of the training images, in pixels."""
        return self.train.size or self.preprocess.crop


# What may change when a run is resumed: it changes nothing but, for device and engine, rounding.
HARMLESS = {"output", "device", "data.workers", "train.log_every", "train.save_every"}
HARMLESS |= {"train.keep", "train.early_stop", "train.without", "train.recompute"}
HARMLESS |= {"train.frozen_engine"}
HARMLESS |= {"eval.batch_size", "data.on_error", "log"}
# Where things lie that are compared by what they are, or that a run only starts from.
HARMLESS |= {"data.builtin", "data.train", "data.eval", "data.root", "data.class_names"}
HARMLESS |= {"data.fixes"}
HARMLESS |= {"data.unlabeled.images", "model.weights", "model.new_head"}
LENGTH = "train.epochs"  # may change, too: the schedule is then that of the new length


def may_change(key: str) -> bool:
    """Whether a run can go on with another value of a key."""
    return key == LENGTH or any(key == own or key.startswith(f"{own}.") for own in HARMLESS)
