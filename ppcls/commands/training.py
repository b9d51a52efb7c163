"""train, teach, eval, export, show-data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.options import add_command, add_overwrite_option, add_recipe_options, positive
from ppcls.train.launch import INTERRUPTED, LOST, end_with_launcher, is_watched, launch, launched
from ppcls.utils import environment
from ppcls.utils.files import expanded
from ppcls.utils.log import print_error, say

if TYPE_CHECKING:
    from ppcls.recipe import Recipe

WEIGHTS_HELP = (
    "the weights: a file, URL, hf://org/name or registered tag such as imagenet; "
    "default: the best ones of the recipe's run"
)


def add_train(commands) -> None:
    examples = (
        "ppcls train -c configs/finetune/EfficientNetLite0.yaml -o data.train=photos/train",
        "ppcls train -c configs/quick_start/digits.yaml --dry-run",
        "ppcls train -c configs/quick_start/digits.yaml --resume",
    )
    parser = add_command(commands, "train", run_train, "train a network as a recipe says", examples)
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


def run_train(options: argparse.Namespace) -> int:
    end_with_launcher()
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    if options.processes > 1 and not launched():
        flags = {"--resume": options.resume, "--overwrite": options.overwrite}
        flags["--dry-run"] = options.dry_run
        same = [flag for flag, given in flags.items() if given]
        overrides = ["-o", *options.override] if options.override else []
        command = ["train", "-c", options.config, *same, *overrides]
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
        from ppcls.train.setup import dry_run

        return 0 if dry_run(recipe) else INTERRUPTED
    from ppcls.train.setup import train

    done = train(recipe, options.resume, options.overwrite)
    return 0 if done else INTERRUPTED


def add_teach(commands) -> None:
    text = "keep a teacher's answers to the training photos, for task.teacher.cache"
    examples = ("ppcls teach -c student.yaml --output answers/teacher.answers",)
    parser = add_command(commands, "teach", run_teach, text, examples)
    add_recipe_options(parser, required=True)
    text = "file to write the answers to, which task.teacher.cache then names"
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=text)
    text = "number of classes to keep for each photo; default: 32"
    parser.add_argument("--top", type=positive, metavar="N", help=text)
    text = "which of several teachers to ask, counted from 1; default: 1"
    parser.add_argument("--teacher", type=positive, default=1, metavar="N", help=text)


def run_teach(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.train.teachers import TOP, teach

    recipe = load(Recipe, options.config, options.override)
    teach(recipe, options.output, options.top or TOP, options.teacher - 1)
    return 0


def add_eval(commands) -> None:
    text = "score a trained network on labelled photos"
    examples = (
        "ppcls eval --weights runs/own_photos/best.safetensors",
        "ppcls eval --weights runs/own_photos/best.safetensors --report reports/own_photos",
        "ppcls eval -c configs/ResNet50_vd.yaml --weights imagenet -o data.eval=photos/val",
    )
    parser = add_command(commands, "eval", run_eval, text, examples)
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", type=expanded, help=WEIGHTS_HELP)
    text = "write report.html, and the figures as CSV and JSON, into this folder"
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=text)
    add_overwrite_option(parser, "replace another network's report in that folder")


def run_eval(options: argparse.Namespace) -> int:
    from ppcls.train.evaluate import score
    from ppcls.train.setup import open_trained

    trained = open_trained(options.config, options.override, options.weights)
    score(trained, options.report, options.overwrite)
    return 0


def add_export(commands) -> None:
    text = "write a trained network as a folder that predict and other programs run"
    examples = (
        "ppcls export --weights runs/own_photos/best.safetensors --output exported/own_photos",
        "ppcls export -c configs/EfficientNetLite0.yaml --weights imagenet --format onnx",
    )
    parser = add_command(commands, "export", run_export, text, examples)
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", type=expanded, help=WEIGHTS_HELP)
    text = "folder to write the exported model to; default: exported/<the run's name>"
    parser.add_argument("--output", type=expanded, metavar="FOLDER", help=text)
    add_overwrite_option(parser, "replace another network's export in that folder")
    text = "photos to compare the exported model with the network on; default: of the recipe"
    parser.add_argument("--check", nargs="+", type=expanded, default=[], metavar="PHOTO", help=text)
    formats = ("paddle", "onnx", "openvino")
    text = "file formats to write, one or several; default: paddle"
    parser.add_argument("--format", nargs="+", choices=formats, default=["paddle"], help=text)
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="what the model takes: normalised float32 [N, C, H, W] (the default), or uint8 pixels "
        "[N, H, W, C] that it normalises itself",
    )
    text = "let the exported model take images of any size"
    parser.add_argument("--dynamic-size", action="store_true", help=text)
    ends = parser.add_mutually_exclusive_group()
    text = "let the exported model give probabilities (the default)"
    ends.add_argument("--softmax", action="store_true", help=text)
    text = "let the exported model give logits in place of probabilities"
    ends.add_argument("--logits", action="store_true", help=text)
    text = "leave batch norms as layers of their own, not fused into convolutions"
    parser.add_argument("--keep-norms", action="store_true", help=text)
    text = "network that PaddleX is to read it as; default: that of the same structure, if any"
    parser.add_argument("--paddlex-name", metavar="NAME", help=text)


def run_export(options: argparse.Namespace) -> int:
    from ppcls.export import Form, export
    from ppcls.train.setup import open_trained

    trained = open_trained(options.config, options.override, options.weights)
    output = Path(options.output or Path("exported") / trained.recipe.folder.name)
    form = Form(
        formats=list(dict.fromkeys(options.format)),
        input=options.input,
        output="logits" if options.logits else "probabilities",
        dynamic_size=options.dynamic_size,
        fuse=not options.keep_norms,
        paddlex=options.paddlex_name,
    )
    export(trained, output, options.check, form, options.overwrite)
    return 0


def add_show_data(commands) -> None:
    text = "draw a recipe's photos, and what each becomes in the first epochs"
    examples = (
        "ppcls show-data -c configs/quick_start/digits.yaml",
        "ppcls show-data -c configs/quick_start/digits.yaml --eval --output scored.png",
    )
    parser = add_command(commands, "show-data", run_show_data, text, examples)
    add_recipe_options(parser, required=True)
    text = "number of photos to draw; default: 32"
    parser.add_argument("--count", type=positive, default=32, metavar="N", help=text)
    text = "number of epochs to draw each photo in; default: 4"
    parser.add_argument("--epochs", type=positive, default=4, metavar="N", help=text)
    text = "picture to write, .png or .jpg; further pages are FILE-2 …; default: sheet.png"
    parser.add_argument("--output", type=Path, default=Path("sheet.png"), metavar="FILE", help=text)
    text = "draw the photos that it is scored on instead"
    parser.add_argument("--eval", action="store_true", help=text)
    text = "replace the pictures where they exist"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run_show_data(options: argparse.Namespace) -> int:
    from ppcls.check.show_data import show_data
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    numbers = (options.count, options.epochs, options.eval)
    say(show_data(recipe, options.output, *numbers, options.overwrite))
    return 0
