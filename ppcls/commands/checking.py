"""check-data."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_near_option, add_recipe_options
from ppcls.errors import UserError


def add_check_data(commands) -> None:
    text = "find broken, doubled, leaking and mislabelled-looking photos before training"
    parser = add_command(commands, "check-data", run_check_data, text)
    parser.epilog = "exit code: 0 nothing is wrong, 1 something is, 2 a mistake in the command"
    parser.add_argument("train", nargs="?", metavar="TRAIN", help="folder or list, in place of -c")
    parser.add_argument("eval", nargs="?", metavar="EVAL", help="folder or list")
    add_recipe_options(parser, required=False)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all findings as .csv")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw the pairs as .png")
    text = "replace the pictures of --sheet where they exist"
    parser.add_argument("--overwrite", action="store_true", help=text)
    add_near_option(parser, "of 256 in which near-duplicates may differ, 0 to 32; default: 32")


def run_check_data(options: argparse.Namespace) -> int:
    if bool(options.config) == bool(options.train):
        raise UserError("give -c RECIPE, or TRAIN and maybe EVAL: a folder or a list each")
    if options.override and not options.config:
        raise UserError("-o changes a recipe: give -c RECIPE")
    from ppcls.check.run import check_data, of_paths, of_recipe

    if options.config:
        from ppcls.config.load import load
        from ppcls.recipe import Recipe

        album, demands = of_recipe(load(Recipe, options.config, options.override))
    else:
        album, demands = of_paths([path for path in (options.train, options.eval) if path])
    clean = check_data(
        album, demands, options.near, options.output, options.sheet, options.overwrite
    )
    return 0 if clean else 1
