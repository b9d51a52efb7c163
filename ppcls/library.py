"""What `import ppcls` offers for whole runs: train, evaluate, export, and a trained network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from pydantic import ValidationError

from ppcls.data.datasets import LIST_SUFFIXES
from ppcls.data.own_dataset import OwnDataset, ReadsImages
from ppcls.data.preprocess import Preprocess
from ppcls.export import Form
from ppcls.export import export as write_export
from ppcls.inference import inputs, manifest
from ppcls.inference.inputs import ImageInput, open_image, path_of
from ppcls.inference.predictor import MANY_CLASSES, Prediction, batched, best_of, link
from ppcls.losses.labels import OwnLoss
from ppcls.recipe import GIVEN_MODEL, Data, Recipe
from ppcls.start.choose_recipe import choose
from ppcls.thresholds import Aims
from ppcls.train import setup
from ppcls.train.callbacks import Callback
from ppcls.train.checkpoint import BEST, LATEST, Trained, read_record
from ppcls.train.evaluate import choose_thresholds, score
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import expanded
from ppcls.utils.guard import guarded, user_errors
from ppcls.utils.log import say
from ppcls.utils.text import did_you_mean, plural, visible
from ppcls.weights import files

Images = str | PathLike[str] | ReadsImages  # to learn from or to be scored on


@dataclass(frozen=True)
class Run:
    """What became of a training.

    Attributes:
        folder: the run's, with `run.jsonl`, `curves.png` and `recipe.yml`.
        recipe: what was trained.
        done: whether it came to its end; else a signal ended it, and `resume` goes on.
        best, latest: its checkpoints, None where it wrote none.
        scores: of `checkpoint`, {} where nothing was evaluated.
        model: the network that was given, None where the recipe names one.
    """

    folder: Path
    recipe: Recipe = field(repr=False)
    done: bool
    best: Path | None
    latest: Path | None
    scores: dict[str, float]
    model: nn.Layer | None = field(default=None, repr=False)

    @property
    def checkpoint(self) -> Path:
        """The best weights, or the latest where there are no scores to choose by."""
        found = self.best or self.latest
        if not found:
            raise UserError(f"{self.folder}: the run ended before it wrote a checkpoint")
        return found


@guarded
def train(
    recipe: Recipe | str | PathLike[str] | Mapping[str, Any],
    *,
    model: nn.Layer | None = None,
    train_data: Images | None = None,
    eval_data: Images | None = None,
    loss: Any = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train as `ppcls train` does; Ctrl-C ends the run after its step, its state saved.

    Args:
        recipe: the file of one, a `Recipe`, its keys as nested mappings, or images (a folder, list
            or shards), for which one is chosen as `ppcls train photos/` does.
        model: a network of one's own: normalised float32 images [N, C, H, W] to logits
            [N, classes]; it is trained in place. None: the recipe names one.
        train_data, eval_data: what to learn from and to be scored on in place of what the recipe
            says: a folder, list or shards, or an object with `__len__` and `read(index)`.
        loss: called as `loss(logits, targets)`, in place of the recipe's.
        callbacks: `ppcls.Callback`s, which hear what the run does.
        resume: go on with the run in the recipe's folder; objects are given again.
        overwrite: replace the run that is there.

    Raises:
        UserError: anything that the user can mend.
    """
    made = recipe_of(recipe, "ppcls.train", model)
    made = with_parts(made, train_data, eval_data, loss)
    done = setup.train(made, resume, overwrite, callbacks=callbacks, model=model)
    return run_of(made, done, model)


def run_of(recipe: Recipe, done: bool, model: nn.Layer | None) -> Run:
    """What a run's folder tells of it."""
    folder = recipe.folder
    best, latest = (path if path.exists() else None for path in (folder / BEST, folder / LATEST))
    found = best or latest
    scores = read_record(found, files.metadata_of(found)).scores if found else {}
    return Run(folder, recipe, done, best, latest, scores, model)


def recipe_of(given: Any, source: str, model: nn.Layer | None = None) -> Recipe:
    """A recipe from a file, from its keys or as it is; with the name of a network that is given."""
    name = f"{GIVEN_MODEL}{type(model).__name__}"
    if model is not None and not isinstance(model, nn.Layer):
        raise UserError(f"{source}: model should be a paddle.nn.Layer, not {words(model)}")
    if isinstance(given, Mapping):
        values = dict(given)
        if model is not None:
            own = values.get("model") or {}
            values["model"] = {**own, "name": name} if isinstance(own, Mapping) else own
        return Recipe.of(values, source)
    if isinstance(given, str | PathLike):
        given = chosen_for(given) if is_data(given) else Recipe.load(given)
    if not isinstance(given, Recipe):
        raise UserError(
            f"{source}: a recipe is a file, a ppcls.Recipe or its keys as a dict, not "
            f"{words(given)}"
        )
    if model is None:
        return given
    return changed(given, "model", name=name)


def is_data(given: str | PathLike[str]) -> bool:
    """Whether a path is one of images, to choose a recipe for: a folder, list or shards."""
    path = Path(expanded(given))
    suffixes = {suffix for suffix in (*LIST_SUFFIXES, ".tar") if suffix}
    return path.is_dir() or (path.exists() and path.suffix.lower() in suffixes)


