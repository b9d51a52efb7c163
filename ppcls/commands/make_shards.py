"""`ppcls make-shards`: pack images into tar files."""

import argparse
import re
from pathlib import Path

from ppcls.commands.options import add_command, whole
from ppcls.utils.files import expanded
from ppcls.utils.log import say
from ppcls.utils.text import whole_number

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add(commands) -> None:
    text = "write a data set as tar shards, from which large sets are read fast"
    examples = (
        "ppcls make-shards photos/train shards",
        "ppcls make-shards 'parquet/train-*.parquet' shards --shard-size 1GB",
    )
    parser = add_command(commands, "make-shards", run, text, examples)
    text = 'data set to read: a folder, list, shards or parquet files; a "*" stands in quotes'
    parser.add_argument("source", type=expanded, metavar="SOURCE", help=text)
    text = "folder to write the shards into"
    parser.add_argument("target", type=Path, metavar="TARGET", help=text)
    text = "size of a shard, as in 512MB or 1GB; default: 512MB"
    parser.add_argument("--shard-size", type=size, default="512MB", metavar="SIZE", help=text)
    text = "beginning of the shards' file names; default: train"
    parser.add_argument("--name", default="train", help=text)
    text = "file with the class names, one in each line"
    parser.add_argument("--labels", type=expanded, metavar="FILE", help=text)
    text = "read lists whose labels are like 0,1,0: several for an image"
    parser.add_argument("--multilabel", action="store_true", help=text)
    text = "number that fixes the order the images are shuffled into; default: 0"
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help=text)


def size(text: str) -> int:
    found = re.fullmatch("([0-9]+)([KMG]B)?", text.upper())
    count = whole_number(found[1]) if found else None
    if not found or not count:
        raise argparse.ArgumentTypeError(f"{text!r} should be a size such as 512MB")
    return count * UNITS[found[2] or ""]


def run(options: argparse.Namespace) -> int:
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
    say(*lines)
    return 0
