"""Do two checkouts of ppcls compute the same, to the last digit?

For whoever moves code about: everything that a run writes, before and after, is compared. Runs of
seconds with made-up images and fixed seeds go through the commands of both checkouts, each in
processes and a folder of its own: training (one label, several, from teachers, with images without
labels, in two processes, cut and resumed), evaluation, export, prediction, quantization and the
check of data. Compared are the records of run.jsonl, every tensor and record of every checkpoint,
what commands print as scores, predictions, findings, and what an exported folder says of itself;
not what says time, speed or versions. A run that was cut and resumed must also equal the one that
was not.

    git worktree add ../before v0.1
    python benchmarks/same_run.py --before ../before
    python benchmarks/same_run.py --before ../before --after . --cases classify resume

Prints a line for each case: `same`, or what differs first. Exits with 1 where anything does. All
is written into a temporary folder, or into `--folder`, where it stays. Five
minutes on two free cores.

Recipes and commands are in the words of version 0.1, which go on working. Where a restructuring
changes words in what a run writes, `RENAMED` and `REPLACED` below say so; keys that only one of
both may have are in `NEW`.
"""

import argparse
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

# Keys and whole values of records, as they were → as they are now.
RENAMED: dict[str, str] = {
    "labels": "class_names",
    "ops": "transforms",
    "batch_ops": "batch_transforms",
    "photos": "images",
}
# Within longer texts, as in "12 photos (bae69a1c)".
REPLACED: dict[str, str] = {r"\bphoto": "image"}
# Keys that one of both may lack.
NEW: set[str] = set()
# What says when, how fast, by which version and with how many bytes; `output` names the folder.
PASSED_OVER = {
    *("time", "images_per_second", "milliseconds"),
    *("versions", "version", "digest", "bytes", "files", "output"),
}

NAMES = ("ant", "bee", "cat")
TEACHER = "runs/teacher/best.safetensors"
RECIPE = """
model: {name: ResNet18, num_classes: 3}
data: {train: photos/train, eval: photos/eval, workers: 0}
preprocess: {resize: 36, crop: 32}
train:
  epochs: 3
  batch_size: 4
  log_every: 1
  optimizer: {kind: momentum, weight_decay: 1e-4}
  schedule: {lr: 0.01, warmup: 1 steps, decay: {kind: cosine}}
"""
EVERYTHING = [
    "model={name: EfficientNetLite0, num_classes: 3, drop_path: 0.2}",
    "data.train=train.txt",
    "data.eval=eval.csv",
    "data.labels=names.txt",
    "task.loss={kind: cross_entropy, smoothing: 0.1, weights: balanced}",
    "train.ops=[{op: random_resized_crop, interpolation: random}, {op: horizontal_flip}, "
    "{op: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}, "
    "{op: one_of, ops: [{op: auto_augment}, {op: rand_augment}, {op: trivial_augment}]}, "
    "{op: random_apply, ops: [{op: rotation}, {op: gaussian_blur}]}, {op: random_erasing}]",
    "train.batch_ops=[{op: mixup, prob: 0.5}, {op: cutmix, prob: 0.5}]",
    "train.ema={decay: 0.9}",
    "train.drop_last=false",
    "train.size={kind: progressive, sizes: {0: 40, 1: 64}}",
    "eval.batch_size=4",
]
GROUPS = [
    "model={name: ResNet18_vd, num_classes: 3, freeze: [stem.*, stages.0.*], "
    f"weights: {TEACHER}}}",
    "train.accumulate=2",
    "train.batch_size=2",
    "train.optimizer={kind: lamb, weight_decay: 0.02}",
    "train.decay_norms=false",
    "train.lr_scale={'*': 0.5, 'head.*': 2}",
    "train.clip_norm=1",
    "train.sampler={kind: balanced, power: 0.5}",
]
SEVERAL = [
    "data.train=several_train.csv",
    "data.eval=several_eval.csv",
    "train.optimizer={kind: adamw}",
]
NETWORK = f"teacher: {{name: ResNet18_vd, weights: {TEACHER}}}"


