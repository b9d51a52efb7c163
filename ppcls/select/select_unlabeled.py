"""`ppcls select-unlabeled`: from teachers and images without labels to a list."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.check.check_data import require_target
from ppcls.check.survey import Album, Demands, chunks, in_order, survey
from ppcls.config.load import to_plain
from ppcls.data.datasets import require_numbers
from ppcls.data.lists import line_of
from ppcls.data.loader import TrainPipeline
from ppcls.data.samples import Dataset, Paths
from ppcls.data.unlabeled import LIST_SUFFIXES
from ppcls.recipe import Recipe
from ppcls.report.plots import BLUE, new_figure, png
from ppcls.select.choose import Chosen, EvalDuplicates, choose
from ppcls.select.scores import ImageList, Scores, beside, look, open_images
from ppcls.tasks import Distill, Exported, Network, Peer
from ppcls.train.distill import Guide, together
from ppcls.train.open_data import class_names, located, open_part
from ppcls.train.setup import open_eval, with_preprocess
from ppcls.train.step import Precision
from ppcls.train.teachers import Student, find_teacher, open_teacher
from ppcls.utils.device import select
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import write_bytes, write_whole
from ppcls.utils.log import Progress, say
from ppcls.utils.text import plural

if TYPE_CHECKING:  # matplotlib is imported when a picture is asked for
    from matplotlib.axes import Axes


HASH = "signs of 256 frequencies, 1"  # how ppcls.check.survey hashes
NORMS = ("mean", "std")  # each teacher's own


@dataclass(frozen=True)
class TeacherScorer:
    """The teachers of a recipe, which look at images as its evaluation does."""

    nodes: list[Network | Exported]
    student: Student  # whose samples are none
    evaluation: Dataset | None
    precision: Precision
    workers: int

    def header(self) -> dict[str, Any]:
        """Who judges, and what is seen of an image; UserError for files that cannot be read."""
        view = to_plain(self.student.preprocess)
        teachers = []
        for found in (find_teacher(node, self.student) for node in self.nodes):
            own = {key: list(getattr(found.preprocess, key)) for key in NORMS}
            teachers.append({"name": found.name, "weights": found.digest, **own})
        return {
            "teachers": teachers,
            **{key: value for key, value in view.items() if key not in NORMS},
            "channels": self.student.channels,
            "classes": self.student.classes,
            "precision": self.precision.kind,
            "hash": HASH,
        }

    def score(self, images: ImageList, scores: Scores) -> None:
        """Look at the images that have no score yet.

        Raises:
            DataError: a worker process was ended, maybe by an image.
            UserError: a teacher does not fit, or its answers are no numbers.
        """
        opened = [open_teacher(node, self.student, self.precision) for node in self.nodes]
        for teacher in opened:
            say(f"teacher {teacher.name}, {teacher.source}")
        guide = together(opened)
        batch = self.student.batch_size
        read = partial(look, preprocess=self.student.preprocess)
        paths = chunks(images.paths(scores.done), batch)
        with closing(in_order(read, paths, self.workers)) as looked:
            total = -(-images.count // batch)
            first = scores.done // batch
            for seen in Progress(looked, f"scores, in batches of {batch}", total, first):
                if len(seen.images):
                    fill(seen.records, *answers(guide, seen.images))
                scores.add(seen.records, seen.reasons)


def open_scorer(recipe: Recipe) -> TeacherScorer:
    """Choose the device and open the evaluation images; teachers are opened to score.

    Training images are opened only where nothing else says how many classes there are.

    Raises:
        UserError: no teacher that could score images, or data that is missing or at odds.
    """
    nodes = teachers_of(recipe)
    recipe = with_preprocess(recipe)
    select(recipe.device)
    model = recipe.model
    data = recipe.data
    classes = model.num_classes
    names = class_names(data.class_names)
    places = located(data)
    if not classes:
        train = open_part("data.train", places.train, data, recipe.task.multilabel)
        require_numbers(train)
        classes = train.classes
        names = train.names
    evaluation = None
    if places.eval or data.holds_out:
        evaluation = open_eval(replace(recipe, data=places), classes)
        names = names or evaluation.names
    else:
        say("the recipe has no evaluation images (data.eval): there are none to keep away from")
    precision = Precision(recipe.train.precision, recipe.train.amp_level)
    if precision.note():
        say(precision.note())
    student = Student(
        classes,
        model.in_channels,
        recipe.task.multilabel,
        recipe.preprocess,
        names,
        TrainPipeline((), recipe.preprocess.crop, model.in_channels, recipe.seed),
        recipe.eval.batch_size,
        Dataset(Paths(), np.empty(0, np.int64), names, ""),
    )
    return TeacherScorer(nodes, student, evaluation, precision, data.workers)


def teachers_of(recipe: Recipe) -> list[Network | Exported]:
    """The teachers of a recipe, themselves and not files of their answers."""
    nodes = recipe.task.teacher if isinstance(recipe.task, Distill) else ()
    fixed = [replace(node, cache=None) for node in nodes if not isinstance(node, Peer)]
    if not fixed:
        raise UserError(
            "task.teacher: there is none that could score images; a recipe names one with "
            "task: {kind: distill, teacher: {name: NAME, weights: FILE}}"
        )
    return fixed


@paddle.no_grad()
def answers(guide: Guide, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class (int64 [N]) and its probability (float32 [N]) of uint8 [N, H, W, C]."""
    places = np.zeros(len(images), np.int64)  # of no use: no teacher here has kept answers
    shares = F.softmax(guide(paddle.to_tensor(images), places).logits.astype("float32"), axis=-1)
    labels = shares.argmax(axis=-1).numpy()
    confidence = shares.max(axis=-1).numpy()
    if not np.isfinite(confidence).all():
        raise UserError(
            "task.teacher: its answers are no numbers; is it whole? Where a narrow precision "
            "overflows, -o train.precision=fp32"
        )
    return labels, confidence


