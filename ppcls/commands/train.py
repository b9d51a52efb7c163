"""`ppcls train`: train a network as a recipe says, or as one that is chosen for the images."""

import argparse
import json
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.options import (
    add_command,
    add_data_argument,
    add_recipe_options,
    add_time_option,
    positive,
    program,
)
from ppcls.train.launch import (
    INTERRUPTED,
    end_as_lost,
    end_with_launcher,
    launch,
    launched,
    most_processes,
)
from ppcls.train.link import PeerError
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import say, silence

if TYPE_CHECKING:
    from ppcls.data.samples import Dataset
    from ppcls.recipe import Recipe
    from ppcls.start.choose_recipe import Chosen
    from ppcls.start.fit_time import Pace


AUTO = "auto"
STEPS = 2  # of a dry run
REPORT, EXPORTED = "report", "exported"  # in the run's folder
EXPORTS_WITH = "onednn"  # the engine that an export is checked with: it is there


def add(commands) -> None:
    examples = (
        "ppcls train photos/",
        "ppcls train photos/ --time 20m -o data.holdout=0.3",
        "ppcls train -c quick_start/digits --resume",
    )
    text = "train a network as a recipe says, or as one that is chosen for the images"
    parser = add_command(commands, "train", run, text, examples)
    add_data_argument(parser, required=False)
    add_recipe_options(parser, required=False)
    text = "go on with the interrupted run in the recipe's output folder"
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--resume", action="store_true", help=text)
    text = "replace the run that is in the recipe's output folder"
    begun.add_argument("--overwrite", action="store_true", help=text)
    text = "try two steps, an evaluation, a checkpoint and an export, and keep nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "train so many runs, each scored on another part of data.train; then mean and spread"
    parser.add_argument("--folds", type=positive, metavar="N", help=text)
    text = "number of processes that train together on this machine; default: auto, which is 1, or "
    text += "what a measurement finds faster where the result stays the same"
    parser.add_argument("--processes", type=number_or_auto, default=AUTO, metavar="N", help=text)
    text = "the processes share the images of one process's step, instead of having as many each"
    parser.add_argument("--divided", action="store_true", help=text)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)  # of our own
    add_time_option(parser)


def number_or_auto(text: str) -> int | str:
    return text if text == AUTO else positive(text)


def run(options: argparse.Namespace) -> int:
    end_with_launcher()
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    if options.folds:
        options.override = [*options.override, f"data.folds={options.folds}"]
    with told(options) as given:
        recipe = load(Recipe, given.config, given.overrides)
        several = bool(recipe.data.folds and not recipe.data.fold)
        if several and not options.dry_run:
            code = run_folds(recipe, given, options)
        elif several:  # the others are much the same
            first = replace(given, overrides=[*given.overrides, "data.fold=1"])
            code = run_one(load(Recipe, first.config, first.overrides), first, options)
        else:
            code = run_one(recipe, given, options)
    if code == 0 and given.chosen and not (several or options.dry_run):
        hand_over(recipe, given.chosen)
    return code


def run_folds(recipe: "Recipe", given: "Given", options: argparse.Namespace) -> int:
    """Train all folds, each in as many processes as are asked for."""
    from ppcls.start.folds import train_folds

    if launched():
        raise UserError(
            "data.folds: several folds start their processes themselves: --processes N in the "
            "place of another launcher, or -o data.fold=1 trains one of them"
        )

    def train_one(recipe: "Recipe", resume: bool, overwrite: bool) -> int:
        own = [f"data.fold={recipe.data.fold}", f"output={json.dumps(recipe.output)}"]
        flags = argparse.Namespace(**vars(options) | {"resume": resume, "overwrite": overwrite})
        return run_one(recipe, replace(given, overrides=[*given.overrides, *own]), flags)

    return train_folds(recipe, options.resume, options.overwrite, train_one)


def run_one(recipe: "Recipe", given: "Given", options: argparse.Namespace) -> int:
    """One run, in this process or in several."""
    if options.measure:
        from ppcls.start.choose_processes import take_steps

        take_steps(recipe, Path(options.measure), options.divided)
        return 0
    divided = options.divided
    if not launched():
        command = command_of(given, options)
        count, divided = how_many(recipe, command, options)
        if count > 1:
            return launch([*command, *(["--divided"] if divided else [])], count)
    try:
        return train_or_try(recipe, options, divided)
    except PeerError as lost:
        return end_as_lost(str(lost), lost.unexplained, lost.code)


def command_of(given: "Given", options: argparse.Namespace) -> list[str]:
    """The command that trains so in one process."""
    flags = {"--resume": options.resume, "--overwrite": options.overwrite}
    flags["--dry-run"] = options.dry_run
    same = [flag for flag, asked in flags.items() if asked]
    overrides = ["-o", *given.overrides] if given.overrides else []
    uses = [word for name in options.use for word in ("--use", name)]
    command = ["train", "-c", given.config, *same, *overrides, *uses]
    return [*environment.program("ppcls"), *command]


