"""models, weights, data, zoo, import-paddleclas."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, positive
from ppcls.errors import UserError


def add_models(commands) -> None:
    parser = add_command(commands, "models", run_models, "list the networks")
    parser.add_argument("pattern", nargs="?", default="*", help='such as "*_vd*"')


def run_models(options: argparse.Namespace) -> int:
    from ppcls.models.zoo import list_models

    names = list_models(options.pattern)
    if not names:
        raise UserError(f"no network's name matches {options.pattern!r}")
    print("\n".join(names))
    return 0


def add_weights(commands) -> None:
    parser = commands.add_parser("weights", help="convert checkpoints", description="Checkpoints")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    parser = add_command(actions, "convert", run_convert, "give a checkpoint a project's names")
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint of any kind and names")
    parser.add_argument("target", type=Path, metavar="OUT", help=".safetensors, .pdparams or .npz")
    names = ("native", "paddleclas", "timm", "efficientnet-pytorch")
    parser.add_argument("--to", required=True, choices=names, help="whose names to write")
    parser.add_argument("--model", help="the network's name; default: as the checkpoint says")


def run_convert(options: argparse.Namespace) -> int:
    from ppcls.weights.convert import convert_file

    print("\n".join(convert_file(options.source, options.target, options.to, options.model)))
    return 0


def add_data(commands) -> None:
    parser = add_command(commands, "data", run_data, "write out a built-in data set")
    parser.add_argument("name", help="digits, solar_cells, or photos: scikit-learn's two")
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: data/<name>")


def run_data(options: argparse.Namespace) -> int:
    from ppcls.data import builtin

    to = options.to or Path("data") / options.name
    if options.name == "photos":
        print("\n".join(map(str, builtin.copy_sample_photos(to))))
        return 0
    folder = builtin.write(options.name, to)
    print(f"{builtin.describe(options.name)}\n{folder}")
    return 0


def add_zoo(commands) -> None:
    parser = add_command(commands, "zoo", run_zoo, "prove the networks; write tables and plots")
    parser.add_argument("what", choices=("verify", "table", "plots"))
    parser.add_argument("names", nargs="*", help="networks to verify; default: all of the zoo")
    parser.add_argument("--oracle", type=Path, metavar="DIR", help="figures of other projects")
    parser.add_argument("--check", action="store_true", help="only say which tables are stale")


def run_zoo(options: argparse.Namespace) -> int:
    if options.what == "verify":
        from ppcls import figures
        from ppcls.models import zoo
        from ppcls.verify import verify

        names = options.names or zoo.list_models()
        for name in names:
            zoo.spec_of(name)
        return 0 if verify(names, figures.read(options.oracle)) else 1
    if options.what == "plots":
        from ppcls.docs.plots import write_plots

        print("\n".join(map(str, write_plots())))
        return 0
    from ppcls.docs.table import write_tables

    stale = write_tables(options.check)
    print("\n".join(map(str, stale)) or "up to date")
    return 1 if stale and options.check else 0


def add_import(commands) -> None:
    text = "write a recipe from a config of PaddleClas 2"
    parser = add_command(commands, "import-paddleclas", run_import, text)
    parser.add_argument("source", type=Path, metavar="OLD.yaml")
    parser.add_argument(
        "--output", type=Path, metavar="NEW.yaml", help="default: OLD.ppcls.yaml, in this folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument(
        "--cards", type=positive, default=4, help="GPUs its learning rate is for; default: 4"
    )


def run_import(options: argparse.Namespace) -> int:
    from ppcls.paddleclas_config import write
    from ppcls.paddleclas_config.convert import convert

    source = options.source
    output = options.output or Path(f"{source.stem}.ppcls.yaml")
    converted = convert(source, options.cards)
    write.write(write.text(converted, source), output, source, options.overwrite)
    for remark in converted.remarks:
        print(remark)
    count = len(converted.remarks)
    print(f"{output}: {converted.recipe['model']['name']}, {count} remark{'s' * (count != 1)}")
    return 0
