"""`ppcls export`: write a trained network for prediction."""

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
    text = "write a trained network as a folder that predict and other programs run"
    examples = (
        "ppcls export --weights runs/own_photos/best.safetensors --output exported/own_photos",
        "ppcls export -c configs/EfficientNetLite0.yaml --weights imagenet --format onnx",
        "ppcls export --weights runs/attributes/best.safetensors --thresholds precision=0.9",
    )
    parser = add_command(commands, "export", run, text, examples)
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", type=expanded, help=WEIGHTS_HELP)
    text = "folder to write the exported model to; default: exported/<the run's name>"
    parser.add_argument("--output", type=expanded, metavar="FOLDER", help=text)
    add_overwrite_option(parser, "replace another network's export in that folder")
    text = "images to compare the exported model with the network on; default: of the recipe"
    parser.add_argument("--check", nargs="+", type=expanded, default=[], metavar="IMAGE", help=text)
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
    text = (
        "number format of an ONNX file's weights and arithmetic; its input and output are float32 "
    )
    text += "in both; default: fp32"
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help=text)
    text = "let the exported model take images of any size"
    parser.add_argument("--dynamic-size", action="store_true", help=text)
    ends = parser.add_mutually_exclusive_group()
    text = "let the exported model give probabilities (the default)"
    ends.add_argument("--softmax", action="store_true", help=text)
    text = "let the exported model give logits in place of probabilities"
    ends.add_argument("--logits", action="store_true", help=text)
    text = "let the exported model give pooled features, too, for predict --features and similar"
    parser.add_argument("--features", action="store_true", help=text)
    text = "let the exported model give class activation maps, too, for predict --explain and serve"
    parser.add_argument("--explain", action="store_true", help=text)
    add_thresholds_option(parser, "write them into the export")
    text = "leave batch norms as layers of their own, not fused into convolutions"
    parser.add_argument("--keep-norms", action="store_true", help=text)
    text = "network that PaddleX is to read it as; default: that of the same structure, if any"
    parser.add_argument("--paddlex-name", metavar="NAME", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.export import Form, export
    from ppcls.thresholds import Aims
    from ppcls.train.evaluate import choose_thresholds
    from ppcls.train.setup import eval_samples, open_trained

    aims = Aims.of(options.thresholds) if options.thresholds is not None else None
    trained = open_trained(options.config, options.override, options.weights)
    output = Path(options.output or Path("exported") / trained.recipe.folder.name)
    form = Form(
        formats=list(dict.fromkeys(options.format)),
        input=options.input,
        output="logits" if options.logits else "probabilities",
        dynamic_size=options.dynamic_size,
        fuse=not options.keep_norms,
        paddlex=options.paddlex_name,
        features=options.features,
        explain=options.explain,
        precision=options.precision,
        thresholds=choose_thresholds(trained, eval_samples(trained), aims) if aims else None,
    )
    export(trained, output, options.check, form, options.overwrite)
    return 0
