"""Predictions for people and in files that grow row by row and are gone on with.

Predictions written as they come, so that nothing is lost, and gone on with behind the last.

While they are being made they stand in `x.csv.incomplete`, which `x.csv.incomplete.run` says the
origin of; in the end they take the place of `x.csv` by one rename. A kill can tear the last record
at most, which is cut off when the file is gone on with.
"""

import csv
import hashlib
import io
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Protocol

from ppcls.inference.engines.base import Settings
from ppcls.inference.exported_model import ExportedModel
from ppcls.inference.features import FeatureFile
from ppcls.inference.inputs import EVERY, Found, find, has_frames, with_frames
from ppcls.inference.manifest import Manifest
from ppcls.inference.parts import Part, Share, share_of
from ppcls.inference.predictor import NOTHING, Prediction
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import (
    header_line,
    lock,
    place_to_write,
    read_header,
    write_bytes,
    write_whole,
    writing,
)
from ppcls.utils.log import Progress, say
from ppcls.utils.signals import signals_interrupt
from ppcls.utils.text import SHOWN, cell, from_json, plural, to_csv, to_json, visible

SUFFIXES = (".csv", ".json", ".jsonl")
FORM = "ppcls predictions 1"
COLUMNS = ("path", "rank", "class", "label", "score", "milliseconds", "error")
CALIBRATED = ("state", "set")  # columns of a calibrated network's answers …
DECISION = "decision"  # … of one that decides by costs …
TIME = "time"  # … and where frames of videos are among the images
BETWEEN = "|"  # classes of a set
UNCALIBRATED = "none"
WHOLE = "all images"  # what a run that has no part has in its place
AGAIN = "--resume goes on with the same images and model, --overwrite begins anew"


