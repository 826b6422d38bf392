"""VinDr-CXR, as downloaded from PhysioNet or from Kaggle's VinBigData competition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.policies import count_cells
from fluoroscope.data.study_table import NOBODY, Collection, Decision, select_labels, study_table
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_file, optional_file, read_columns
from fluoroscope.sources.reading.csv_cells import (
    read_label,
    refuse_cells,
    require_column,
    unknown_patients,
)
from fluoroscope.sources.reading.csv_files import read_csv

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=vindr`."""

    votes: str = one_of("majority", "any", "mean")


BY_READER, BY_PANEL = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv"
BOXES = "train.csv"  # Kaggle's, whose test set has no labels
VOTES = ("majority", "any", "mean")


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, votes: str = "majority"
) -> Collection:
    """VinDr-CXR as downloaded: three readers for each training image, a panel for the test set.

    The collection has no patient numbers: every image counts as a separate patient.

    Args:
        root: directory of annotations/ (PhysioNet) or of train.csv (Kaggle), and of train/.
        labels: names of the columns, or of Kaggle's classes; None keeps all.
        votes: a finding is present if the "majority" or "any" of the readers saw it; "mean" is the
            share of readers who saw it, a soft target that is learnt but not scored.

    Raises:
        InputError: for a missing CSV or column, two rows of a reader for one image, and an invalid
            cell.
    """
    import pandas as pd

    directory = existing_root(root)
    file = find_file(directory, [BY_READER, BOXES])
    panel = optional_file(directory, [BY_PANEL])
    given = {"train": _boxes(file) if file.parent == directory else _votes(file)}
    if panel:
        given["test"] = _votes(panel)
    chosen = select_labels(given["train"].columns, labels)
    shares = pd.concat({split: _shares(read, chosen) for split, read in given.items()})
    decided, decisions = _decide(shares, votes)
    splits = list(shares.index.get_level_values(0))
    table = study_table(_paths(directory, shares.index), decided, splits=splits if panel else None)
    return Collection(table, directory, (*unknown_patients(len(table)), *decisions), NOBODY)


def _votes(file: Path) -> pd.DataFrame:
    """One row per image and reader, one column per finding: 1, 0 or NaN; the index is the image."""
    import pandas as pd

    # The two tables of PhysioNet spell this column differently.
    cells = read_csv(file).rename(columns={"Other disease": "Other diseases"})
    require_column(cells, "image_id", "data=vindr", file)
    reader = [column for column in ("image_id", "rad_id") if column in cells]
    once = ~cells.duplicated(reader)
    refuse_cells(cells["image_id"], once, "keep one row per image and reader", file)
    findings = [column for column in cells if column not in reader]
    votes = {finding: read_label(cells[finding], file) for finding in findings}
    return pd.DataFrame(votes).set_index(cells["image_id"].str.strip())


def _boxes(file: Path) -> pd.DataFrame:
    """As `_votes`, from one row per box: a reader saw the findings that they drew a box for."""
    import pandas as pd

    cells = read_columns(file, ["image_id", "rad_id", "class_name"], "vindr")
    reader = [cells[column].str.strip() for column in ("image_id", "rad_id")]
    seen = pd.crosstab(reader, cells["class_name"].str.strip()).clip(upper=1)
    return seen.droplevel("rad_id").astype(float)


def _shares(votes: pd.DataFrame, chosen: list[str]) -> pd.DataFrame:
    """Share of an image's readers who saw each finding, one row per image; NaN if none labelled."""
    return votes.reindex(columns=chosen).groupby(level=0, sort=False).mean()


def _decide(shares: pd.DataFrame, votes: str) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    divided = count_cells(shares.gt(0) & shares.lt(1))
    decisions = (Decision(f"findings on which the readers disagree: {votes}", divided),)
    voted = shares.gt(0.5 if votes == "majority" else 0).astype(float).where(shares.notna())
    return shares if votes == "mean" else voted, decisions if divided else ()


def _paths(directory: Path, images: pd.Index) -> list[Path]:
    """The file of each (split, image), with any suffix; a path with .dicom if none exists."""
    found = {
        (split, path.name.split(".")[0]): path
        for split in ("train", "test")
        for path in (directory / split).glob("*")
    }
    return [found.get(pair, directory / pair[0] / f"{pair[1]}.dicom") for pair in images]
