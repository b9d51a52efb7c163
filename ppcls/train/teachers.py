"""Teachers at work: networks that are run without being trained, saved or changed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.api import create_model
from ppcls.config.load import from_plain, to_plain
from ppcls.config.node import square
from ppcls.data.class_names import first_clash, same_names
from ppcls.data.loader import Loader, TrainPipeline, eval_order
from ppcls.data.preprocess import Preprocess, both, width_by_height
from ppcls.data.samples import Dataset
from ppcls.data.transforms import sides
from ppcls.data.unlabeled import JoinedDataset
from ppcls.inference.auto import CANDIDATES
from ppcls.inference.engines.paddle_inference import threads_kept
from ppcls.inference.exported_model import open_exported
from ppcls.inference.predictor import Predictor
from ppcls.losses.distill import Outputs
from ppcls.models.layers import Normalize, has_features
from ppcls.tasks import Exported, Network
from ppcls.train.answers import FORMAT, Writing, open_answers, unpack
from ppcls.train.checkpoint import RECORD, read_record
from ppcls.train.frozen import Frozen, FrozenStart
from ppcls.train.open_data import class_names
from ppcls.train.step import Precision
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import Progress, say
from ppcls.utils.text import plural
from ppcls.weights import download, files, store
from ppcls.weights.load import OtherClasses

STILL = ("resize", "resize_short", "center_crop", "pad")  # the same in every epoch
FLIPS = ("horizontal_flip",)  # for which the answer to the image that is not flipped serves


def still_pipeline(view: TrainPipeline) -> TrainPipeline:
    """A view of training images without flips.

    Raises:
        UserError: it shows images otherwise in each epoch.
    """
    moving = [op.op for op in view.ops if op.op not in STILL + FLIPS]
    moving += [op.op for op in view.batch_ops]
    if moving:
        raise UserError(
            f"a teacher's answers are kept for images that look the same in every epoch, and "
            f"{moving[0]} changes them: -o 'train.transforms=[{{op: resize_short}}, "
            "{op: center_crop}, {op: horizontal_flip}]' train.batch_transforms=[], or leave out "
            "teacher.cache"
        )
    if not isinstance(view.size, int | tuple):
        raise UserError(
            "a teacher's answers are kept for one size of images: -o train.size=224, or leave out "
            "teacher.cache"
        )
    ops = tuple(op for op in view.ops if op.op not in FLIPS)
    return TrainPipeline(ops, view.size, view.channels, view.seed)


def seen_as(view: TrainPipeline) -> dict[str, Any]:
    """What a header says of a view."""
    ops = [to_plain(op) for op in view.ops]
    size = list(view.size) if isinstance(view.size, tuple) else view.size  # as JSON has it
    return {"ops": ops, "size": size, "channels": view.channels}


# --------------------------------------------------------------------------
# Teachers at work: networks that are run without being trained, saved or changed

LEAST = 1e-30  # a probability that an engine rounded to 0


# Images uint8 [N, H, W, C] to logits float32 [N, classes] and the features of the stages.
Forward = Callable[[Tensor], tuple[Tensor, Sequence[Tensor]]]


def with_features(network: nn.Sequential, features: bool) -> Forward:
    """How `Normalize` and a network after it look at images; without `features` they are ().

    Raises:
        UserError: features are asked for, and a network of one's own has none.
    """
    normalize, net = network
    require_features(net, features)

    def forward(images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        if not features:
            return network(images), ()
        begun = isinstance(network, FrozenStart)
        found = network.features(images) if begun else net.features(normalize(images))
        return net.classify(found), found

    return forward


def require_features(net: nn.Layer, features: bool) -> None:
    """UserError where features are asked for, and a network of one's own has none."""
    if features and not has_features(net):
        raise UserError(
            f"task.losses: {type(net).__name__} has no features(images) and classify(features), "
            "which losses between features compare: give it both, or take kl"
        )


class WithFeatures(nn.Layer):
    """`Normalize` and a network: images to logits and, behind them, the features of its stages."""

    def __init__(self, network: nn.Sequential):
        super().__init__()
        self.network = network

    def forward(self, images):
        normalize, net = self.network[0], self.network[1]
        found = net.features(normalize(images))
        return [net.classify(found), *found]


@dataclass(frozen=True)
class Student:
    """What a teacher has to fit.

    Attributes:
        classes: how many classes the student has.
        channels: of its images.
        several: whether an image may have several labels.
        preprocess: its own, which a teacher has, too, that says nothing else.
        names: of its classes, () when unknown.
        view: how training shows images to both.
        batch_size: how many they see at a time.
        samples: those that training shows.
    """

    classes: int
    channels: int
    multilabel: bool
    preprocess: Preprocess
    names: tuple[str, ...]
    view: TrainPipeline
    batch_size: int
    samples: Dataset | JoinedDataset


