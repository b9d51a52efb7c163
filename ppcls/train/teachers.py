"""Teachers at work: networks that are run without being trained, saved or changed."""

import hashlib
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.api import create_model
from ppcls.config.load import from_plain
from ppcls.data.preprocess import Preprocess
from ppcls.data.sizes import sides
from ppcls.errors import UserError
from ppcls.inference.choose import CANDIDATES
from ppcls.inference.predictor import Predictor
from ppcls.inputs import class_names
from ppcls.models.normalize import Normalize
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import RECORD, read_record
from ppcls.train.distill.seen import Seen
from ppcls.train.distill.step import Look, looking
from ppcls.train.distill.teachers import Exported, Network
from ppcls.train.precision import Precision
from ppcls.weights import cache, files, store
from ppcls.weights.load import OtherClasses

LEAST = 1e-30  # a probability that an engine rounded to 0


class NetworkTeacher:
    """A network in evaluation mode; photos are normalised as it was trained on them.

    That is what its checkpoint or the registry says of the weights, else as the student's.
    """

    def __init__(self, node: Network, recipe: Recipe, precision: Precision, features: bool):
        source = store.find(node.name, node.weights)
        checkpoint = files.read(source.path)
        self.source, self.names = source.path, class_names(source.labels)
        preprocess = recipe.preprocess
        if RECORD in checkpoint.metadata:
            record = read_record(source.path, checkpoint)
            self.names = tuple(record.labels)
            plain = record.recipe["preprocess"]
            preprocess = from_plain(Preprocess, plain, str(source.path))
        elif source.preprocess:
            preprocess = from_plain(Preprocess, source.preprocess, str(source.path))
        net = self.create(node, recipe, checkpoint)
        self.network = Normalize.before(net, preprocess.scale, preprocess.offset)
        self.network.eval()
        self.net, self.name = net, node.name
        self.look: Look = precision.around(looking(self.network, features))

    def create(self, node: Network, recipe: Recipe, checkpoint: files.Checkpoint) -> nn.Layer:
        classes, channels = recipe.model.num_classes or 0, recipe.model.in_channels
        try:
            return create_model(
                node.name, classes, checkpoint.tensors, in_channels=channels, source=self.source
            )
        except OtherClasses as error:
            raise UserError(
                f"task.teacher: {self.source} has {error.found} classes and the student {classes}: "
                "a teacher of the student's classes is needed"
            ) from None
        except UserError as error:
            raise UserError(f"task.teacher: {error}") from None

    def __call__(self, images: Tensor) -> Seen:
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

    def __init__(self, node: Exported, recipe: Recipe):
        device = "gpu" if paddle.get_device().startswith("gpu") else "cpu"
        engine = node.engine or CANDIDATES[device][0]
        size = recipe.train.batch_size
        self.predictor = Predictor(node.folder, device, engine=engine, batch_size=size)
        self.name, self.source = self.predictor.manifest.model, Path(node.folder)
        self.names, self.classes = self.predictor.manifest.labels, recipe.model.num_classes
        manifest = self.predictor.manifest
        if manifest.task != "classify":
            raise UserError(f"task.teacher: {node.folder} gives a photo several labels, not one")
        if manifest.preprocess.channels != recipe.model.in_channels:
            raise UserError(
                f"task.teacher: {node.folder} takes {manifest.preprocess.channels} channels, "
                f"the student {recipe.model.in_channels}"
            )
        taken = set(self.predictor.engine.shape[1:]) - {None, manifest.preprocess.channels}
        asked = set(sides(recipe.train_size))
        if taken and taken != asked:
            raise UserError(
                f"task.teacher: {node.folder} takes photos of {max(taken)} px and they are "
                f"{', '.join(map(str, sorted(asked)))} px: export it with --dynamic-size"
            )

    def __call__(self, images: Tensor) -> Seen:
        pixels, manifest = images.numpy(), self.predictor.manifest
        given = pixels if manifest.input == "uint8" else manifest.preprocess.normalize(pixels)
        shares = self.predictor.probabilities(self.predictor.engine.run(given))
        if shares.shape[1] != self.classes:
            raise UserError(
                f"task.teacher: {self.source} has {shares.shape[1]} classes and the student "
                f"{self.classes}: a teacher of the student's classes is needed"
            )
        return Seen(paddle.to_tensor(np.log(np.maximum(shares, LEAST))))

    def digest(self) -> str:
        """Changes with any bit of its files."""
        found = [cache.digest(path) for path in self.predictor.folder.files]
        return hashlib.sha256("".join(found).encode()).hexdigest()


AnyTeacher = NetworkTeacher | ExportedTeacher


def open_teacher(
    node: Network | Exported,
    recipe: Recipe,
    names: tuple[str, ...],
    precision: Precision,
    features: bool = False,
) -> AnyTeacher:
    """The teacher of a recipe whose classes have these names, () when unknown.

    Raises:
        UserError: weights or a folder that cannot be read or do not fit, or other classes.
    """
    if isinstance(node, Exported):
        teacher: AnyTeacher = ExportedTeacher(node, recipe)
    else:
        teacher = NetworkTeacher(node, recipe, precision, features)
    own = tuple(teacher.names)
    if own and names and own != names and len(own) == len(names):
        first = next(i for i in range(len(own)) if own[i] != names[i])
        raise UserError(
            f"task.teacher: {teacher.source}: its class {first} is {own[first]!r}, the student's "
            f"{names[first]!r}: train both with the same classes in the same order"
        )
    return teacher
