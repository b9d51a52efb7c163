"""An engine for tests of the service, which does what an image, or its folder, asks for.

Each of its networks is a number: the second class of an image is the likelier, the lighter it is.
Warm-up and the check at the start see images of several colours, which are never obeyed.
"""

import ctypes
import io
import json
import math
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ppcls.data.preprocess import Preprocess
from ppcls.inference.engines.base import Opened
from ppcls.inference.manifest import Manifest

SIDE = 8
ENDS, RAISES, HANGS, FREEZES, SLEEPS = ((number, 1, 2) for number in range(5))
SLEEP = 0.3  # seconds
NETWORK = "inference.onnx"  # what ppcls takes for one; it is JSON


class Made:
    """Named `made_engine.Made`, as an engine of a user's own."""

    def load(self, folder, settings):
        network = json.loads((folder.path / NETWORK).read_text())
        time.sleep(network.get("opening", 0))

        def call(images):
            for image in images:
                obey(image, network)
            lights = images.reshape(len(images), -1).mean(1)
            second = [probability(network["weight"], light) for light in lights]
            return np.array([[1 - p, p] for p in second], np.float32)

        return Opened(call, (None, SIDE, SIDE, 3), "uint8")


def obey(image, network):
    """Do what an image of one colour asks for."""
    if (image != image[0, 0]).any():
        return
    colour = tuple(image[0, 0].tolist())
    if colour == ENDS or network.get("ends"):
        os._exit(9)
    if colour == RAISES or network.get("raises"):
        raise RuntimeError("an image that it cannot run")
    if colour == HANGS:
        time.sleep(1000)
    if colour == FREEZES:
        ctypes.PyDLL(None).sleep(1000)  # with the lock without which nothing of Python runs
    if colour == SLEEPS:
        time.sleep(SLEEP)


def probability(weight, light):
    return 1 / (1 + math.exp(-weight * (light - 128) / 32))


def write(folder: Path, weight: float, **network: object) -> Path:
    """An exported folder of the network."""
    folder.mkdir(parents=True, exist_ok=True)
    about = Manifest("Made", Preprocess(resize=SIDE, crop=SIDE), ("dark", "light"), input="uint8")
    (folder / "inference.yml").write_text(about.to_yaml())
    (folder / NETWORK).write_text(json.dumps({"weight": weight, **network}))
    return folder


def image(*colour: int, kind: str = "PNG", shape: tuple[int, int] = (12, 10)) -> bytes:
    """The file of an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", shape, colour).save(file, kind)
    return file.getvalue()
