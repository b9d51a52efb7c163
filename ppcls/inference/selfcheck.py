"""Answers that an exported model is to give anywhere: recorded at its export, held against later.

The images are made, of spots of several sizes, so that no photo travels with a model.
"""

from typing import Any, TypeGuard

import numpy as np

from ppcls.data.preprocess import Preprocess
from ppcls.inference.predictor import Predictor, best_of
from ppcls.utils.errors import UserError

KEY = "recorded"  # of the part of inference.yml that ppcls alone reads
SPOTS = (2, 5, 16)  # of a side of each image
CLASSES = 5  # of an image that are recorded
# Differences of probabilities that other arithmetic makes; a damaged network differs by far more.
ALLOWED = {"fp32": 2e-3, "bf16": 0.05, "fp16": 0.02}
ALLOWED_INT8 = 0.1


def images(preprocess: Preprocess) -> np.ndarray:
    """What the network sees, uint8 [N, H, W, C], the same everywhere."""
    height, width, channels = preprocess.height, preprocess.width, preprocess.channels
    found = []
    for spots in SPOTS:
        count = spots * spots * channels
        grid = (np.arange(1, count + 1, dtype=np.uint64) * 2654435761 >> 7) % 256
        rows = np.arange(height) * spots // height
        columns = np.arange(width) * spots // width
        grid = grid.astype(np.uint8).reshape(spots, spots, channels)
        found.append(grid[rows][:, columns])
    return np.stack(found)


def record(probabilities: np.ndarray, preprocess: Preprocess) -> dict[str, Any]:
    """What inference.yml keeps.

    Args:
        probabilities: of `images`, [N, classes].
    """
    best = [best_of(row, CLASSES) for row in probabilities]
    rows = [
        {int(index): round(float(row[index]), 6) for index in classes}
        for row, classes in zip(probabilities, best, strict=True)
    ]
    return {**prepared(preprocess), "probabilities": rows}


def prepared(preprocess: Preprocess) -> dict[str, list[float]]:
    """What of preparing images changes the answers to `images`."""
    return {
        "side": [preprocess.height, preprocess.width],
        "mean": list(map(float, np.ravel(preprocess.mean))),
        "std": list(map(float, np.ravel(preprocess.std))),
    }


def is_prepared_alike(known: dict[str, Any], preprocess: Preprocess) -> bool:
    """Whether images were prepared so, too, where a record was made."""
    for key, own in prepared(preprocess).items():
        value = known.get(key)
        if not isinstance(value, list) or len(value) != len(own):
            return False
        if not all(isinstance(one, float | int) for one in value):
            return False
        if not np.allclose(value, own, rtol=1e-5, atol=0):
            return False
    return True


def check(predictor: Predictor) -> dict[str, Any]:
    """Run the model on `images` and hold its answers against those of its export.

    Returns:
        `images`: how many have answers on record, 0 where the export has none, or is opened to
        prepare images otherwise; `largest_difference` of a probability; `outputs`: the number of
        classes.

    Raises:
        UserError: it answers otherwise, or with no numbers.
    """
    manifest = predictor.manifest
    preprocess = manifest.preprocess
    pixels = images(preprocess)
    given = manifest.preprocess.network_input(pixels, manifest.input)
    found = predictor.probabilities(predictor.engine.run(given))
    path = predictor.folder.path
    if not np.isfinite(found).all():
        raise predictor.not_finite("an image made to check it")
    known = manifest.about.get(KEY)
    if not is_record(known) or not is_prepared_alike(known, preprocess):
        return {"images": 0, "outputs": found.shape[1]}
    allowed = ALLOWED[predictor.engine.settings.precision]
    if manifest.precision == "int8":
        allowed = ALLOWED_INT8
    elif manifest.precision != "fp32":
        allowed = max(allowed, ALLOWED[manifest.precision])
    largest = 0.0
    for row, wanted in zip(found, known["probabilities"], strict=False):
        for index, probability in wanted.items():
            has = float(row[index]) if index < len(row) else float("nan")
            largest = max(largest, abs(has - probability))
            if not abs(has - probability) <= allowed:
                raise UserError(
                    f"{path}: answers otherwise than where it was exported: class {index} has "
                    f"{has:.4f} in place of {probability:.4f}, by {predictor.engine.settings}; "
                    "export it or copy it again"
                )
    return {
        "images": len(known["probabilities"]),
        "largest_difference": largest,
        "outputs": found.shape[1],
    }


def is_record(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a manifest, which may be anybody's, holds what `record` makes."""
    rows = value.get("probabilities") if isinstance(value, dict) else None
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(type(key) is int and key >= 0 for key in row)
        and all(isinstance(number, float | int) for number in row.values())
        for row in rows
    )