class DifferenceError(Exception):
    """Two things that should be the same are not."""


@dataclass(frozen=True)
class Side:
    """A checkout, and the folder in which its commands run."""

    checkout: Path
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A process of this checkout's ppcls, with one thread: `ppcls train …`."""
        own = {"PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | own | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def python(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """What a process prints that ends with one of these codes."""
        process = self.start(*arguments)
        out, err = process.communicate()
        if process.returncode not in codes:
            last = (err.strip() or out.strip() or "nothing said").splitlines()[-1]
            ended = f"{shown(' '.join(arguments))} ended with {process.returncode}"
            raise DifferenceError(f"{self.checkout}: {ended}: {last}")
        return out

    def ppcls(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        return self.python("-m", "ppcls", *arguments, codes=codes)

    def train(self, name: str, *options: str, processes: int = 1, resume: bool = False) -> None:
        """The run `runs/<name>` of the recipe with these `-o` options."""
        self.ppcls(*training(name, options, processes, resume))

    def write(self, name: str, text: str) -> None:
        path = self.folder / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def training(
    name: str, options: tuple[str, ...], processes: int = 1, resume: bool = False
) -> list[str]:
    command = ["train", "-c", "recipe.yaml", "-o", *options, f"output=runs/{name}"]
    command += ["--processes", str(processes)] if processes > 1 else []
    return command + (["--resume"] if resume else [])


def classify(side: Side) -> None:
    side.train("classify", *EVERYTHING)
    scores = side.ppcls("eval", "--weights", "runs/classify/latest.safetensors")
    side.write("evaluated/classify.txt", scores)


def workers(side: Side) -> None:
    side.train("workers", *EVERYTHING, "data.workers=2")
    same(side.folder / "runs/classify", side.folder / "runs/workers", ignored={"workers"})


def multilabel(side: Side) -> None:
    task = "task={kind: multilabel, loss: {kind: asymmetric}}"
    side.train("multilabel", *SEVERAL, task)
    scores = side.ppcls("eval", "--weights", best("multilabel"))
    side.write("evaluated/multilabel.txt", scores)
    deploy(side, "multilabel")


def groups(side: Side) -> None:
    side.train("groups", *GROUPS)


def distill(side: Side) -> None:
    losses = "[{kind: kl, temperature: 4}, {kind: feature_l2, weight: 1e-3}, {kind: dkd}]"
    task = f"{{kind: distill, {NETWORK}, losses: {losses}, labels_weight: 1}}"
    side.train("distill", f"task={task}", "train.batch_ops=[{op: mixup}]")


def features(side: Side) -> None:
    losses = "[{kind: mgd}, {kind: pefd}, {kind: afd}, {kind: rkd}, {kind: dist}]"
    name = "model={name: EfficientNetLite0, num_classes: 3}"
    task = f"task={{kind: distill, {NETWORK}, losses: {losses}}}"
    side.train("features", name, task, "train.epochs=2")


def peer(side: Side) -> None:
    teacher = "teacher: {kind: peer, name: ResNet18_vd}"
    task = f"{{kind: distill, {teacher}, losses: [{{kind: symmetric_kl}}], labels_weight: 1}}"
    side.train("peer", f"task={task}", "train.ema={decay: 0.9}")


def unlabeled(side: Side) -> None:
    task = f"{{kind: distill, {NETWORK}, losses: [{{kind: js}}], labels_weight: 1}}"
    more = "data.unlabeled={photos: more.txt, share: 0.5}"
    side.train("unlabeled", f"task={task}", more, "train.epochs=2")


def distill_several(side: Side) -> None:
    teacher = "teacher: {kind: peer, name: ResNet18_vd}"
    task = f"task={{kind: distill_multilabel, {teacher}, labels_weight: 1}}"
    side.train("distill_several", *SEVERAL, task, "train.epochs=2")


def processes(side: Side) -> None:
    side.train("processes", "train.batch_size=2", "train.ema={decay: 0.9}", processes=2)


def resume(side: Side) -> None:
    """As if killed right behind the save of a step in the middle of the second epoch."""
    options = (*EVERYTHING, "train.save_every=1 steps", "train.keep=99")
    side.train("resume/whole", *options)
    whole, cut = side.folder / "runs/resume/whole", side.folder / "runs/resume/cut"
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("vdl", "best.safetensors"))
    saved = sorted(cut.glob("step-*.safetensors"))
    steps = [record_of(path)["step"] for path in saved]
    keep = len(saved) // 2 + 1
    for path in saved[keep:]:
        path.unlink()
    os.replace(shutil.copy(saved[keep - 1], cut / "copy"), cut / "latest.safetensors")
    if record_of(whole / "best.safetensors")["step"] <= steps[keep - 1]:
        shutil.copy(whole / "best.safetensors", cut)
    lines = (cut / "run.jsonl").read_text().splitlines(keepends=True)
    written = [line for line in lines if json.loads(line)["step"] <= steps[keep - 1]]
    (cut / "run.jsonl").write_text("".join(written))
    side.train("resume/cut", *options, resume=True)
    same(whole, cut)


def interrupt(side: Side) -> None:
    """A signal, at whatever step it comes; the step differs between checkouts, the end does not."""
    options = (*GROUPS, "train.size=64", "train.epochs=4", "train.save_every=99 steps")
    side.train("interrupt/whole", *options)
    process = side.start("-m", "ppcls", *training("interrupt/cut", options))
    log = side.folder / "runs/interrupt/cut/run.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.002)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    if process.returncode not in (0, 130):  # 0: the run was over before the signal came
        ended = f"a run with SIGTERM ended with {process.returncode}"
        raise DifferenceError(f"{side.checkout}: {ended}: {err}")
    side.train("interrupt/cut", *options, resume=True)
    same(side.folder / "runs/interrupt/whole", side.folder / "runs/interrupt/cut")


def deployed(side: Side) -> None:
    deploy(side, "teacher", "--format", "paddle", "onnx")


def quantized(side: Side) -> None:
    folder = "runs/exported/quantized"
    export = ("export", "--weights", TEACHER, "--output", folder, "--format", "onnx")
    side.ppcls(*export)
    calibrate = ("--calibrate", "photos/train", "--eval", "photos/eval", "--output", f"{folder}/8")
    side.ppcls("quantize", "--model-dir", folder, *calibrate)
    predict(side, f"{folder}/8", "onnxruntime")


def data(side: Side) -> None:
    for name, given in (("folders", ["photos/train", "photos/eval"]), ("list", ["train.txt"])):
        (side.folder / "runs/data").mkdir(parents=True, exist_ok=True)
        side.ppcls("check-data", *given, "--output", f"runs/data/{name}.csv", codes=(0, 1))


def best(run: str) -> str:
    return f"runs/{run}/best.safetensors"


def deploy(side: Side, run: str, *formats: str) -> None:
    """Export the run's best weights and predict with them."""
    folder = f"runs/exported/{run}"
    side.ppcls("export", "--weights", best(run), "--output", folder, *formats)
    predict(side, folder, "paddle")
    if "onnx" in formats:
        predict(side, folder, "onnxruntime")


def predict(side: Side, folder: str, engine: str) -> None:
    save = ("--save", f"{folder}/{engine}.json")
    given = ("--engine", engine, "--threads", "1", "--topk", "3")
    side.ppcls("predict", "--model-dir", folder, "photos/eval", *given, *save)


CASES: dict[str, tuple[Callable[[Side], None], tuple[str, ...]]] = {
    # What is run, and the folders of runs/ that are compared.
    "classify": (classify, ("teacher", "classify", "evaluated")),
    "workers": (workers, ("workers",)),
    "multilabel": (multilabel, ("multilabel", "evaluated", "exported/multilabel")),
    "groups": (groups, ("groups",)),
    "distill": (distill, ("distill",)),
    "features": (features, ("features",)),
    "peer": (peer, ("peer",)),
    "unlabeled": (unlabeled, ("unlabeled",)),
    "distill_several": (distill_several, ("distill_several",)),
    "processes": (processes, ("processes",)),
    "resume": (resume, ("resume",)),
    "interrupt": (interrupt, ("interrupt",)),
    "export": (deployed, ("exported/teacher",)),
    "quantize": (quantized, ("exported/quantized",)),
    "check-data": (data, ("data",)),
}
FIRST = {"workers": "classify"}  # the case before, whose run is compared, too


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--after", type=Path, default=here, metavar="CHECKOUT")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    text = "new folder in which everything is kept; default: a temporary one, deleted at the end"
    parser.add_argument("--folder", type=Path, help=text)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"--folder {folder}: is not empty; name a new one")
        checkouts = {"before": options.before.resolve(), "after": options.after.resolve()}
        sides = [Side(path, (folder / name).resolve()) for name, path in checkouts.items()]
        asked = [name for name in CASES if name in options.cases]
        cases = dict.fromkeys(case for name in asked for case in (FIRST.get(name, name), name))
        return compare(sides, list(cases))


