"""Does `ppcls compare` name what was changed, and call equal networks different too often?

Small networks learn scikit-learn's digits. In each case B is A with one planted change (how images
are prepared; the engine or its precision; weights; one class) among others that change next to
nothing: another engine, weights moved by a millionth, another file format, means moved by a hundred
thousandth. The first cause that is named should be the planted one. Networks that are equally good
are made of real ones: each image's answers are exchanged between A and B by a coin.

    python benchmarks/compare_cases.py [--cases 100] [--first 0] [--kinds weights class …]
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ppcls  # sets the threads before Paddle is imported

import numpy as np  # isort: skip
import paddle  # isort: skip
from paddle import nn  # isort: skip

from ppcls.compare.compare import Comparison, Opening, compare
from ppcls.config.load import from_plain
from ppcls.data import builtin
from ppcls.data.datasets import open_samples
from ppcls.data.preprocess import Preprocess
from ppcls.export import Form, export
from ppcls.inference import exported_model, manifest
from ppcls.inference.engines import onnx_runtime
from ppcls.inference.inputs import open_image
from ppcls.inference.quantize import quantize
from ppcls.models.layers import ConvNorm, classifier
from ppcls.paired import Difference
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import Trained
from ppcls.utils.log import silence

KINDS = ("preprocessing", "engine", "weights", "class")
CLASSES = 10
SIDE, SHORT = 16, 20  # pixels that the networks see, and that images are resized to
TINY = 1e-6  # how far weights are moved where that is to be nothing
WANTED = 0.95  # of the cases, in which the planted change is to come first
COMMAND = "python benchmarks/compare_cases.py"


class Net(nn.Layer):
    """Four convolutions with norms and a classifier, for grey images."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(1, 12, 3, stride=2), ConvNorm(12, 24, 3), ConvNorm(24, 24, 3, stride=2),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = classifier(24, CLASSES)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


class Coarse:
    """ONNX Runtime on inputs that have lost the lower half of their bits: an engine's mistake."""

    def load(self, folder, settings):
        opened = onnx_runtime.load(folder, replace(settings, engine="onnxruntime"))

        def call(images: np.ndarray) -> list[np.ndarray]:
            bits = np.ascontiguousarray(images).view(np.uint32) & np.uint32(0xFFFF0000)
            return opened.call(bits.view(np.float32))

        return replace(opened, call=call)


@dataclass(frozen=True)
class Case:
    """Two folders to compare, how they are opened, and the kinds one of which is to be named."""

    a: Opening
    b: Opening
    wanted: tuple[str, ...]
    planted: str  # in words


class Workshop:
    """Digits, networks that learnt them, and their exports, in a folder of its own."""

    def __init__(self, folder: Path, bases: int = 6):
        self.folder = folder
        self.bases = bases
        self.digits = builtin.write("digits", folder / "digits")
        self.preprocess = Preprocess(
            resize=SHORT, crop=SIDE, mean=(0.3,), std=(0.35,), interpolation="bilinear"
        )
        self.kept: dict[str, Path] = {}
        self.nets: dict[tuple, Net] = {}

    @property
    def eval(self) -> Path:
        return self.digits / "eval"

    @cached_property
    def training(self) -> tuple[np.ndarray, np.ndarray]:
        samples = open_samples(self.digits / "train")
        pixels = np.stack([open_image(path, self.preprocess) for path in samples.paths])
        return self.preprocess.normalize(pixels), samples.labels

    def learn(self, seed: int, epochs: int, more: int = 0, without: int | None = None) -> Net:
        """A network, trained for `more` epochs on without images of the class `without`."""
        images, labels = self.training
        paddle.seed(seed)
        random = np.random.default_rng(seed)
        net = Net()
        optimizer = paddle.optimizer.Adam(4e-3, parameters=net.parameters())
        net.train()
        for epoch in range(epochs + more):
            taken = np.ones(len(labels), bool)
            if without is not None and epoch >= epochs:
                taken = labels != without
            order = random.permutation(np.flatnonzero(taken))
            for start in range(0, len(order) - 1, 64):
                batch = order[start : start + 64]
                logits = net(paddle.to_tensor(images[batch]))
                loss = nn.functional.cross_entropy(logits, paddle.to_tensor(labels[batch]))
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
        net.eval()
        return net

    def learnt(self, *given) -> Net:
        """As `learn`, once."""
        if given not in self.nets:
            self.nets[given] = self.learn(*given)
        return self.nets[given]

    def base(self, number: int) -> Net:
        return self.learnt(number, 5 + number % 3)

    def exported(self, name: str, make: Callable[[], Net], form: Form, **changed) -> Path:
        """An export, made once."""
        if name not in self.kept:
            plain = {
                "model": {"name": "EfficientNetLite0", "num_classes": CLASSES, "in_channels": 1},
                "preprocess": {"resize": SHORT, "crop": SIDE, "mean": [0.3], "std": [0.35]},
                "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 0.1}},
            }
            recipe = from_plain(Recipe, plain, "the benchmark", [])
            recipe = replace(recipe, preprocess=replace(self.preprocess, **changed))
            names = tuple(map(str, range(CLASSES)))
            trained = Trained(recipe, make(), names, Path(f"{name}.safetensors"), {})
            photos = [str(path) for path in sorted(self.eval.rglob("*.png"))[::60]]
            self.kept[name] = export(trained, self.folder / "kept" / name, photos, form)
        return self.kept[name]

    def full(self, number: int) -> Path:
        """Base network of that number, for all engines, images of any size."""
        form = Form(("paddle", "onnx"), dynamic_size=True)
        return self.exported(f"base{number}", lambda: self.base(number), form)

    def int8(self, number: int, images: int) -> Path:
        name = f"int8-{number}-{images}"
        if name not in self.kept:
            target = self.folder / "kept" / name
            given = (self.digits / "train", "onnxruntime", target)
            self.kept[name] = quantize(self.full(number), *given, budget=1.0, images=images)
        return self.kept[name]


