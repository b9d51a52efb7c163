"""How often does `ppcls drift` raise an alarm over photos that are alike, and what does it find?

`keep` predicts once: photos as they are, blurred and brighter, and photos of other things; and how
all of them look. `show` only draws from these. Clean windows: the photos that the axes were not
found on are dealt to the sketch and to a window, at random; the axes are found anew for each tenth.
Then windows with a shift against the sketch, for each size of window: the smallest that finds it in
nine of ten draws. `one` tells, by made-up photos, how far the rate of one sketch may be from that
over all. `latency` asks two services by turns, one of which watches; and says what that takes of a
core.

    python benchmarks/drift.py keep --model-dir exported/x --data photos/val --others other \
        --output x.npz
    python benchmarks/drift.py show x.npz y.npz [--windows 10000] [--draws 50]
    python benchmarks/drift.py one
    python benchmarks/drift.py latency --model-dir exported/x --data photos/val
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls

import cv2  # isort: skip
import numpy as np  # isort: skip

from ppcls.drift import PARTS
from ppcls.drift.permutation import compare
from ppcls.drift.sketch import Rows, Sketch, find_axes, make_sketch
from ppcls.inference.inputs import find, open_image, pixels_of
from ppcls.inference.looks import LOOKS, looks_of
from ppcls.inference.predictor import MANY_CLASSES, Asked, batched
from ppcls.serve.watch import Watch, how_of

RATES = (0.05, 0.01)
SIZES = (25, 50, 100, 200, 350, 500)
MOST = 1000  # photos that are changed
BLUR = 0.01  # deviation of the Gaussian, by the short side …
LEAST_BLUR = 0.7  # … and in pixels, at least
BRIGHTER = (1.3, 1.7)  # times
UNSEEN = 0.2  # the share of a window that is of other things
FOUND = 0.9
ALARM = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    keep = commands.add_parser("keep")
    keep.add_argument("--model-dir", type=Path, required=True)
    keep.add_argument("--data", type=Path, required=True)
    keep.add_argument("--others", type=Path, required=True)
    keep.add_argument("--output", type=Path, required=True)
    keep.set_defaults(run=keep_answers)
    show = commands.add_parser("show")
    show.add_argument("files", type=Path, nargs="+")
    show.add_argument("--windows", type=int, default=10_000)
    show.add_argument("--draws", type=int, default=50)
    show.add_argument("--no-features", action="store_true", help="as of exports without")
    show.set_defaults(run=show_all)
    one = commands.add_parser("one")
    one.add_argument("--sketches", type=int, default=30)
    one.add_argument("--windows", type=int, default=150)
    one.set_defaults(run=show_one)
    latency = commands.add_parser("latency")
    latency.add_argument("--model-dir", type=Path, required=True)
    latency.add_argument("--data", type=Path, required=True)
    latency.add_argument("--requests", type=int, default=3000, help="to each")
    latency.set_defaults(run=show_latency)
    options = parser.parse_args()
    options.run(options)


# --------------------------------------------------------------------------- keep


def blurred(pixels: np.ndarray) -> np.ndarray:
    deviation = max(BLUR * min(pixels.shape[:2]), LEAST_BLUR)
    return cv2.GaussianBlur(pixels, (0, 0), deviation).reshape(pixels.shape)


def brighter(pixels: np.ndarray, times: float) -> np.ndarray:
    return np.uint8(np.minimum(times * pixels.astype(np.float32), 255))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur": blurred,
    **{f"brightness x {times}": partial(brighter, times=times) for times in BRIGHTER},
}


def keep_answers(options: argparse.Namespace) -> None:
    from ppcls.calibrate.calibrate import opened

    kept = {}
    with opened(options.model_dir) as predictor:
        channels = predictor.manifest.preprocess.channels
        paths = find(str(options.data))
        order = np.random.default_rng(0).permutation(len(paths))
        paths = [paths[i] for i in order]
        changed = paths[:MOST]
        parts = (
            ("clean", paths, None),
            *((name, changed, change) for name, change in CHANGES.items()),
            ("unseen", find(str(options.others))[:MOST], None),
        )
        for name, some, change in parts:

            def images(some=some, change=change):
                for path in some:
                    pixels = pixels_of(path, channels, path)
                    yield pixels if change is None else change(pixels)

            asked = Asked(MANY_CLASSES, False, predictor.manifest.features > 0, looks=True)
            batches = batched(images(), predictor.batch_size, False)
            several = -(-len(some) // predictor.batch_size)
            answers = list(predictor.answer(batches, several, asked))
            rows = np.zeros((len(answers), len(answers[0].classes)), np.float32)
            for row, answer in zip(rows, answers, strict=True):
                row[answer.classes] = answer.scores
            kept[f"{name}_probabilities"] = rows
            if answers[0].features is not None:
                kept[f"{name}_features"] = np.stack([answer.features for answer in answers])
            kept[f"{name}_looks"] = np.stack([answer.looks for answer in answers])
            print(f"{name}: {len(answers):,} photos", flush=True)
    np.savez(options.output, **kept)


# --------------------------------------------------------------------------- show


def show_all(options: argparse.Namespace) -> None:
    for path in options.files:
        with np.load(path, allow_pickle=False) as file:
            kept = {name: file[name] for name in file.files}
        features = "clean_features" in kept and not options.no_features
        start = time.monotonic()
        of = "with features" if features else "without features"
        count, classes = kept["clean_probabilities"].shape
        print(f"{path.stem}, {of}: {count:,} photos, {classes:,} classes", flush=True)
        if options.windows:
            show_clean(kept, features, options.windows)
        if options.draws:
            show_shifts(kept, features, options.draws)
        print(f"  {time.monotonic() - start:.0f} s", flush=True)


def part(kept: dict, name: str, features: bool, which: np.ndarray | None = None):
    """What `make_sketch` and `Sketch.rows_of` take."""
    pooled = kept[f"{name}_features"] if features else None
    found = [kept[f"{name}_probabilities"], pooled, kept[f"{name}_looks"]]
    return [one if one is None or which is None else one[which] for one in found]


def show_clean(kept: dict, features: bool, windows: int) -> None:
    """The rate of false alarms, over windows of 100 photos."""
    count = len(kept["clean_probabilities"])
    chances = []
    for turn in range(10):
        random = np.random.default_rng(turn)
        order = random.permutation(count)
        apart, rest = order[: count // 4], order[count // 4 :]
        axes = find_axes(*part(kept, "clean", features, apart)[:2])
        rows = axes.rows_of(*part(kept, "clean", features, rest))
        size = min(100, len(rest) // 3)
        for _ in range(windows // 10):
            dealt = random.permutation(len(rest))
            window, reference = rows.take(dealt[:size]), rows.take(dealt[size : 3 * size])
            chances.append(compare(reference, window, ALARM).p)
    for rate in RATES:
        found = np.mean(np.array(chances) <= rate)
        verdict = "within a fifth" if abs(found / rate - 1) <= 0.2 else "NOT WITHIN A FIFTH"
        print(
            f"  {len(chances):,} clean windows of {size} against {2 * size}: {100 * found:.2f} % "
            f"alarms at {100 * rate:g} % ({verdict})",
            flush=True,
        )


def show_shifts(kept: dict, features: bool, draws: int) -> None:
    """What is found in windows of each size; the photos of windows are in no sketch."""
    count = len(kept["clean_probabilities"])
    held = min(MOST, count // 2)  # for windows; the first ones, that were changed, too
    sketch = make_sketch(*part(kept, "clean", features, np.arange(held, count)))
    clean, *changed = (
        sketch.rows_of(*part(kept, name, features, np.arange(held))) for name in ("clean", *CHANGES)
    )
    unseen = sketch.rows_of(*part(kept, "unseen", features))
    risen = classes_that_rise(sketch)
    kinds = {
        "nothing": lambda random, n: clean.take(drawn(random, held, n)),
        **{
            name: lambda random, n, rows=rows: rows.take(drawn(random, held, n))
            for name, rows in zip(CHANGES, changed, strict=True)
        },
        "an unseen class": lambda random, n: mixed(random, clean, unseen, n),
        "a class shift": lambda random, n: shifted(random, clean, risen, n),
    }
    print(f"  against {len(sketch.rows):,} photos, alarms at {100 * ALARM:g} %", flush=True)
    for name, draw in kinds.items():
        shares = {}
        first = []
        for size in [one for one in SIZES if one <= held]:
            random = np.random.default_rng(size)
            verdicts = [compare(sketch.rows, draw(random, size), ALARM) for _ in range(draws)]
            shares[size] = np.mean([one.alarm for one in verdicts])
            first = [one.parts[0].name for one in verdicts if one.alarm]
            if shares[size] == 1 and size >= 100:
                break
        least = next((size for size, share in shares.items() if share >= FOUND), None)
        named = {kind: first.count(kind) for kind in PARTS if kind in first}
        said = ", ".join(f"{size} {100 * share:.0f} %" for size, share in shares.items())
        print(
            f"  {name}: found by {least or 'none'} ({said}); first of the last {named}", flush=True
        )


def drawn(random: np.random.Generator, count: int, size: int) -> np.ndarray:
    return random.permutation(count)[:size]


def mixed(random: np.random.Generator, clean: Rows, unseen: Rows, size: int) -> Rows:
    """A share of other things."""
    several = min(round(UNSEEN * size), len(unseen))
    own = clean.take(drawn(random, len(clean), size - several))
    return Rows.joined(own, unseen.take(drawn(random, len(unseen), several)))


def classes_that_rise(sketch: Sketch) -> np.ndarray:
    """The first ones, of which a fifth of the photos is, as nearly as can be."""
    counts = np.bincount(sketch.rows.classes, minlength=sketch.class_count)
    share = np.cumsum(counts) / len(sketch.rows)
    return np.arange(int(np.abs(share - 0.2).argmin()) + 1)


def shifted(random: np.random.Generator, clean: Rows, risen: np.ndarray, size: int) -> Rows:
    """Twice as many photos of some classes."""
    own = np.isin(clean.classes, risen)
    several = min(round(2 * own.mean() * size), int(own.sum()))
    some = random.permutation(np.flatnonzero(own))[:several]
    others = random.permutation(np.flatnonzero(~own))[: size - several]
    return clean.take(np.concatenate([some, others]))


# --------------------------------------------------------------------------- one


def show_one(options: argparse.Namespace) -> None:
    """Rates of single sketches of 1,000 photos, by windows of 500."""
    found = []
    for turn in range(options.sketches):
        random = np.random.default_rng(turn)
        reference = made_up(random, 1000)
        alarms = [
            compare(reference, made_up(random, 500), ALARM).p <= RATES[0]
            for _ in range(options.windows)
        ]
        found.append(np.mean(alarms))
    low, high = 100 * np.quantile(found, (0.05, 0.95))
    spread = np.var(found) - np.mean(found) * (1 - np.mean(found)) / options.windows
    print(
        f"{options.sketches} sketches, {options.windows} windows each: {100 * np.mean(found):.2f} "
        f"% alarms at {100 * RATES[0]:g} %; nine of ten sketches from {low:.1f} to {high:.1f} %, "
        f"deviation but for chance {100 * np.sqrt(max(spread, 0)):.1f} points"
    )


def made_up(random: np.random.Generator, count: int) -> Rows:
    classes = random.integers(0, 5, count)
    places = random.normal(0, 16, (count, 16))
    looks = random.normal(100, 20, (count, len(LOOKS))).astype(np.float16)
    places = np.int8(np.clip(places, -127, 127))
    return Rows(places, random.random(count, np.float32), classes, looks)


# --------------------------------------------------------------------------- latency

TURN = 20  # requests to one service before the other's


def show_latency(options: argparse.Namespace) -> None:
    paths = [str(path) for path in find(str(options.data))[:200]]
    bodies = [Path(path).read_bytes() for path in paths]
    show_cost(options.model_dir, paths)
    with ExitStack() as stack:
        asked = [stack.enter_context(served(options.model_dir, window)) for window in ("0", "500")]
        seconds: list[list[float]] = [[], []]
        for turn in range(-5, options.requests // TURN):  # those below 0 warm up
            for number in (0, 1) if turn % 2 else (1, 0):
                for place in range(TURN):
                    body = bodies[(turn * TURN + place) % len(bodies)]
                    start = time.perf_counter()
                    asked[number].request("POST", "/predict", body, {"Content-Type": "image/jpeg"})
                    asked[number].getresponse().read()
                    if turn >= 0:
                        seconds[number].append(time.perf_counter() - start)
    for name, values in zip(("without", "with"), seconds, strict=True):
        found = 1000 * np.array([np.median(values), np.mean(values), np.quantile(values, 0.99)])
        print(
            f"{name}: {len(values):,} requests, median {found[0]:.2f} ms, mean {found[1]:.2f}, "
            f"p99 {found[2]:.2f}"
        )
    medians = np.median(np.array(seconds).reshape(2, -1, TURN), axis=2)
    ratios = medians[1] / medians[0]
    error = 1.25 * ratios.std() / np.sqrt(len(ratios))
    print(f"with by without, median over turns: {np.median(ratios):.4f} ± {error:.4f}")


def show_cost(folder: Path, paths: list[str]) -> None:
    """CPU time of a window, beside that of predicting its images."""
    predictor = ppcls.Predictor(folder, threads=1)
    start = time.process_time()
    predictor.predict(paths)
    network = (time.process_time() - start) / len(paths)
    how = how_of(predictor, {"window": 1 << 30, "false_alarms": ALARM})
    if how is None:
        sys.exit(f"{folder}: has no sketch; calibrate it")
    watch = Watch(how, print)
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(how.sketch.class_count), 8).astype(np.float32)
    features = random.random((8, len(how.sketch.turned)), np.float32)
    preprocess = predictor.manifest.preprocess
    pixels = [open_image(path, preprocess) for path in paths[:8]]
    start = time.process_time()
    for _ in range(500):
        watch.take(probabilities, features, np.stack([*map(looks_of, pixels)]))
    taking = (time.process_time() - start) / 4000
    rows = how.sketch.rows
    window = rows.take(random.integers(0, len(rows), 500))
    costs = []
    for other in (window, replace(window, scores=window.scores / 2)):
        start = time.process_time()
        compare(rows, other, ALARM)
        costs.append(time.process_time() - start)
    shares = [100 * (taking + cost / 500) / network for cost in costs]
    print(
        f"CPU time: predicting {1000 * network:.2f} ms an image; keeping it {1e6 * taking:.0f} us; "
        f"a window of 500 against {len(rows):,} {1000 * costs[0]:.0f} ms, {1000 * costs[1]:.0f} "
        f"where it has drifted: {shares[0]:.2f} and {shares[1]:.2f} % of predicting it"
    )


@contextmanager
def served(folder: Path, window: str) -> Iterator[HTTPConnection]:
    words = [sys.executable, "-m", "ppcls", "serve", str(folder), "--port", "0"]
    words += ["--drift-window", window, "--access-log", "none"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout
            ready = next(line for line in service.stdout if line.startswith("ready: "))
            address = urlsplit(ready.split()[1].rstrip(","))
            yield HTTPConnection(address.hostname or "", address.port)
        finally:
            service.terminate()


if __name__ == "__main__":
    main()