def chosen_for(images: str | PathLike[str]) -> Recipe:
    """The recipe that `ppcls train IMAGES` chooses; why is said."""
    found = choose(str(images), ())
    say(*found.lines)
    return found.recipe


def with_parts(
    recipe: Recipe, train_data: Images | None, eval_data: Images | None, loss: Any
) -> Recipe:
    """The recipe with what is given in place of what it says."""
    if train_data is not None:
        recipe = changed(recipe, "data", train=data_of(train_data, "train_data"), builtin=None)
    if eval_data is not None:
        recipe = with_eval(recipe, eval_data, "eval_data")
    if loss is not None:
        with user_values("loss"):
            recipe = changed(recipe, "task", loss=OwnLoss.holding(loss))
    return recipe


def with_eval(recipe: Recipe, images: Images, argument: str) -> Recipe:
    """The recipe with other images to be scored on, and none held out of those to learn from."""
    usual = {one.name: one.default for one in fields(Data)}  # type: ignore[arg-type]
    apart = {key: usual[key] for key in ("holdout", "folds", "fold") if key in usual}
    return changed(
        recipe,
        "data",
        eval=data_of(images, argument),
        builtin=None,
        train=recipe.data.train,
        **apart,
    )


def data_of(images: Any, argument: str) -> str | OwnDataset:
    """What a recipe has for it: a path, or the object."""
    if isinstance(images, str | PathLike):
        return str(images)
    with user_values(argument):
        return OwnDataset.holding(images)


@contextmanager
def user_values(argument: str) -> Iterator[None]:
    """While entered, a value that is none of its kind is an error of the argument."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{argument}: {error}") from None


def changed(recipe: Recipe, section: str, **values: Any) -> Recipe:
    """The recipe with other values in one of its sections; UserError where they do not fit."""
    try:
        return replace(recipe, **{section: replace(getattr(recipe, section), **values)})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([section, *map(str, first["loc"])])
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def words(value: Any) -> str:
    """What was given, in a message."""
    return visible(" ".join(repr(value).split()), 60)


# --------------------------------------------------------------------------
# A trained network


class Classifier:
    """A trained network with all that belongs to it: `ppcls.load(checkpoint)`.

    Attributes:
        model: the network, in evaluation mode: normalised float32 [N, C, H, W] to logits.
        recipe: what it was trained with.
        class_names: () where classes have only numbers.
        num_classes: how many there are.
        preprocess: what images go through before the network.
        scores: of the checkpoint's last evaluation, {} when unknown.
        source: the file its weights come from.
    """

    def __init__(self, trained: Trained):
        self.trained = trained
        self.model = trained.net
        self.recipe = trained.recipe
        self.class_names = trained.names
        self.num_classes = trained.classes
        self.preprocess: Preprocess = trained.recipe.preprocess
        self.scores = trained.scores
        self.source = trained.source

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        classes = plural(self.num_classes, "class")
        about = ", ".join(filter(None, (self.recipe.model.title, classes, scores)))
        return f"<Classifier {visible(str(self.source))}: {about}>"

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], topk: int | None = None
    ) -> list[Prediction]:
        return self.predict(images, topk)

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        topk: int | None = None,
        batch_size: int = 8,
    ) -> list[Prediction]:
        """Classify images with the network as it is here; an export and `Predictor` are faster.

        Args:
            images: files, folders, lists of files, bytes, Pillow images or arrays, as of
                `Predictor.predict`.
            topk: classes per image; None: 5, or of a multi-label network all classes above their
                thresholds.
            batch_size: images per run of the network.

        Raises:
            UserError: an image that is missing or broken, named; in a list, as `images[3]`.
        """
        several = self.recipe.task.multilabel
        if topk is None:
            topk = MANY_CLASSES if several else 5
        topk = inputs.whole_number("topk", topk)
        size = inputs.whole_number("batch_size", batch_size)
        alone = inputs.is_one(images)
        found = inputs.find(images, False)
        results = []
        for batch in batched(found, size, alone and len(found) == 1):
            pixels = []
            for place, image in enumerate(batch.images):
                with user_errors(batch.name(place), DataError):
                    index = None if batch.first is None else batch.first + place
                    pixels.append(open_image(image, self.preprocess, index))
            scores = self.probabilities(np.stack(pixels))
            pairs = zip(batch.images, scores, strict=True)
            results += [self.prediction(path_of(image), row, topk) for image, row in pairs]
        return results

    @paddle.no_grad()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of images uint8 [N, H, W, C] as `preprocess` leaves them: float32 [N, classes]."""
        normalised = self.preprocess.normalize(images)
        self.model.eval()
        logits = self.model(paddle.to_tensor(normalised)).astype("float32").numpy()
        return link(logits, self.recipe.task.answers)

    def prediction(self, path: str | None, row: np.ndarray, topk: int) -> Prediction:
        classes = best_of(row, topk)
        if self.recipe.task.multilabel:
            limits = np.broadcast_to(self.trained.thresholds or manifest.THRESHOLD, row.shape)
            classes = classes[(row > limits)[classes]]
        names = [self.class_names[i] if self.class_names else str(i) for i in classes]
        return Prediction(path, classes.tolist(), names, row[classes].tolist(), 0.0)