# --------------------------------------------------------------------------- changes of files


Change = Callable[[np.ndarray], np.ndarray]


def copied(source: Path, target: Path, form: str = "") -> Path:
    """A folder's files but for what engines made of them; of one form, where it is given."""
    target.mkdir(parents=True)
    endings = {"paddle": (".json", ".pdiparams"), "onnx": (".onnx",)}.get(form)
    for path in source.iterdir():
        if path.is_file() and (endings is None or path.suffix in (*endings, ".yml")):
            shutil.copy(path, target / path.name)
    return target


def change_arrays(folder: Path, change: Change) -> None:
    """Put other numbers in the place of a network's, in each of its files."""
    params = folder / exported_model.PARAMS
    if params.is_file():
        data = bytearray(params.read_bytes())
        for tensor in exported_model.tensors(params):
            if tensor.bytes_each == 4:
                there = slice(tensor.start, tensor.start + tensor.bytes)
                values = np.frombuffer(bytes(data[there]), np.float32).reshape(tensor.dims)
                data[there] = change(values).astype(np.float32).tobytes()
        params.write_bytes(data)
    onnx_file = folder / exported_model.ONNX
    if onnx_file.is_file():
        import onnx

        model = onnx.load(str(onnx_file))
        constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
        for one in [*model.graph.initializer, *constants]:
            values = onnx.numpy_helper.to_array(one)
            if values.dtype == np.float32:
                changed = change(values).astype(np.float32)
                one.CopyFrom(onnx.numpy_helper.from_array(changed, one.name))
        onnx.save(model, str(onnx_file))


def change_manifest(folder: Path, **changed) -> None:
    """How images are prepared for the folder."""
    about = manifest.read(folder)
    about = replace(about, preprocess=replace(about.preprocess, **changed))
    (folder / manifest.FILE).write_text(about.to_yaml(), encoding="utf-8")


def noise(random: np.random.Generator, size: float, share: float = 1.0) -> Change:
    """Weights moved by so much of their spread, in so many of the layers."""
    seed = int(random.integers(1 << 31))

    def change(values: np.ndarray) -> np.ndarray:
        if values.size < 8:
            return values
        own = np.random.default_rng([seed, values.size])  # the same in each of the files
        if own.random() > share:
            return values
        return values + size * values.std() * own.standard_normal(values.shape)

    return change


def one_class(number: int, less: float, random: np.random.Generator, row: bool) -> Change:
    """The bias of a class lowered or, with `row`, its weights moved, too."""
    moved = random.normal(0, 0.3, 24) if row else np.zeros(24)

    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        if values.shape == (CLASSES,):
            values[number] -= less
        elif values.shape == (24, CLASSES):
            values[:, number] += moved * values.std()
        elif values.shape == (CLASSES, 24):
            values[number] += moved * values.std()
        return values

    return change


# --------------------------------------------------------------------------- cases


def make_case(shop: Workshop, kind: str, seed: int, target: Path) -> Case:
    """A case of a kind, the same for the same seed."""
    random = np.random.default_rng([KINDS.index(kind), seed])
    number = int(random.integers(shop.bases))
    plant = {
        "preprocessing": plant_preprocessing, "engine": plant_engine,
        "weights": plant_weights, "class": plant_class,
    }[kind]  # fmt: skip
    return plant(shop, number, random, target)


