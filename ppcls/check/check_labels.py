"""`ppcls check-data --labels`: labels that are likely wrong as findings, a list and a sheet."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls.check.findings import Finding, class_name
from ppcls.check.labels import Issues, find_issues
from ppcls.check.survey import Album, Survey
from ppcls.data import decode
from ppcls.data.fixes import COLUMNS, key_of, write_fixes
from ppcls.data.lists import line_of, unfit
from ppcls.report import sheets
from ppcls.report.sheets import Card
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import plural

LABELLED = ("wrong label", "ambiguous")  # kinds of findings in which an image's label matters
DRAWN = 60  # images on the sheet
NOT_JUDGED = "broken, of a class with few images, or learnt from by the run"


@dataclass(frozen=True)
class LabelCheck:
    """How labels are judged, and where that is written.

    Attributes:
        scores: what says of each labelled image how likely each class is, as `find_issues` wants.
        fixes: the list to decide in.
        sheet: a picture of the images whose labels are likeliest wrong.
    """

    scores: Callable[[Survey], np.ndarray]
    fixes: Path
    sheet: Path | None = None

    def require_one_label(self, album: Album) -> None:
        """UserError for images with several labels each."""
        if any(samples.labels.ndim > 1 for _, samples in album.labelled()):
            raise UserError("--labels is for images with one label each: task.kind is multilabel")

    def judge(self, seen: Survey) -> "Judged":
        return Judged(seen.album, find_issues(self.scores(seen), labels_of(seen.album)))


def labels_of(album: Album) -> np.ndarray:
    """The labels of all images that have one, int64 [N]: they are the album's first."""
    return np.concatenate([samples.labels for _, samples in album.labelled()])


@dataclass(frozen=True)
class Judged:
    """What is found among the labels of an album."""

    album: Album
    issues: Issues

    def suggested(self, image: int) -> str:
        """The name of the class that the image looks like."""
        return class_name(self.album, int(self.issues.suggested[image]))

    def findings(self) -> Iterator[Finding]:
        issues = self.issues
        for kind, images in zip(LABELLED, (issues.wrong, issues.ambiguous), strict=True):
            for image in images.tolist():
                doubt = f"wrong with a probability of {issues.doubt[image]:.2f}"
                yield Finding(kind, (image,), f"looks like {self.suggested(image)}; {doubt}")
        for one, other, share in issues.same:
            names = f"{class_name(self.album, one)} and {class_name(self.album, other)}"
            yield Finding("same class", (), f"{names}: {share:.0%} are taken for the other one")
        if lost := int(np.isnan(issues.doubt).sum()):
            yield Finding("not judged", (), f"{plural(lost, 'image')}: {NOT_JUDGED}")

    def write(self, fixes: Path, sheet: Path | None) -> None:
        """Write the list to decide in and the sheet, and say how to go on.

        Raises:
            UserError: a file that cannot be written.
        """
        issues = self.issues
        images = np.concatenate([issues.wrong, issues.ambiguous])
        if not len(images):
            say(f"--fixes {fixes}: not written, no label is in doubt")
            return
        listed = [image for image in images.tolist() if not unfit(self.album.path(image))]
        write_fixes(fixes, COLUMNS, self.rows(listed, fixes))
        if len(listed) < len(images):
            lost = plural(len(images) - len(listed), "image")
            say(f"note: {lost} left out of {fixes}, for no list can hold their names")
        if sheet:
            cards = map(self.card, images[:DRAWN].tolist())
            layout = sheets.lay_out(min(len(images), DRAWN), 1, sheets.TILE, lines=2)
            pages = sheets.draw_pages(cards, layout)
            say(f"wrote {sheets.write_pages(f'--labels-sheet {sheet}', sheet, pages)}")
        name = shlex.quote(str(fixes))
        say(
            f"about {issues.share:.1%} of the labels are wrong, as far as the scores tell",
            f"wrote {fixes}: {plural(len(issues.wrong), 'label')} likely wrong, "
            f"{len(issues.ambiguous):,} more in doubt",
            f"decide   ppcls fix-labels {name}, or in a spreadsheet: keep, change or drop",
            f"train    ppcls train … -o data.fixes={name}",
        )

    def rows(self, images: list[int], file: Path) -> Iterator[list[str]]:
        """The rows of a list, without decisions."""
        folder = str(file.absolute().parent)
        wrong = set(self.issues.wrong.tolist())
        for image in images:
            place = line_of(key_of(self.album.path(image)), folder)
            why = LABELLED[image not in wrong]
            doubt = f"{self.issues.doubt[image]:.3f}"
            yield [place, self.album.label(image), self.suggested(image), doubt, why, "", ""]

    def card(self, image: int) -> Card:
        """An image, what it is labelled and what it looks like, and its file."""
        path = self.album.path(image)
        looks = f"looks like {self.suggested(image)} ({self.issues.doubt[image]:.2f})"
        return Card(
            [decode.read(path)], [Path(path).name], (f"is {self.album.label(image)}", looks)
        )
