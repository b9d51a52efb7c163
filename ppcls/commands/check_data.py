"""`ppcls check-data`: look for faults in data."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_near_option, add_recipe_options
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "find broken, doubled, leaking and mislabelled-looking images before training"
    examples = (
        "ppcls check-data photos/train photos/val",
        "ppcls check-data -c RECIPE.yaml --output found.csv --sheet pairs.png",
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
    text = "replace the pictures of --sheet where they exist"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "bits of 256 in which near-duplicates may differ, 0 to 32; default: 32"
    add_near_option(parser, text)


def run(options: argparse.Namespace) -> int:
    if bool(options.config) == bool(options.train):
        raise UserError("give -c RECIPE, or TRAIN and maybe EVAL: a folder or a list each")
    if options.override and not options.config:
        raise UserError("-o changes a recipe: give -c RECIPE")
    grouped = options.group_column is not None or options.group_path is not None
    if grouped and options.config:
        raise UserError("a recipe says what groups are: -o data.group_by.column=NAME")
    if grouped and not options.eval:
        raise UserError("--group-column and --group-path compare TRAIN with EVAL: give both")
    from ppcls.check.check_data import check_data, of_paths, of_recipe

    if options.config:
        from ppcls.config.load import load
        from ppcls.recipe import Recipe

        album, demands = of_recipe(load(Recipe, options.config, options.override))
    else:
        from ppcls.data.groups import group_by_of

        group_by = group_by_of(options.group_column, options.group_path) if grouped else None
        given = [path for path in (options.train, options.eval) if path]
        album, demands = of_paths(given, group_by)
    clean = check_data(
        album, demands, options.near, options.output, options.sheet, options.overwrite
    )
    return 0 if clean else 1
