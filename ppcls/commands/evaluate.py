"""`ppcls eval`: score a trained network."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    WEIGHTS_HELP,
    add_command,
    add_overwrite_option,
    add_recipe_options,
    add_thresholds_option,
)
from ppcls.utils.files import expanded


def add(commands) -> None:
    text = "score a trained network on labelled images"
    examples = (
        "ppcls eval --weights runs/own_photos/best.safetensors",
        "ppcls eval --weights runs/own_photos/best.safetensors --report reports/own_photos",
        "ppcls eval -c configs/ResNet50_vd.yaml --weights imagenet -o data.eval=photos/val",
    )
    parser = add_command(commands, "eval", run, text, examples)
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", type=expanded, help=WEIGHTS_HELP)
    text = "write report.html, and the figures as CSV and JSON, into this folder"
    parser.add_argument("--report", type=Path, metavar="FOLDER", help=text)
    add_thresholds_option(parser, "say what they reach; export writes them")
    add_overwrite_option(parser, "replace another network's report in that folder")


def run(options: argparse.Namespace) -> int:
    from ppcls.thresholds import Aims
    from ppcls.train.evaluate import score
    from ppcls.train.setup import eval_samples, open_trained

    aims = Aims.of(options.thresholds) if options.thresholds is not None else None
    trained = open_trained(options.config, options.override, options.weights)
    score(trained, eval_samples(trained), options.report, options.overwrite, aims)
    return 0