def compare(sides: list[Side], cases: list[str]) -> int:
    """Run the cases with both checkouts at once, and say of each whether they agree."""
    made = sides[0].folder
    furnish(made)
    for side in sides[1:]:
        shutil.copytree(made, side.folder)
    both(prepare, sides)
    different = 0
    for name in cases:
        started = time.monotonic()
        run, compared = CASES[name]
        try:
            both(run, sides)
            found = "same, " + ", ".join(
                same(*(side.folder / "runs" / part for side in sides)) for part in compared
            )
        except DifferenceError as difference:
            different += 1
            found = f"DIFFERS: {difference}"
        print(f"{name:16} {time.monotonic() - started:5.0f} s  {found}", flush=True)
    print(f"{len(cases) - different} of {len(cases)} cases are the same")
    return 1 if different else 0


def both(run: Callable[[Side], None], sides: list[Side]) -> None:
    with ThreadPoolExecutor(len(sides)) as pool:
        list(pool.map(run, sides))


def prepare(side: Side) -> None:
    """Check that the checkout is what is run, and train the network that teaches."""
    where = Path(side.python("-c", "import ppcls; print(ppcls.__file__)").splitlines()[-1])
    if side.checkout not in where.resolve().parents:
        raise SystemExit(f"{side.checkout}: no checkout of ppcls; {where} is imported")
    side.train("teacher", "model.name=ResNet18_vd", "train.epochs=2")


