"""Whether what a worker is asked is still like what its model was calibrated on: `ppcls drift`, of
the images that come.

Of an image a few numbers are kept (`ppcls.drift.sketch`), and nothing of it once its window has
been held against the calibration's, which a thread of low priority does.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.drift.permutation import FEWEST, compare
from ppcls.drift.sketch import Rows, Sketch, sketch_in
from ppcls.drift.words import words
from ppcls.inference.predictor import Predictor
from ppcls.utils import guard
from ppcls.utils.log import print_error

LAST = 19  # of a thread's priorities on Linux
WAITING = 16  # windows, some kilobytes each, until the thread gets to them
BREATH = 0.005  # seconds between parts of a test, in which others have the cores


@dataclass(frozen=True, eq=False)
class How:
    """What windows of how many images are held against, and how often alike ones raise an alarm;
    and the names of the model's classes.
    """

    sketch: Sketch
    names: tuple[str, ...]
    window: int
    false_alarms: float

    def about(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "false_alarms": self.false_alarms,
            "reference": len(self.sketch.rows),
        }


def how_of(predictor: Predictor, asked: Mapping[str, Any]) -> How | None:
    """None where nothing is asked for, or the model keeps too little of its calibration.

    Args:
        asked: `window`, 0 for none, and `false_alarms`.

    Raises:
        UserError: the model's sketch is damaged.
    """
    calibration = predictor.calibration
    if not asked["window"] or calibration is None:
        return None
    sketch = sketch_in(calibration, predictor.folder.path)
    if sketch is None or len(sketch.rows) < FEWEST:
        return None
    return How(sketch, predictor.class_names, **asked)


class Watch:
    """Windows of a model's images, one after the other.

    `take` may be called from any thread; a window that comes while WAITING others wait is left
    out.
    """

    def __init__(self, how: "How", tell: Callable[[dict[str, Any]], None]):
        """`tell`: what becomes of a window, in the thread of the test."""
        self.sketch = how.sketch
        self.names = how.names
        self.window = how.window
        self.false_alarms = how.false_alarms
        self.tell = tell
        self.lock = threading.Lock()
        self.kept: list[Rows] = []
        self.count = 0  # of images in them
        self.full: queue.Queue[Rows] = queue.Queue(WAITING)
        threading.Thread(target=self.run, name="ppcls-drift", daemon=True).start()

    @property
    def needs_features(self) -> bool:
        return self.sketch.of == "features"

    def take(
        self, probabilities: np.ndarray, features: np.ndarray | None, looks: np.ndarray
    ) -> None:
        """Images that were answered: the network's own probabilities [N, classes], features [N, D],
        looks [N, LOOKS].

        Those that are not finite are left out.
        """
        whole = np.isfinite(probabilities).all(axis=1)
        if not whole.all():
            probabilities, looks = probabilities[whole], looks[whole]
            features = None if features is None else features[whole]
        if not len(probabilities):
            return
        rows = self.sketch.rows_of(probabilities, features, looks)
        with self.lock:
            self.kept.append(rows)
            self.count += len(rows)
            if self.count < self.window:
                return
            joined = Rows.joined(*self.kept)
            rest = joined.take(slice(self.window, None))
            self.kept = [rest]
            self.count = len(rest)
        with suppress(queue.Full):
            self.full.put_nowait(joined.take(slice(self.window)))

    def run(self) -> None:
        if sys.platform.startswith("linux"):
            with suppress(OSError):  # of this thread alone, there
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LAST)
        while True:
            window = self.full.get()
            try:
                verdict = compare(self.sketch.rows, window, self.false_alarms, breathe)
                said = words(verdict, self.sketch.of, self.names)
                self.tell(
                    {
                        "p": verdict.p,
                        "alarm": verdict.alarm,
                        "distances": {one.name: one.distance for one in verdict.parts},
                        "said": said,
                    }
                )
            except Exception as error:  # answers go on
                print_error(f"no drift is told of a window: {guard.gist(error)}")


def breathe() -> None:
    time.sleep(BREATH)
