"""Do heat maps point at what they name? Two digits an image, and sanity checks.

A small network learns from images with one of scikit-learn's digits each, somewhere on a ground of
noise. Then it is shown digits that it has not seen, two of different classes on each image, and the
strongest place of each class's map, brought back onto the image, has to lie on that class's digit
(the pointing game of arXiv:1608.00507). By chance about one in ten does.

The network is exported with `--explain` and predicts with every engine that is installed, so what
is scored is what users get; Grad-CAM of the network itself is scored beside it.

Then the checks of arXiv:1810.03292: the layers' weights are replaced by random ones, from the last
layer to the first (its "cascading randomization"), and the network learns again from labels that
are shuffled. A map that shows what the network has learnt changes; one that shows edges would not.
Printed are rank correlations of maps with those of the trained network.

    python benchmarks/pointing_game.py
    python benchmarks/pointing_game.py --steps 150 --images 100

Exits with 1 where fewer than nine in ten point right. Two minutes on two cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from PIL import Image
from sklearn.datasets import load_digits

import ppcls
from ppcls.config.load import from_plain
from ppcls.data.preprocess import Box
from ppcls.export import Form, export
from ppcls.models.class_maps import grad_cam
from ppcls.models.layers import ConvNorm, classifier
from ppcls.recipe import Recipe
from ppcls.report.heatmaps import spread
from ppcls.train.checkpoint import Trained
from ppcls.utils.log import Progress

SIDE = 64  # pixels of an image's side …
DIGIT = 24  # … and of a digit's
NOISE = 40  # grey values of the ground, at most
BATCH = 64
ENOUGH = 0.9  # of maps that have to point right
ENGINES = {"paddle": "paddle", "onednn": "paddle", "onnxruntime": "onnxruntime"}
ENGINES |= {"openvino": "openvino"}


class Network(nn.Layer):
    """Convolutions to 16 x 16 places, their mean, and a linear layer."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stages = nn.LayerList(
            [
                ConvNorm(1, 16, 3, stride=2),
                ConvNorm(16, 32, 3, stride=2),
                ConvNorm(32, 64, 3),
                ConvNorm(64, 64, 3),
            ]
        )
        self.head = classifier(64, classes)

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        for stage in self.stages:
            images = stage(images)
        return [images]

    def pooled(self, features: list[paddle.Tensor]) -> paddle.Tensor:
        return features[-1].mean([2, 3])

    def logits(self, pooled: paddle.Tensor) -> paddle.Tensor:
        return self.head(pooled)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.logits(self.pooled(self.features(images)))


@dataclass(frozen=True)
class Shown:
    """An image, uint8 [SIDE, SIDE, 1], and the classes and upper left corners of its digits."""

    pixels: np.ndarray
    classes: Sequence[int]
    corners: Sequence[Sequence[int]]


