"""Predictions as lines on the screen and as a CSV or JSON file."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ppcls.errors import UserError
from ppcls.inference.predictor import Prediction, Predictor, find
from ppcls.log import Progress, say

NOTHING = "no class above its threshold"


def report(
    predictor: Predictor, photos: Sequence[str], topk: int | None, save: Path | None
) -> None:
    """Predict, print a line per photo and, when all went well, write `save`.

    Raises:
        UserError: a broken photo, or a file name that cannot be written; nothing is written then.
    """
    if save:
        check_target(save)
    found = find(photos)
    say(f"engine: {predictor.engine.settings}")
    results = []
    stream = predictor.stream(found, topk)
    for prediction in Progress(stream, "predicting", len(found)):
        say(line(prediction))
        results.append(prediction)
    if save:
        write(save, results)
        say(f"wrote {save}")


def line(prediction: Prediction) -> str:
    pairs = zip(prediction.labels, prediction.scores, strict=True)
    names = "; ".join(f"{label} {score:.4f}" for label, score in pairs) or NOTHING
    return f"{prediction.path}: {names}  [{prediction.milliseconds:.1f} ms]"


def check_target(save: Path) -> None:
    if save.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"--save {save}: the file name should end in .csv or .json")
    if save.is_dir() or not os.access(save.parent, os.W_OK):
        raise UserError(f"--save {save}: cannot be written; does the folder exist?")


def write(save: Path, results: Sequence[Prediction]) -> None:
    """The whole file under a temporary name, then renamed."""
    text = to_csv(results) if save.suffix.lower() == ".csv" else to_json(results)
    temporary = save.with_name(save.name + ".incomplete")
    # A file name that is not UTF-8 is written with the bytes it has.
    temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    temporary.replace(save)


def to_csv(results: Sequence[Prediction]) -> str:
    """One row per photo and rank; a photo without any class has one of rank 0."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "rank", "class", "label", "score", "milliseconds"])
    for p in results:
        for rank, row in enumerate(zip(p.classes, p.labels, p.scores, strict=True), 1):
            writer.writerow([p.path, rank, *row[:2], f"{row[2]:.6f}", f"{p.milliseconds:.2f}"])
        if not p.classes:
            writer.writerow([p.path, 0, "", "", "", f"{p.milliseconds:.2f}"])
    return text.getvalue()


def to_json(results: Sequence[Prediction]) -> str:
    return json.dumps([asdict(p) for p in results], indent=1, ensure_ascii=False) + "\n"
