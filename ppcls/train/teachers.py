"""What a teacher whose answers are kept may be shown: each photo in one way, apart from flips."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.api import create_model
from ppcls.config.load import from_plain, to_plain
from ppcls.data.class_names import first_clash, same_names
from ppcls.data.loader import Reader, TrainView, eval_order
from ppcls.data.preprocess import Preprocess
from ppcls.data.transforms import sides
from ppcls.inference.auto import CANDIDATES
from ppcls.inference.exported_model import open_folder
from ppcls.inference.predictor import Predictor
from ppcls.losses.distill import Seen
from ppcls.models.layers import Normalize
from ppcls.recipe import Recipe
from ppcls.tasks import Distill, Exported, Network, Peer
from ppcls.train.answers import FORMAT, Writing, open_answers, unpack
from ppcls.train.checkpoint import RECORD, read_record
from ppcls.train.distill import Look, looking
from ppcls.train.setup import Datasets, class_names, open_inputs, train_view
from ppcls.train.step import Precision
from ppcls.utils.device import select
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.log import Progress, say
from ppcls.utils.text import plural
from ppcls.weights import download, files, store
from ppcls.weights.load import OtherClasses

STILL = ("resize", "resize_short", "center_crop", "pad")  # the same in every epoch
FLIPS = ("horizontal_flip",)  # for which the answer to the photo that is not flipped serves


def still_view(recipe: Recipe) -> TrainView:
    """The recipe's view of training photos without flips.

    Raises:
        UserError: it shows photos otherwise in each epoch.
    """
    train = recipe.train
    moving = [op.op for op in train.ops if op.op not in STILL + FLIPS]
    moving += [op.op for op in train.batch_ops]
    if moving:
        raise UserError(
            f"a teacher's answers are kept for photos that look the same in every epoch, and "
            f"{moving[0]} changes them: -o 'train.ops=[{{op: resize_short}}, {{op: center_crop}}, "
            "{op: horizontal_flip}]' train.batch_ops=[], or leave out teacher.cache"
        )
    if not isinstance(recipe.train_size, int):
        raise UserError(
            "a teacher's answers are kept for one size of photos: -o train.size=224, or leave out "
            "teacher.cache"
        )
    view = train_view(recipe)
    ops = tuple(op for op in view.ops if op.op not in FLIPS)
    return TrainView(ops, view.size, view.channels, view.seed)


def seen_as(view: TrainView) -> dict[str, Any]:
    """What a header says of a view."""
    ops = [to_plain(op) for op in view.ops]
    return {"ops": ops, "size": view.size, "channels": view.channels}


# --------------------------------------------------------------------------
# Teachers at work: networks that are run without being trained, saved or changed

LEAST = 1e-30  # a probability that an engine rounded to 0


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


def find_teacher(node: Network | Exported, recipe: Recipe) -> TeacherFiles:
    """Look at the files of a teacher."""
    if isinstance(node, Exported):
        folder = open_folder(Path(node.folder))
        about, digests = folder.manifest, [download.digest(path) for path in folder.files]
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        return TeacherFiles(about.model, folder.path, tuple(about.labels), about.preprocess, digest)
    source = store.find(node.name, node.weights)
    checkpoint = files.read(source.path)
    names, preprocess = class_names(source.labels), recipe.preprocess
    if RECORD in checkpoint.metadata:
        record = read_record(source.path, checkpoint.metadata)
        names = tuple(record.labels)
        several = str(record.recipe["task"].get("kind")).endswith("multilabel")
        if several != recipe.task.several:
            what = "several labels, not one" if several else "one label, not several"
            raise UserError(f"task.teacher: {source.path} gives a photo {what}")
        preprocess = from_plain(Preprocess, record.recipe["preprocess"], str(source.path))
    elif source.preprocess:
        preprocess = from_plain(Preprocess, source.preprocess, str(source.path))
    digest = download.digest(files.find(source.path))
    return TeacherFiles(node.name, source.path, names, preprocess, digest, checkpoint)


class NetworkTeacher:
    """A network in evaluation mode; photos are normalised as it was trained on them."""

    def __init__(self, found: TeacherFiles, recipe: Recipe, precision: Precision, features: bool):
        self.name, self.source, self.names = found.name, found.path, found.names
        self.net = self.create(found, recipe)
        preprocess = found.preprocess
        network = Normalize.before(self.net, preprocess.scale, preprocess.offset)
        network.eval()
        self.look: Look = precision.around(looking(network, features))

    def create(self, found: TeacherFiles, recipe: Recipe) -> nn.Layer:
        assert found.checkpoint
        classes, channels = recipe.model.num_classes or 0, recipe.model.in_channels
        tensors, path = found.checkpoint.tensors, found.path
        try:
            return create_model(found.name, classes, tensors, in_channels=channels, source=path)
        except OtherClasses as error:
            raise other_classes(path, error.found, classes) from None
        except UserError as error:
            raise UserError(f"task.teacher: {error}") from None

    def __call__(self, images: Tensor, indices: np.ndarray) -> Seen:
        return Seen(*self.look(images))

    def digest(self) -> str:
        """Changes with any bit of its parameters and statistics."""
        found = hashlib.sha256()
        for name, value in self.net.state_dict().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()


class ExportedTeacher:
    """An exported folder; it has probabilities alone, whose logarithms serve as logits."""

    def __init__(self, node: Exported, found: TeacherFiles, recipe: Recipe):
        device = "gpu" if paddle.get_device().startswith("gpu") else "cpu"
        engine = node.engine or CANDIDATES[device][0]
        size = recipe.train.batch_size
        self.predictor = Predictor(node.folder, device, engine=engine, batch_size=size)
        self.name, self.source, self.names = found.name, found.path, found.names
        self.node, self.recipe = node, recipe
        manifest = self.predictor.manifest
        if manifest.task != "classify":
            raise UserError(f"task.teacher: {node.folder} gives a photo several labels, not one")
        if manifest.preprocess.channels != recipe.model.in_channels:
            raise UserError(
                f"task.teacher: {node.folder} takes {manifest.preprocess.channels} channels, "
                f"the student {recipe.model.in_channels}"
            )
        sizes = self.predictor.engine.shape[1:]
        taken = {size for size in sizes if size and size != manifest.preprocess.channels}
        asked = set(sides(recipe.train_size))
        if taken and taken != asked:
            raise UserError(
                f"task.teacher: {node.folder} takes photos of {max(taken)} px and they are "
                f"{', '.join(map(str, sorted(asked)))} px: export it with --dynamic-size"
            )
        side = max(asked)
        answer = self.answer(np.zeros((1, side, side, recipe.model.in_channels), np.uint8))
        classes = recipe.model.num_classes or 0
        if answer.shape[1] != classes:
            raise other_classes(self.source, answer.shape[1], classes)

    def __call__(self, images: Tensor, indices: np.ndarray) -> Seen:
        return Seen(paddle.to_tensor(np.log(np.maximum(self.answer(images.numpy()), LEAST))))

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities [N, classes] of uint8 [N, H, W, C]."""
        about = self.predictor.manifest
        given = pixels if about.input == "uint8" else about.preprocess.normalize(pixels)
        return self.predictor.probabilities(self.predictor.engine.run(given))

    def digest(self) -> str:
        """Changes with any bit of its files."""
        return find_teacher(self.node, self.recipe).digest


