"""What an audit looks at, and what it finds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from fluoroscope.data.splits import SPLITS
from fluoroscope.data.study_table import Decision

NO_SPLIT = "no split"
EXAMPLES = 5
# Names of findings, and what was looked for.
LOOKED_FOR = {
    "patients-in-two-splits": "patients in two splits",
    "no-splits": "splits that cannot be drawn",
    "empty-split": "splits without images",
    "images-without-split": "images without a split",
    "label-without-both-classes": "labels without positive or without negative images in a split",
    "copies-across-splits": "copies, pixel for pixel, across splits",
    "copies-within-a-split": "copies within a split",
    "copies-of-two-patients": "copies under two patients",
    "copies-with-other-labels": "copies with contradicting labels",
    "near-duplicates-across-splits": "one film in two splits: resized, recompressed, windowed, "
    "with another border, turned a little, mirrored, inverted",
    "unreadable-images": "files that cannot be read",
    "constant-images": "images with the same value everywhere",
    "tiny-images": "tiny images",
    "enlarged-images": "images that training enlarges more than twice",
    "mostly-black": "images that are mostly black",
    "mostly-white": "images that are mostly white",
    "inverted-looking": "frontal films that look inverted",
    "prevalence-differs": "labels more frequent in one split than in another",
    "views-missing": "missing views",
    "view-goes-with-label": "views that go with a label",
    "rare-label": "labels with few positive images",
    "mostly-unknown": "labels unknown for most images",
    "no-patient-twice": "patients that were not recorded",
    "patient-dominates": "patients with a large part of a split",
}
NOT_LOOKED_FOR = "Text burned into images, such as names and dates, is not looked for."


class Studies(Protocol):
    """Of what is audited; the checked studies of a run fit, and so do unchecked ones."""

    @property
    def table(self) -> pd.DataFrame: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def skipped(self) -> int: ...
    @property
    def decisions(self) -> tuple[Decision, ...]: ...


@dataclass(frozen=True)
class Subject:
    """Studies and what their images look like: `survey` has a row a row of `table`."""

    table: pd.DataFrame
    labels: Sequence[str]
    survey: pd.DataFrame
    image_px: int | None = None  # side that training scales the images to
    chosen: bool = True  # the labels are those of a run, not all that the source has
    undrawn: str | None = None  # why no splits could be drawn
    on_duplicate: str = "stop"  # what a run does with copies across splits

    def splits(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Rows of each split that has some; images without one are a split of their own."""
        split = self.table["split"].astype(object).where(self.table["split"].notna(), NO_SPLIT)
        for name in (*SPLITS, NO_SPLIT):
            rows = self.table[split == name]
            if len(rows):
                yield name, rows

    def usable(self) -> pd.DataFrame:
        return self.survey[self.survey["reason"] == ""]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (hard) or worth a look (soft).

    Attributes:
        name: of what was looked for, the same in every audit.
        count: of images, pairs, patients or labels, as the sentence says.
        examples: the first few, as row numbers of the study table; several of one example belong
            together, such as two copies.
    """

    name: str
    hard: bool
    count: int
    sentence: str
    advice: str
    examples: tuple[tuple[int, ...], ...] = ()


Check = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True)
class Findings:
    """Attributes:
    found: hard ones first.
    splits: a row a split: `split`, `images`, `patients`, `views`.
    prevalence: a row a label and split; see `prevalence.prevalence_table`.
    decisions: what the policies did while the collection was read.
    """

    images: int
    patients: int
    labels: tuple[str, ...]
    splits: pd.DataFrame
    prevalence: pd.DataFrame
    decisions: tuple[Decision, ...] = ()
    skipped: int = 0  # images that could not be used and were left out
    found: tuple[Finding, ...] = field(default=())

    @property
    def hard(self) -> list[Finding]:
        return [finding for finding in self.found if finding.hard]

    @property
    def soft(self) -> list[Finding]:
        return [finding for finding in self.found if not finding.hard]


def some(rows: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """The first few single rows as examples."""
    return tuple((int(row),) for row in list(rows)[:EXAMPLES])


def called(split: str) -> str:
    return "the collection" if split == NO_SPLIT else f"the {split} split"


def plural(count: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def of(count: int, total: int, thing: str = "images") -> str:
    """`3 of 1,240 images`."""
    return f"{count:,} of {total:,} {thing}"
