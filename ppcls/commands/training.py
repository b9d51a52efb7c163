"""train, teach, eval, export, show-data."""

import argparse
import sys
from pathlib import Path

from ppcls.commands.options import add_command, add_recipe_options, positive
from ppcls.launch import end_with_launcher, launch, launched

WEIGHTS_HELP = "file, URL, hf://org/name or registered tag; default: the best of the config's run"
INTERRUPTED = 130  # exit code of a run ended by a signal, as shells count it


def add_train(commands) -> None:
    parser = add_command(commands, "train", run_train, "train as a recipe says")
    add_recipe_options(parser, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    text = "only two steps, an evaluation, a checkpoint and an export, and keep nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.add_argument(
        "--processes", type=positive, default=1, help="that train together on this machine"
    )


def run_train(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    if options.processes > 1 and not launched():
        flags = {"--resume": options.resume, "--overwrite": options.overwrite}
        flags["--dry-run"] = options.dry_run
        same = [flag for flag, given in flags.items() if given]
        overrides = ["-o", *options.override] if options.override else []
        program = [sys.executable, "-m", "ppcls", "train", "-c", options.config]
        return launch([*program, *same, *overrides], options.processes)
    end_with_launcher()
    if options.dry_run:
        from ppcls.dry_run import dry_run

        return 0 if dry_run(recipe) else INTERRUPTED
    from ppcls.train.start import train

    done = train(recipe, options.resume, options.overwrite)
    return 0 if done else INTERRUPTED


def add_teach(commands) -> None:
    text = "keep a teacher's answers to the training photos, for task.teacher.cache"
    parser = add_command(commands, "teach", run_teach, text)
    add_recipe_options(parser, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--top", type=positive, help="classes kept of each photo; default: 32")
    text = "which of several teachers, counted from 1"
    parser.add_argument("--teacher", type=positive, default=1, help=text)


def run_teach(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.teach import TOP, teach

    recipe = load(Recipe, options.config, options.override)
    teach(recipe, options.output, options.top or TOP, options.teacher - 1)
    return 0


def add_eval(commands) -> None:
    parser = add_command(commands, "eval", run_eval, "score a trained network on labelled photos")
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    text = "write report.html and the figures as CSV and JSON into this folder"
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=text)


def run_eval(options: argparse.Namespace) -> int:
    from ppcls.evaluation import score
    from ppcls.trained import open_trained

    score(open_trained(options.config, options.override, options.weights), options.report)
    return 0


def add_export(commands) -> None:
    parser = add_command(commands, "export", run_export, "write a static inference model")
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    parser.add_argument("--output", help="folder to write; default: exported/<run's name>")
    parser.add_argument("--check", nargs="+", default=[], metavar="PHOTO", help="compare on these")
    formats = ("paddle", "onnx", "openvino")
    parser.add_argument("--format", nargs="+", choices=formats, default=["paddle"])
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="uint8: pixels [N, H, W, C], normalised inside the network",
    )
    parser.add_argument("--dynamic-size", action="store_true", help="take images of any size")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--softmax", action="store_true", help="give probabilities (the default)")
    ends.add_argument("--logits", action="store_true", help="give logits")
    parser.add_argument("--keep-norms", action="store_true", help="do not fuse batch norms")


def run_export(options: argparse.Namespace) -> int:
    from ppcls.export import Form, export
    from ppcls.trained import open_trained

    trained = open_trained(options.config, options.override, options.weights)
    output = Path(options.output or Path("exported") / trained.recipe.folder.name)
    form = Form(
        formats=list(dict.fromkeys(options.format)),
        input=options.input,
        output="logits" if options.logits else "probabilities",
        dynamic_size=options.dynamic_size,
        fuse=not options.keep_norms,
    )
    export(trained, output, options.check, form)
    return 0


def add_show_data(commands) -> None:
    text = "draw what a recipe trains on: a row for each photo, a column for each epoch"
    parser = add_command(commands, "show-data", run_show_data, text)
    add_recipe_options(parser, required=True)
    parser.add_argument("--count", type=positive, default=32, help="photos; default: 32")
    parser.add_argument("--epochs", type=positive, default=4, help="default: 4")
    parser.add_argument("--output", type=Path, default=Path("sheet.png"), metavar="FILE")
    parser.add_argument("--eval", action="store_true", help="what it is scored on instead")
    text = "replace the sheet where it exists"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run_show_data(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.show_data import show_data

    recipe = load(Recipe, options.config, options.override)
    numbers = (options.count, options.epochs, options.eval)
    print(show_data(recipe, options.output, *numbers, options.overwrite))
    return 0