class CachedTeacher:
    """The answers that `ppcls teach` has kept of a teacher."""

    def __init__(self, path: Path, found: TeacherFiles, recipe: Recipe, inputs: Datasets):
        try:
            wanted = answers_header(found, still_view(recipe), recipe, inputs)
            self.records = open_answers(path, wanted)
        except UserError as error:
            raise UserError(f"task.teacher.cache: {error}") from None
        self.name, self.source, self.names = found.name, path, found.names
        self.classes = recipe.model.num_classes or 0

    def __call__(self, images: Tensor, indices: np.ndarray) -> Seen:
        return Seen(paddle.to_tensor(unpack(self.records[indices], self.classes)))

    def digest(self) -> str:
        """Changes with any bit of the file."""
        return download.digest(self.source)


def other_classes(source: Path, found: int, wanted: int) -> UserError:
    return UserError(
        f"task.teacher: {source} has {plural(found, 'class')} and the student {wanted}: "
        "a teacher of the student's classes is needed"
    )


def answers_header(
    found: TeacherFiles, view: TrainView, recipe: Recipe, inputs: Datasets
) -> dict[str, Any]:
    """Whose answers to what a file has to hold for a recipe, but for their `top`."""
    return {
        "format": FORMAT,
        "teacher": found.name,
        "weights": found.digest,
        "mean": list(found.preprocess.mean),
        "std": list(found.preprocess.std),
        **seen_as(view),
        "photos": len(inputs.shown),
        "data": inputs.shown.digest(),
        "classes": recipe.model.num_classes,
    }


