"""The tables of a report: the scores of a setting, all settings together, and `table.csv`."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import pandas as pd

from fluoroscope.escaping import markdown_cell, shortened
from fluoroscope.reporting.columns import COLUMNS, FINDINGS, UNKNOWN, Column, interval, number
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.rows import ACTIVATION, title_of

CELL = 100  # characters of a name that a table shows
# The main table holds the columns that decide, the second one all others that have a title.
MAIN = tuple(
    COLUMNS[name]
    for name in (
        *("activation", "auroc", "difference", "difference_low", "p", "finding"),
        *("dead", "linear", "blackout_max", "auroc_low", "auroc_sd", "seeds"),
    )
)
MORE = (MAIN[0], *(c for c in COLUMNS.values() if c.title and c not in MAIN))


class Table(NamedTuple):
    """The texts of a table."""

    titles: list[str]
    rows: list[list[str]]

    @classmethod
    def of(
        cls, titles: Sequence[str], rows: Sequence[Sequence[str]], characters: int = CELL
    ) -> Self:
        """A table whose long names are shortened."""
        short = [[shortened(text, characters) for text in row] for row in (titles, *rows)]
        return cls(short[0], short[1:])


def table(setting: SettingTable, columns: Sequence[Column], reference: str) -> Table:
    """One row per activation, in the order of the setting."""
    titles = [column.title.format(reference=reference) for column in columns]
    if setting.runs[0].result["test"].get("interval_too_narrow"):
        titles = [title + ", too narrow" * title.endswith("95 %") for title in titles]
    titles[0] = title_of(setting.by)
    rows = [[column.cell(row) for column in columns] for _, row in setting.rows.iterrows()]
    return Table.of(titles, rows)


def glossary(reference: str) -> dict[str, str]:
    """The meaning of each column of `MAIN` and `MORE`, by its title."""
    return {
        column.title.format(reference=reference): column.meaning.format(reference=reference)
        for column in (*MAIN, *MORE)
    }


def summary(comparison: Comparison) -> Table:
    """All settings at a glance: one row per activation, and for each setting its difference (with
    a star if it is a finding) and its share of dead units.
    """
    names = dict.fromkeys(name for s in comparison.settings for name in s.rows["activation"])
    by_setting = [s.rows.set_index("activation", drop=False) for s in comparison.settings]
    titles = [title_of(comparison.by)]
    for n in range(1, len(by_setting) + 1):
        titles += [f"{n}: minus {comparison.reference}", f"{n}: dead"]
    return Table.of(
        titles,
        [
            [name, *(cell for rows in by_setting for cell in _difference_and_dead(rows, name))]
            for name in names
        ],
    )


def _difference_and_dead(rows: pd.DataFrame, name: str) -> list[str]:
    if name not in rows.index:
        return [UNKNOWN, UNKNOWN]
    row: Any = rows.loc[name]
    star = "*" if row["finding"] in FINDINGS else ""
    return [COLUMNS["difference"].cell(row) + star, COLUMNS["dead"].cell(row)]


def best(comparison: Comparison) -> Table:
    """One row per setting: the reference, and the activation with the largest gain over it."""
    name = comparison.reference
    titles = ["Setting", f"{name} AUROC", "Dead"]
    titles += ["Largest gain", f"Minus {name}", "95 %", "Finding"]
    rows = []
    for setting in comparison.settings:
        own = setting.rows[setting.rows["activation"] == name]
        others = setting.rows.dropna(subset="difference").sort_values("difference")
        row = [setting.label]
        row += _cells(own, "auroc", "dead")
        row += _cells(others, "activation", "difference", "difference_low", "finding")
        rows.append(row)
    return Table.of(titles, rows)


def folds(setting: SettingTable) -> Table | None:
    """The AUROC of each fold with its interval: one row per activation; None without folds."""
    if setting.folds is None:
        return None
    sizes = setting.folds.drop_duplicates("fold")
    titles = [
        title_of(setting.by),
        *(f"Fold {row['fold']}, {row['images']} images" for _, row in sizes.iterrows()),
    ]
    rows = []
    for name, found in setting.folds.groupby("activation", sort=False):
        scores = [
            f"{number(row['auroc'])} ({interval(row['auroc_low'], row['auroc_high'])})"
            for _, row in found.iterrows()
        ]
        rows.append([str(name), *scores])
    return Table.of(titles, rows)


def _cells(rows: pd.DataFrame, *columns: str) -> list[str]:
    """Columns of the last row; `n/a` if there is none."""
    return [COLUMNS[name].cell(rows.iloc[-1]) if len(rows) else UNKNOWN for name in columns]


def markdown(shown: Table, right: bool = True) -> str:
    """The table for a page in Markdown.

    Args:
        right: align all columns but the first to the right, for numbers.
    """
    rule = ["---"] + ["---:" if right else "---"] * (len(shown.titles) - 1)
    titles, *rows = (map(markdown_cell, line) for line in (shown.titles, *shown.rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rule, *rows))


def frame(comparison: Comparison) -> pd.DataFrame:
    """All columns of all settings in full precision, for `table.csv`.

    Returns:
        One row per setting and activation. The first column is `setting`, its number from 1, then
        follows one column for each key that varies between settings.
    """
    parts = []
    for n, setting in enumerate(comparison.settings, 1):
        keys = {key: [value] * len(setting.rows) for key, value in setting.setting.items()}
        own = pd.DataFrame({"setting": n, **keys}, index=setting.rows.index)
        parts.append(pd.concat([own, setting.rows], axis=1))
    return pd.concat(parts, ignore_index=True).rename(columns={ACTIVATION: comparison.by})
