"""What is wrong with a data set: doubles, leaks, near copies, odd images and labels.

Pairs of near perceptual hashes, without comparing each with each.

Each of the 16 bands of 16 bits brings together the images that are equal in it; only those are
compared in all 256 bits. A pair that differs in at most 15 bits is equal in one band for certain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ppcls.check.survey import UNLABELED, WORDS, Album, Odd, Survey
from ppcls.data.datasets import one_class
from ppcls.data.samples import Dataset
from ppcls.utils.text import plural, quoted

# Bits of 256 in which near-duplicates may differ; docs/data.md has the measurements.
NEAR = 32
# Images of one band that are alike are compared with the next in order, up to so many …
REACH = 1000
# … and each is linked with so many at most: enough to see that it is one of a crowd.
LINKS = 20
BANDS = 4 * WORDS
COUNTS = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def near_pairs(hashes: np.ndarray, reach: int = REACH) -> np.ndarray:
    """Pairs of the rows of `hashes` (uint64 [N, 4]) that differ in few bits.

    int64 [P, 3]: i < j and the number of bits, sorted. In a band a row is compared with the next
    `reach`; it is in `LINKS` pairs or a few more, not
    in all, where more rows are near it.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), BANDS)
    links = np.zeros(len(hashes), np.int64)
    found = [band_pairs(bands, band, links, reach) for band in range(BANDS)]
    return np.unique(np.concatenate(found), axis=0)


