"""`ppcls train`: train a network as a recipe says."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.options import add_command, add_recipe_options, positive
from ppcls.train.launch import INTERRUPTED, LOST, end_with_launcher, is_watched, launch, launched
from ppcls.utils import environment
from ppcls.utils.log import print_error, say

if TYPE_CHECKING:
    from ppcls.recipe import Recipe


STEPS = 2  # of a dry run


def add(commands) -> None:
    examples = (
        "ppcls train -c configs/finetune/EfficientNetLite0.yaml -o data.train=photos/train",
        "ppcls train -c configs/quick_start/digits.yaml --dry-run",
        "ppcls train -c configs/quick_start/digits.yaml --resume",
    )
    parser = add_command(commands, "train", run, "train a network as a recipe says", examples)
    add_recipe_options(parser, required=True)
    text = "go on with the interrupted run in the recipe's output folder"
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--resume", action="store_true", help=text)
    text = "replace the run that is in the recipe's output folder"
    begun.add_argument("--overwrite", action="store_true", help=text)
    text = "try two steps, an evaluation, a checkpoint and an export, and keep nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "number of processes that train together on this machine; default: 1"
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    end_with_launcher()
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    if options.processes > 1 and not launched():
        flags = {"--resume": options.resume, "--overwrite": options.overwrite}
        flags["--dry-run"] = options.dry_run
        same = [flag for flag, given in flags.items() if given]
        overrides = ["-o", *options.override] if options.override else []
        uses = [word for name in options.use for word in ("--use", name)]
        command = ["train", "-c", options.config, *same, *overrides, *uses]
        return launch([*environment.program("ppcls"), *command], options.processes)
    from ppcls.train.distributed import PeerError

    try:
        return train_or_try(recipe, options)
    except (
        PeerError
    ) as lost:  # whose reason the launcher knows better where it started this process
        if not (lost.unexplained and is_watched()):
            print_error(str(lost))
        return LOST


def train_or_try(recipe: "Recipe", options: argparse.Namespace) -> int:
    if options.dry_run:
        return 0 if dry_run(recipe) else INTERRUPTED
    from ppcls.train.setup import train

    done = train(recipe, options.resume, options.overwrite)
    return 0 if done else INTERRUPTED


def dry_run(recipe: "Recipe") -> bool:
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
        if not train(short, limit=STEPS):
            return False
        latest = Path(folder) / "run" / LATEST
        if latest.exists():  # in the process that writes
            export(open_trained(None, (), str(latest)), Path(folder) / "exported")
    say(f"dry run: {STEPS} steps, evaluation, checkpoint and export went well; nothing is kept")
    return True
