"""The images that look most like others to a model: the nearest by the cosine of their features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.inference import features as kept
from ppcls.inference.inputs import DataError, find, pixels_of, with_frames
from ppcls.inference.predictor import Predictor
from ppcls.inference.results import origin
from ppcls.report import sheets
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text
from ppcls.utils.log import Progress, say
from ppcls.utils.text import SHOWN, plural, to_csv, to_json, visible

SUFFIXES = (".csv", ".json", ".jsonl")
COLUMNS = ("query", "rank", "path", "similarity")
BLOCK = 1 << 16  # images that are compared at a time
SIDE = 192  # pixels of an image on a sheet


@dataclass(frozen=True)
class Gallery:
    """The images that are searched: their paths, and features of length 1, float32 [N, D]."""

    paths: Sequence[str]
    features: np.ndarray


@dataclass(frozen=True)
class Near:
    """An image of a gallery: its number, path, and the cosine to the query, -1 to 1."""

    index: int
    path: str
    similarity: float


def unit(features: np.ndarray) -> np.ndarray:
    """Features [N, D] at length 1; those of length 0 stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)


def gallery_of(
    predictor: Predictor, images: Sequence[Any], skip: bool = False, every: float = 1.0
) -> Gallery:
    """The features of images, by the predictor; with `skip`, without those that are broken.

    Raises:
        UserError: an image is broken, or all are.
    """
    found = find(images, skip, every)
    paths = []
    rows = []
    lost = 0
    try:
        stream = predictor.stream(found, 1, on_error="skip" if skip else "stop", features=True)
        for answer in Progress(stream, "looking at images", len(found)):
            if answer.features is None:
                lost += 1
                if lost <= SHOWN:
                    say(f"skipped: {answer.error}")
                continue
            paths.append(answer.path or "")
            rows.append(answer.features)
    except DataError as error:
        raise UserError(f"{error} (--on-error skip goes on without it)") from None
    if not rows:
        raise UserError(f"none of {plural(len(found), 'image')} can be read")
    return Gallery(paths, unit(np.stack(rows)))


def kept_gallery(predictor: Predictor, path: Path) -> Gallery:
    """The gallery in a file of `predict --features`.

    Raises:
        UserError: it is damaged, or was made with another model.
    """
    found = kept.read(path)
    own = origin(predictor, None)
    for key in kept.SAME:
        if found.about.get(key) != own[key]:
            raise UserError(
                f"{path}: was made with another {key} ({visible(str(found.about.get(key)))}, "
                f"now {visible(str(own[key]))}); make it again with predict --features"
            )
    if not found.paths:
        raise UserError(f"{path}: holds no images")
    return Gallery(found.paths, unit(found.features))


def nearest(gallery: Gallery, query: np.ndarray, topk: int, leave_out: str | None) -> list[Near]:
    """The images nearest to the features float32 [D], the nearest first.

    Args:
        leave_out: the query's own path, which is no answer.
    """
    query = unit(query[None])[0]
    cosines = np.concatenate(
        [
            gallery.features[start : start + BLOCK] @ query
            for start in range(0, len(gallery.paths), BLOCK)
        ]
    )
    some = np.arange(len(cosines))
    more = topk + 1 + (gallery.paths.count(leave_out) if leave_out else 0)
    if more < len(cosines):
        some = np.argpartition(-cosines, more)[:more]
    order = some[np.lexsort((some, -cosines[some]))]
    own = None if leave_out is None else Path(leave_out).absolute()
    found = [
        Near(int(index), gallery.paths[int(index)], float(np.clip(cosines[index], -1, 1)))
        for index in order
        if own is None or Path(gallery.paths[int(index)]).absolute() != own
    ]
    return found[:topk]


def line(query: str, found: Sequence[Near]) -> str:
    names = "; ".join(f"{near.path} {near.similarity:.4f}" for near in found)
    return f"{query}: {names or 'nothing to compare it with'}"


def save(path: Path, results: Sequence[tuple[str, Sequence[Near]]]) -> None:
    """Write the answers as .csv, .json or .jsonl, whole.

    Raises:
        UserError: it cannot be written.
    """
    if path.suffix.lower() == ".csv":
        rows = [
            (query, rank, near.path, f"{near.similarity:.6f}")
            for query, found in results
            for rank, near in enumerate(found, 1)
        ]
        text = to_csv([COLUMNS, *rows])
    else:
        records = [
            to_json(
                {
                    "query": query,
                    "nearest": [
                        {"path": near.path, "similarity": round(near.similarity, 6)}
                        for near in found
                    ],
                }
            )
            for query, found in results
        ]
        text = "".join(f"{record}\n" for record in records)
        if path.suffix.lower() == ".json":
            text = "[\n" + ",\n".join(records) + "\n]\n"
    write_text(path, text, f"--save {path}")


def draw(
    path: Path, queries: Sequence[Any], results: Sequence[tuple[str, Sequence[Near]]], every: float
) -> str:
    """A sheet with a row for each query and its nearest; returns its files' names in words.

    Raises:
        UserError: an image that is no longer there, or the sheet cannot be written.
    """
    topk = max(len(found) for _, found in results)
    layout = sheets.lay_out(len(results), 1 + topk, SIDE, 1)
    if layout.pages > sheets.MOST_PAGES:
        raise UserError(f"--visualize {path}: would be {layout.pages:,} pages; ask for less")

    def cards():
        for query, (name, found) in zip(queries, results, strict=True):
            images = [query, *(again(near.path, every) for near in found)]
            heads = ["the image", *(head(near) for near in found)]
            names = [name, *(near.path for near in found)]
            pixels = [
                pixels_of(image, 3, own)
                for image, own in zip(with_frames(images), names, strict=True)
            ]
            yield sheets.Card(pixels, heads, [name])

    return sheets.write_pages(f"--visualize {path}", path, sheets.draw_pages(cards(), layout))


def head(near: Near) -> str:
    return f"{near.similarity:.3f} {Path(near.path).name}"


def again(path: str, every: float) -> Any:
    """An image of a gallery, to be looked at again; one out of a video as its frame."""
    video, mark, _ = path.rpartition("#t=")
    if not mark:
        return path
    return next((frame for frame in find([video], False, every) if frame == path), path)
