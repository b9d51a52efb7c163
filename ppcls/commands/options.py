"""What several commands have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ppcls.utils.files import expanded
from ppcls.utils.log import print_error
from ppcls.utils.text import decimal, did_you_mean, whole_number

LONGEST = 366 * 24 * 3600  # seconds of a --time


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line that names the command, and where to read on."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see {self.prog} --help", mark=f"{self.prog}: error: ")
        sys.exit(2)

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """The error for arguments that nobody asked for."""
        known = [name for action in self._actions for name in action.option_strings]
        first = extra[0].partition("=")[0]
        hint = did_you_mean(first, known) if first.startswith("-") else ""
        self.error(f"unknown argument{'s' * (len(extra) > 1)}: {' '.join(extra)}{hint}")


def add_command(
    commands, name: str, run: Callable, text: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """A command with a line that says what it does, and whole command lines to copy."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=listed_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.register("type", Path, path)
    parser.set_defaults(run=run, parser=parser)
    return parser


def listed_examples(examples: Sequence[str]) -> str:
    title = "example" if len(examples) == 1 else "examples"
    return "\n".join([f"{title}:", *(f"  {line}" for line in examples)])


def add_recipe_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=expanded,
        required=required,
        metavar="RECIPE",
        help="the recipe: a file, or the name of one that comes with ppcls, such as "
        "EfficientNetLite0, finetune or quick_start/digits",
    )
    add_override_option(parser)


def add_override_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="set keys of the recipe, such as train.epochs=10 "
        "or 'train.transforms.0.scale=[0.5, 1]'",
    )
    add_use_option(parser)


def add_use_option(parser: argparse.ArgumentParser) -> None:
    """Modules whose classes may be named; `ppcls.cli.main` imports them."""
    text = "module whose classes may be named, such as my_pkg: its code runs; may be repeated"
    parser.add_argument("--use", action="append", default=[], metavar="MODULE", help=text)


def add_data_argument(parser: argparse.ArgumentParser, required: bool) -> None:
    """What a recipe is chosen for."""
    text = "images to learn from: a folder with one for each class, or with train/ and val/; a "
    text += "list or CSV file; tar shards"
    count = None if required else "?"
    parser.add_argument("data", type=expanded, nargs=count, metavar="PATH", help=text)


def add_time_option(parser: argparse.ArgumentParser) -> None:
    text = "how long the run may take, such as 20m, 90s or 1h: a few steps are measured, and as "
    text += "many epochs are trained as fit"
    parser.add_argument("--time", type=span, metavar="TIME", help=text)


