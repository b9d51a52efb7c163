"""`ppcls select-unlabeled`: choose images for a student."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_near_option, add_recipe_options, positive, share
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "list the unlabelled images that a recipe's teacher is surest of"
    examples = (
        "ppcls select-unlabeled -c student.yaml --images wild --per-class 4000 --output wild.txt",
    )
    parser = add_command(commands, "select-unlabeled", run, text, examples)
    parser.epilog = f"the same command goes on where it was interrupted\n\n{parser.epilog}"
    add_recipe_options(parser, required=True)
    text = "folder of images, or list file with a path in each line"
    parser.add_argument(
        "--images", "--photos", type=expanded, required=True, metavar="FOLDER_OR_LIST", help=text
    )
    text = "number of images to choose of each class"
    parser.add_argument("--per-class", type=positive, required=True, metavar="K", help=text)
    text = "list file to write the chosen images to"
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.txt", help=text)
    text = "lowest probability that the teacher must give the class; default: 0"
    parser.add_argument("--least", type=share, default=0.0, metavar="SHARE", help=text)
    text = "bits of 256 in which an image must differ more from evaluation images; default: 32"
    add_near_option(parser, text)
    text = "draw images per class and their confidence into this .png file"
    parser.add_argument("--sheet", type=Path, metavar="FILE", help=text)
    text = "replace the file of --sheet where it exists"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.select.select_unlabeled import Criteria, select_unlabeled

    recipe = load(Recipe, options.config, options.override)
    wish = Criteria(options.per_class, options.least, options.near)
    select_unlabeled(recipe, options.images, options.output, wish, options.sheet, options.overwrite)
    return 0
