"""`ppcls import-paddleclas`: a recipe from a config of PaddleClas."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, positive
from ppcls.utils.log import say
from ppcls.utils.text import plural


def add(commands) -> None:
    text = "write a recipe from a config of PaddleClas 2"
    examples = (
        "ppcls import-paddleclas OLD.yaml",
        "ppcls import-paddleclas OLD.yaml --output mine.yaml --cards 8",
    )
    parser = add_command(commands, "import-paddleclas", run, text, examples)
    text = "config of PaddleClas to read"
    parser.add_argument("source", type=Path, metavar="OLD.yaml", help=text)
    text = "recipe to write; default: OLD.ppcls.yaml in the working folder"
    parser.add_argument("--output", type=Path, metavar="NEW.yaml", help=text)
    text = "replace the recipe where it exists"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "number of GPUs that its learning rate is meant for; default: 4"
    parser.add_argument("--cards", type=positive, default=4, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.migrate.convert import convert, recipe_text, write_recipe

    source = options.source
    output = options.output or Path(f"{source.stem}.ppcls.yaml")
    converted = convert(source, options.cards)
    write_recipe(recipe_text(converted, source), output, source, options.overwrite)
    say(*converted.remarks)
    count = plural(len(converted.remarks), "remark")
    say(f"{output}: {converted.recipe['model']['name']}, {count}")
    return 0