def fill(records: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> None:
    """Write the answers to the images that could be read into RECORD [N]."""
    read = records["pixels"] != 0
    records["label"][read], records["confidence"][read] = labels, confidence


# --------------------------------------------------------------------------
# What a selection came to, in words and as a picture

NAMED = 5  # classes with few images that are named


def lines(
    chosen: Chosen, names: tuple[str, ...], classes: int, per_class: int, output: Path
) -> Iterator[str]:
    """What the screen says."""
    yield total(chosen, output)
    counts = chosen.counts(classes)
    few = np.flatnonzero(counts < per_class)
    if len(few):
        first = [f"{names[c] if names else c} ({counts[c]:,})" for c in few[:NAMED]]
        more = ", …" if len(few) > NAMED else ""
        yield (
            f"{plural(len(few), 'class has', 'classes have')} fewer than {per_class:,}: "
            f"{', '.join(first)}{more}"
        )
    classes_there = int((counts > 0).sum())
    yield (
        f"{output}: {plural(len(chosen.rows), 'image')} of {plural(classes_there, 'class')}, "
        f"mean confidence {chosen.rows['confidence'].mean(dtype=np.float64):.4f}"
    )


def total(chosen: Chosen, output: Path) -> str:
    """How many images there are, and why some were not chosen."""
    parts = {
        f"cannot be read ({output.name}.skipped)": chosen.left_out,
        "are evaluation images, or nearly": chosen.near,
        "are below the least confidence": chosen.below,
        "are copies of chosen ones": chosen.copies,
    }
    said = [f"{count:,} {what}" for what, count in parts.items() if count]
    return ": ".join(filter(None, [plural(chosen.images, "image"), ", ".join(said)]))


def sheet(chosen: Chosen, classes: int, per_class: int) -> bytes:
    """PNG: how many images each class has, and how sure the teacher is of them."""
    figure = new_figure((10, 4))
    left, right = figure.subplots(1, 2)
    draw_counts(left, np.sort(chosen.counts(classes))[::-1], per_class)
    right.hist(chosen.rows["confidence"], bins=50, range=(0, 1), color=BLUE)
    right.set(xlabel="confidence: probability of the likeliest class", ylabel="chosen images")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return png(figure)


def draw_counts(axes: "Axes", counts: np.ndarray, per_class: int) -> None:
    edges = np.arange(len(counts) + 1)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.axhline(per_class, color="black", linewidth=1, linestyle=":")
    axes.set(xlabel="classes, the largest first", ylabel="chosen images", xlim=(0, len(counts)))


# --------------------------------------------------------------------------
# From a recipe and unlabelled images to the list of those a student is to learn from


@dataclass(frozen=True)
class Criteria:
    """Which images: how many of each class, how sure, how many bits from evaluation images."""

    per_class: int
    least: float
    near: int


def select_unlabeled(
    recipe: Recipe,
    given: str,
    output: Path,
    wish: Criteria,
    picture: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a list of the images that a recipe's teachers are surest of, or go on with that.

    Args:
        given: a folder of images, or a list with a path a line.
        picture: a .png of the images per class and their confidence.
        overwrite: the picture may be there already.

    Raises:
        UserError: a recipe without such teachers, images that are not there, files that cannot be
            written or belong to something else.
    """
    require_output(output)
    require_target("--sheet", picture, ".png", overwrite)
    judge = open_scorer(recipe)
    about = judge.header()
    images = open_images(given, output)
    about |= {"photos": images.count, "list": images.digest, "root": images.root}
    scores = Scores(output, about, images.count, recipe.eval.batch_size)
    try:
        if scores.done < images.count:
            judge.score(images, scores)
        chosen = choose(
            scores,
            judge.student.classes,
            wish.per_class,
            wish.least,
            eval_duplicates(judge, wish.near),
        )
    except DataError as error:
        raise UserError(f"{error}; the same command goes on from here") from None
    except KeyboardInterrupt:
        say(f"{scores.path} is kept: the same command goes on from here")
        raise
    finally:
        scores.close()
    if not len(chosen.rows):
        raise UserError(
            f"{output}: no image is left to choose ({total(chosen, output)}); is --images what "
            "the teacher knows, and --least low enough?"
        )
    write(chosen, images, output)
    for line in lines(chosen, judge.student.names, judge.student.classes, wish.per_class, output):
        say(line)
    if picture:
        drawn = sheet(chosen, judge.student.classes, wish.per_class)
        write_bytes(picture, drawn, f"--sheet {picture}")


def require_output(output: Path) -> None:
    """UserError for an output that is somebody else's, or that would not be read as a list."""
    if output.suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"--output {output}: a list of images ends in .txt, .tsv or .lst")
    if output.exists() and not beside(output, "scores").exists():
        raise UserError(
            f"--output {output}: exists and is not from here, for there is no "
            f"{beside(output, 'scores').name} beside it: give another, or move it away"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None


def eval_duplicates(judge: TeacherScorer, bits: int) -> EvalDuplicates | None:
    """What to keep away from: the evaluation images, if there are any."""
    evaluation: Dataset | None = judge.evaluation
    if evaluation is None:
        return None
    demands = Demands(judge.student.channels)
    seen = survey(Album({"eval": evaluation}), demands, "evaluation images")
    lost = int((seen.records["pixels"] == 0).sum())
    if lost:
        say(
            f"note: {plural(lost, 'evaluation image')} cannot be read, and cannot be kept away from"
        )
    return EvalDuplicates(seen.records, bits)


def write(chosen: Chosen, images: ImageList, output: Path) -> None:
    """The list of the chosen images, whole or not at all."""
    folder = os.path.dirname(os.path.abspath(output))
    paths = images.paths()
    before = 0
    with write_whole(output) as file:
        for place in chosen.rows["place"]:
            path = next(islice(paths, int(place) - before, None))
            file.write(f"{line_of(path, folder)}\n".encode())
            before = int(place) + 1
