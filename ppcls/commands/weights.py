"""`ppcls weights`: convert weights."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command
from ppcls.utils.log import say


def add(commands) -> None:
    examples = (
        "ppcls weights convert runs/own_photos/best.safetensors own.npz --to efficientnet-pytorch",
        "ppcls weights convert resnet50.pth resnet50.safetensors --to native --model ResNet50",
    )
    text = "convert checkpoints between the names of several projects"
    parser = add_command(commands, "weights", run, text, examples[:1])
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    text = "write a checkpoint with the tensor names of a project"
    parser = add_command(actions, "convert", run, text, examples)
    text = "checkpoint to read, of any kind and names"
    parser.add_argument("source", type=Path, metavar="IN", help=text)
    text = "file to write: .safetensors, .pdparams or .npz"
    parser.add_argument("target", type=Path, metavar="OUT", help=text)
    names = ("native", "paddleclas", "timm", "efficientnet-pytorch")
    text = "project whose tensor names to write"
    parser.add_argument("--to", required=True, choices=names, help=text)
    text = "name of the network; default: as the checkpoint says"
    parser.add_argument("--model", metavar="NAME", help=text)


def run(options: argparse.Namespace) -> int:
    from ppcls.weights.convert import convert_file

    say(*convert_file(options.source, options.target, options.to, options.model))
    return 0
