"""`ppcls show-data`: draw images as the network sees them."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_recipe_options, positive
from ppcls.utils.log import say


def add(commands) -> None:
    text = "draw a recipe's images, and what each becomes in the first epochs"
    examples = (
        "ppcls show-data -c configs/quick_start/digits.yaml",
        "ppcls show-data -c configs/quick_start/digits.yaml --eval --output scored.png",
    )
    parser = add_command(commands, "show-data", run, text, examples)
    add_recipe_options(parser, required=True)
    text = "number of images to draw; default: 32"
    parser.add_argument("--count", type=positive, default=32, metavar="N", help=text)
    text = "number of epochs to draw each image in; default: 4"
    parser.add_argument("--epochs", type=positive, default=4, metavar="N", help=text)
    text = "picture to write, .png or .jpg; further pages are FILE-2 …; default: sheet.png"
    parser.add_argument("--output", type=Path, default=Path("sheet.png"), metavar="FILE", help=text)
    text = "draw the images that it is scored on instead"
    parser.add_argument("--eval", action="store_true", help=text)
    text = "replace the pictures where they exist"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.check.show_data import show_data
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    numbers = (options.count, options.epochs, options.eval)
    say(show_data(recipe, options.output, *numbers, options.overwrite))
    return 0
