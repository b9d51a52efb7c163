"""Does training that already rounds (`train.qat`) lose less when the network is quantized?

From one checkpoint a few more epochs are trained, with `train.qat` and without, as docs/int8.md
says; each is exported and quantized for every engine, with weights of as many bits, and scored in
float and in INT8. Prints the rows of that page's table, and the seconds a step took.

    python benchmarks/qat.py --config photos.yaml --weights runs/photos/best.safetensors --calibrate photos/train --eval photos/val
"""  # noqa: E501

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from ppcls.inference import manifest
from ppcls.inference.exported_model import open_exported
from ppcls.utils.log import read_records

ENGINES = ("onnxruntime", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="recipe of the run that goes on")
    parser.add_argument("--weights", required=True, help="its checkpoint")
    parser.add_argument("--calibrate", required=True, help="images to train and calibrate with")
    parser.add_argument("--eval", required=True, help="labelled images to score")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--bits", type=int, default=7, help="of weights")
    options = parser.parse_args()
    print(
        f"| | float | {' | '.join(f'INT8, {engine}' for engine in ENGINES)} | same class | step |"
    )
    print(f"|---|{'---:|' * (len(ENGINES) + 3)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("without", "train.qat"):
            print(f"| {name} | {row(options, name, Path(folder))} |", flush=True)


def row(options: argparse.Namespace, name: str, folder: Path) -> str:
    run, whole = folder / f"run-{name}", folder / f"float-{name}"
    more = [f"train.qat.weight_bits={options.bits}"] if name == "train.qat" else []
    train = ["train", "-c", options.config, "-o", *more, f"model.weights={options.weights}"]
    train += ["model.new_head=false", f"train.epochs={options.epochs}", f"output={run}"]
    begun = time.perf_counter()
    ppcls([*train, f"train.schedule.lr={options.lr}"])
    steps = [r["step"] for r in read_records(run / "run.jsonl") if r["event"] == "train"]
    step = (time.perf_counter() - begun) / steps[-1]
    export = ["export", "--weights", str(run / "best.safetensors"), "--format", "onnx"]
    ppcls([*export, "--output", str(whole)])
    # As of one that was trained for it: else 8 bits where this CPU has them.
    known = yaml.safe_load((whole / manifest.FILE).read_text())
    known["ppcls"][manifest.WEIGHT_BITS] = options.bits
    (whole / manifest.FILE).write_text(yaml.safe_dump(known, sort_keys=False))
    cells, same = [], []
    for engine in ENGINES:
        made = folder / f"{engine}-{name}"
        quantize = ["quantize", "--model-dir", str(whole), "--output", str(made), "--budget", "1"]
        quantize += ["--engine", engine, "--calibrate", options.calibrate, "--eval", options.eval]
        ppcls(quantize)
        about = open_exported(made).manifest.about["int8"]
        cells.append(f"{100 * about['top1']['int8']:.1f} %")
        same.append(f"{100 * about['agreement']:.1f} %")
    before = f"{100 * about['top1']['float']:.1f} %"
    return " | ".join([before, *cells, ", ".join(same), f"{step:.2f} s"])


def ppcls(words: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppcls", *words], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"ppcls {' '.join(words)}:\n{done.stdout[-800:]}{done.stderr}")


if __name__ == "__main__":
    main()
