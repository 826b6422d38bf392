"""The columns of a comparison: where a number comes from, what it means and how it is written.

The columns of the diagnostics are those of `diagnostics.keys`; the others are declared here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.diagnostics import keys
from fluoroscope.diagnostics.keys import (
    BLACKOUT,
    BLACKOUT_EXPECTED,
    DEAD,
    DEAD_EXPECTED,
    METRICS,
    START,
    WINDOWS,
)
from fluoroscope.reporting.collect import Run

EFFECT = 0.01  # the difference of AUROC that is worth detecting
UNKNOWN = "n/a"
FINDINGS = ("better", "worse")  # than the reference
SHOWN = {"undecided": "not decided"}  # other findings are shown by their name
VAL_AUROC = "val/auroc"

Cell = Callable[[Any], str]  # a row of `SettingTable.rows` to the text of one cell


def number(value: float, form: str = ".3f") -> str:
    """Format a number with a true minus sign; `n/a` for NaN.

    >>> number(-0.0042, "+.3f")
    '−0.004'
    """
    return UNKNOWN if math.isnan(value) else format(value, form).replace("-", "−")


def interval(low: float, high: float, form: str = ".3f") -> str:
    return UNKNOWN if math.isnan(low) else f"{number(low, form)} to {number(high, form)}"


def p_value(value: float) -> str:
    """Format a p value; never as zero.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if value < 0.001 else number(value, ".3f")


def count(value: float) -> str:
    """A number of patients or seeds; `no number` for infinity, `n/a` for NaN."""
    return "no number" if value == math.inf else number(value, ",.0f")


def _with_interval(row: Any, name: str, form: str = ".3f") -> str:
    """A number with its interval in brackets; `n/a` if it is not known."""
    value = number(row[name], form)
    limits = interval(row[f"{name}_low"], row[f"{name}_high"], form)
    return value if UNKNOWN in (value, limits) else f"{value} ({limits})"


def _needed(column: str, row: Any) -> str:
    return count(row[column])


@dataclass(frozen=True)
class Column:
    """A column of `SettingTable.rows` and `table.csv`, and, if it has a title, of the page.

    Attributes:
        name: in `table.csv`.
        title: on the page; may hold `{reference}`. "": the page leaves it out.
        meaning: one sentence for the page's glossary.
        form: how a number is written.
        place: keys that lead to a run's value in `result.json`; () if it is computed.
        paired: compares with the reference, so the reference itself has no value.
        text: writes the cell, for a column that is more than one number.
    """

    name: str
    title: str = ""
    meaning: str = ""
    form: str = ".3f"
    place: tuple[str, ...] = ()
    paired: bool = False
    text: Cell | None = None

    def cell(self, row: Any) -> str:
        """The text of this column in a row of `SettingTable.rows`."""
        if self.paired and row["finding"] == "reference":
            return "–"
        return number(row[self.name], self.form) if self.text is None else self.text(row)


