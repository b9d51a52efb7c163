"""models, weights, data, zoo, import-paddleclas."""

import argparse
from pathlib import Path

from ppcls.commands.options import add_command, positive
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import plural


def add_models(commands) -> None:
    text = "list the networks: accuracy, size, and whether weights are at hand"
    examples = ("ppcls models", 'ppcls models "*_vd*"', 'ppcls models "EfficientNet*" --names')
    parser = add_command(commands, "models", run_models, text, examples)
    text = 'pattern that the names must match, such as "*_vd*", in quotes; default: all'
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help=text)
    text = "print the names alone, one on each line, as scripts read them"
    parser.add_argument("--names", action="store_true", help=text)


def run_models(options: argparse.Namespace) -> int:
    from ppcls.models.registry import list_models
    from ppcls.weights.store import table

    names = list_models(options.pattern)
    if not names:
        raise UserError(f"no network's name matches {options.pattern!r}")
    say(*(names if options.names else table(names)))
    return 0


def add_weights(commands) -> None:
    examples = (
        "ppcls weights convert runs/own_photos/best.safetensors own.npz --to efficientnet-pytorch",
        "ppcls weights convert resnet50.pth resnet50.safetensors --to native --model ResNet50",
    )
    text = "convert checkpoints between the names of several projects"
    parser = add_command(commands, "weights", run_convert, text, examples[:1])
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    text = "write a checkpoint with the tensor names of a project"
    parser = add_command(actions, "convert", run_convert, text, examples)
    text = "checkpoint to read, of any kind and names"
    parser.add_argument("source", type=Path, metavar="IN", help=text)
    text = "file to write: .safetensors, .pdparams or .npz"
    parser.add_argument("target", type=Path, metavar="OUT", help=text)
    names = ("native", "paddleclas", "timm", "efficientnet-pytorch")
    text = "project whose tensor names to write"
    parser.add_argument("--to", required=True, choices=names, help=text)
    text = "name of the network; default: as the checkpoint says"
    parser.add_argument("--model", metavar="NAME", help=text)


def run_convert(options: argparse.Namespace) -> int:
    from ppcls.weights.convert import convert_file

    say(*convert_file(options.source, options.target, options.to, options.model))
    return 0


def add_data(commands) -> None:
    text = "write out a built-in data set as ordinary folders"
    examples = ("ppcls data digits", "ppcls data photos --to photos/samples")
    parser = add_command(commands, "data", run_data, text, examples)
    text = "which one: digits, solar_cells, or photos, which are scikit-learn's two"
    parser.add_argument("name", help=text)
    text = "folder to write it into; default: data/<name>"
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=text)


def run_data(options: argparse.Namespace) -> int:
    from ppcls.data import builtin

    to = options.to or Path("data") / options.name
    if options.name == "photos":
        say(*builtin.copy_sample_photos(to))
        return 0
    folder = builtin.write(options.name, to)
    say(*builtin.describe(options.name).split("\n"), folder)
    return 0


def add_zoo(commands) -> None:
    text = "prove the networks; write the tables and plots of docs/"
    examples = ("ppcls zoo verify ResNet50_vd", "ppcls zoo table --check", "ppcls zoo plots")
    parser = add_command(commands, "zoo", run_zoo, text, examples)
    text = "verify the networks, write the tables, or draw the plots"
    parser.add_argument("what", choices=("verify", "table", "plots"), help=text)
    text = "names of the networks to verify; default: all of the zoo"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    text = "folder with logits and tensor names of other projects to compare with"
    parser.add_argument("--oracle", type=Path, metavar="FOLDER", help=text)
    text = "only say which tables are stale, and write none"
    parser.add_argument("--check", action="store_true", help=text)


def run_zoo(options: argparse.Namespace) -> int:
    if options.what == "verify":
        from ppcls import figures
        from ppcls.models import registry
        from ppcls.verify import verify

        names = options.names or registry.list_models()
        for name in names:
            registry.spec_of(name)
        return 0 if verify(names, figures.read(options.oracle)) else 1
    if options.what == "plots":
        from ppcls.docs.plots import write_plots

        say(*write_plots())
        return 0
    from ppcls.docs.table import write_tables

    stale = write_tables(options.check)
    say(*(stale or ["up to date"]))
    return 1 if stale and options.check else 0


def add_import(commands) -> None:
    text = "write a recipe from a config of PaddleClas 2"
    examples = (
        "ppcls import-paddleclas OLD.yaml",
        "ppcls import-paddleclas OLD.yaml --output mine.yaml --cards 8",
    )
    parser = add_command(commands, "import-paddleclas", run_import, text, examples)
    text = "config of PaddleClas to read"
    parser.add_argument("source", type=Path, metavar="OLD.yaml", help=text)
    text = "recipe to write; default: OLD.ppcls.yaml in the working folder"
    parser.add_argument("--output", type=Path, metavar="NEW.yaml", help=text)
    text = "replace the recipe where it exists"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "number of GPUs that its learning rate is meant for; default: 4"
    parser.add_argument("--cards", type=positive, default=4, metavar="N", help=text)


def run_import(options: argparse.Namespace) -> int:
    from ppcls.migrate.convert import convert, recipe_text, write_recipe

    source = options.source
    output = options.output or Path(f"{source.stem}.ppcls.yaml")
    converted = convert(source, options.cards)
    write_recipe(recipe_text(converted, source), output, source, options.overwrite)
    say(*converted.remarks)
    count = plural(len(converted.remarks), "remark")
    say(f"{output}: {converted.recipe['model']['name']}, {count}")
    return 0
