"""`ppcls compare`: whether one network is better than another."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_on_error,
    add_use_option,
    listed,
    positive,
)
from ppcls.commands.similar import check_output
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded
from ppcls.utils.text import decimal

UNIT = "pt"


def add(commands) -> None:
    text = "tell whether one network is better than another, and what differs between them"
    examples = (
        "ppcls compare runs/own_photos runs/longer --data photos/val --flips flips.png",
        "ppcls compare exported/photos exported/photos-int8 --data photos/val --max-loss 0.5pt",
        "ppcls compare exported/photos exported/photos --data photos/val --engine onednn,openvino",
    )
    parser = add_command(commands, "compare", run, text, examples)
    codes = "exit code: 0 done, 1 B loses more than --max-loss, 2 a mistake in the command"
    parser.epilog = f"{codes}\n\n{parser.epilog}"
    what = "exported folder, checkpoint of ours, a run's folder or an .onnx file"
    parser.add_argument("a", type=Path, metavar="A", help=f"what is in use: {what}")
    text = "what may take its place, given as A is"
    parser.add_argument("b", type=Path, metavar="B", help=text)
    text = "labelled images: a folder with one for each class, or with val/; a list or CSV file"
    parser.add_argument("--data", type=expanded, required=True, metavar="FOLDER|LIST", help=text)
    text = "points of accuracy that B may lose on these images, such as 0.5pt; the measured loss "
    text += "decides, and exit code 1 says that it is more"
    parser.add_argument("--max-loss", type=loss, metavar="POINTSpt", help=text)
    text = "draw the images that change sides into this .png or .jpg file"
    parser.add_argument("--flips", type=Path, metavar="FILE", help=text)
    text = "write all that was found into this .json file"
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    text = "replace what is there of --flips FILE and --json FILE"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "what runs both, or A,B: names as of predict; default: the first that can run both"
    parser.add_argument("--engine", type=listed, default=["auto"], metavar="A[,B]", help=text)
    text = "number format that both compute in, or A,B: of fp32, bf16, fp16; default: fp32"
    parser.add_argument("--precision", type=listed, default=["fp32"], metavar="A[,B]", help=text)
    text = "where to run them; default: auto, a GPU where there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    text = "number of CPU threads to compute with; default: all cores"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    text = "number of images to predict at a time; default: 8"
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help=text)
    add_on_error(parser, "skip leaves it out")
    add_use_option(parser)


def loss(text: str) -> float:
    """A loss such as 0.5pt as a share; a bare number may be points or a share, and is refused."""
    value = decimal(text.removesuffix(UNIT).strip()) if text.endswith(UNIT) else None
    if value is None or not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} should be points of accuracy such as 0.5pt: from 90 % to 89.5 %"
        )
    return value / 100


def both(option: str, given: list[str]) -> tuple[str, str]:
    """What is for A and for B; UserError for none or more than two."""
    if len(given) not in (1, 2):
        raise UserError(f"{option} {','.join(given)}: give one for both, or A,B")
    return given[0], given[-1]


def run(options: argparse.Namespace) -> int:
    from ppcls.compare.compare import Opening, compare, report
    from ppcls.report.sheets import FORMATS

    check_output(options.flips, "--flips", tuple(FORMATS), options.overwrite)
    check_output(options.json, "--json", (".json",), options.overwrite)
    engines = both("--engine", options.engine)
    precisions = both("--precision", options.precision)
    first = Opening(options.a, engines[0], precisions[0])
    second = Opening(options.b, engines[1], precisions[1])
    found = compare(
        first,
        second,
        options.data,
        options.device,
        options.threads,
        options.batch_size,
        options.on_error == "skip",
    )
    return 0 if report(found, options.max_loss, options.json, options.flips) else 1