SCORES = (
    Column(
        *("activation", "Activation", "Activation of the head's hidden layer."),
        text=lambda row: row["activation"],
    ),
    Column("seeds", "Seeds", "Number of runs of this activation, one per seed.", ".0f"),
    Column("auroc", "AUROC", "Test AUROC, mean over seeds (and over labels, if there are more)."),
    Column("auroc_sd", "SD", "Standard deviation of the AUROC over seeds."),
    Column(
        *("auroc_low", "AUROC, 95 %"),
        "95 % interval of that mean over test patients: how much it could differ for other "
        "patients.",
        text=lambda row: interval(row["auroc_low"], row["auroc_high"]),
    ),
    Column("auroc_high"),
    Column(
        *("difference", "Minus {reference}"),
        "AUROC minus the AUROC of {reference} with the same seed, mean over shared seeds.",
        "+.3f",
        paired=True,
    ),
    Column(
        *("difference_low", "Difference, 95 %"),
        "Interval of that difference for other patients and seeds. With a probability of 95 % the "
        "intervals of all comparisons of the study hold together.",
        paired=True,
        text=lambda row: interval(row["difference_low"], row["difference_high"], "+.3f"),
    ),
    Column("difference_high"),
    Column("difference_seeds"),
    Column(
        *("p", "p (adjusted)"),
        "Probability of a difference at least as clear in any comparison of the study, if there "
        "were none. Below 0.05 if the interval excludes zero.",
        paired=True,
        text=lambda row: p_value(row["p"]),
    ),
    Column(
        *("ensemble", "Ensemble"),
        "Test AUROC of the mean probability of all seeds, and its 95 % interval over patients.",
        text=lambda row: _with_interval(row, "ensemble"),
    ),
    Column("ensemble_low"),
    Column("ensemble_high"),
    Column(
        *("ensemble_difference", "Ensemble minus {reference}"),
        "That AUROC minus the one of {reference}. With a probability of 95 % these intervals hold "
        "together for other patients; the seeds are fixed.",
        paired=True,
        text=lambda row: _with_interval(row, "ensemble_difference", "+.3f"),
    ),
    Column("ensemble_difference_low"),
    Column("ensemble_difference_high"),
    Column(
        *("val_auroc", "Val. AUROC", "Validation AUROC of the best epoch."),
        place=("val", "auroc"),
    ),
)
UNITS = (
    Column(
        *("blackout_max", "Blackout"),
        "Largest share of images that close every gate, in any training or validation window of "
        "any run. Only such images send no gradient to the backbone.",
        keys.SHARE,
    ),
    Column(
        *("blackout_lasting", "Blackout, lasting"),
        "Share of images that close every gate in more than half of the epochs, or in the last "
        "validation.",
        keys.SHARE,
    ),
    Column(
        *("blackout_expected", "Blackout, expected"),
        "Share of images that would close every gate if units were independent: the product over "
        "units of the share that closes each before the first step; 2^-width if not measured.",
        keys.SHARE,
    ),
    Column(
        *("dead_start", "Dead, start"),
        "Share of units that are dead on the validation images before the first step.",
        keys.SHARE,
        ("units", f"{START}/{DEAD.name}"),
    ),
    Column("dead_first", "Dead, first", "Share of dead units after the first epoch.", keys.SHARE),
    Column(
        *("dead_training", "Dead, by training"),
        "Dead units at the end minus what geometry predicts there: their share at the start, plus "
        "the change of the expected share; the expected share itself if no start was measured.",
        keys.SHARE,
    ),
    Column(
        *("dead_max", "Dead, most", "Largest share of dead units after any epoch.", keys.SHARE),
        place=("units", keys.DEAD_MAX),
    ),
)
COSTS = (
    Column(
        *("epochs_to_95", "Epochs to 95 %"),
        "First epoch whose validation AUROC reaches 95 % of the run's best.",
        ".1f",
    ),
    Column("fit_s", "Time, s", "Training time of one run in seconds.", ".0f", ("fit_s",)),
    Column(
        *("smallest_difference", "Smallest visible"),
        "The smallest true difference that four of five studies with these patients would find, "
        "however many seeds they train.",
        paired=True,
    ),
    *(
        Column(
            *(f"{units}_for_{name}", f"{units.capitalize()} for {size}"),
            f"Number of {units} with which four of five studies, with {others}, would find a true "
            f"difference of {size}.",
            paired=True,
            text=partial(_needed, f"{units}_for_{name}"),
        )
        for name, size in (("effect", EFFECT), ("margin", "the margin"))
        for units, others in (("seeds", "these patients"), ("patients", "these seeds"))
    ),
    Column(
        *("finding", "Finding"),
        "Equivalent: the interval lies within the margin on both sides of zero. Else better or "
        "worse: it lies above or below zero. Else not decided.",
        text=lambda row: SHOWN.get(row["finding"], row["finding"]),
    ),
)
DIAGNOSTICS = tuple(
    Column(m.column, m.title, m.meaning, m.form, m.place) for m in METRICS if m.column
)
# In the order of `table.csv`. Numbers are means over the seeds of a row, NaN where a number was
# not measured or is not defined; only `blackout_max` is a maximum.
COLUMNS = {column.name: column for column in (*SCORES, *UNITS, *DIAGNOSTICS, *COSTS)}