class PredictionFile:
    """A file of predictions that grows record by record.

    Attributes:
        done: images whose predictions are in the file.
        failed: those of them that have an error in place of classes.
    """

    def __init__(self, target: Path):
        """Say where; nothing is opened yet.

        Raises:
            UserError: `target` cannot be written, or has an ending of another kind.
        """
        self.name = f"--save {target}"
        self.kind = target.suffix.lower()
        if self.kind not in SUFFIXES:
            raise UserError(f"{self.name}: the file name should end in {', '.join(SUFFIXES)}")
        self.target = place_to_write(self.name, target)
        self.path = self.target.with_name(self.target.name + ".incomplete")
        self.about = self.path.with_name(self.path.name + ".run")
        self.file: IO[bytes] | None = None
        self.begun = False
        self.columns = COLUMNS
        # images, those with an error, bytes
        self.done = 0
        self.failed = 0
        self.end = 0

    def refuse_lost(self) -> None:
        """UserError where another run that did not end would be lost."""
        with writing(self.name):
            rows = next(self.groups(0), None) if self.path.is_file() else None
        if rows:
            raise UserError(
                f"{self.path}: holds the predictions of a run that did not end; {AGAIN}"
            )

    def refuse_replaced(self, resume: bool) -> None:
        """UserError where a whole file is there, which another part may have written."""
        if self.target.exists() and not (resume and self.path.is_file()):
            raise UserError(
                f"{self.name}: exists, and may be another part's; name a file for each part, or "
                "--overwrite replaces it"
            )

    def begin(
        self,
        origin: dict[str, Any],
        images: Sequence[str],
        resume: bool,
        timed: bool,
        calibrated: bool = False,
        decides: bool = False,
    ) -> None:
        """Open it; with `resume`, behind the last whole record of an earlier run.

        Args:
            origin: what the predictions depend on.
            images: all paths that are to be predicted; an earlier run's are the first of them.
            timed: whether the file has a column for the times of frames of videos.
            calibrated: whether it has columns for states and sets of classes.
            decides: whether it has one for decisions by costs.

        Raises:
            UserError: an earlier run was of something else, or it cannot be written.
        """
        more = (*(CALIBRATED * calibrated), *((DECISION,) * decides), *((TIME,) * timed))
        self.columns = (*COLUMNS, *more)
        resume = resume and self.path.is_file()
        with writing(self.name):
            number = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self.file = open(number, "r+b", buffering=0)  # noqa: SIM115
            self.lock()
        if resume:
            self.go_on(origin, images)
        else:
            write_bytes(self.about, header_line({"format": FORM, **origin}), self.name)
        with writing(self.name):
            self.file.truncate(self.end)
            self.file.seek(self.end)
        self.begun = True
        if not self.end and self.kind == ".csv":
            self.append(to_csv([self.columns]))

    def go_on(self, origin: dict[str, Any], images: Sequence[str]) -> None:
        mistake = f"does not belong to {self.path.name}; --overwrite begins anew"
        found = {"part": WHOLE, "calibration": UNCALIBRATED} | read_header(
            self.about, FORM, mistake
        )
        for key, value in origin.items():
            if found.get(key) != value:
                raise UserError(
                    f"{self.path}: was made with another {key} ({visible(str(found.get(key)))}, "
                    f"now {visible(str(value))}); give the same, or --overwrite begins anew"
                )
        with writing(self.name):
            self.read(images)

    def read(self, images: Sequence[str]) -> None:
        """Find out which images are done, and where the last whole record ends."""
        start = 0
        if self.kind == ".csv":
            start = next((end for end, _ in records(self.path, 0)), 0)
            self.end = start
        for end, path, failed, last in self.groups(start):
            if last and self.kind == ".csv":
                break  # rows of it may be missing: it is predicted again
            if self.done >= len(images) or path != self.written(images[self.done]):
                wanted = images[self.done] if self.done < len(images) else "no more"
                raise UserError(
                    f"{self.path}: its image {self.done + 1} is {visible(path)}, of those to "
                    f"predict {visible(wanted)}: give the same images, or --overwrite begins anew"
                )
            self.done = self.done + 1
            self.failed = self.failed + failed
            self.end = end

    def groups(self, start: int) -> Iterator[tuple[int, str, bool, bool]]:
        """Of each image's whole records the end, the path, whether they are an error, and whether
        it is the last one.
        """
        held: tuple[int, str, bool] | None = None
        for end, text in records(self.path, start):
            try:
                begins, path, failed = (of_csv if self.kind == ".csv" else of_json)(text)
            except (ValueError, TypeError, KeyError, csv.Error):
                if start or self.kind != ".csv" or held:
                    break  # damaged from here on
                start = end  # the line with the names of columns
                continue
            if held and begins:
                yield (*held, False)
            held = (end, path, failed)
        if held:
            yield (*held, True)

    def written(self, path: str) -> str:
        """An image's path as it stands in the file."""
        return cell(path) if self.kind == ".csv" else path

    def lock(self) -> None:
        """UserError where another process is writing it; a lock ends with its process."""
        assert self.file
        with suppress(OSError):  # it can be written all the same
            if lock(self.file.fileno()) is False:
                raise UserError(f"{self.path}: another process is writing it")

    def write(self, prediction: Prediction) -> None:
        if self.kind == ".csv":
            self.append(to_csv(rows_of(prediction, self.columns[len(COLUMNS) :])))
        else:
            self.append(in_json(prediction))
        self.done = self.done + 1
        self.failed = self.failed + (prediction.error is not None)

    def append(self, text: str) -> None:
        """Whole or not at all, where the disk is full."""
        # A file name that is not UTF-8 is written with the bytes it has.
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        assert self.file
        written = 0
        try:
            with writing(self.name, f"make room; {AGAIN}"):
                while written < len(data):
                    written += self.file.write(data[written:]) or 0
            self.end += written
        finally:
            if written < len(data):
                with suppress(OSError):
                    self.file.truncate(self.end)

    def finish(self) -> None:
        """All is there: it takes its place."""
        assert self.file
        with writing(self.name, f"make room; {AGAIN}"):
            os.fsync(self.file.fileno())
        if self.kind == ".json":
            with write_whole(self.target, self.name, f"make room; {AGAIN}") as file:
                for index, (_, text) in enumerate(records(self.path, 0)):
                    file.write((b",\n" if index else b"[\n") + text.rstrip(b"\n"))
                file.write(b"\n]\n" if self.done else b"[]\n")
        self.file.close()
        with writing(self.name):
            if self.kind == ".json":
                self.path.unlink()
            else:
                os.replace(self.path, self.target)
            self.about.unlink(missing_ok=True)

    def close(self) -> str:
        """End early; returns what to say of what is kept, "" where nothing is."""
        if not self.file or self.file.closed:
            return ""
        with suppress(OSError):
            os.fsync(self.file.fileno())
        self.file.close()
        if not self.begun:
            return ""  # it may be another's
        if not self.done:
            for path in (self.path, self.about):
                with suppress(OSError):
                    path.unlink()
            return ""
        return f"{plural(self.done, 'prediction')} kept in {self.path}"


