"""Sex, age and view of the patients of a collection, for evaluations of groups only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fluoroscope.data.study_table import Collection, label_columns, study_table

if TYPE_CHECKING:
    import pandas as pd

SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
AGE = re.compile(r"(\d{1,4})(?:\.0)?([DWMY]?)")  # of NIH and of DICOM: 58, 058Y, 011M
PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
YEAR = re.compile(r"\d{4}")
OLDEST = 120  # years; more is an error, as 414 in older tables of NIH
LATERAL = ("LL", "RL", "LAT", "LATERAL")  # DICOM's terms, and common ones


def read_people(cells: pd.DataFrame, sex: str, age: str) -> dict[str, list[Any]]:
    """The optional columns of a study table from those that a collection's table has."""
    people: dict[str, list[Any]] = {}
    if sex in cells:
        people["sex"] = read_sexes(cells[sex])
    if age in cells:
        people["age"] = read_ages(cells[age])
    return people


def read_sexes(cells: Iterable[str]) -> list[str | None]:
    """F, M, or None for every other word.

    >>> read_sexes(["Female", "m", "O", ""])
    ['F', 'M', None, None]
    """
    return [SEXES.get(cell.strip().lower()) for cell in cells]


def read_ages(cells: Iterable[str]) -> list[int | None]:
    """Whole years; None for a cell that is empty, no age, or above `OLDEST`.

    >>> read_ages(["58", "058Y", "023M", "414", ""])
    [58, 58, 1, None, None]
    """
    return [_age(cell) for cell in cells]


def _age(cell: str) -> int | None:
    found = AGE.fullmatch(cell.strip().upper())
    years = int(found[1]) // PER_YEAR[found[2]] if found else OLDEST + 1
    return years if years <= OLDEST else None


def years_between(first: Iterable[str], last: Iterable[str]) -> list[int | None]:
    """Ages from two columns that begin with a year, such as 1930.0 and 20140915.

    >>> years_between(["1930.0", ""], ["20140915", "20140915"])
    [84, None]
    """
    pairs = ((YEAR.match(a), YEAR.match(b)) for a, b in zip(first, last, strict=True))
    return [_age(str(int(b[0]) - int(a[0]))) if a and b else None for a, b in pairs]


def add_headers(collection: Collection) -> Collection:
    """The collection with sex, age and views of its DICOM headers, unless its tables gave them."""
    from fluoroscope.sources.reading.dicom_headers import read_headers

    table = collection.table
    if table.empty or {"sex", "age"} & {*table.columns}:
        return collection
    keywords = ["PatientSex", "PatientAge", "ViewPosition"]
    sexes, ages, views = zip(*read_headers(table["path"].tolist(), keywords), strict=True)
    if not any((*sexes, *ages, *views)):
        return collection
    labels = label_columns(table)
    joined = study_table(
        table["path"],
        table[labels],
        table["patient"].tolist(),
        table["split"].tolist(),
        [a or b for a, b in zip(table["view"], _views(views), strict=True)],
        sex=read_sexes(sexes),
        age=read_ages(ages),
    )
    return collection._replace(table=joined)


def _views(terms: Sequence[str]) -> list[str | None]:
    return ["Lateral" if term.upper() in LATERAL else term.upper() or None for term in terms]
