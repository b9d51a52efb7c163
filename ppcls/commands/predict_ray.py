"""`ppcls predict-ray`: as `predict`, by the workers of a Ray cluster."""

import argparse

from ppcls.commands.options import add_command, add_engine_options, positive, predictor_options
from ppcls.commands.predict import (
    add_image_arguments,
    add_result_options,
    given,
    results_of,
    seconds_between_frames,
)


def add(commands) -> None:
    text = "name what is on many images by the workers of a Ray cluster"
    examples = (
        "ppcls predict-ray --model-dir exported/own_photos photos/ --save results.csv",
        "ppcls predict-ray --model-dir exported/x --list all.txt --address auto --save x.jsonl",
    )
    parser = add_command(commands, "predict-ray", run, text, examples)
    add_image_arguments(parser)
    add_engine_options(parser)
    text = "a cluster: HOST:PORT, ray://HOST:PORT, auto for the one this machine belongs to, local "
    text += "to start one here; default: RAY_ADDRESS, auto or local, the first there is"
    parser.add_argument("--address", metavar="ADDRESS", help=text)
    text = "processes that predict, of --threads each (default: 1), or a GPU each; default: as "
    text += "many as the cluster has cores or GPUs for"
    parser.add_argument("--workers", type=positive, metavar="N", help=text)
    add_result_options(parser, "replace what an unfinished run has left of --save FILE")
    parser.set_defaults(visualize=None, explain=None)


def run(options: argparse.Namespace) -> int:
    from ppcls.cluster import Cluster
    from ppcls.inference.results import report

    save, features = results_of(options)
    every = seconds_between_frames(options)
    images = given(options.photos, options.list, options.resume)
    with Cluster(
        options.model_dir,
        options.address,
        options.workers,
        options.batch_size,
        options.use,
        **predictor_options(options),
    ) as cluster:
        report(
            cluster,
            images,
            options.topk,
            save,
            options.on_error == "skip",
            options.resume,
            every,
            features,
            part=options.part,
        )
    return 0
