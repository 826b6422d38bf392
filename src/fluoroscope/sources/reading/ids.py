"""Ids of patients, studies and images: one spelling of each, and cells that identify nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.sources.reading.csv_cells import refuse_cells

if TYPE_CHECKING:
    import pandas as pd


# What programs and people write for a missing id.
MISSING_WORDS = (
    *("nan", "na", "nat", "none", "null", "nil", "missing", "undefined", "value", "ref", "name"),
    *("unknown", "unk", "unbekannt", "desconocido", "inconnu", "notavailable", "notknown"),
    *("notgiven", "notrecorded", "anon", "anonymous", "anonymized", "anonymised", "deidentified"),
    *("redacted", "removed", "noid", "nopatient"),
)
MARKS = r"[\W_]*"  # punctuation is free: N/A, <NA>, not_available, (unknown), --
WORDS = "|".join(map(MARKS.join, MISSING_WORDS))
MISSING = re.compile(rf"{MARKS}(?:{WORDS})?{MARKS}|\s*-(?:1|9+)(?:\.0)?\s*|x{{2,}}", re.IGNORECASE)
# A spreadsheet keeps 15 digits of a number: 8.39860E+35, or 839860488694292000000000000000000000.
LOST_DIGITS = re.compile(
    r"\s*(?:[+-]?\d+(?:[.,]\d+e[+-]?|e[+-])\d+|[1-9]\d{14}0{6,}(?:\.0)?)\s*", re.IGNORECASE
)
ANYONE = re.compile(f"(?:{MISSING.pattern})|(?:{LOST_DIGITS.pattern})", re.IGNORECASE)
LEADING_ZEROS = r"(?<!\d)0+(?=\d)"
# They stay different people: codes may differ in case alone, and existing splits depend on it.
PERHAPS_ONE = "patients whose ids differ only in case, leading zeros or separators: kept apart"


def spelt_ids(cells: pd.Series) -> pd.Series:
    """One spelling for each number: pandas writes 11 as 11.0 if the column has an empty cell."""
    return cells.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or says that an id is not known.

    >>> [cell for cell in ("P1", "N/A", "0", " - ", "<NA>", "-1", "n.a.") if is_missing(cell)]
    ['N/A', ' - ', '<NA>', '-1', 'n.a.']
    """
    return bool(MISSING.fullmatch(cell))


def has_lost_digits(cell: str) -> bool:
    """Whether a number was rounded, so that different people may have it.

    A code may look like a short form of a number: 12e5 is one, 1.2E+06 is not.

    >>> [cell for cell in ("12e5", "1.2E+06", "8,39860E+35") if has_lost_digits(cell)]
    ['1.2E+06', '8,39860E+35']
    """
    return bool(LOST_DIGITS.fullmatch(cell))


def identifies_nobody(cells: pd.Series) -> pd.Series:
    """Whether each cell is missing or has lost digits."""
    return _each(cells, lambda cell: bool(ANYONE.fullmatch(cell)))


def read_ids(cells: pd.Series, file: Path, rule: str, otherwise: str = "") -> pd.Series:
    """Ids in one spelling each.

    Args:
        rule: such as "every image needs a patient".
        otherwise: what can be done instead, which ends the error.

    Raises:
        InputError: for a cell that identifies nobody.
    """
    lost = "digits of this number are lost, so others may share it; export the column as text"
    refuse_cells(cells, ~_each(cells, is_missing), f"{rule}{otherwise}", file)
    refuse_cells(cells, ~_each(cells, has_lost_digits), f"{lost}{otherwise}", file)
    return spelt_ids(cells)


def read_patients(cells: pd.Series, file: Path, otherwise: str = "") -> list[str]:
    """As `read_ids`."""
    return list(read_ids(cells, file, "every image needs a patient", otherwise))


def _each(cells: pd.Series, holds: Callable[[str], bool]) -> pd.Series:
    return cells.map({cell: holds(cell) for cell in cells.unique()}).astype(bool)
