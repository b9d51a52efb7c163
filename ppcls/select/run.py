"""From a recipe and unlabelled photos to the list of those a student is to learn from."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ppcls.check.photo import Demands
from ppcls.check.report import require_target
from ppcls.check.survey import Album, survey
from ppcls.data.datasets import Samples
from ppcls.data.unlabeled import LIST_SUFFIXES
from ppcls.errors import DataError, UserError
from ppcls.log import say
from ppcls.recipe import Recipe
from ppcls.select.choose import Chosen, choose
from ppcls.select.files import beside
from ppcls.select.judge import Judge, open_judge
from ppcls.select.near import Away
from ppcls.select.photos import Photos, line_of, open_photos
from ppcls.select.report import lines, sheet, total
from ppcls.select.scores import Scores
from ppcls.utils.files import write_bytes, write_whole
from ppcls.utils.text import plural


@dataclass(frozen=True)
class Wish:
    """Which photos: how many of each class, how sure, how many bits from evaluation photos."""

    per_class: int
    least: float
    near: int


def select_unlabeled(
    recipe: Recipe,
    given: str,
    output: Path,
    wish: Wish,
    picture: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a list of the photos that a recipe's teachers are surest of, or go on with that.

    Args:
        given: a folder of photos, or a list with a path a line.
        picture: a .png of the photos per class and their confidence.
        overwrite: the picture may be there already.

    Raises:
        UserError: a recipe without such teachers, photos that are not there, files that cannot be
            written or belong to something else.
    """
    require_output(output)
    require_target("--sheet", picture, ".png", overwrite)
    judge = open_judge(recipe)
    about = judge.header()
    photos = open_photos(given, output)
    about |= {"photos": photos.count, "list": photos.digest, "root": photos.root}
    scores = Scores(output, about, photos.count, recipe.eval.batch_size)
    try:
        if scores.done < photos.count:
            judge.score(photos, scores)
        chosen = choose(scores, judge.classes, wish.per_class, wish.least, away(judge, wish.near))
    except DataError as error:
        raise UserError(f"{error}; the same command goes on from here") from None
    except KeyboardInterrupt:
        say(f"{scores.path} is kept: the same command goes on from here")
        raise
    finally:
        scores.close()
    if not len(chosen.rows):
        raise UserError(
            f"{output}: no photo is left to choose ({total(chosen, output)}); is --photos what "
            "the teacher knows, and --least low enough?"
        )
    write(chosen, photos, output)
    for line in lines(chosen, judge.inputs.names, judge.classes, wish.per_class, output):
        say(line)
    if picture:
        drawn = sheet(chosen, judge.classes, wish.per_class)
        write_bytes(picture, drawn, f"--sheet {picture}")


def require_output(output: Path) -> None:
    """UserError for an output that is somebody else's, or that would not be read as a list."""
    if output.suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"--output {output}: a list of photos ends in .txt, .tsv or .lst")
    if output.exists() and not beside(output, "scores").exists():
        raise UserError(
            f"--output {output}: exists and is not from here, for there is no "
            f"{beside(output, 'scores').name} beside it: give another, or move it away"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None


def away(judge: Judge, bits: int) -> Away | None:
    """What to keep away from: the evaluation photos, if there are any."""
    evaluation: Samples | None = judge.inputs.eval
    if evaluation is None:
        return None
    demands = Demands(judge.recipe.model.in_channels)
    seen = survey(Album({"eval": evaluation}), demands, "evaluation photos")
    lost = int((seen.records["pixels"] == 0).sum())
    if lost:
        say(
            f"note: {plural(lost, 'evaluation photo')} cannot be read, and cannot be kept away from"
        )
    return Away(seen.records, bits)


def write(chosen: Chosen, photos: Photos, output: Path) -> None:
    """The list of the chosen photos, whole or not at all."""
    folder, paths, before = os.path.dirname(os.path.abspath(output)), photos.paths(), 0
    with write_whole(output) as file:
        for place in chosen.rows["place"]:
            path = next(islice(paths, int(place) - before, None))
            file.write(f"{line_of(path, folder)}\n".encode())
            before = int(place) + 1