@dataclass(frozen=True)
class TeacherFiles:
    """What is known of a teacher before it is built.

    `preprocess` is what it was trained with: what its checkpoint, the registry or its manifest
    says, else what the student has. `names` are its classes, () when unknown.
    """

    name: str
    path: Path
    names: tuple[str, ...]
    preprocess: Preprocess
    digest: str  # of its files
    checkpoint: files.Checkpoint | None = None


def find_teacher(node: Network | Exported, student: Student) -> TeacherFiles:
    """Look at the files of a teacher."""
    if isinstance(node, Exported):
        folder = open_exported(Path(node.folder))
        about = folder.manifest
        digests = [download.digest(path) for path in folder.files]
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        return TeacherFiles(about.model, folder.path, tuple(about.labels), about.preprocess, digest)
    source = store.find(node.name, node.weights)
    checkpoint = files.read(source.path)
    names = class_names(source.labels)
    preprocess = student.preprocess
    if RECORD in checkpoint.metadata:
        record = read_record(source.path, checkpoint.metadata)
        names = tuple(record.labels)
        multilabel = str(record.recipe["task"].get("kind")).endswith("multilabel")
        if multilabel != student.multilabel:
            what = "several labels, not one" if multilabel else "one label, not several"
            raise UserError(f"task.teacher: {source.path} gives an image {what}")
        preprocess = from_plain(Preprocess, record.recipe["preprocess"], str(source.path))
    elif source.preprocess:
        preprocess = from_plain(Preprocess, source.preprocess, str(source.path))
    digest = download.digest(files.find(source.path))
    return TeacherFiles(node.name, source.path, names, preprocess, digest, checkpoint)


