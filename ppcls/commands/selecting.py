"""select-unlabeled."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_near_option, add_recipe_options, positive, share


def add_select_unlabeled(commands) -> None:
    text = "of each class list the unlabelled photos that a recipe's teacher is surest of"
    parser = add_command(commands, "select-unlabeled", run_select_unlabeled, text)
    parser.epilog = "the same command goes on where it was interrupted"
    add_recipe_options(parser, required=True)
    text = "folder, or list with a path a line"
    parser.add_argument("--photos", required=True, metavar="FOLDER_OR_LIST", help=text)
    parser.add_argument(
        "--per-class", type=positive, required=True, metavar="K", help="photos of each class"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.txt")
    text = "lowest probability of the class; default: 0"
    parser.add_argument("--least", type=share, default=0.0, metavar="SHARE", help=text)
    add_near_option(
        parser, "of 256, in which a photo nearly an evaluation photo may differ; default: 32"
    )
    text = "draw photos per class and their confidence as .png"
    parser.add_argument("--sheet", type=Path, metavar="FILE", help=text)
    text = "replace the file of --sheet where it exists"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run_select_unlabeled(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.select.run import Wish, select_unlabeled

    recipe = load(Recipe, options.config, options.override)
    wish = Wish(options.per_class, options.least, options.near)
    select_unlabeled(recipe, options.photos, options.output, wish, options.sheet, options.overwrite)
    return 0