def band_pairs(bands: np.ndarray, band: int, links: np.ndarray, reach: int) -> np.ndarray:
    """The near pairs (int64 [P, 3]) among rows equal in one band; counts them in `links`."""
    # In the order of this band and the next three, the nearest stand near each other.
    parts = [np.roll(bands, -band, axis=1)[:, place].astype(np.uint64) for place in range(4)]
    keys = parts[0] << 48 | parts[1] << 32 | parts[2] << 16 | parts[3]
    order = np.argsort(keys, kind="stable")
    groups = parts[0][order]
    rows = bands[order]
    found = [np.empty((0, 3), np.int64)]
    here = np.arange(len(order))
    for step in range(1, reach + 1):
        here = here[: np.searchsorted(here, len(order) - step)]
        here = here[(groups[here] == groups[here + step]) & (links[order[here]] < LINKS)]
        if not len(here):
            break
        differ = rows[here] ^ rows[here + step]
        bits = COUNTS[differ].sum(axis=1)
        near = bits <= NEAR
        one = order[here[near]]
        other = order[here[near] + step]
        new = differ[near, :band].all(axis=1)  # an earlier band has counted the others
        np.add.at(links, one[new], 1)
        np.add.at(links, other[new], 1)
        pairs = [np.minimum(one, other), np.maximum(one, other), bits[near].astype(np.int64)]
        found.append(np.stack(pairs, axis=1))
    return np.concatenate(found)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `count` images the lowest one that `pairs` (int64 [P, 2 or 3]) link it with."""
    lowest = np.arange(count)
    while len(pairs):
        both = np.minimum(lowest[pairs[:, 0]], lowest[pairs[:, 1]])
        before = lowest.copy()
        np.minimum.at(lowest, pairs[:, 0], both)
        np.minimum.at(lowest, pairs[:, 1], both)
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            break
    return lowest


# --------------------------------------------------------------------------
# What a survey finds: broken images, copies, leaks, and what else may surprise

CROWD = 8  # images above which a group is said to be alike by nature
UNEVEN = 10  # times the smallest class from which the largest is noted

# In the order they are reported.
KINDS = {
    "broken": "images that stop training, or are seen damaged: replace or remove them",
    "leak": "the same image to learn from and to be scored on: remove one",
    "group leak": "images of one group to learn from and to be scored on: keep it on one side",
    "two labels": "the same image in several classes: keep the right one",
    "duplicate": "the same image several times: all but one are a waste",
    "near leak": "nearly the same image to learn from and to be scored on: keep them on one side",
    "near two labels": "nearly the same image in several classes: is one of them mislabelled?",
    "near duplicate": "nearly the same image: saved, resized or shot again",
    "wrong label": "images whose label is likely wrong: ppcls fix-labels goes through them",
    "same class": "classes that cannot be told apart: are they one?",
    "one class": "there is nothing to tell apart, and training would be right for certain",
    "labels": "labels that number no classes",
    "classes": "classes without images",
}
NOTES = {
    "ambiguous": "images whose label is in doubt: they follow behind those likely wrong",
    "not judged": "images whose labels are not judged",
    "crowd": f"groups of more than {CROWD} images that look alike: by nature, or one film's frames",
    "uneven classes": f"the largest class has {UNEVEN} times the images of the smallest, or more",
    "blank": "images of one colour; not compared with others",
    "long": "one side more than 4 times the other",
    "small": "smaller than the recipe's crop: they are enlarged",
    "large": "above 67 million pixels: slow to read",
    "turned": "stored turned; they are read upright, as EXIF says",
    "alpha": "transparent: hidden pixels are seen with their stored colour",
    "16 bits": "more than 8 bits: the upper 8 are read",
    "CMYK": "CMYK: converted to RGB without a colour profile",
    "grey": "grey",
    "animated": "several frames: the first is read",
    "suffix": "the file's name has another format's suffix",
}
ODD = {
    "blank": Odd.BLANK,
    "long": Odd.LONG,
    "small": Odd.SMALL,
    "large": Odd.LARGE,
    "turned": Odd.TURNED,
    "alpha": Odd.ALPHA,
    "16 bits": Odd.DEEP,
    "CMYK": Odd.CMYK,
    "grey": Odd.GREY,
    "animated": Odd.ANIMATED,
    "suffix": Odd.SUFFIX,
}


@dataclass(frozen=True)
class Finding:
    """One of KINDS or NOTES; `images` are the indices in the album it is about."""

    kind: str
    images: tuple[int, ...]
    detail: str


def findings(seen: Survey, near: int) -> list[Finding]:
    """All that is found, in the order of KINDS and NOTES; `near`: bits as in `near_groups`."""
    found = [Finding("broken", (i,), reason) for i, reason in sorted(seen.broken.items())]
    copies = exact_groups(seen.records)
    for group in copies:
        found += judged(seen.album, group, "", how_equal(seen, group))
    found += group_leaks(seen.album)
    for group, bits in near_groups(seen.records, near):
        detail = f"{bits} of 256 bits differ"
        if len(group) > CROWD:
            parts = " and ".join(sorted({seen.album.part(image) for image in group}, reverse=True))
            found.append(Finding("crowd", group, f"{plural(len(group), 'image')} of {parts}"))
        else:
            found += judged(seen.album, group, "near ", detail)
    if seen.album.labels:
        found.append(Finding("labels", (), seen.album.labels))
    for part, samples in seen.album.labelled():
        found += class_findings(part, samples, seen.album)
    for kind, flag in ODD.items():
        rows = np.flatnonzero(seen.records["odd"] & flag)
        found += [Finding(kind, (int(row),), shape(seen, int(row))) for row in rows]
    return ordered(found)


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """In the order of KINDS and NOTES."""
    order = {kind: place for place, kind in enumerate([*KINDS, *NOTES])}
    return sorted(found, key=lambda finding: order[finding.kind])


def judged(album: Album, group: tuple[int, ...], near: str, detail: str) -> Iterator[Finding]:
    """What is wrong with images that are one: "near " or "" before each kind."""
    parts = [album.part(image) for image in group]
    known = [album.label(p) for p, part in zip(group, parts, strict=True) if part != UNLABELED]
    labels = [
        known[0] if part == UNLABELED and known else album.label(image)
        for image, part in zip(group, parts, strict=True)
    ]
    # Each fold of several is scored in one of the runs and learnt from in the others.
    leaks = len(set(parts)) > 1 and not set(parts) <= {"train", UNLABELED}
    mixed = len(set(labels)) > 1
    if leaks:
        yield Finding(f"{near}leak", contrasted(group, parts), detail)
    if mixed:
        yield Finding(f"{near}two labels", contrasted(group, labels), detail)
    # A labelled image may be shown without its label, too.
    if not (leaks or mixed) and len(set(parts)) < len(group):
        yield Finding(f"{near}duplicate", group, detail)


def group_leaks(album: Album) -> Iterator[Finding]:
    """Groups with images in several parts, where parts say which group each image is of."""
    known: dict[str, dict[str, list[int]]] = {}  # of each group the images in each part
    start = 0
    for part, samples in album.parts.items():
        if samples.groups is not None:
            names = samples.groups.names
            for index, number in enumerate(samples.groups.numbers.tolist()):
                known.setdefault(names[number], {}).setdefault(part, []).append(start + index)
        start += len(samples)
    for name, parts in sorted(known.items()):
        if len(parts) > 1:
            images = [image for own in parts.values() for image in own]
            of = [part for part, own in parts.items() for _ in own]
            counts = ", ".join(f"{plural(len(own), 'image')} of {p}" for p, own in parts.items())
            yield Finding("group leak", contrasted(tuple(images), of), f"{quoted(name)}: {counts}")


def contrasted(group: tuple[int, ...], values: Sequence[str]) -> tuple[int, ...]:
    """The group with an image of another value than the first's brought to the second place."""
    other = next(i for i, value in enumerate(values) if value != values[0])
    return (group[0], group[other], *group[1:other], *group[other + 1 :])