Checkpoint = str | PathLike[str] | Run | Classifier


@guarded
def load(
    checkpoint: Checkpoint, *, model: nn.Layer | None = None, overrides: Sequence[str] = ()
) -> Classifier:
    """The trained network of a checkpoint, of a run's folder or of what `ppcls.train` gave.

    Args:
        model: a network of one's own that the checkpoint's weights are put into, where it was given
            to `ppcls.train` as an object.
        overrides: other values of the recipe, as `-o` takes them: `["preprocess.crop=192"]`.

    Raises:
        UserError: a file that cannot be read, without a recipe, or for another network.
    """
    if isinstance(checkpoint, Classifier):
        return checkpoint
    run = checkpoint if isinstance(checkpoint, Run) else None
    path = run.checkpoint if run else file_of(checkpoint)
    net = model if model is not None or not run else run.model
    trained = setup.open_trained(None, overrides, str(path), net)
    if run:  # which has the objects that were given, and a checkpoint has not
        recipe = replace(trained.recipe, data=run.recipe.data, task=run.recipe.task)
        trained = replace(trained, recipe=recipe)
    return Classifier(trained)


def file_of(checkpoint: Any) -> Path:
    """A checkpoint's file; of a run's folder the best."""
    if not isinstance(checkpoint, str | PathLike):
        raise UserError(
            "a trained network is a checkpoint's file, a run's folder or what ppcls.train or "
            f"ppcls.load gave, not {words(checkpoint)}"
        )
    path = Path(expanded(checkpoint))
    if not path.is_dir():
        return path
    found = [path / name for name in (BEST, LATEST) if (path / name).exists()]
    if not found:
        raise UserError(f"{path}: a folder without {BEST} or {LATEST}: name a checkpoint's file")
    return found[0]


@guarded
def evaluate(
    checkpoint: Checkpoint,
    data: Images | None = None,
    *,
    model: nn.Layer | None = None,
    report: str | PathLike[str] | None = None,
    overwrite: bool = False,
    thresholds: str | PathLike[str] | Mapping[str, str] | None = None,
) -> dict[str, float]:
    """The scores of a trained network on labelled images, as `ppcls eval` gives them.

    Args:
        data: a folder, list or shards, or a dataset of one's own; None: what the recipe evaluates.
        model: as of `load`.
        report: a folder to write `report.html` into.
        overwrite: replace another network's report there.
        thresholds: an aim such as "precision=0.9", by which those of several labels or of the
            second of two classes are chosen on these images and scored at; what they reach is
            printed. For each class its own: a mapping, {"fire": "recall=0.99", "*": "f1"}, or a CSV
            file (docs/evaluation.md).
    """
    aims = aims_of(thresholds)
    trained = load(checkpoint, model=model).trained
    if data is not None:
        trained = replace(trained, recipe=with_eval(trained.recipe, data, "data"))
    folder = None if report is None else Path(expanded(report))
    return score(trained, setup.eval_samples(trained), folder, overwrite, aims)


def aims_of(thresholds: str | PathLike[str] | Mapping[str, str] | None) -> Aims | None:
    return None if thresholds is None else Aims.of(thresholds, "thresholds")


@guarded
def export(
    checkpoint: Checkpoint,
    output: str | PathLike[str],
    *,
    model: nn.Layer | None = None,
    formats: str | Sequence[str] = "paddle",
    images: Sequence[str] = (),
    overwrite: bool = False,
    thresholds: str | PathLike[str] | Mapping[str, str] | None = None,
    **form: Any,
) -> Path:
    """Write a trained network for prediction, as `ppcls export` does; returns the folder.

    Args:
        model: as of `load`.
        formats: paddle, onnx, openvino, or several of them.
        images: files to compare the exported network on; default: of the evaluation data.
        overwrite: replace an export of other weights.
        thresholds: an aim such as "f1", or aims of classes: chosen as by `evaluate`, on the
            evaluation data of the recipe, and written into the export.
        form: more of `ppcls.export.Form`: input="uint8", output="logits", dynamic_size=True …
    """
    known = [one.name for one in fields(Form) if one.name not in ("formats", "thresholds")]
    for key in form:
        if key not in known:
            hint = did_you_mean(key, known) or f"; there are {', '.join(known)}"
            raise UserError(f"ppcls.export: unknown argument {key!r}{hint}")
    wanted = (formats,) if isinstance(formats, str) else tuple(formats)
    for name in wanted:
        inputs.one_of("formats", name, ("paddle", "onnx", "openvino"))
    aims = aims_of(thresholds)
    trained = load(checkpoint, model=model).trained
    made = Form(wanted, **form)
    if aims:
        chosen = choose_thresholds(trained, setup.eval_samples(trained), aims)
        made = replace(made, thresholds=chosen)
    return write_export(trained, Path(expanded(output)), list(images), made, overwrite)