def furnish(folder: Path) -> None:
    """Images of several formats and sizes, lists of them in all forms, and the recipe."""
    rng = np.random.default_rng(0)
    rows = {part: [] for part in ("train", "eval")}
    for part, count in (("train", 4), ("eval", 2)):
        for number, name in enumerate(NAMES):
            (folder / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                ending = ("png", "jpg")[i % 2]
                path = f"photos/{part}/{name}/{i}.{ending}"
                made_up(rng, number, grey=i == 3).save(folder / path)
                rows[part].append((path, number))
    (folder / "names.txt").write_text("\n".join(NAMES))
    (folder / "train.txt").write_text("".join(f"{path}\t{n}\n" for path, n in rows["train"]))
    named = [("path", "label"), *((path, NAMES[n]) for path, n in rows["eval"])]
    write_csv(folder / "eval.csv", named)
    for part, listed in rows.items():
        several = [(path, *(rng.random(3) < 0.5).astype(int)) for path, _ in listed]
        write_csv(folder / f"several_{part}.csv", [("path", *NAMES), *several])
    (folder / "more").mkdir()
    for i in range(12):
        made_up(rng, i % 3).save(folder / f"more/{i}.jpg")
    (folder / "more.txt").write_text("".join(f"more/{i}.jpg\n" for i in range(12)))
    (folder / "recipe.yaml").write_text(RECIPE)


def made_up(rng: np.random.Generator, label: int, grey: bool = False) -> Image.Image:
    """Coarse noise, brighter in the channel of its label, of a size of its own."""
    coarse = rng.integers(0, 160, (6, 6, 3), dtype=np.uint8)
    coarse[..., label] += 80
    size = tuple(int(side) for side in rng.integers(40, 80, 2))
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return image.convert("L") if grey else image


def write_csv(path: Path, rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def same(one: Path, other: Path, ignored: frozenset[str] | set[str] = frozenset()) -> str:
    """How much was compared in two folders.

    Raises:
        DifferenceError: says the first difference, and how many there are.
    """
    first, second = (dict(facts(folder, ignored)) for folder in (one, other))
    keys = [*first, *(key for key in second if key not in first)]
    wrong = [key for key in keys if first.get(key) != second.get(key)]
    if wrong:
        key = wrong[0]
        values = (shown(found[key]) if key in found else "missing" for found in (first, second))
        others = f"; {len(wrong)} of {len(keys)} values differ" if len(wrong) > 1 else ""
        raise DifferenceError(f"{other.name}/{key}: {' / '.join(values)}{others}")
    if not first:
        raise DifferenceError(f"{one}: nothing to compare")
    return f"{len(first)} values of {one.name}"


def shown(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else text[:77] + "..."


@dataclass(frozen=True)
class Tensor:
    kind: str
    shape: tuple[int, ...]
    data: bytes

    def __str__(self) -> str:
        if self.kind != "F32":
            return f"{self.kind} {list(self.shape)}"
        values = np.frombuffer(self.data, np.float32)
        return f"F32 {list(self.shape)} of mean {values.mean(dtype=float):.12g}"


def facts(folder: Path, ignored: frozenset[str] | set[str]) -> Iterator[tuple[str, Any]]:
    """All that is compared of the files below a folder: where → value."""
    readers: dict[str, Callable[[Path], Any]] = {
        "run.jsonl": log_of,
        "recipe.yml": yaml_of,
        "inference.yml": yaml_of,
        ".safetensors": checkpoint_of,
        ".pdiparams": lambda path: Tensor("file", (path.stat().st_size,), path.read_bytes()),
        ".json": predictions_of,
        ".csv": lambda path: list(csv.reader(io.StringIO(path.read_text()))),
        ".txt": lambda path: re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", path.read_text()),
    }
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        reader = readers.get(path.name) or readers.get(path.suffix)
        skipped = {"vdl", "engine_cache"} & set(inner.parts) or path.name == "inference.json"
        if reader and path.is_file() and not skipped:
            yield from flat(str(inner), reader(path), PASSED_OVER | NEW | ignored)


def flat(name: str, value: Any, ignored: set[str]) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, in the words of today."""
    if isinstance(value, dict):
        for key, inner in value.items():
            word = today(str(key))
            if word not in ignored and key not in ignored:
                yield from flat(f"{name}: {word}", inner, ignored)
    elif isinstance(value, list):
        yield f"{name}: length", len(value)
        for number, inner in enumerate(value):
            yield from flat(f"{name}[{number}]", inner, ignored)
    else:
        yield name, today(value) if isinstance(value, str) else value


def today(text: str) -> str:
    text = RENAMED.get(text, text)
    for old, new in REPLACED.items():
        text = re.sub(old, new, text)
    return text


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def log_of(path: Path) -> list[dict[str, Any]]:
    """The records that count: those of later steps than a run was resumed from do not."""
    records: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["event"] == "resume":
            records = [r for r in records if r["step"] <= record["step"]]
        else:
            records.append(record)
    return records


def predictions_of(path: Path) -> Any:
    return json.loads(path.read_text())


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes behind it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def record_of(path: Path) -> dict[str, Any]:
    header, _ = header_of(path)
    return json.loads(header["__metadata__"]["ppcls"])


def checkpoint_of(path: Path) -> dict[str, Any]:
    """Tensors by name, and the record."""
    header, content = header_of(path)
    found: dict[str, Any] = {"record": json.loads(header.pop("__metadata__")["ppcls"])}
    for name, about in sorted(header.items()):
        start, end = about["data_offsets"]
        found[name] = Tensor(about["dtype"], tuple(about["shape"]), content[start:end])
    return found


if __name__ == "__main__":
    sys.exit(main())
