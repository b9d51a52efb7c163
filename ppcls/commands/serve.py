"""`ppcls serve`: exported models as a service, with a page for people and an API for programs."""

import argparse
from pathlib import Path

from ppcls.commands.options import (
    add_command,
    add_predictor_options,
    decimal_from,
    listed,
    path,
    positive,
    predictor_options,
    share,
)
from ppcls.utils.errors import UserError
from ppcls.utils.files import expanded
from ppcls.utils.text import whole_number

SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add(commands) -> None:
    text = "serve exported models: a page, an HTTP API, the Open Inference Protocol, metrics"
    examples = (
        "ppcls serve exported/own_photos",
        "ppcls serve flowers=exported/flowers exported/cars --host 0.0.0.0 --keys keys.txt",
    )
    parser = add_command(commands, "serve", run, text, examples)
    text = "folders that ppcls, PaddleClas or PaddleX exported, .onnx files, checkpoints of ours; "
    text += "each is called as its folder, or as NAME"
    parser.add_argument("folders", nargs="*", metavar="[NAME=]FOLDER", help=text)
    text = "the same, as the other commands name it"
    parser.add_argument("--model-dir", type=expanded, metavar="FOLDER", help=text)
    text = "address to listen on; default: 127.0.0.1, this machine alone; 0.0.0.0: any"
    parser.add_argument("--host", default="127.0.0.1", help=text)
    text = "port to listen on; default: 8000"
    parser.add_argument("--port", type=port, default=8000, help=text)
    add_predictor_options(parser)
    speed = parser.add_argument_group("speed")
    text = "processes of each model; default: 1, which uses all cores"
    speed.add_argument("--workers", type=positive, default=1, metavar="N", help=text)
    text = "images that run together at most; default: measured at the start"
    speed.add_argument("--max-batch", type=positive, metavar="N", help=text)
    text = "milliseconds that a batch waits at most for images on their way; default: measured"
    speed.add_argument("--max-delay", type=decimal_from(0, 10_000), metavar="MS", help=text)
    drift = parser.add_argument_group("drift, of models that ppcls calibrate has calibrated")
    text = "images that are held against those of the calibration at a time, 20 or more; 0: none; "
    text += "default: 500"
    drift.add_argument("--drift-window", type=drift_window, default=500, metavar="N", help=text)
    text = "share of windows of like images that raise an alarm all the same; default: 0.01"
    rate = decimal_from(0.0001, 0.5)
    drift.add_argument("--drift-false-alarms", type=rate, default=0.01, metavar="SHARE", help=text)
    limits = parser.add_argument_group("limits")
    text = "size of a request's body; default: 32M"
    limits.add_argument("--max-body", type=size, default=32 << 20, metavar="BYTES", help=text)
    text = "pixels of an image; default: 64,000,000"
    limits.add_argument("--max-pixels", type=positive, default=64_000_000, metavar="N", help=text)
    text = "images of a request; default: 64"
    limits.add_argument("--max-images", type=positive, default=64, metavar="N", help=text)
    text = "images of a model that wait or run, beyond which requests get 503; default: 512"
    limits.add_argument("--queue", type=positive, default=512, metavar="N", help=text)
    text = "seconds for which a request waits for its answer; default: 30"
    limits.add_argument("--timeout", type=decimal_from(0.1, 86400), default=30.0, help=text)
    text = "seconds after which a worker that does not get on is replaced; default: 20"
    limits.add_argument("--hang", type=decimal_from(1, 86400), default=20.0, help=text)
    access = parser.add_argument_group("who may ask, and what is kept")
    text = "file with a key in each line, KEY [NAME] [admin]; admin keys may load new versions"
    access.add_argument("--keys", type=path, metavar="FILE", help=text)
    text = "origins whose pages may call the service, such as https://example.org"
    access.add_argument("--cors", type=listed, default=[], metavar="ORIGIN,…", help=text)
    text = "take images by their address, too; never from private networks"
    access.add_argument("--urls", action="store_true", help=text)
    text = "file of certificates, in PEM"
    access.add_argument("--tls-cert", type=path, metavar="FILE", help=text)
    text = "file of their private key, in PEM"
    access.add_argument("--tls-key", type=path, metavar="FILE", help=text)
    text = "file for a line of JSON for each request; default: - for standard output; none"
    access.add_argument("--access-log", default="-", metavar="FILE", help=text)
    text = "keep a share of the images, and the answers, in this folder, for labels to come"
    access.add_argument("--record", type=path, metavar="FOLDER", help=text)
    text = "share of images that --record keeps; default: 0.01"
    access.add_argument("--share", type=share, default=0.01, metavar="SHARE", help=text)


def port(text: str) -> int:
    if not text.isdecimal() or not int(text[:9]) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0 to 65535")
    return int(text)


def drift_window(text: str) -> int:
    number = whole_number(text)
    if number is None or 0 < number < 20:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 20, or 0 for none")
    return number


def size(text: str) -> int:
    """A number of bytes such as 32M."""
    unit = SIZES.get(text[-1:].lower(), 1)
    digits = text[:-1] if unit > 1 else text
    if not (digits.isascii() and digits.isdecimal()) or not 0 < int(digits[:15]) * unit < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} should be a size such as 32M, below 4G")
    return int(digits) * unit


def named(text: str) -> tuple[str | None, Path]:
    """What `NAME=FOLDER` or `FOLDER` says."""
    name, mark, folder = text.partition("=")
    if not mark or "/" in name or Path(text).exists():
        return None, Path(expanded(text))
    if not name or not folder:
        raise UserError(f"{text}: should be NAME=FOLDER")
    return name, Path(expanded(folder))


def run(options: argparse.Namespace) -> int:
    require_parts()
    from ppcls.serve.server import serve
    from ppcls.serve.settings import Limits, ServeSettings

    given = [*options.folders, *([options.model_dir] if options.model_dir else [])]
    if not given:
        raise UserError("nothing to serve: name folders, ppcls serve exported/own_photos")
    limits = Limits(
        body=options.max_body,
        pixels=options.max_pixels,
        images=options.max_images,
        queue=options.queue,
        bytes=max(Limits.bytes, 2 * options.max_body),
        seconds=options.timeout,
    )
    return serve(
        ServeSettings(
            models=tuple(map(named, given)),
            host=options.host,
            port=options.port,
            workers=options.workers,
            batch=options.max_batch,
            delay=None if options.max_delay is None else options.max_delay / 1000,
            hang=options.hang,
            limits=limits,
            keys=options.keys,
            cors=tuple(options.cors),
            urls=options.urls,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            record=options.record,
            share=options.share,
            access_log=None if options.access_log == "none" else options.access_log,
            drift=options.drift_window,
            drift_false_alarms=options.drift_false_alarms,
            options=predictor_options(options),
            use=tuple(options.use),
        )
    )


def require_parts() -> None:
    """UserError where the packages of the extra `serve` are missing, or the system is another."""
    from importlib.util import find_spec

    if find_spec("resource") is None:
        raise UserError("ppcls serve needs Linux or macOS; on Windows use WSL or the container")
    needed = ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart")
    missing = [name for name in (*needed, "fastapi_offline", "httpx") if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed; pip install 'ppcls[serve]'")
