"""PadChest (BIMCV)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.policies import count_cells
from fluoroscope.data.study_table import (
    Collection,
    Decision,
    UnknownLabelError,
    select_labels,
    study_table,
)
from fluoroscope.errors import InputError, nearest
from fluoroscope.sources import existing_root
from fluoroscope.sources.reading.collection_files import find_file, find_films, read_columns
from fluoroscope.sources.reading.csv_cells import read_views, refuse_cells
from fluoroscope.sources.reading.ids import read_patients, spelt_ids
from fluoroscope.sources.reading.people import read_sexes, years_between

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass
class Keys(Data):
    """Keys of `data=padchest`."""

    leave_out: list[str] = MISSING
    unchanged: str = one_of("ignore", "zero")
    labelled_by: str = one_of("anyone", "physician")


CSV = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
CSVS = (CSV, "chest_x_ray_images_labels_sample.csv")
COLUMNS = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels", "MethodLabel")
PEOPLE = ("PatientSex_DICOM", "PatientBirth", "StudyDate_DICOM")
# PadChest's names of the 14 findings of NIH ChestX-ray14.
FINDINGS = (
    *("atelectasis", "cardiomegaly", "consolidation", "pulmonary edema", "pleural effusion"),
    *("emphysema", "pulmonary fibrosis", "hiatal hernia", "infiltrates", "pulmonary mass"),
    *("nodule", "pleural thickening", "pneumonia", "pneumothorax"),
)
# Words of the column Labels that are not findings.
REMARKS = ("exclude", "suboptimal study", "unchanged")
LIST = r"\[(?:'[^']*'(?:, *'[^']*')*)?\]"  # such as ['COPD signs', ' pneumonia', '']
VIEWS = {"L": "Lateral", "UNK": ""}


def read(
    root: str | Path | None,
    labels: Sequence[str] | None = None,
    leave_out: Sequence[str] = ("exclude", "suboptimal study"),
    unchanged: str = "ignore",
    labelled_by: str = "anyone",
) -> Collection:
    """PadChest as downloaded; findings that an image's labels do not name are absent.

    Args:
        root: directory of the CSV and of the images, which are in its folders 0 to 54, or 0/0 and
            so on, in images/, in a resized copy such as images-224/, or next to the CSV.
        labels: names from the column Labels; None means `FINDINGS`.
        leave_out: leave out images with these words in the column Labels, or, in upper or lower
            case, in the column Projection.
        unchanged: the report of an image labelled "unchanged" may omit findings of an earlier
            report. "ignore" makes its findings that are not named unknown, "zero" absent.
        labelled_by: "physician" leaves out images that a network labelled.

    Raises:
        InputError: for a missing CSV or column, a label that no image has, and an invalid cell.
    """
    directory = existing_root(root)
    file = find_file(directory, CSVS)
    cells = read_columns(file, COLUMNS, "padchest", optional=PEOPLE)
    names = _names(cells["Labels"], file)
    chosen = _known("data.labels", FINDINGS if labels is None else labels, names, file)
    words = _known("data.leave_out", leave_out, names, file) if leave_out else []
    out = _left_out(cells, names, words)
    if labelled_by == "physician":
        out["labelled by a network"] = cells["MethodLabel"].str.strip() != "Physician"
    cells = cells[~out.any(axis=1)]
    decided, decisions = _findings(cells.index, names, chosen, unchanged)
    table = study_table(
        _paths(directory, cells),
        decided,
        patients=read_patients(cells["PatientID"], file),
        views=read_views(cells["Projection"].str.strip().replace(VIEWS)),
        **_people(cells),
    )
    gone = Decision("images left out", count_cells(out))
    return Collection(table, directory, (gone, *decisions) if gone.counts else decisions)


def _people(cells: pd.DataFrame) -> dict[str, list[Any]]:
    if not {*PEOPLE} <= {*cells}:
        return {}
    ages = years_between(cells["PatientBirth"], cells["StudyDate_DICOM"])
    return {"sex": read_sexes(cells["PatientSex_DICOM"]), "age": ages}


def _names(cells: pd.Series, file: Path) -> pd.Series:
    """The names in all cells, one per row; the index is that of the cell."""
    text = cells.str.strip().replace("nan", "")
    rule = "labels are a list such as ['nodule', 'pleural effusion']"
    refuse_cells(cells, text.str.fullmatch(LIST) | (text == ""), rule, file)
    names = text.str.findall("'([^']*)'").explode().dropna().str.strip()
    return names[names != ""]


def _known(key: str, words: Sequence[str], names: pd.Series, file: Path) -> list[str]:
    """As `select_labels`, but its error does not list all 174 names of the collection."""
    known = [*dict.fromkeys([*FINDINGS, *REMARKS, *names.unique()])]
    wrong = [] if isinstance(words, str) else [word for word in words if word not in known]
    if wrong:
        refusal = (
            f"{key} contains {wrong[0]!r}, but no image in {file} has it{nearest(wrong[0], known)};"
            " write names as in the column Labels, such as 'pleural effusion'"
        )
        raise UnknownLabelError(refusal, known) if key == "data.labels" else InputError(refusal)
    return select_labels(known, words)


def _left_out(cells: pd.DataFrame, names: pd.Series, words: list[str]) -> pd.DataFrame:
    import pandas as pd

    projections = cells["Projection"].str.strip().str.lower()
    return pd.DataFrame(
        {word: _naming(word, names, cells.index) | (projections == word) for word in words},
        index=cells.index,
    )


def _naming(word: str, names: pd.Series, rows: pd.Index) -> np.ndarray:
    return rows.isin(names.index[names == word])


def _findings(
    rows: pd.Index, names: pd.Series, chosen: list[str], unchanged: str
) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    import numpy as np
    import pandas as pd

    named = {label: _naming(label, names, rows) for label in chosen}
    values = pd.DataFrame(named, index=rows, dtype=float)
    bare = ~rows.isin(names.index)
    silent = values.eq(0) & _naming("unchanged", names, rows)[:, None]
    values.loc[bare] = np.nan
    if unchanged == "ignore":
        values = values.mask(silent)
    decisions = (
        Decision(f"findings not named with 'unchanged': {unchanged}", count_cells(silent)),
        Decision("images without any label: unknown", {"images": int(bare.sum())}),
    )
    return values, tuple(decision for decision in decisions if any(decision.counts.values()))


def _paths(directory: Path, cells: pd.DataFrame) -> pd.Series:
    """Each image in the folder of its row, or where all images are in one folder."""
    import pandas as pd

    images = cells["ImageID"].str.strip()
    folders = spelt_ids(cells["ImageDir"])
    copies = sorted([*directory.glob("images-*"), *directory.glob("images-*/images-*")])
    flat = [directory / "images", *copies, directory]
    paths, listed = pd.Series("", cells.index, dtype=object), dict[Path, set[str]]()
    for name, rows in images.groupby(folders, sort=False):
        own = [directory / name, directory / name / name, directory / "images" / name]
        found = find_films(list(rows), [*(own if name else []), *flat], listed)
        paths[rows.index] = pd.Series(found, index=rows.index)
    return paths