def how_many(
    recipe: "Recipe", command: Sequence[str], options: argparse.Namespace
) -> tuple[int, bool]:
    """The number of processes, and whether they share a step; a run that goes on has its own."""
    from ppcls.start.choose_processes import candidate, choose, of_run

    count = options.processes
    before = of_run(recipe) if options.resume else None
    if before:
        known, shared = before
        count = min(known, most_processes()) if count == AUTO else count
        return count, shared or options.divided
    if count != AUTO:
        return count, options.divided
    if options.divided:
        raise UserError("--divided: say how many processes share a step, with --processes N")
    if options.dry_run or candidate(recipe) == 1:
        return 1, False
    refuse_over_run(options, recipe)
    best = choose(recipe, command)
    return best, best > 1


def train_or_try(recipe: "Recipe", options: argparse.Namespace, divided: bool) -> int:
    if options.dry_run:
        return 0 if dry_run(recipe, divided) else INTERRUPTED
    from ppcls.train.setup import train

    done = train(recipe, options.resume, options.overwrite, divided=divided)
    return 0 if done else INTERRUPTED


def dry_run(recipe: "Recipe", divided: bool = False) -> bool:
    """Train two steps, evaluate a little, save and export, in a folder that is then removed.

    Returns:
        False when a signal ended it.

    Raises:
        UserError: what would have stopped the run sooner or later.
    """
    from ppcls.export import export
    from ppcls.train.checkpoint import LATEST
    from ppcls.train.setup import open_trained, train

    with tempfile.TemporaryDirectory(prefix="ppcls-dry-run-") as folder:
        short = replace(recipe, output=str(Path(folder) / "run"))
        if not train(short, limit=STEPS, divided=divided):
            return False
        latest = Path(folder) / "run" / LATEST
        if latest.exists():  # in the process that writes
            export(open_trained(None, (), str(latest)), Path(folder) / "exported")
    say(f"dry run: {STEPS} steps, evaluation, checkpoint and export went well; nothing is kept")
    return True


# --------------------------------------------------------------------------
# Images, with a recipe or without


@dataclass(frozen=True)
class Given:
    """The recipe's file and what is laid over it.

    Attributes:
        chosen: the file to change for another run, where the recipe was chosen for the images.
    """

    config: str
    overrides: Sequence[str]
    chosen: str = ""


@contextmanager
def told(options: argparse.Namespace) -> Iterator[Given]:
    """The recipe that the command line means; one that was chosen for a dry run is then removed.

    Raises:
        UserError: it means none, or what is to be chosen for cannot be opened.
    """
    if not options.data and not options.config:
        raise UserError(
            "say what to train on: ppcls train photos/ (before -o), or a recipe: -c RECIPE"
        )
    if launched() and (options.time or (options.data and not options.config)):
        raise UserError(
            "several processes would each choose for themselves: give --processes N in place of a "
            "launcher, or write the recipe first: ppcls init PATH, then -c"
        )
    if options.config:
        yield with_recipe(options)
    elif options.resume:
        yield of_run(options)
    elif options.dry_run:
        with tempfile.TemporaryDirectory(prefix="ppcls-dry-run-") as folder:
            yield chosen_for(options, Path(folder))
    else:
        yield chosen_for(options, None)


def with_recipe(options: argparse.Namespace) -> Given:
    """The recipe named, with the images named in place of its own and the epochs that fit."""
    from ppcls.start.choose_recipe import keys_of_data

    overrides = options.override
    if options.data:
        overrides = [*keys_of_data(options.data, options.config, overrides), *overrides]
    if options.time:
        from ppcls.config.load import load
        from ppcls.recipe import Recipe
        from ppcls.train.run_folder import RECIPE

        recipe = load(Recipe, options.config, overrides)
        earlier = recipe.folder / RECIPE
        if options.resume and earlier.is_file():
            epochs = load(Recipe, earlier).train.epochs
        else:
            refuse_over_run(options, recipe)
            epochs = fitted(recipe, options.time, recipe.train.epochs)
        overrides = [*overrides, f"train.epochs={epochs}"]
    return Given(options.config, overrides)


def of_run(options: argparse.Namespace) -> Given:
    """The recipe of the run that images named have had."""
    from ppcls.data.layout import find_layout
    from ppcls.start.choose_recipe import as_given
    from ppcls.start.folds import STATE
    from ppcls.train.run_folder import RECIPE

    given = as_given(options.override).get("output")
    name = find_layout(options.data).name
    folder = Path(str(given or Path("runs") / name))
    written = Path(f"{name}.yaml")
    overrides = [*options.override, f"output={folder}"]
    if (folder / STATE).is_file() and written.is_file():  # each of its folds has one
        return Given(str(written), overrides, str(written))
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder / RECIPE} does not exist: there is no run to resume in {folder}")
    again = written if written.is_file() else folder / RECIPE
    return Given(str(folder / RECIPE), overrides, str(again))