def span(text: str) -> float:
    """A time such as 20m in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:].lower())
    value = decimal(text[:-1])
    if unit is None or value is None or not 0 < value * unit <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} should be a time such as 90s, 20m or 1.5h")
    return value * unit


def program() -> str:
    """How this program is called again: by its name where that was used, else by its module."""
    return "ppcls" if Path(sys.argv[0]).stem == "ppcls" else "python -m ppcls"


def add_overwrite_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_near_option(parser: argparse.ArgumentParser, text: str) -> None:
    """How many bits of a perceptual hash may differ."""
    parser.add_argument(
        "--near", type=whole, choices=range(33), default=32, metavar="BITS", help=text
    )


def path(text: str) -> Path:
    """What `type=Path` does: `~` is the home folder, for few shells expand `--output=~/x`."""
    found = Path(expanded(text))
    return found if not str(found).startswith("~") else Path.cwd() / found  # it was "./~…"


def positive(text: str) -> int:
    number = whole_number(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 1")
    return number


def whole(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0")
    return number


def add_thresholds_option(parser: argparse.ArgumentParser, then: str) -> None:
    """`--thresholds AIM`; `then`: what is done with them."""
    text = (
        "choose the threshold of each of several labels, or of the second of two classes, on the "
    )
    text += "recipe's evaluation images by an aim: f1, precision=0.9, recall=0.9, fpr=0.001 or "
    text += "cost=1:5 (a false alarm : a miss), or by an aim for each class, in a CSV file, "
    text += f"class,aim; {then}"
    parser.add_argument("--thresholds", metavar="AIM|FILE", help=text)


def share(text: str) -> float:
    value = decimal(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a share from 0 to 1")
    return value


def number(text: str) -> float:
    value = decimal(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number such as 0.485")
    return value


def seconds(text: str) -> float:
    value = decimal(text)
    if value is None or not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of seconds from 0 to 3600")
    return value


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def counts(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


WEIGHTS_HELP = (
    "the weights: a file, URL, hf://org/name or registered tag such as imagenet; "
    "default: the best ones of the recipe's run"
)


def side_or_pair(text: str) -> int | tuple[int, ...]:
    """One number of pixels, or two: height and width."""
    sides = [whole_number(part) or 0 for part in text.split(",")]
    if len(sides) > 2 or not all(sides):
        raise argparse.ArgumentTypeError(f"{text!r} should be PIXELS or HEIGHT,WIDTH")
    return tuple(sides) if len(sides) == 2 else sides[0]


def add_on_error(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help=f"at an image that cannot be read; {text}; default: stop",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """A model, and how it is run."""
    parser.add_argument(
        "--model-dir",
        type=expanded,
        required=True,
        metavar="FOLDER",
        help="folder that ppcls, PaddleClas or PaddleX exported; for predict and similar also a "
        "checkpoint of ours, a run's folder or an .onnx file",
    )
    text = "number of images to predict at a time; default: 8"
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help=text)
    add_predictor_options(parser)


def add_predictor_options(parser: argparse.ArgumentParser) -> None:
    """How a model is run, and what stands in for its inference.yml; see `predictor_options`."""
    parser.add_argument(
        "--engine",
        default="auto",
        help="what runs the model: paddle, onednn, onnxruntime, openvino, tensorrt or "
        "onnxruntime-tensorrt; default: auto, the fastest here, measured once",
    )
    add_use_option(parser)
    text = "where to run the model; default: auto, a GPU where there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    text = "number format to compute in; default: fp32"
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help=text)
    text = "number of CPU threads to compute with; default: the fastest"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    given = parser.add_argument_group("in place of what inference.yml says, or where there is none")
    text = "crop: resize, then cut out the middle; squash: resize to the size whatever the shape; "
    text += "letterbox: resize to fit the size, and fill the rest"
    given.add_argument("--fit", choices=("crop", "squash", "letterbox"), help=text)
    text = "with --fit crop: resize the short side to so many pixels, or the image to HEIGHT,WIDTH"
    given.add_argument("--resize", type=side_or_pair, metavar="PIXELS", help=text)
    text = "size of what the model sees: a square of so many pixels a side, or HEIGHT,WIDTH"
    given.add_argument("--crop", type=side_or_pair, metavar="PIXELS", help=text)
    text = "with --fit letterbox: what the rest is filled with, from 0 (black) to 255"
    given.add_argument("--fill", type=whole, metavar="N", help=text)
    kinds = ("nearest", "bilinear", "bicubic", "area", "lanczos")
    text = "how to compute pixels when resizing"
    given.add_argument("--interpolation", choices=kinds, help=text)
    text = "library to resize with: OpenCV or Pillow"
    given.add_argument("--backend", choices=("cv2", "pil"), help=text)
    text = "means to subtract from pixels of 0 to 1, one for each channel"
    given.add_argument("--mean", type=number, nargs="+", help=text)
    text = "deviations to divide the pixels by then, one for each channel"
    given.add_argument("--std", type=number, nargs="+", help=text)
    text = "probability from which a multi-label class, or the second of two, is named"
    given.add_argument("--threshold", type=share, metavar="SHARE", help=text)
    text = "file of class names, one in each line or numbered as 0 tench, or imagenet"
    given.add_argument("--labels", type=expanded, metavar="FILE", help=text)


def predictor_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Predictor` that the options of `add_predictor_options` stand for."""
    names = (
        *("device", "threads", "engine", "precision"),
        *("fit", "resize", "crop", "fill", "interpolation", "backend", "mean", "std"),
        *("threshold", "labels"),
    )
    return {name: getattr(options, name) for name in names}


def decimal_from(least: float, most: float) -> Callable[[str], float]:
    """What reads a number within limits."""

    def read(text: str) -> float:
        value = decimal(text)
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} should be a number from {least:g} to {most:g}"
            )
        return value

    return read