AnyTeacher = NetworkTeacher | ExportedTeacher | CachedTeacher


def open_teacher(
    node: Network | Exported,
    recipe: Recipe,
    inputs: Datasets,
    precision: Precision,
    features: bool = False,
) -> AnyTeacher:
    """The teacher of a recipe for its data.

    Raises:
        UserError: weights or a folder that cannot be read or do not fit, or other classes.
    """
    found = find_teacher(node, recipe)
    own, names = found.names, inputs.names
    first = first_clash(names, own)
    if first is not None:
        pair = [(side[first] if side else str(first)) for side in (own, names)]
        same = ", or give the student a file of the teacher's names, -o data.labels=FILE"
        raise UserError(
            f"task.teacher: {found.path}: its class {first} is {pair[0]!r}, the student's "
            f"{pair[1]!r}: train both with the same classes in the same order"
            f"{same if own and (not names or same_names(own, names)) else ''}"
        )
    if node.cache:
        return CachedTeacher(Path(node.cache), found, recipe, inputs)
    if isinstance(node, Exported):
        return ExportedTeacher(node, found, recipe)
    return NetworkTeacher(found, recipe, precision, features)


# --------------------------------------------------------------------------
# A teacher's answers to the training photos, written once for runs that learn from them

TOP = 32  # classes whose answers are kept, unless told


def teach(recipe: Recipe, output: Path, top: int = TOP, which: int = 0) -> Path:
    """Write what a recipe's teacher answers to its training photos, or go on with that.

    Args:
        top: classes of each photo that are kept.
        which: of several teachers that are no peers, counted from 0.

    Raises:
        UserError: the recipe has no such teacher, or shows photos otherwise in each epoch; or
            `output` cannot be written or holds something else.
    """
    node = teacher_of(recipe, which)
    select(recipe.device)
    recipe, inputs = open_inputs(recipe)
    view = still_view(recipe)
    teacher = open_teacher(node, recipe, inputs, Precision("fp32", "O1"))
    about = answers_header(find_teacher(node, recipe), view, recipe, inputs)
    top = min(top, recipe.model.num_classes or 0)
    writing = Writing(output, {**about, "top": top})
    samples = inputs.shown
    order = eval_order(len(samples), recipe.train.batch_size)
    # Whole batches, for the answers to a photo differ in the last bits with those beside it.
    first = len(order)
    if writing.done < len(samples):
        first = writing.done // recipe.train.batch_size
        writing.cut(first * recipe.train.batch_size)
    reader = Reader({"train": (samples, view)}, recipe.data.workers)
    batches = reader.batches("train", order[first:])
    try:
        for batch in Progress(batches, f"teacher {teacher.name}", len(order), first):
            with paddle.no_grad():
                seen = teacher(paddle.to_tensor(batch.images), batch.indices)
            writing.add(seen.logits.numpy())
    except DataError as error:
        raise UserError(f"{error}; the same command goes on from here") from None
    finally:
        reader.close()
        writing.close()
    say(
        f"{output}: {teacher.name}'s answers to {plural(len(samples), 'photo')}, "
        f"{plural(top, 'class')} each"
    )
    return output


def teacher_of(recipe: Recipe, which: int) -> Network | Exported:
    """The teacher that is to answer, without a file of its answers."""
    teachers = recipe.task.teacher if isinstance(recipe.task, Distill) else ()
    fixed = [node for node in teachers if not isinstance(node, Peer)]
    if which >= len(fixed):
        raise UserError(
            f"task.teacher: there is no teacher {which + 1} whose answers could be kept; a recipe "
            "names one with task: {kind: distill, teacher: {name: NAME, weights: FILE}}"
        )
    return replace(fixed[which], cache=None)
