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
from fluoroscope.errors import InputError
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import (
    find_file,
    optional_file,
    read_columns,
    unused_files,
)
from fluoroscope.sources.reading.csv_cells import (
    read_label,
    refuse_cells,
    require_column,
    unknown_patients,
)
from fluoroscope.sources.reading.csv_files import read_csv
from fluoroscope.sources.reading.ids import read_ids
from fluoroscope.sources.reading.tree import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=vindr`."""

    votes: str = one_of("majority", "any", "mean")


BY_READER, BY_PANEL = "annotations/image_labels_train.csv", "annotations/image_labels_test.csv"
BOXES = "train.csv"  # Kaggle's, whose test set has no labels
OFFICIAL = (f"{BOXES}*", "image_labels_*.csv*")
DICOM_SUFFIXES = ("", ".dicom", ".dcm")
READER = ("image_id", "rad_id")
VOTES = ("majority", "any", "mean")


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, votes: str = "majority"
) -> Collection:
    """VinDr-CXR as downloaded: three readers for each training image, a panel for the test set.

    The collection has no patient numbers: every image counts as a separate patient.

    Args:
        root: directory of annotations/ (PhysioNet) or of train.csv (Kaggle), and of train/. The
            table of the test set alone is a collection to evaluate on.
        labels: names of the columns, or of Kaggle's classes; None keeps all.
        votes: a finding is present if the "majority" or "any" of the readers saw it; "mean" is the
            share of readers who saw it, a soft target that is learnt but not scored.

    Raises:
        InputError: for a missing CSV or column, two rows of a reader for one image, an invalid
            cell, and two files of one image of which not exactly one is DICOM.
    """
    import pandas as pd

    directory = existing_root(root)
    files = _tables(directory)
    given = {split: _read(file) for split, file in files.items()}
    chosen = select_labels(next(iter(given.values())).columns, labels)
    shares = pd.concat({split: _shares(read, chosen) for split, read in given.items()})
    decided, decisions = _decide(shares, votes)
    splits = list(shares.index.get_level_values(0)) if "test" in files else None
    paths, twice = _paths(directory, shares.index)
    table = study_table(paths, decided, splits=splits)
    unused = unused_files(directory, OFFICIAL, [*files.values()])
    counted = (*unknown_patients(len(table)), *decisions, *twice, *unused)
    return Collection(table, directory, counted, NOBODY)


def _tables(directory: Path) -> dict[str, Path]:
    """The table of the training set, of the test set, or of both."""
    train, test = (optional_file(directory, names) for names in ([BY_READER, BOXES], [BY_PANEL]))
    if not (train or test):
        train = find_file(directory, [BY_READER, BOXES, BY_PANEL])
    return {split: file for split, file in (("train", train), ("test", test)) if file}


def _read(file: Path) -> pd.DataFrame:
    return _boxes(file) if file.name.lower().startswith(BOXES) else _votes(file)


def _votes(file: Path) -> pd.DataFrame:
    """One row per image and reader, one column per finding: 1, 0 or NaN; the index is the image."""
    import pandas as pd

    # The two tables of PhysioNet spell this column differently.
    cells = read_csv(file).rename(columns={"Other disease": "Other diseases"})
    require_column(cells, "image_id", "data=vindr", file)
    reader = [column for column in READER if column in cells]
    cells = _spelt(cells, reader, file)
    once = ~cells.duplicated(reader)
    refuse_cells(cells["image_id"], once, "keep one row per image and reader", file)
    findings = [column for column in cells if column not in reader]
    votes = {finding: read_label(cells[finding], file) for finding in findings}
    return pd.DataFrame(votes).set_index(cells["image_id"])


def _boxes(file: Path) -> pd.DataFrame:
    """As `_votes`, from one row per box: a reader saw the findings that they drew a box for."""
    import pandas as pd

    cells = _spelt(read_columns(file, [*READER, "class_name"], "vindr"), READER, file)
    reader = [cells[column] for column in READER]
    seen = pd.crosstab(reader, cells["class_name"].str.strip()).clip(upper=1)
    return seen.droplevel("rad_id").astype(float)


def _spelt(cells: pd.DataFrame, columns: Sequence[str], file: Path) -> pd.DataFrame:
    """The table with one spelling for each id."""
    rule = "every row needs an image and a reader"
    return cells.assign(**{name: read_ids(cells[name], file, rule) for name in columns})


def _shares(votes: pd.DataFrame, chosen: list[str]) -> pd.DataFrame:
    """Share of an image's readers who saw each finding, one row per image; NaN if none labelled."""
    return votes.reindex(columns=chosen).groupby(level=0, sort=False).mean()


def _decide(shares: pd.DataFrame, votes: str) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    divided = count_cells(shares.gt(0) & shares.lt(1))
    decisions = (Decision(f"findings on which the readers disagree: {votes}", divided),)
    voted = shares.gt(0.5 if votes == "majority" else 0).astype(float).where(shares.notna())
    return shares if votes == "mean" else voted, decisions if divided else ()


def _paths(directory: Path, images: pd.Index) -> tuple[list[Path], tuple[Decision, ...]]:
    """The file of each (split, image), with any suffix; a path with .dicom if none exists."""
    found: dict[tuple[str, str], list[Path]] = {}
    for split in ("train", "test"):
        for path in sorted([*directory.glob(f"{split}/*"), *directory.glob(f"{split}/{split}/*")]):
            if path.suffix.lower() in ("", *IMAGE_SUFFIXES):
                found.setdefault((split, path.name.split(".")[0]), []).append(path)
    films = [_film(found.get(pair, [directory / pair[0] / f"{pair[1]}.dicom"])) for pair in images]
    twice = sum(len(found.get(pair, [])) > 1 for pair in images)
    policy = "images that are there as DICOM and in another format: the DICOM file is read"
    return films, (Decision(policy, {"images": twice}),) if twice else ()


def _film(files: list[Path]) -> Path:
    """The only file of a film, or the only DICOM file among them."""
    kept = [file for file in files if file.suffix.lower() in DICOM_SUFFIXES]
    chosen = files if len(files) == 1 else kept
    if len(chosen) != 1:
        raise InputError(
            f"{files[0]} and {files[1].relative_to(files[0].parents[1])} are two files of one "
            "image; keep one of them"
        )
    return chosen[0]
