"""The labels of a user's table: columns of 1 and 0, columns of words, or a column of findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluoroscope.data.policies import apply_policies
from fluoroscope.data.study_table import Decision, first_three, select_labels
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.class_folders import is_normal
from fluoroscope.sources.reading.csv_cells import (
    LABEL_VALUES,
    REPORT_VALUES,
    refuse_cells,
    require_column,
)
from fluoroscope.sources.reading.csv_files import read_csv
from fluoroscope.sources.reading.ids import is_missing

if TYPE_CHECKING:
    import pandas as pd


SEPARATORS = {"none": "", "pipe": "|", "semicolon": ";", "comma": ","}
ABSENT = ("no", "n", "false", "f", "absent", "negative", "neg", "0")  # if data.positive is set
MOST_FINDINGS = 100  # in one column; it is text if there are more


@dataclass(frozen=True)
class TableLabels:
    """The keys of `data=table` that say how labels are read; see `sources.table.read`."""

    labels: Sequence[str] | None
    positive: Sequence[str] | None = None
    column: str | None = None
    separator: str = "none"
    uncertain: str = "refuse"
    blank: str = "ignore"
    soft_target: float = 0.7

    def __post_init__(self) -> None:
        if self.separator != "none" and not self.column:
            raise InputError(
                f"data.label_separator={self.separator} needs data.label_column, the column whose "
                "cells it divides"
            )
        if self.positive is not None and self.column:
            raise InputError(
                "data.positive is for columns that each have one label, and data.label_column for "
                "one column that names findings; remove one of them"
            )
        if self.positive is not None and not [word for word in self.positive if word.strip()]:
            raise InputError("data.positive is empty; set the words, as in 'data.positive=[yes,1]'")

    def mentioned(self) -> list[str]:
        """The columns that the keys name."""
        return [self.column] if self.column else list(self.labels or ())

    def choose(self, header: pd.DataFrame, used: Collection[str | None], file: Path) -> list[str]:
        """The columns with labels, in the order given.

        Args:
            header: all columns of the file, with or without rows.
            used: columns that have another meaning.
            file: the file, for error messages.

        Raises:
            InputError: for an unknown column, and without labels; lists the possible columns.
        """
        if self.column:
            require_column(header, self.column, "data.label_column", file)
            return [self.column]
        free = [column for column in header.columns if column not in used]
        if self.labels is not None and free:
            return select_labels(free, self.labels)
        raise self._not_chosen(read_csv(file), free, file)

    def read(self, cells: pd.DataFrame, file: Path) -> pd.DataFrame:
        """Labels of each row: 1, 0, -1 for uncertain, and NaN for an empty cell.

        Raises:
            InputError: for an invalid cell.
        """
        import pandas as pd

        if self.column:
            return self._findings(cells[self.column], file)
        return pd.DataFrame({label: self._values(cells[label], file) for label in cells})

    def decide(self, values: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
        """As `data.policies.apply_policies`."""
        return apply_policies(
            values,
            uncertain="ignore" if self.uncertain == "refuse" else self.uncertain,
            blank=self.blank,
            soft_target=self.soft_target,
        )

    def _meanings(self) -> dict[str, float]:
        """The value of each cell, in lower case and without the .0 of a number."""
        numbers = LABEL_VALUES if self.uncertain == "refuse" else REPORT_VALUES
        if self.positive is None:
            return numbers
        rest = {cell: value for cell, value in numbers.items() if value != 1}
        present = {_plain(word) for word in self.positive}
        return {**rest, **dict.fromkeys(ABSENT, 0.0), **dict.fromkeys(present, 1.0)}

    def _rule(self) -> str:
        minus = "" if self.uncertain == "refuse" else ", -1 (uncertain)"
        if self.positive is not None:
            present = ", ".join(self.positive)
            return (
                f"present is {present} (data.positive), absent is {', '.join(ABSENT)}{minus}, and "
                "an empty cell is unknown"
            )
        further = "" if minus else " -1 is read with data.uncertain, and"
        return (
            f"labels must be 1 (present), 0 (absent){minus} or empty (unknown);{further} words "
            "are read with data.positive, as in 'data.positive=[yes]'"
        )

    def _values(self, cells: pd.Series, file: Path) -> pd.Series:
        plain = cells.map({cell: _plain(cell) for cell in cells.unique()})
        meanings = self._meanings()
        refuse_cells(cells, plain.isin([*meanings]), self._rule(), file)
        return plain.map(meanings).astype(float)

    def _not_chosen(self, cells: pd.DataFrame, free: Sequence[str], file: Path) -> InputError:
        meanings = self._meanings()
        found = []
        for column in free:
            values = {_plain(cell) for cell in cells[column].unique()}
            found += [column] if values <= {*meanings} and values != {""} else []
        kind = "1, 0" if self.positive is None else "the words of data.positive, no"
        further = (
            "none; words are read with data.positive, and a column that names findings with "
            "data.label_column"
        )
        return InputError(
            f"data.labels is not set; the columns of {file} with only {kind} or empty cells are: "
            f"{', '.join(found) or further}"
        )

    def _findings(self, cells: pd.Series, file: Path) -> pd.DataFrame:
        """A 0/1 column for each chosen finding, NaN where the cell is empty."""
        import numpy as np
        import pandas as pd

        named = {cell: self._split(cell) for cell in cells.unique()}
        _refuse_unclear(cells, named, file)
        names = sorted({name for found in named.values() for name in found})
        self._refuse_names(cells.name, names, file)
        chosen = self._chosen(cells.name, names, file)
        known = cells.map({cell: bool(found) for cell, found in named.items()}).astype(bool)
        has = {
            label: cells.map({cell: float(label in found) for cell, found in named.items()})
            for label in chosen
        }
        return pd.DataFrame(has).astype(float).where(known, np.nan)

    def _split(self, cell: str) -> list[str]:
        mark = SEPARATORS[self.separator]
        parts = cell.split(mark) if mark else [cell]
        return [part.strip() for part in parts if part.strip()]

    def _refuse_names(self, column: object, names: Sequence[str], file: Path) -> None:
        for word, mark in SEPARATORS.items():
            joined = [name for name in names if mark and mark != "," and mark in name]
            if joined:
                raise InputError(
                    f"{file}: column {column!r} holds {joined[0][:40]!r}; if these are several "
                    f"findings, set data.label_separator={word}, otherwise rename it"
                )
        forms = Counter(name.casefold() for name in names)
        twice = [name for name in names if forms[name.casefold()] > 1]
        if twice:
            raise InputError(
                f"{file}: column {column!r} spells findings in several ways: {first_three(twice)}; "
                "keep one spelling of each"
            )

    def _chosen(self, column: object, names: list[str], file: Path) -> list[str]:
        """As of class folders: all names but that of a normal film, and one of two names."""
        if self.labels is not None:
            return select_labels(names, self.labels)
        findings = [name for name in names if not is_normal(name)]
        if not findings or len(names) > MOST_FINDINGS:
            raise InputError(
                f"{file}: column {column!r} has {len(names)} different findings; choose those to "
                "learn with data.labels, or check data.label_column and data.label_separator"
            )
        is_pair = len(names) == len(findings) == 2 and self.separator == "none"
        return findings[1:] if is_pair else findings


def _refuse_unclear(cells: pd.Series, named: dict[str, list[str]], file: Path) -> None:
    def is_clear(cell: str) -> bool:
        found = named[cell]
        contradicts = len(found) > 1 and any(map(is_normal, found))
        return not (contradicts or any(map(is_missing, found)) or re.match(r"\s*\[.*\]", cell))

    clear = cells.map({cell: is_clear(cell) for cell in named}).astype(bool)
    rule = (
        "a cell names findings, or says No Finding and nothing else, or is empty if they are "
        "unknown"
    )
    refuse_cells(cells, clear, rule, file)


def _plain(cell: str) -> str:
    """
    >>> [_plain(cell) for cell in (" Yes", "1.0", "1")]
    ['yes', '1', '1']
    """
    return re.sub(r"^(\d+)\.0$", r"\1", cell.strip().casefold())
