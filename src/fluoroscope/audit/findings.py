"""The input of an audit, and its findings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from fluoroscope.data.splits import SPLITS
from fluoroscope.data.study_table import Decision

NO_SPLIT = "no split"
EXAMPLES = 5
# Each finding by its name, in the words of the report.
LOOKED_FOR = {
    "patients-in-two-splits": "patients in two splits",
    "no-splits": "splits that cannot be drawn",
    "empty-split": "splits without images",
    "images-without-split": "images without a split",
    "label-without-both-classes": "labels without positive or without negative images in a split",
    "copies-across-splits": "exact copies across splits",
    "copies-within-a-split": "exact copies within a split",
    "copies-of-two-patients": "exact copies of two patients",
    "copies-with-other-labels": "exact copies with contradicting labels",
    "near-duplicates-across-splits": "altered copies of a film across splits: resized, "
    "recompressed, windowed, cropped, rotated a little, mirrored, inverted",
    "unreadable-images": "files that cannot be read",
    "constant-images": "images with the same value everywhere",
    "tiny-images": "tiny images",
    "enlarged-images": "images that training enlarges more than twice",
    "mostly-black": "images that are mostly black",
    "mostly-white": "images that are mostly white",
    "inverted-looking": "frontal films that look inverted",
    "prevalence-differs": "labels more frequent in one split than in another",
    "views-missing": "missing views",
    "view-goes-with-label": "views that predict a label",
    "bits-go-with-label": "bit depths that predict a label",
    "format-goes-with-label": "file formats that predict a label",
    "size-goes-with-label": "sizes in pixels that predict a label",
    "folder-goes-with-label": "folders that predict a label",
    "rare-label": "labels with few positive images",
    "mostly-unknown": "labels unknown for most images",
    "no-patient-twice": "missing patient identifiers",
    "patients-missing": "images without a patient",
    "patient-dominates": "patients with a large share of a split",
}
NOT_LOOKED_FOR = "The audit does not look for text burned into images, such as names and dates."


class Studies(Protocol):
    """The studies to audit; whether they were checked before does not matter."""

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
    """Studies, with a survey of their images: one row of `survey` per row of `table`."""

    table: pd.DataFrame
    labels: Sequence[str]
    survey: pd.DataFrame
    image_px: int | None = None  # side of the images in training
    chosen: bool = True  # the labels are those of a run, not all of the source
    undrawn: str | None = None  # the reason, if no splits could be drawn
    on_duplicate: str = "stop"  # data.on_duplicate of a run
    patients_known: str = "all"  # of "all" images, of "some" or of "none"
    named: bool = False  # folders may be named
    own: bool = False  # data.splits=own: all splits were drawn by patient

    def splits(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Rows of each split that is not empty; images without a split come last, as one group."""
        split = self.table["split"].astype(object).where(self.table["split"].notna(), NO_SPLIT)
        for name in (*SPLITS, NO_SPLIT):
            rows = self.table[split == name]
            if len(rows):
                yield name, rows

    def usable(self) -> pd.DataFrame:
        return self.survey[self.survey["reason"] == ""]


@dataclass(frozen=True)
class Finding:
    """A result of the audit: an error (hard), or something worth a look (soft).

    Attributes:
        name: key of `LOOKED_FOR`.
        count: number of images, pairs, patients or labels; the sentence says which.
        examples: the first few, each as one or several row numbers of the study table, such as
            those of two copies.
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
    splits: one row per split: `split`, `images`, `patients`, `views`.
    prevalence: one row per label and split; see `prevalence.prevalence_table`.
    decisions: effects of the policies while the collection was read.
    patients_known: of "all" images, of "some" or of "none".
    """

    images: int
    patients: int
    labels: tuple[str, ...]
    splits: pd.DataFrame
    prevalence: pd.DataFrame
    decisions: tuple[Decision, ...] = ()
    skipped: int = 0  # images that cannot be used and were left out
    found: tuple[Finding, ...] = field(default=())
    patients_known: str = "all"

    @property
    def hard(self) -> list[Finding]:
        return [finding for finding in self.found if finding.hard]

    @property
    def soft(self) -> list[Finding]:
        return [finding for finding in self.found if not finding.hard]


def first_rows(rows: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """The first few single rows as examples."""
    return tuple((int(row),) for row in list(rows)[:EXAMPLES])


def split_phrase(split: str) -> str:
    return "the collection" if split == NO_SPLIT else f"the {split} split"


def fraction_of(count: int, total: int, thing: str = "images") -> str:
    """`3 of 1,240 images`."""
    return f"{count:,} of {total:,} {thing}"