class NetworkTeacher:
    """A network in evaluation mode; images are normalised as it was trained on them."""

    def __init__(self, found: TeacherFiles, student: Student, precision: Precision, features: bool):
        self.name = found.name
        self.source = found.path
        self.names = found.names
        self.net = self.create(found, student)
        preprocess = found.preprocess
        network = Normalize.before(self.net, preprocess.scale, preprocess.offset)
        network.eval()
        require_features(self.net, features)
        whole = WithFeatures(network) if features else network
        self.frozen = Frozen(whole, f"teacher {found.name}")
        self.forward: Forward = precision.around(self.look)

    def create(self, found: TeacherFiles, student: Student) -> nn.Layer:
        assert found.checkpoint
        classes = student.classes
        channels = student.channels
        tensors = found.checkpoint.tensors
        path = found.path
        try:
            return create_model(found.name, classes, tensors, in_channels=channels, source=path)
        except OtherClasses as error:
            raise other_classes(path, error.found, classes) from None
        except UserError as error:
            raise UserError(f"task.teacher: {error}") from None

    def look(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        logits, *features = self.frozen(images)
        return logits, features

    def __call__(self, images: Tensor, indices: np.ndarray) -> Outputs:
        return Outputs(*self.forward(images))

    def digest(self) -> str:
        """Changes with any bit of its parameters and statistics."""
        found = hashlib.sha256()
        for name, value in self.net.state_dict().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()


class ExportedTeacher:
    """An exported folder; it has probabilities alone, whose logarithms serve as logits."""

    def __init__(self, node: Exported, found: TeacherFiles, student: Student):
        device = "gpu" if paddle.get_device().startswith("gpu") else "cpu"
        engine = node.engine or CANDIDATES[device][0]
        size = student.batch_size
        with threads_kept():
            self.predictor = Predictor(node.folder, device, engine=engine, batch_size=size)
        self.name = found.name
        self.source = found.path
        self.names = found.names
        self.node = node
        self.student = student
        manifest = self.predictor.manifest
        if manifest.task != "classify":
            raise UserError(f"task.teacher: {node.folder} gives an image several labels, not one")
        if manifest.preprocess.channels != student.channels:
            raise UserError(
                f"task.teacher: {node.folder} takes {manifest.preprocess.channels} channels, "
                f"the student {student.channels}"
            )
        shape = self.predictor.engine.shape[1:]
        taken = shape[1:] if manifest.input == "float32" else shape[:2]
        asked = sides(student.view.size)
        fits = [
            have in (None, want)
            for size in asked
            for have, want in zip(taken, both(size), strict=True)
        ]
        if not all(fits):
            own = square(tuple(side or 0 for side in taken))
            raise UserError(
                f"task.teacher: {node.folder} takes images of {width_by_height(own)} px and they "
                f"are {', '.join(map(width_by_height, asked))} px: export it with --dynamic-size"
            )
        answer = self.answer(np.zeros((1, *both(asked[-1]), student.channels), np.uint8))
        classes = student.classes
        if answer.shape[1] != classes:
            raise other_classes(self.source, answer.shape[1], classes)

    def __call__(self, images: Tensor, indices: np.ndarray) -> Outputs:
        return Outputs(paddle.to_tensor(np.log(np.maximum(self.answer(images.numpy()), LEAST))))

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities [N, classes] of uint8 [N, H, W, C]."""
        about = self.predictor.manifest
        given = about.preprocess.network_input(pixels, about.input)
        with threads_kept():
            found = self.predictor.engine.run(given)
        return self.predictor.probabilities(found)

    def digest(self) -> str:
        """Changes with any bit of its files."""
        return find_teacher(self.node, self.student).digest


class CachedTeacher:
    """The answers that `ppcls teach` has kept of a teacher."""

    def __init__(self, path: Path, found: TeacherFiles, student: Student):
        try:
            wanted = answers_header(found, student)
            self.records = open_answers(path, wanted)
        except UserError as error:
            raise UserError(f"task.teacher.cache: {error}") from None
        self.name = found.name
        self.source = path
        self.names = found.names
        self.classes = student.classes

    def __call__(self, images: Tensor, indices: np.ndarray) -> Outputs:
        return Outputs(paddle.to_tensor(unpack(self.records[indices], self.classes)))

    def digest(self) -> str:
        """Changes with any bit of the file."""
        return download.digest(self.source)


def other_classes(source: Path, found: int, wanted: int) -> UserError:
    return UserError(
        f"task.teacher: {source} has {plural(found, 'class')} and the student {wanted}: "
        "a teacher of the student's classes is needed"
    )


def answers_header(found: TeacherFiles, student: Student) -> dict[str, Any]:
    """Whose answers to what a file has to hold for a student, but for their `top`."""
    return {
        "format": FORMAT,
        "teacher": found.name,
        "weights": found.digest,
        "mean": list(found.preprocess.mean),
        "std": list(found.preprocess.std),
        **seen_as(still_pipeline(student.view)),
        "photos": len(student.samples),
        "data": student.samples.digest(),
        "classes": student.classes,
    }


AnyTeacher = NetworkTeacher | ExportedTeacher | CachedTeacher


def open_teacher(
    node: Network | Exported,
    student: Student,
    precision: Precision,
    features: bool = False,
    found: TeacherFiles | None = None,
) -> AnyTeacher:
    """The teacher that fits a student.

    Args:
        found: its files, where they have been looked at.

    Raises:
        UserError: weights or a folder that cannot be read or do not fit, or other classes.
    """
    found = found or find_teacher(node, student)
    own = found.names
    names = student.names
    first = first_clash(names, own)
    if first is not None:
        pair = [(side[first] if side else str(first)) for side in (own, names)]
        same = ", or give the student a file of the teacher's names, -o data.class_names=FILE"
        raise UserError(
            f"task.teacher: {found.path}: its class {first} is {pair[0]!r}, the student's "
            f"{pair[1]!r}: train both with the same classes in the same order"
            f"{same if own and (not names or same_names(own, names)) else ''}"
        )
    if node.cache:
        return CachedTeacher(Path(node.cache), found, student)
    if isinstance(node, Exported):
        return ExportedTeacher(node, found, student)
    return NetworkTeacher(found, student, precision, features)


# --------------------------------------------------------------------------
# A teacher's answers to the training images, written once for runs that learn from them

TOP = 32  # classes whose answers are kept, unless told


def keep_answers(
    node: Network | Exported, student: Student, workers: int, output: Path, top: int = TOP
) -> Path:
    """Write what a teacher answers to a student's training images, or go on with that.

    Args:
        workers: processes that read images.
        top: classes of each image that are kept.

    Raises:
        UserError: images are shown otherwise in each epoch, or `output` cannot be written or holds
            something else.
    """
    view = still_pipeline(student.view)
    found = find_teacher(node, student)
    teacher = open_teacher(node, student, Precision("fp32", "O1"), found=found)
    about = answers_header(found, student)
    top = min(top, student.classes)
    writing = Writing(output, {**about, "top": top})
    samples = student.samples
    size = student.batch_size
    order = eval_order(len(samples), size)
    # Whole batches, for the answers to an image differ in the last bits with those beside it.
    first = len(order)
    if writing.done < len(samples):
        first = writing.done // size
        writing.cut(first * size)
    loader = Loader({"train": (samples, view)}, workers)
    batches = loader.batches("train", order[first:])
    try:
        for batch in Progress(batches, f"teacher {teacher.name}", len(order), first):
            with paddle.no_grad():
                seen = teacher(paddle.to_tensor(batch.images), batch.indices)
            writing.add(seen.logits.numpy())
    except DataError as error:
        raise UserError(f"{error}; the same command goes on from here") from None
    finally:
        loader.close()
        writing.close()
    say(
        f"{output}: {teacher.name}'s answers to {plural(len(samples), 'image')}, "
        f"{plural(top, 'class')} each"
    )
    return output