class Draw:
    """Makes images of digits, of those to learn from or of the others."""

    def __init__(self, learnt: bool, seed: int):
        values, labels = load_digits(return_X_y=True)
        split = len(labels) * 3 // 4
        part = slice(0, split) if learnt else slice(split, None)
        self.pixels = (values[part].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        self.labels = labels[part]
        self.random = np.random.default_rng(seed)

    def image(self, count: int) -> Shown:
        """So many digits of different classes, apart from each other."""
        random = self.random
        canvas = random.integers(0, NOISE, (SIDE, SIDE)).astype(np.uint8)
        classes = random.permutation(10)[:count]
        corners = random.integers(0, SIDE - DIGIT + 1, (count, 2))
        while any(np.abs(one - other).max() < DIGIT for one, other in combinations(corners, 2)):
            corners = random.integers(0, SIDE - DIGIT + 1, (count, 2))
        for own, (top, left) in zip(classes, corners, strict=True):
            digit = self.pixels[random.choice(np.flatnonzero(self.labels == own))]
            large = np.kron(digit, np.ones((DIGIT // 8, DIGIT // 8), np.uint8))
            place = canvas[top : top + DIGIT, left : left + DIGIT]
            np.maximum(place, large, out=place)
        return Shown(canvas[..., None], classes.tolist(), corners.tolist())

    def images(self, images: int, count: int) -> list[Shown]:
        return [self.image(count) for _ in range(images)]


def normalised(pixels: np.ndarray) -> paddle.Tensor:
    """uint8 [N, SIDE, SIDE, 1] as the network takes it."""
    return paddle.to_tensor((pixels.astype(np.float32) / 255 - 0.5).transpose(0, 3, 1, 2) / 0.5)


def learn(steps: int, shuffled: bool = False) -> Network:
    """A network after so many steps on images of one digit; `shuffled`: of labels that are not
    the digits'.
    """
    paddle.seed(0)
    net = Network()
    draw = Draw(learnt=True, seed=1)
    shown = draw.images(BATCH * 30, 1) if shuffled else []  # few enough to be learnt by heart
    random = np.random.default_rng(2)
    wrong = random.integers(0, 10, len(shown))
    rate = paddle.optimizer.lr.CosineAnnealingDecay(3e-3, steps)
    optimizer = paddle.optimizer.Adam(rate, parameters=net.parameters())
    for _ in Progress(range(steps), "learning shuffled labels" if shuffled else "learning", steps):
        if shuffled:
            chosen = random.integers(0, len(shown), BATCH)
            images, labels = [shown[i] for i in chosen], wrong[chosen]
        else:
            images = draw.images(BATCH, 1)
            labels = np.array([one.classes[0] for one in images])
        inputs = normalised(np.stack([one.pixels for one in images]))
        loss = nn.functional.cross_entropy(net(inputs), paddle.to_tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        rate.step()
    net.eval()
    return net


def trained(net: Network, folder: Path) -> Trained:
    """The network with a recipe, as `export` takes it."""
    recipe = {
        "model": {"name": "ResNet18", "num_classes": 10, "in_channels": 1},
        "preprocess": {"fit": "squash", "crop": SIDE, "mean": [0.5], "std": [0.5]},
        "train": {"epochs": 1, "batch_size": 1, "schedule": {"lr": 0.1}},
    }
    made = from_plain(Recipe, recipe, "the pointing game", [])
    return Trained(made, net, (), folder / "net.safetensors", {})


def points_right(shown: Shown, maps: Sequence[np.ndarray]) -> list[bool]:
    """Whether the strongest pixel of each digit's map lies on the digit."""
    found = []
    for values, (top, left) in zip(maps, shown.corners, strict=True):
        pixels = spread(values, Box(0, 0, SIDE, SIDE), SIDE, SIDE)
        y, x = np.unravel_index(pixels.argmax(), pixels.shape)
        found.append(top <= y < top + DIGIT and left <= x < left + DIGIT)
    return found


def maps_of(net: Network, images: Sequence[Shown]) -> np.ndarray:
    """Grad-CAM of each image's digits, float32 [N, digits, h, w]."""
    inputs = normalised(np.stack([one.pixels for one in images]))
    return grad_cam(net, inputs, np.array([one.classes for one in images]))


def by_engine(folder: Path, engine: str, images: Sequence[Shown]) -> list[np.ndarray]:
    """The exported maps of each image's digits, by class, whatever their scores are."""
    with ppcls.Predictor(folder, engine=engine) as predictor:
        answers = predictor.predict([one.pixels for one in images], topk=10, explain=True)
    found = []
    for one, answer in zip(images, answers, strict=True):
        assert answer.maps is not None
        found.append(answer.maps[[answer.classes.index(own) for own in one.classes]])
    return found


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over maps [N, digits, h, w] of the rank correlation of each with its other."""
    pairs = [one.reshape(-1, one.shape[-2] * one.shape[-1]) for one in (first, second)]
    ranks = [one.argsort(1).argsort(1).astype(float) for one in pairs]
    ranks = [one - one.mean(1, keepdims=True) for one in ranks]
    products = (ranks[0] * ranks[1]).sum(1)
    return float((products / np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))).mean())


def randomised(net: Network, images: Sequence[Shown]) -> dict[str, float]:
    """The correlation of maps with those before, as more layers get random weights, the last ones
    first; the network is left with random weights.
    """
    before = maps_of(net, images)
    fresh = Network()
    found = {}
    layers = {f"stage {i + 1}": (net.stages[i], fresh.stages[i]) for i in range(len(net.stages))}
    layers["classifier"] = (net.head, fresh.head)
    for name, (own, other) in reversed(layers.items()):
        own.set_state_dict(other.state_dict())
        found[f"{name} and all behind it random"] = correlation(before, maps_of(net, images))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="of training; default: 400")
    parser.add_argument("--images", type=int, default=500, help="of two digits; default: 500")
    options = parser.parse_args()
    images = Draw(learnt=False, seed=3).images(options.images, 2)
    single = Draw(learnt=False, seed=4).images(options.images, 1)
    net = learn(options.steps)
    logits = net(normalised(np.stack([one.pixels for one in single]))).numpy()
    right = np.mean(logits.argmax(1) == [one.classes[0] for one in single])
    print(f"digits alone on an image: {100 * right:.1f} % right")
    area = (DIGIT / SIDE) ** 2
    print(f"by chance a map points right in {100 * area:.1f} %")
    scores = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "game"
        files = [Path(temporary) / f"{number}.png" for number in range(4)]
        for path, one in zip(files, images, strict=False):
            Image.fromarray(one.pixels[..., 0]).save(path)
        form = Form(("paddle", "onnx"), explain=True)
        export(trained(net, Path(temporary)), folder, [str(path) for path in files], form)
        for engine, module in ENGINES.items():
            if find_spec(module):
                scores[engine] = by_engine(folder, engine, images)
    scores["Grad-CAM of the network"] = list(maps_of(net, images))
    shares = {}
    for name, maps in scores.items():
        hits = [
            hit for one, own in zip(images, maps, strict=True) for hit in points_right(one, own)
        ]
        shares[name] = float(np.mean(hits))
        print(f"{name}: {100 * shares[name]:.1f} % of {len(hits):,} maps point at their digit")
    other = learn(options.steps, shuffled=True)
    found = correlation(maps_of(net, images), maps_of(other, images))
    print(f"rank correlation with the maps of a network of shuffled labels: {found:.2f}")
    for name, value in randomised(net, images).items():
        print(f"rank correlation, {name}: {value:.2f}")
    return 0 if min(shares.values()) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
