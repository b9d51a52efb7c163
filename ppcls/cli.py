"""The command line: `ppcls train …`; the scripts in tools/ and deploy/ call the same functions."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ppcls import __version__
from ppcls.errors import UserError

WEIGHTS_HELP = "file, URL, hf://org/name or registered tag; default: the best of the config's run"
INTERRUPTED = 130  # exit code of a run ended by a signal, as shells count it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="ppcls", description="PaddlePaddle image classification")
    parser.add_argument("--version", action="version", version=f"ppcls {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        add_train,
        add_eval,
        add_export,
        add_predict,
        add_quantize,
        add_bench,
        add_models,
        add_weights,
        add_data,
        add_show_data,
        add_zoo,
    ):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def script(command: str) -> None:
    """What tools/<command>.py does: the command with the script's own arguments."""
    sys.exit(main([command, *sys.argv[1:]]))


def add_command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def add_recipe_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("-c", "--config", required=required, help="recipe file (configs/*.yaml)")
    parser.add_argument(
        "-o",
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="set a key of the recipe, such as train.epochs=10 or train.ops.0.scale=[0.5,1]",
    )


# --------------------------------------------------------------------------- train, eval, export


def add_train(commands) -> None:
    parser = add_command(commands, "train", run_train, "train as a recipe says")
    add_recipe_options(parser, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")


def run_train(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    recipe = load(Recipe, options.config, options.override)
    from ppcls.train.start import train

    done = train(recipe, options.resume, options.overwrite)
    return 0 if done else INTERRUPTED


def add_eval(commands) -> None:
    parser = add_command(commands, "eval", run_eval, "score a trained network on labelled photos")
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", help=WEIGHTS_HELP)


def run_eval(options: argparse.Namespace) -> int:
    from ppcls.evaluation import score
    from ppcls.trained import open_trained

    score(open_trained(options.config, options.override, options.weights))
    return 0


def add_export(commands) -> None:
    parser = add_command(commands, "export", run_export, "write a static inference model")
    add_recipe_options(parser, required=False)
    parser.add_argument("--weights", help=WEIGHTS_HELP)
    parser.add_argument("--output", help="folder to write; default: exported/<run's name>")
    parser.add_argument("--check", nargs="+", default=[], metavar="PHOTO", help="compare on these")
    formats = ("paddle", "onnx", "openvino")
    parser.add_argument("--format", nargs="+", choices=formats, default=["paddle"])
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        default="float32",
        help="uint8: pixels [N, H, W, C], normalised inside the network",
    )
    parser.add_argument("--dynamic-size", action="store_true", help="take images of any size")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--softmax", action="store_true", help="give probabilities (the default)")
    ends.add_argument("--logits", action="store_true", help="give logits")
    parser.add_argument("--keep-norms", action="store_true", help="do not fuse batch norms")


def run_export(options: argparse.Namespace) -> int:
    from ppcls.export import Form, export
    from ppcls.trained import open_trained

    trained = open_trained(options.config, options.override, options.weights)
    output = Path(options.output or Path("exported") / trained.recipe.folder.name)
    form = Form(
        formats=list(dict.fromkeys(options.format)),
        input=options.input,
        output="logits" if options.logits else "probabilities",
        dynamic_size=options.dynamic_size,
        fuse=not options.keep_norms,
    )
    export(trained, output, options.check, form)
    return 0


# --------------------------------------------------------------------------- predict


def add_predict(commands) -> None:
    parser = add_command(commands, "predict", run_predict, "name photos with an exported folder")
    parser.add_argument("photos", nargs="+", metavar="PHOTO|FOLDER|LIST")
    add_engine_options(parser)
    parser.add_argument("--topk", type=positive, help="classes per photo; default: 5")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a .csv or .json file, too")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-dir", required=True, help="folder that ppcls, PaddleClas or PaddleX exported"
    )
    parser.add_argument(
        "--engine",
        default="auto",
        help="paddle, onednn, onnxruntime, openvino, tensorrt or onnxruntime-tensorrt; "
        "default: auto, the fastest here, measured once",
    )
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--threads", type=positive, help="CPU threads; default: the fastest")
    given = parser.add_argument_group("in place of what inference.yml says, or where there is none")
    given.add_argument("--resize", type=positive, metavar="PIXELS", help="of the short side")
    given.add_argument("--crop", type=positive, metavar="PIXELS")
    kinds = ("nearest", "bilinear", "bicubic", "area", "lanczos")
    given.add_argument("--interpolation", choices=kinds)
    given.add_argument("--backend", choices=("cv2", "pil"), help="what resizes")
    given.add_argument("--mean", type=float, nargs="+", help="by channel, of pixels from 0 to 1")
    given.add_argument("--std", type=float, nargs="+")
    given.add_argument("--labels", type=Path, metavar="FILE", help="class names, a line each")


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 1")
    return int(text)