def chosen_for(options: argparse.Namespace, folder: Path | None) -> Given:
    """A recipe chosen for the images, said and written.

    Args:
        folder: where to write it; None: here, under the data's name, beside what is there.
    """
    from ppcls.start.choose_recipe import choose, place_for
    from ppcls.train.setup import refuse_among_images
    from ppcls.utils.files import write_text

    found = choose(options.data, options.override)
    if folder is None:
        refuse_over_run(options, found.recipe)
        refuse_among_images(found.recipe)
    if options.time:
        found = choose_in_time(options.data, options.override, options.time, found)
    say(*found.lines)
    place = place_for(found, folder)
    if not place.exists():
        write_text(place, found.text)
        if folder is None:
            say(f"wrote {place}: the recipe, to read and change")
        if place.stem != found.name:
            say(f"note: {found.name}.yaml stays as it is: train -c {found.name}.yaml trains by it")
    return Given(str(place), (), str(place))


def refuse_over_run(options: argparse.Namespace, recipe: "Recipe") -> None:
    """UserError for a folder with a run in it, before anything is measured or written."""
    from ppcls.train.run_folder import require_free

    if not (options.overwrite or options.resume or options.dry_run):
        require_free(recipe.folder)


def choose_in_time(
    path: str, overrides: Sequence[str], seconds: float, found: "Chosen"
) -> "Chosen":
    """What is chosen for images where the run is to take so long."""
    from ppcls.start.choose_recipe import choose, fitting_side
    from ppcls.start.fit_time import measure, require_one
    from ppcls.utils.text import duration

    began = time.monotonic()
    pace = measure(found.recipe, seconds)
    left = seconds - (time.monotonic() - began)
    every = found.recipe.eval.every
    fixed = {}
    side = fitting_side(found, overrides, lambda scale: pace.at(scale).epochs(left, every))
    before = found.recipe.preprocess.crop
    if side != before and isinstance(side, int) and isinstance(before, int):
        pace = pace.at(side / before)
        why = f"pixels, so that more epochs fit into {duration(seconds)}"
        fixed = {"preprocess.resize": (side, why), "preprocess.crop": (side, why)}
    epochs = min(require_one(pace, seconds, left, every), found.most_epochs)
    say_measured(pace, epochs, seconds)
    why = f"rounds through all images: as measured, they fit into {duration(seconds)}"
    with silence():  # what it says has been said
        return choose(path, overrides, fixed={**fixed, "train.epochs": (epochs, why)})


def fitted(recipe: "Recipe", seconds: float, most: int) -> int:
    """How many of a recipe's epochs fit into so many seconds."""
    from ppcls.start.fit_time import measure, require_one

    began = time.monotonic()
    pace = measure(recipe, seconds)
    left = seconds - (time.monotonic() - began)
    epochs = min(require_one(pace, seconds, left, recipe.eval.every), most)
    say_measured(pace, epochs, seconds)
    return epochs


def say_measured(pace: "Pace", epochs: int, seconds: float) -> None:
    from ppcls.utils.text import duration, plural

    say(
        f"measured: a step takes {pace.step:.3g} seconds, an epoch of "
        f"{plural(pace.epoch_steps, 'step')} {duration(pace.epoch(1))} with its evaluation: "
        f"{plural(epochs, 'epoch')} for {duration(seconds)}"
    )


def hand_over(recipe: "Recipe", file: str) -> None:
    """Score, export and calibrate what was trained, in the run's folder, and say how to go on."""
    from ppcls.export import Form, export, lacking
    from ppcls.train.evaluate import score
    from ppcls.train.setup import eval_samples, find_weights, open_trained

    folder = recipe.folder
    trained = open_trained(None, (), str(find_weights(recipe, None).path))
    lines = []
    samples = eval_samples(trained) if recipe.data.eval or recipe.data.holds_out else None
    one_label = not recipe.task.multilabel  # which calibration is for
    if samples is not None:
        report = folder / REPORT
        score(trained, samples, report, overwrite=True)
        lines.append(f"look      {report / 'report.html'} shows what it takes for what")
    form = Form(features=one_label and not lacking(trained))  # by which the unknown is told
    calibrates = samples is not None and one_label
    export(trained, folder / EXPORTED, form=form, overwrite=True, calibrates=calibrates)
    if samples is not None and one_label:
        calibrate_held_out(folder / EXPORTED, samples)
    exported = shlex.quote(str(folder / EXPORTED))
    again = f"train -c {shlex.quote(file)} --overwrite"
    say(
        *lines,
        f"predict   {program()} predict --model-dir {exported} PHOTO_OR_FOLDER",
        f"again     {program()} {again}, with what you have changed in {file}",
    )


def calibrate_held_out(folder: Path, samples: "Dataset") -> None:
    """Calibrate the export on the images that the run was scored on, where these are enough."""
    from ppcls.calibrate.calibrate import calibrate_on
    from ppcls.calibrate.fit import Wish

    data = f"{samples.source}, on which the run was scored: they have chosen its best epoch, too"
    try:
        calibrate_on(folder, samples, data, Wish(), EXPORTS_WITH)
    except UserError as error:
        say(f"note: it is not calibrated: {'; '.join(error.lines)}")
