"""make-shards."""

import argparse
import re
from pathlib import Path

from ppcls.commands.options import add_command, whole
from ppcls.utils.files import expanded

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_make_shards(commands) -> None:
    text = "write a data set as tar shards, which large sets are read from"
    parser = add_command(commands, "make-shards", run_make_shards, text)
    kinds = "FOLDER|LIST|SHARDS|PARQUET"
    parser.add_argument("source", type=expanded, metavar="SOURCE", help=f'{kinds}; a "*" in quotes')
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write them into")
    parser.add_argument(
        "--shard-size", type=size, default="512MB", help="bytes, as in 512MB or 1GB; default: 512MB"
    )
    parser.add_argument("--name", default="train", help="which theirs begin with; default: train")
    parser.add_argument("--labels", type=expanded, metavar="FILE", help="class names, a line each")
    parser.add_argument("--multilabel", action="store_true", help="lists have 0,1,0 labels")
    parser.add_argument("--seed", type=whole, default=0, help="of the shuffling; default: 0")


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]B)?", text.upper())
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} should be a size such as 512MB")
    return int(found[1]) * UNITS[found[2] or ""]


def run_make_shards(options: argparse.Namespace) -> int:
    from ppcls.data.make_shards import make_shards

    lines = make_shards(
        options.source,
        options.target,
        options.shard_size,
        options.name,
        options.labels,
        options.multilabel,
        options.seed,
    )
    print("\n".join(lines))
    return 0