def measure(run: Run) -> dict[str, float]:
    """The columns that come from a single run, except the test AUROC; NaN if one is missing."""
    values = {name: _value_at(run.result, c.place) for name, c in COLUMNS.items() if c.place}
    dead, auroc = _by_epoch(run, DEAD.key()), _by_epoch(run, VAL_AUROC)
    train, val = (_by_epoch(run, BLACKOUT.key(window)) for window in WINDOWS)
    end = values[BLACKOUT.column]
    return values | {
        "dead_first": float(dead.iloc[0]) if len(dead) else math.nan,
        "dead_training": values[DEAD.column] - _dead_by_geometry(run, values),
        "blackout_max": float(np.fmax.reduce([end, train.max(), val.max()])),
        "blackout_lasting": float(np.fmax.reduce([end, lasting(train), lasting(val)])),
        "blackout_expected": _blackout_by_geometry(run),
        "epochs_to_95": epochs_to(auroc),
    }


def epochs_to(auroc: pd.Series, share: float = 0.95) -> float:
    """The first epoch, from 1, that reaches the share of the best epoch's value; NaN without any.

    Args:
        auroc: by epoch, from 0.
    """
    reached = auroc.index[auroc >= share * auroc.max()]
    return float(reached[0] + 1) if len(reached) else math.nan


def lasting(shares: pd.Series) -> float:
    """The share that more than half of the epochs reach; NaN for fewer than two epochs.

    >>> lasting(pd.Series([0.5, 0.0, 0.0])), lasting(pd.Series([0.5, 0.2, 0.0]))
    (0.0, 0.2)
    """
    falling = shares.sort_values(ascending=False)
    return float(falling.iloc[len(shares) // 2]) if len(shares) > 1 else math.nan


def _at_start(run: Run, metric: keys.Metric) -> float:
    return _value_at(run.result, ("units", f"{START}/{metric.name}"))


def _blackout_by_geometry(run: Run) -> float:
    measured = _at_start(run, BLACKOUT_EXPECTED)
    return 2.0 ** -run.config["head"]["width"] if math.isnan(measured) else measured


def _dead_by_geometry(run: Run, values: dict[str, float]) -> float:
    """The dead share at the end without any training of the head; NaN if it is not known."""
    start, expected = values["dead_start"], math.nan
    if is_predicted(run.config["head"]):
        expected = values[DEAD_EXPECTED.column]
    moved = expected - _at_start(run, DEAD_EXPECTED)  # because the features moved
    if math.isnan(start):
        return expected
    return start if math.isnan(moved) else start + moved


def is_predicted(head: dict[str, Any]) -> bool:
    """Whether `dead_expected` holds for this head: ReLU on random weights without a bias."""
    plain = not head.get("bias_init") and head.get("init") != "torch"
    return plain and head["activation"] == "relu" and head.get("order") == "activation-norm"


def _value_at(result: dict[str, Any], place: tuple[str, ...]) -> float:
    value = reduce(lambda part, key: part.get(key, {}), place, result)
    return math.nan if value is None or isinstance(value, dict) else float(value)


def _by_epoch(run: Run, key: str) -> pd.Series:
    """The known values of a key in `metrics.csv`, by epoch."""
    if key not in run.metrics:
        return pd.Series(dtype=np.float64)
    epoch, values = (run.metrics[column].to_numpy(dtype=float) for column in ("epoch", key))
    known = ~np.isnan(values) & ~np.isnan(epoch)
    return pd.Series(values[known], index=epoch[known].astype(int))