def how_equal(seen: Survey, group: tuple[int, ...]) -> str:
    if len({seen.album.path(image) for image in group}) == 1:
        return "listed several times"
    rows = seen.records[list(group)]
    return "same bytes" if len(np.unique(rows["bytes"])) == 1 else "same pixels"


def shape(seen: Survey, image: int) -> str:
    return f"{seen.records['width'][image]}x{seen.records['height'][image]}"


def exact_groups(records: np.ndarray) -> list[tuple[int, ...]]:
    """The images with the same pixels, in groups of two and more, by their first image."""
    return grouped(records["pixels"], np.flatnonzero(records["pixels"]))


def grouped(keys: np.ndarray, rows: np.ndarray) -> list[tuple[int, ...]]:
    """Those of `rows` whose keys are equal, in groups of two and more."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    breaks = np.flatnonzero(np.diff(keys[order])) + 1
    groups = [tuple(group.tolist()) for group in np.split(order, breaks) if len(group) > 1]
    return sorted(groups)


def near_groups(records: np.ndarray, near: int) -> list[tuple[tuple[int, ...], int]]:
    """Images linked by hashes that differ in at most `near` bits, and the fewest bits; nearest
    first. Groups whose pixels are all the same are left out, and so are blank images.
    """
    shows = np.flatnonzero((records["pixels"] != 0) & (records["odd"] & Odd.BLANK == 0))
    _, first, which = np.unique(records["pixels"][shows], return_index=True, return_inverse=True)
    pairs = near_pairs(records["hash"][shows[first]])
    pairs = pairs[pairs[:, 2] <= near]
    component = components(len(first), pairs)
    fewest = np.full(len(first), 256)
    np.minimum.at(fewest, component[pairs[:, 0]], pairs[:, 2])
    linked = fewest[component[which]] < 256
    keys = np.zeros(len(records), np.int64)
    keys[shows] = component[which]
    groups = grouped(keys, shows[linked])
    return sorted(((g, int(fewest[keys[g[0]]])) for g in groups), key=lambda g: (g[1], g[0]))


def class_findings(part: str, samples: Dataset, album: Album) -> Iterator[Finding]:
    """Images of one class alone, labels that are ids, classes without images, sizes far apart."""
    alone = one_class(samples) if part == "train" else ""
    if alone:
        yield Finding("one class", (), f"{part}: {alone}")
    counts = samples.counts(max(part.classes for part in album.parts.values()))
    for label in np.flatnonzero(counts == 0):
        yield Finding("classes", (), f"{part}: no image of class {class_name(album, int(label))}")
    filled = np.flatnonzero(counts)
    low = filled[counts[filled].argmin()]
    high = filled[counts[filled].argmax()]
    if counts[high] >= UNEVEN * counts[low]:
        names = [
            f"{class_name(album, int(c))} has {plural(int(counts[c]), 'image')}"
            for c in (high, low)
        ]
        yield Finding("uneven classes", (), f"{part}: {', '.join(names)}")


def class_name(album: Album, label: int) -> str:
    """The name that any part knows, else the number."""
    known = [samples for samples in album.parts.values() if samples.names]
    return known[0].class_name(label) if known else str(label)