def run_predict(options: argparse.Namespace) -> int:
    from ppcls.inference.folder import read_labels
    from ppcls.inference.predictor import Predictor
    from ppcls.inference.results import report

    predictor = Predictor(
        options.model_dir,
        options.device,
        options.threads,
        options.engine,
        options.precision,
        options.batch_size,
        resize=options.resize,
        crop=options.crop,
        interpolation=options.interpolation,
        backend=options.backend,
        mean=options.mean,
        std=options.std,
        labels=read_labels(options.labels) if options.labels else None,
    )
    report(predictor, options.photos, options.topk, options.save)
    return 0


# --------------------------------------------------------------------------- quantize, bench


def add_quantize(commands) -> None:
    parser = add_command(commands, "quantize", run_quantize, "an exported network in INT8")
    parser.add_argument("--model-dir", type=Path, required=True, help="exported folder in float")
    parser.add_argument("--calibrate", type=Path, required=True, metavar="FOLDER|LIST")
    engines = ("onnxruntime", "openvino", "onnxruntime-tensorrt", "paddle")
    parser.add_argument("--engine", choices=engines, default="onnxruntime")
    parser.add_argument("--output", type=Path, help="default: the model's folder + -int8")
    parser.add_argument("--eval", type=Path, metavar="FOLDER|LIST", help="labelled photos")
    parser.add_argument("--budget", type=share, default=0.01, help="loss allowed: 0.01 is a point")
    parser.add_argument("--photos", type=positive, default=200, help="to calibrate with")


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a share from 0 to 1")
    return value


def run_quantize(options: argparse.Namespace) -> int:
    from ppcls.inference.quantize import quantize

    quantize(
        options.model_dir,
        options.calibrate,
        options.engine,
        options.output,
        options.eval,
        options.budget,
        options.photos,
    )
    return 0


def add_bench(commands) -> None:
    parser = add_command(commands, "bench", run_bench, "time networks on this machine's engines")
    parser.add_argument("--models", type=listed, default=[], metavar="NAMES", help="NAME,… or all")
    parser.add_argument("--model-dir", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--engines", type=listed, default=[], help="default: all of the device")
    parser.add_argument("--precisions", type=listed, default=["fp32"], help="fp32,bf16,fp16")
    parser.add_argument("--batch-sizes", type=counts, default=[1, 8], metavar="N,…")
    parser.add_argument("--threads", type=counts, default=[], metavar="N,…", help="default: all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each engine")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of runs in a turn; at least one run is made"
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="to time reading with")
    parser.add_argument("--output", type=Path, default=Path("bench"), metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="keep the exported networks")
    parser.add_argument("--docs", action="store_true", help="also write docs/benchmarks.md")


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def counts(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def run_bench(options: argparse.Namespace) -> int:
    from ppcls.bench.plan import Conditions, make_plan
    from ppcls.bench.run import benchmark

    plan = make_plan(
        options.models,
        options.model_dir,
        Conditions(options.device, options.rounds, options.seconds),
        options.batch_sizes,
        options.engines,
        options.precisions,
        options.threads,
    )
    agrees = benchmark(plan, options.output, options.photos, options.keep, options.docs)
    return 0 if agrees else 1


# --------------------------------------------------------------------------- models, weights, data


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


def add_show_data(commands) -> None:
    text = "draw what a recipe trains on: a row for each photo, a column for each epoch"
    parser = add_command(commands, "show-data", run_show_data, text)
    add_recipe_options(parser, required=True)
    parser.add_argument("--count", type=positive, default=32, help="photos; default: 32")
    parser.add_argument("--epochs", type=positive, default=4, help="default: 4")
    parser.add_argument("--output", type=Path, default=Path("sheet.png"), metavar="FILE")
    parser.add_argument("--eval", action="store_true", help="what it is scored on instead")


def run_show_data(options: argparse.Namespace) -> int:
    from ppcls.config.load import load
    from ppcls.recipe import Recipe
    from ppcls.show_data import show_data

    recipe = load(Recipe, options.config, options.override)
    print(show_data(recipe, options.output, options.count, options.epochs, options.eval))
    return 0


# --------------------------------------------------------------------------- zoo


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
