"""`ppcls zoo`: for maintainers, proofs of the networks and pages of docs/."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command
from ppcls.utils.log import say


def add(commands) -> None:
    text = "prove the networks; write the tables and plots of docs/"
    examples = ("ppcls zoo verify ResNet50_vd", "ppcls zoo table --check", "ppcls zoo plots")
    parser = add_command(commands, "zoo", run, text, examples)
    text = "verify the networks, write the tables, or draw the plots"
    parser.add_argument("what", choices=("verify", "table", "plots"), help=text)
    text = "names of the networks to verify; default: all of the zoo"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    text = "folder with logits and tensor names of other projects to compare with"
    parser.add_argument("--oracle", type=Path, metavar="FOLDER", help=text)
    text = "only say which tables are stale, and write none"
    parser.add_argument("--check", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    if options.what == "verify":
        from ppcls.dev import golden
        from ppcls.dev.verify import verify
        from ppcls.models import registry

        names = options.names or registry.list_models()
        for name in names:
            registry.spec_of(name)
        return 0 if verify(names, golden.read(options.oracle)) else 1
    if options.what == "plots":
        from ppcls.dev.model_plots import write_plots

        say(*write_plots())
        return 0
    from ppcls.dev.model_tables import write_tables

    stale = write_tables(options.check)
    say(*(stale or ["up to date"]))
    return 1 if stale and options.check else 0
