"""`ppcls teach`: keep a teacher's answers."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, add_recipe_options, positive


def add(commands) -> None:
    text = "keep a teacher's answers to the training images, for task.teacher.cache"
    examples = ("ppcls teach -c student.yaml --output answers/teacher.answers",)
    parser = add_command(commands, "teach", run, text, examples)
    add_recipe_options(parser, required=True)
    text = "file to write the answers to, which task.teacher.cache then names"
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=text)
    text = "number of classes to keep for each image; default: 32"
    parser.add_argument("--top", type=positive, metavar="N", help=text)
    text = "which of several teachers to ask, counted from 1; default: 1"
    parser.add_argument("--teacher", type=positive, default=1, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.train.setup import teach

    recipe = load(Recipe, options.config, options.override)
    teach(recipe, options.output, options.top, options.teacher - 1)
    return 0
