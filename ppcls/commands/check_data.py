"""`ppcls check-data`: look for faults in data."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.options import add_command, add_near_option, add_recipe_options
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded

if TYPE_CHECKING:
    from ppcls.check.check_labels import LabelCheck
    from ppcls.recipe import Recipe


def add(commands) -> None:
    text = "find broken, doubled, leaking and mislabelled-looking images before training"
    examples = (
        "ppcls check-data photos/train photos/val",
        "ppcls check-data -c RECIPE.yaml --output found.csv --sheet pairs.png",
        "ppcls check-data photos/train --labels --fixes fixes.csv",
    )
    parser = add_command(commands, "check-data", run, text, examples)
    codes = "exit code: 0 nothing is wrong, 1 something is, 2 a mistake in the command"
    parser.epilog = f"{codes}\n\n{parser.epilog}"
    text = "folder or list of the images to train on, in place of -c"
    parser.add_argument("train", nargs="?", type=expanded, metavar="TRAIN", help=text)
    text = "folder or list of the images to be scored on"
    parser.add_argument("eval", nargs="?", type=expanded, metavar="EVAL", help=text)
    add_recipe_options(parser, required=False)
    text = "column of the lists TRAIN and EVAL with groups, none of which may be in both"
    groups = parser.add_mutually_exclusive_group()
    groups.add_argument("--group-column", metavar="NAME", help=text)
    text = "regular expression that finds the group in each path, in place of a column"
    groups.add_argument("--group-path", metavar="REGEX", help=text)
    text = "write all findings into this .csv file"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    text = "draw the pairs that look alike into this .png file"
    parser.add_argument("--sheet", type=Path, metavar="FILE", help=text)
    text = "replace the pictures of --sheet, and the files of --labels, where they exist"
    parser.add_argument("--overwrite", action="store_true", help=text)
    add_label_options(parser)
    text = "bits of 256 in which near-duplicates may differ, 0 to 32; default: 32"
    add_near_option(parser, text)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """How labels are judged, and where what is found goes."""
    text = "find labels that are likely wrong, too, and list them for ppcls fix-labels"
    parser.add_argument("--labels", action="store_true", help=text)
    text = "the list that --labels writes, a .csv file; default: fixes.csv"
    parser.add_argument("--fixes", type=Path, metavar="FILE", help=text)
    text = "draw the images whose labels are likeliest wrong into this .png file"
    parser.add_argument("--labels-sheet", type=Path, metavar="FILE", help=text)
    judges = parser.add_mutually_exclusive_group()
    text = "network by whose features --labels judges: an exported folder with features or a "
    text += "checkpoint; default: the one that training would start from"
    judges.add_argument("--model-dir", type=expanded, metavar="FOLDER", help=text)
    text = "judge by the scores of this finished run, on the images that it has not learnt from: "
    text += "with --folds, all; in place of TRAIN and -c"
    judges.add_argument("--run", dest="finished", type=Path, metavar="FOLDER", help=text)


def check_options(options: argparse.Namespace) -> None:
    """UserError for options that do not go together."""
    given = [bool(options.config), bool(options.train), bool(options.finished)]
    if sum(given) != 1:
        raise UserError("give -c RECIPE, or TRAIN and maybe EVAL: a folder or a list each")
    if options.override and options.train:
        raise UserError("-o changes a recipe: give -c RECIPE")
    for_labels = ("fixes", "labels_sheet", "model_dir", "finished")
    named = [name for name in for_labels if getattr(options, name)]
    if named and not options.labels:
        option = "--run" if named[0] == "finished" else f"--{named[0].replace('_', '-')}"
        raise UserError(f"{option} goes with --labels")


def run(options: argparse.Namespace) -> int:
    check_options(options)
    grouped = options.group_column is not None or options.group_path is not None
    if grouped and not options.train:
        raise UserError("a recipe says what groups are: -o data.group_by.column=NAME")
    if grouped and not (options.eval or options.labels):
        raise UserError("--group-column and --group-path compare TRAIN with EVAL: give both")
    from ppcls.check.check_data import check_data, of_paths, of_recipe

    recipe = None
    if options.finished:
        from ppcls.check.label_scores import recipe_of_run

        recipe = recipe_of_run(options.finished, options.override)
        album, demands = of_recipe(recipe)
    elif options.config:
        from ppcls.config.load import load
        from ppcls.recipe import Recipe

        album, demands = of_recipe(load(Recipe, options.config, options.override))
    else:
        from ppcls.data.groups import group_by_of

        group_by = group_by_of(options.group_column, options.group_path) if grouped else None
        given = [path for path in (options.train, options.eval) if path]
        album, demands = of_paths(given, group_by)
    files = (options.output, options.sheet, options.overwrite)
    judge = label_check(options, recipe) if options.labels else None
    return 0 if check_data(album, demands, options.near, *files, judge) else 1


def label_check(options: argparse.Namespace, recipe: "Recipe | None") -> "LabelCheck":
    """What --labels asks for; `recipe` is that of the run whose scores are asked for."""
    from ppcls.check.check_labels import LabelCheck
    from ppcls.check.label_scores import of_features, of_run

    if recipe:
        scores = partial(of_run, folder=options.finished, recipe=recipe)
    else:
        scores = partial(of_features, model_dir=options.model_dir)
    return LabelCheck(scores, options.fixes or Path("fixes.csv"), options.labels_sheet)
