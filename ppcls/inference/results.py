"""`predict`: a line on the screen for each photo, and a CSV or JSON file of them."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from ppcls.errors import DataError, UserError
from ppcls.inference.photos import find
from ppcls.inference.prediction_file import PredictionFile
from ppcls.inference.predictor import Prediction, Predictor
from ppcls.log import Progress, say
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import SHOWN, plural

NOTHING = "no class above its threshold"
CHUNK = 1 << 20


def report(
    predictor: Predictor,
    photos: Sequence[str],
    topk: int | None,
    save: PredictionFile | None,
    skip: bool = False,
    resume: bool = False,
) -> None:
    """Predict, print a line per photo and write each at once into `save`.

    Args:
        skip: broken photos get an error in the place of classes, instead of ending it.
        resume: go on behind the last prediction in `save`.

    Raises:
        UserError: a broken photo, or the file cannot be written; what was predicted is kept.
    """
    found = [str(photo) for photo in find(photos, skip)]
    job = Job(predictor, topk, save, skip)
    job.tell(f"engine: {predictor.engine.settings}")
    if not save:
        job.run(found)
        return
    with signals_interrupt():
        try:
            save.begin(origin(predictor, topk), found, resume)
            if resume and not save.done:
                job.tell(f"note: no unfinished run of {save.target} is there: beginning")
            if save.done:
                job.tell(f"going on behind {plural(save.done, 'prediction')} in {save.path}")
            job.run(found)
            save.finish()
        except UserError as error:
            kept = save.close()
            if not kept:
                raise
            raise UserError(f"{'; '.join(error.lines)}; {kept}, --resume goes on") from None
        except BaseException:
            kept = save.close()
            if kept:
                job.tell(f"stopped: {kept}; the same command with --resume goes on")
            raise
    job.tell(f"wrote {save.target}")
    job.conclude(len(found))


class Job:
    """A run of `predict`, and what it found out on the way."""

    def __init__(
        self, predictor: Predictor, topk: int | None, save: PredictionFile | None, skip: bool
    ):
        self.predictor, self.topk, self.save, self.skip = predictor, topk, save, skip
        self.failed = 0
        self.first_error = ""
        self.heard = True  # whether someone still reads the lines

    def run(self, photos: Sequence[str]) -> None:
        done = self.save.done if self.save else 0
        stream = self.predictor.stream(
            photos[done:], self.topk, on_error="skip" if self.skip else "stop"
        )
        try:
            with closing(stream):
                for prediction in Progress(stream, "predicting", len(photos), done):
                    self.take(prediction)
        except DataError as error:
            raise UserError(f"{error} (--on-error skip goes on without it)") from None
        if not self.save:
            self.conclude(len(photos))

    def take(self, prediction: Prediction) -> None:
        if self.save:
            self.save.write(prediction)
        if not prediction.error:
            self.tell(line(prediction))
            return
        self.failed += 1
        self.first_error = self.first_error or prediction.error
        if self.failed <= SHOWN:
            self.tell(f"skipped: {prediction.error}")
        if self.failed == SHOWN:
            self.tell("skipped: further ones are only counted")

    def tell(self, text: str) -> None:
        """Say it; predictions that are saved go on when nobody reads the lines any more."""
        try:
            if self.heard:
                say(text)
        except OSError:  # the reader of a pipe, or the terminal, is gone
            if not self.save:
                raise
            self.heard = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def conclude(self, photos: int) -> None:
        """Say how many have no prediction; UserError where none has one."""
        failed = self.save.failed if self.save else self.failed
        if not failed:
            return
        where = f"; they are in {self.save.target} with an error" if self.save else ""
        if failed == photos:
            first = f", the first: {self.first_error}" if self.first_error else ""
            raise UserError(f"none of {plural(photos, 'photo')} could be predicted{where}{first}")
        self.tell(f"note: {failed:,} of {plural(photos, 'photo')} could not be predicted{where}")


def line(prediction: Prediction) -> str:
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    names = "; ".join(f"{label} {score:.4f}" for label, score in pairs) or NOTHING
    return f"{prediction.path}: {names}  [{prediction.milliseconds:.1f} ms]"


def origin(predictor: Predictor, topk: int | None) -> dict[str, Any]:
    """What the predictions in a file have to agree in, in words of the command line."""
    about = predictor.manifest
    digest = hashlib.sha256()
    for path in predictor.folder.files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    names = hashlib.sha256("\0".join(about.labels).encode("utf-8", "surrogateescape"))
    return {
        "model": digest.hexdigest()[:16],
        "labels": names.hexdigest()[:16],
        "preprocessing": str(about.preprocess),
        "threshold": str(about.threshold),
        "topk": topk or about.topk,
        "precision": predictor.engine.settings.precision,
    }