def beside(
    a: Path, b: Path, random: np.random.Generator, wanted: str, planted: str, weights: bool = True
) -> Case:
    """The case, with changes that are next to nothing beside the planted one."""
    said = [planted]
    if weights and random.random() < 0.3:
        change_arrays(b, noise(random, TINY))
        said.append("weights a millionth off")
    if random.random() < 0.3:
        mean = tuple(value + 1e-5 for value in manifest.read(b).preprocess.mean)
        change_manifest(b, mean=mean)
        said.append("mean off by 0.00001")
    engine = "auto"
    both = (a / exported_model.ONNX).is_file() and (b / exported_model.ONNX).is_file()
    if both and random.random() < 0.5:
        engine = str(random.choice(["onnxruntime", "openvino"]))
        said.append(f"engine {engine} in place of onednn")
    first = Opening(a, "onednn" if engine != "auto" else "auto")
    return Case(first, Opening(b, engine), (wanted,), ", ".join(said))


def plant_preprocessing(
    shop: Workshop, number: int, random: np.random.Generator, target: Path
) -> Case:
    choices = [
        {"interpolation": "nearest"}, {"interpolation": "bicubic"}, {"interpolation": "lanczos"},
        {"backend": "pil"}, {"backend": "pil", "interpolation": "bicubic"},
        {"resize": 18}, {"resize": 22}, {"resize": 24}, {"resize": (24, 20)},
        {"fit": "squash"}, {"fit": "letterbox"}, {"mean": (0.5,)}, {"mean": (0.25,)},
        {"std": (0.5,)}, {"std": (0.3,)}, {"mean": (0.5,), "std": (0.5,)},
        {"resize": 24, "crop": 20}, {"resize": 16},
    ]  # fmt: skip
    changed = choices[int(random.integers(len(choices)))]
    way = random.random()
    if way < 0.15:  # networks that normalise pixels themselves, each otherwise
        mean = float(random.choice([0.2, 0.4, 0.5]))
        form = Form(("paddle",), "uint8", dynamic_size=True)
        make = lambda: shop.base(number)  # noqa: E731
        a = shop.exported(f"pixels{number}", make, form)
        b = shop.exported(f"pixels{number}-{mean}", make, form, mean=(mean,))
        return beside(a, copied(b, target), random, "preprocessing", f"inside, mean {mean}", False)
    if way < 0.3:  # networks of a fixed size, which cannot take the other's images
        side = int(random.choice([18, 20]))
        make = lambda: shop.base(number)  # noqa: E731
        a = shop.exported(f"fixed{number}", make, Form(("paddle",)))
        name = f"fixed{number}-{side}"
        b = shop.exported(name, make, Form(("paddle",)), resize=24, crop=side)
        return beside(a, copied(b, target), random, "preprocessing", f"fixed, crop {side}")
    b = copied(shop.full(number), target)
    change_manifest(b, **changed)
    return beside(shop.full(number), b, random, "preprocessing", str(changed))


def plant_engine(shop: Workshop, number: int, random: np.random.Generator, target: Path) -> Case:
    a = shop.full(number)
    way = int(random.integers(4))
    if way == 0:
        b = copied(shop.int8(number, int(random.choice([30, 100]))), target)
        engine = str(random.choice(["auto", "onnxruntime"]))
        first = Opening(a, str(random.choice(["onednn", "onnxruntime"])))
        return Case(
            first, Opening(b, engine), ("precision",), f"int8, {engine} beside {first.engine}"
        )
    if way == 1:
        coarse = f"{__name__}.Coarse"
        ppcls.use(sys.modules[__name__])
        return Case(Opening(a, "onnxruntime"), Opening(a, coarse), ("engine",), "a coarse engine")
    engines = [
        str(one) for one in random.permutation(["paddle", "onednn", "onnxruntime", "openvino"])
    ]
    b = copied(a, target) if way == 3 else a
    words = f"{engines[1]} in place of {engines[0]}"
    return Case(Opening(a, engines[0]), Opening(b, engines[1]), ("engine",), words)


def plant_weights(shop: Workshop, number: int, random: np.random.Generator, target: Path) -> Case:
    form = str(random.choice(["", "paddle", "onnx"]))
    a = shop.full(number)
    way = int(random.integers(3))
    if way == 0:
        other = (number + 1 + int(random.integers(shop.bases - 1))) % shop.bases
        b, words = copied(shop.full(other), target, form), f"another seed ({number}, {other})"
    elif way == 1:
        epochs = int(random.choice([2, 3, 9]))
        net = shop.exported(
            f"epochs{number}-{epochs}", lambda: shop.learnt(number, epochs),
            Form(("paddle", "onnx"), dynamic_size=True),
        )  # fmt: skip
        b, words = copied(net, target, form), f"{epochs} epochs"
    else:
        size = float(10 ** random.uniform(-2.5, -0.5))
        share = float(random.choice([0.3, 1.0]))
        b, words = copied(a, target, form), f"noise of {size:.3f} in {share:.0%} of layers"
        before = [path.read_bytes() for path in sorted(b.iterdir())]
        while [path.read_bytes() for path in sorted(b.iterdir())] == before:
            change_arrays(b, noise(random, size, share))
    return beside(a, b, random, "weights", f"{words}, form {form or 'all'}", weights=False)