def records(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """The records from a place on, each with where it ends; a last one that is torn is left out.

    A record is a line; one of CSV goes on while a quotation is open.
    """
    is_json = not path.name.lower().endswith(".csv.incomplete")
    with path.open("rb") as file:
        file.seek(start)
        end = start
        held = b""
        for line in file:
            held += line
            if line.endswith(b"\n") and (is_json or held.count(b'"') % 2 == 0):
                end += len(held)
                yield end, held
                held = b""


def of_csv(text: bytes) -> tuple[bool, str, bool]:
    """Whether a row is its image's first, the image's path, and whether the row is an error."""
    (row,) = csv.reader(io.StringIO(text.decode("utf-8", "surrogateescape"), newline=""))
    if not 0 <= len(row) - len(COLUMNS) <= len((*CALIBRATED, DECISION, TIME)):
        raise ValueError(row)
    path, rank, *_, milliseconds, error = row[: len(COLUMNS)]
    float(milliseconds)
    return int(rank) < 2, path, bool(error)


def of_json(text: bytes) -> tuple[bool, str, bool]:
    found = from_json(text.decode("utf-8", "surrogateescape"))
    return True, str(found["path"]), found["error"] is not None


def rows_of(prediction: Prediction, more: Sequence[str] = ()) -> Iterator[Sequence[Any]]:
    """A row for each class; one of rank 0 where there is none, and for an error.

    Args:
        more: names of columns behind the usual ones.
    """
    p = prediction
    last = [f"{p.milliseconds:.2f}", prediction.error or ""]
    behind = {
        "state": p.state or "",
        "set": BETWEEN.join(p.set or ()),
        DECISION: p.decision or "",
        TIME: "" if p.time is None else f"{p.time:.3f}",
    }
    last += [behind[name] for name in more]
    for rank, row in enumerate(zip(p.classes, p.labels, p.scores, strict=True), 1):
        yield [p.path, rank, *row[:2], f"{row[2]:.6f}", *last]
    if not p.classes:
        yield [p.path, 0, "", "", "", *last]


def in_json(prediction: Prediction) -> str:
    """A record; `time` is of the frames of videos alone, `set` and `state` of calibrated ones, and
    `decision` of those that decide by costs.
    """
    record = prediction.plain()
    if prediction.time is None:
        del record["time"]
    if prediction.state is None:
        del record["set"], record["state"]
    if prediction.decision is None:
        del record[DECISION]
    return to_json(record, allow_nan=False) + "\n"


# --------------------------------------------------------------------------
# `predict`: a line on the screen for each image, and a CSV or JSON file of them

Draw = Callable[[int, Any, Prediction], None]


class Runs(Protocol):
    """What runs a network, for what is said and recorded of it."""

    @property
    def settings(self) -> Settings: ...


class Predicts(Protocol):
    """`Predictor`, or what predicts as one does elsewhere."""

    @property
    def folder(self) -> ExportedModel: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def engine(self) -> Runs: ...

    def require_features(self) -> None: ...

    def stream(
        self,
        images: Found,
        topk: int | None = None,
        batch_size: int | None = None,
        on_error: str = "stop",
        features: bool = False,
    ) -> Generator[Prediction, None, None]: ...


def report(
    predictor: Predicts,
    images: Iterable[Any],
    topk: int | None,
    save: PredictionFile | None,
    skip: bool = False,
    resume: bool = False,
    every: float = EVERY,
    features: FeatureFile | None = None,
    pictures: Callable[[Sequence[str], int, int], Draw] | None = None,
    part: Part | None = None,
    explain: bool = False,
) -> None:
    """Predict, print a line per image and write each at once into `save`.

    Args:
        skip: broken images get an error in the place of classes, instead of ending it.
        resume: go on behind the last prediction in `save`.
        every: seconds between a video's frames.
        features: a file that keeps each image's features, too.
        pictures: given the names of all images, the place of the first that is drawn and that
            behind the last, gives what draws each of these, told its number from 0, the image and
            what was predicted.
        part: predict no more than this part of the images.
        explain: ask a `Predictor` for the maps of classes, for the pictures.

    Raises:
        UserError: a broken image, or the file cannot be written; what was predicted is kept.
    """
    if features:
        predictor.require_features()
    names = find(images, skip, every) if pictures else None  # a picture's depends on all images'
    images = images if names is None else names
    if part:
        share = share_of(images, part, skip, every)
    else:
        found = find(images, skip, every)
        share = Share(found, 0, len(found), has_frames(found))
    found = share.images
    behind = share.first + len(found)
    draw = pictures(names, share.first, behind) if pictures and names is not None else None
    job = Job(predictor, topk, save, skip, features, draw, part, explain)
    job.tell(f"engine: {predictor.engine.settings}")
    if part:
        if found:
            job.tell(f"part {part}: images {share.first + 1:,} to {behind:,} of {share.total:,}")
        else:
            job.tell(f"part {part}: no images, for {plural(share.total, 'image')} are fewer")
    if not save:
        with signals_interrupt() if features else nullcontext():
            try:
                job.run(found)
                job.finish(found)
            finally:
                if features:
                    features.close(keep=False)
        job.conclude(len(found))
        return
    with signals_interrupt():
        try:
            about = origin(predictor, topk)
            if part:
                about["part"] = f"{part} of {plural(share.total, 'image')}"
            calibrated = about["calibration"] != UNCALIBRATED
            own = predictor.manifest.calibration
            decides = own is not None and own.costs is not None
            save.begin(about, found, resume, share.timed, calibrated, decides)
            if resume and not save.done:
                job.tell(f"note: no unfinished run of {save.target} is there: beginning")
            if save.done:
                job.tell(f"going on behind {plural(save.done, 'prediction')} in {save.path}")
            job.run(found)
            job.finish(found)
            save.finish()
        except UserError as error:
            kept = job.close()
            if not kept:
                raise
            raise UserError(f"{'; '.join(error.lines)}; {kept}, --resume goes on") from None
        except BaseException:
            kept = job.close()
            if kept:
                job.tell(f"stopped: {kept}; the same command with --resume goes on")
            raise
    job.tell(f"wrote {save.target}")
    job.conclude(len(found))


class Job:
    """A run of `predict`, and what it found out on the way."""

    def __init__(
        self,
        predictor: Predicts,
        topk: int | None,
        save: PredictionFile | None,
        skip: bool,
        features: FeatureFile | None = None,
        draw: Draw | None = None,
        part: Part | None = None,
        explain: bool = False,
    ):
        self.part = part
        self.more = {"explain": True} if explain else {}
        self.features = features
        self.draw = draw
        self.predictor = predictor
        self.topk = topk
        self.save = save
        self.skip = skip
        self.failed = 0
        self.first_error = ""
        self.heard = True  # whether someone still reads the lines

    def run(self, images: Found) -> None:
        done = self.save.done if self.save else 0
        if self.features:
            self.features.begin(self.predictor.manifest.features, done)
        left = Found(images[done:]) if done else images
        stream = self.predictor.stream(
            left,
            self.topk,
            on_error="skip" if self.skip else "stop",
            features=self.features is not None,
            **self.more,
        )
        shown = with_frames(left) if self.draw else repeat(None)
        what = f"predicting part {self.part}" if self.part else "predicting"
        try:
            with closing(stream):
                progress = Progress(stream, what, len(images), done)
                for index, (prediction, image) in enumerate(zip(progress, shown), done):  # noqa: B905
                    self.take(index, image, prediction)
        except DataError as error:
            raise UserError(f"{error} (--on-error skip goes on without it)") from None

    def finish(self, images: Sequence[str]) -> None:
        """All is predicted: the features take their place."""
        if self.features:
            self.features.finish(images, origin(self.predictor, self.topk))
            self.tell(f"wrote {self.features.target}")

    def close(self) -> str:
        """End early; returns what to say of what is kept, "" where nothing is."""
        kept = self.save.close() if self.save else ""
        if self.features:
            self.features.close(keep=bool(kept))
        return kept

    def take(self, index: int, image: Any, prediction: Prediction) -> None:
        if self.draw and not prediction.error:
            self.draw(index, image, prediction)
        if self.features and prediction.features is not None:
            self.features.write(index, prediction.features)
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

    def conclude(self, images: int) -> None:
        """Say how many have no prediction; UserError where none has one."""
        failed = self.save.failed if self.save else self.failed
        if not failed:
            return
        where = f"; they are in {self.save.target} with an error" if self.save else ""
        if failed == images:
            first = f", the first: {self.first_error}" if self.first_error else ""
            raise UserError(f"none of {plural(images, 'image')} could be predicted{where}{first}")
        self.tell(f"note: {failed:,} of {plural(images, 'image')} could not be predicted{where}")


def line(prediction: Prediction) -> str:
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    names = "; ".join(f"{label} {score:.4f}" for label, score in pairs) or NOTHING
    answer = f"{prediction.doubt}  ({names})" if prediction.doubt else names
    told = f"{answer}  {prediction.decided}" if prediction.decided else answer
    return f"{prediction.path}: {told}  [{prediction.milliseconds:.1f} ms]"


def origin(predictor: Predicts, topk: int | None) -> dict[str, Any]:
    """What the predictions in a file have to agree in, in words of the command line."""
    about = predictor.manifest
    names = hashlib.sha256("\0".join(about.labels).encode("utf-8", "surrogateescape"))
    return {
        "model": predictor.folder.digest(),
        "labels": names.hexdigest()[:16],
        "preprocessing": str(about.preprocess),
        "threshold": str(about.threshold),
        "calibration": about.calibration.digest() if about.calibration else UNCALIBRATED,
        "topk": topk or about.topk,
        "precision": predictor.engine.settings.precision,
        "part": WHOLE,
    }