def plant_class(shop: Workshop, number: int, random: np.random.Generator, target: Path) -> Case:
    form = str(random.choice(["", "paddle", "onnx"]))
    a = shop.full(number)
    wrong = int(random.integers(CLASSES))
    if random.random() < 0.3:  # learnt on, without images of the class
        both = Form(("paddle", "onnx"), dynamic_size=True)
        a = shop.exported(f"longer{number}", lambda: shop.learnt(number, 4, 3), both)
        name = f"without{number}-{wrong}"
        net = shop.exported(name, lambda: shop.learnt(number, 4, 3, wrong), both)
        b, words = copied(net, target, form), f"trained on without {wrong}"
    else:
        less, row = float(random.uniform(1.5, 6)), bool(random.random() < 0.5)
        b = copied(a, target, form)
        change_arrays(b, one_class(wrong, less, random, row))
        words = f"bias of {wrong} less {less:.1f}{', its row moved' if row else ''}"
    return beside(a, b, random, "class", f"{words}, form {form or 'all'}")


def judged(case: Case, data: Path) -> Comparison:
    with silence():
        return compare(case.a, case.b, data, device="cpu", threads=1, batch_size=64, speed=False)


def run_cases(shop: Workshop, kind: str, seeds: range) -> Iterator[tuple[int, Case, str | None]]:
    """The seed, the case, and the kind that is named first."""
    for seed in seeds:
        target = shop.folder / "case"
        shutil.rmtree(target, ignore_errors=True)
        with silence():
            case = make_case(shop, kind, seed, target)
        causes = judged(case, shop.eval).causes
        yield seed, case, causes[0].kind if causes else None


# --------------------------------------------------------------------------- equal networks


def exchanged(
    before: np.ndarray, after: np.ndarray, draws: int, random: np.random.Generator
) -> float:
    """How often A and B are called different when a coin gives each image's answers to either.

    Args:
        before, after: bool [N], what is right with each of two networks.
    """
    called = 0
    for _ in range(draws):
        swap = random.random(len(before)) < 0.5
        a, b = np.where(swap, after, before), np.where(swap, before, after)
        called += Difference.of_answers(a, b).is_seen
    return called / draws


def simulated(draws: int, random: np.random.Generator) -> dict[tuple[int, float], float]:
    """How often equal networks are called different: by images, and the share that differs."""
    found = {}
    for images in (100, 736, 5000):
        for share in (0.01, 0.05, 0.2):
            called = 0
            for flips in random.binomial(images, share, draws):
                lost = int(random.binomial(flips, 0.5))
                before = np.arange(images) < lost
                after = (np.arange(images) >= lost) & (np.arange(images) < flips)
                called += Difference.of_answers(before, after).is_seen
            found[images, share] = called / draws
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    random = np.random.default_rng(options.first)
    print("equal networks, simulated: images, share that differs, called different")
    for (images, share), called in simulated(options.draws, random).items():
        print(f"  {images:5} {share:5.0%} {called:6.2%}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder))
        for kind in options.kinds:
            print_kind(shop, kind, range(options.first, options.first + options.cases))
        with silence():
            a, b = (Opening(shop.full(number)) for number in (0, 1))
        found = judged(Case(a, b, (), ""), shop.eval)
        right = [answer.decided == found.labels for answer in found.answered]
        called = exchanged(*right, options.draws, random)
        print(f"two real networks, answers exchanged by a coin: called different {called:.2%}")


def print_kind(shop: Workshop, kind: str, seeds: range) -> None:
    named: Counter[str] = Counter()
    missed = []
    begun = time.process_time()
    for seed, case, first in run_cases(shop, kind, seeds):
        named[str(first)] += 1
        if first not in case.wanted:
            missed.append(f"    seed {seed}: {case.planted}: named {first}")
    hit = 1 - len(missed) / len(seeds)
    counts = ", ".join(f"{name} {count}" for name, count in named.most_common())
    verdict = "as wanted" if hit >= WANTED else "TOO FEW"
    each = (time.process_time() - begun) / len(seeds)
    print(
        f"{kind}: named first in {hit:.0%} of {len(seeds)} ({counts}): {verdict}; "
        f"{each:.1f} CPU seconds each"
    )
    print(*missed, sep="\n", end="\n" if missed else "", flush=True)


if __name__ == "__main__":
    main()
