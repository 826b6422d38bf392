"""The tables of a report: which columns people see, and what they mean."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from fluoroscope.reporting.cells import (
    FINDINGS,
    UNKNOWN,
    Cell,
    against,
    number,
    p_value,
    share_of,
    span,
    value_of,
)
from fluoroscope.reporting.comparison import EFFECT, Comparison, SettingTable
from fluoroscope.reporting.rows import ACTIVATION, title_of


class Column(NamedTuple):
    """A column for people.

    Attributes:
        title: may hold `{reference}`.
        cell: its text, from a row of `SettingTable.rows`.
        meaning: for the glossary.
    """

    title: str
    cell: Cell
    meaning: str


def _seeds(row: Any) -> str:
    if math.isnan(row["seeds_needed"]):
        return UNKNOWN
    more = row["more_seeds"]
    return f"{row['seeds_needed']:.0f} ({f'{more:.0f} more' if more else 'there'})"


MAIN = (
    Column("Activation", lambda row: row["activation"], "The one of the head's hidden layer."),
    Column(
        "AUROC",
        value_of("auroc", ".3f"),
        "Test AUROC, mean over seeds; of several labels their mean.",
    ),
    Column(
        "Minus {reference}",
        against(value_of("difference", "+.3f")),
        "AUROC minus the reference's of the same seed, mean over shared seeds.",
    ),
    Column(
        "Difference, 95 %",
        against(lambda row: span(row["difference_low"], row["difference_high"], "+.3f")),
        "95 % interval of that difference, by bootstrap over patients and seeds crossed.",
    ),
    Column(
        "p (Holm)",
        against(lambda row: p_value(row["p_holm"])),
        "Two-sided paired t test over seeds, adjusted by Holm for the number of activations.",
    ),
    Column(
        "Finding",
        lambda row: row["finding"],
        "Better or worse where p (Holm) is below 0.05 and the interval lies on one side of zero.",
    ),
    Column(
        "Dead",
        share_of("dead"),
        "Share of units whose gate is closed on every validation image after the last epoch: "
        "nothing can move them.",
    ),
    Column(
        "Linear",
        share_of("linear"),
        "Share of units that are not dead but a straight line on these images "
        "(corr(z, a)² > 0.99).",
    ),
    Column(
        "Blackout",
        share_of("blackout_max"),
        "Largest share of images, in any window of any run, that close every gate: only from "
        "those does the backbone receive nothing.",
    ),
    Column(
        "AUROC, 95 %",
        lambda row: span(row["auroc_low"], row["auroc_high"]),
        "95 % interval of that mean, by bootstrap over test patients: what other patients would "
        "make of it.",
    ),
    Column("SD", value_of("auroc_sd", ".3f"), "Standard deviation of the AUROC over seeds."),
    Column("Seeds", lambda row: f"{row['seeds']:.0f}", "Runs of this activation, one a seed."),
)

MORE = (
    MAIN[0],
    Column(
        "Seeds needed",
        against(_seeds),
        f"Seeds with which four of five studies would see a true difference of {EFFECT}, and how "
        "many of them are still to be trained.",
    ),
    Column("Val. AUROC", value_of("val_auroc", ".3f"), "Validation AUROC of the best epoch."),
    Column("Nonlinear", share_of("nonlinear"), "Share of units neither dead nor linear."),
    Column("Gates open", share_of("gate_open"), "Share of image-unit pairs with an open gate."),
    Column("Dead, first", share_of("dead_first"), "Dead share after the first epoch."),
    Column(
        "Dead, expected",
        share_of("dead_expected"),
        "Dead share that the geometry of the features alone predicts for ReLU units at the start.",
    ),
    Column("Dead, most", share_of("dead_max"), "Largest dead share of any epoch."),
    Column(
        "Grad. head",
        value_of("grad_head_dense", ".2g"),
        "L2 norm of the last logged gradient of the hidden layer's weights. Gradient norms do not "
        "decide: behind batch norm no activation lowers the backbone's at the start.",
    ),
    Column(
        "Grad. backbone",
        value_of("grad_backbone", ".2g"),
        "The same of the whole backbone; n/a where it is frozen.",
    ),
    Column("Grad. features", value_of("features_l2", ".2g"), "The same of the features, dL/df."),
    Column(
        "No gradient",
        share_of("features_zero"),
        "Share of the last epoch's images that send exactly no gradient to the features.",
    ),
    Column(
        "Transmission",
        value_of("gate_transmission", ".2f"),
        "Norm of the features' gradient with the gate over that without it.",
    ),
    Column("Gate cosine", value_of("gate_cosine", ".2f"), "Cosine between the two."),
    Column(
        "Starved",
        share_of("starved"),
        "Share of units whose weights got exactly no gradient in the last epoch.",
    ),
    Column(
        "Update ratio",
        value_of("update_ratio", ".1e"),
        "Norm of the last logged step over the norm of the weights, hidden layer.",
    ),
    Column(
        "Epochs to 95 %",
        value_of("epochs_to_95", ".1f"),
        "First epoch whose validation AUROC reaches 95 % of the run's best.",
    ),
    Column("Time, s", value_of("fit_s", ".0f"), "Training time of a run."),
)


class Table(NamedTuple):
    """Texts, ready to be shown."""

    titles: list[str]
    rows: list[list[str]]


def table(setting: SettingTable, columns: Sequence[Column], reference: str) -> Table:
    """A row an activation, in the order of the setting."""
    titles = [column.title.format(reference=reference) for column in columns]
    titles[0] = title_of(setting.by)
    rows = [[column.cell(row) for column in columns] for _, row in setting.rows.iterrows()]
    return Table(titles, rows)


def summary(comparison: Comparison) -> Table:
    """All settings at a glance: a row an activation, its difference (a finding has a star) and dead
    share in each.
    """
    names = dict.fromkeys(name for s in comparison.settings for name in s.rows["activation"])
    by_setting = [s.rows.set_index("activation", drop=False) for s in comparison.settings]
    titles = [title_of(comparison.by)]
    for n in range(1, len(by_setting) + 1):
        titles += [f"{n}: minus {comparison.reference}", f"{n}: dead"]

    def gain(row: Any) -> str:
        star = "*" if row["finding"] in FINDINGS else ""
        return f"{number(row['difference'], '+.3f')}{star}"

    cells = (against(gain), share_of("dead"))
    return Table(
        titles,
        [
            [name]
            + [
                cell(rows.loc[name]) if name in rows.index else UNKNOWN
                for rows in by_setting
                for cell in cells
            ]
            for name in names
        ],
    )


def best(comparison: Comparison) -> Table:
    """A row a setting: the reference, and the activation that gains most on it."""
    name = comparison.reference
    titles = [
        "Setting",
        f"{name} AUROC",
        "Dead",
        "Largest gain",
        f"Minus {name}",
        "95 %",
        "Finding",
    ]
    rows = []
    for setting in comparison.settings:
        own = setting.rows[setting.rows["activation"] == name]
        others = setting.rows.dropna(subset="difference").sort_values("difference")
        cells = [value_of("auroc", ".3f"), share_of("dead")]
        told = [cell(own.iloc[0]) if len(own) else UNKNOWN for cell in cells]
        told += _gain(others.iloc[-1]) if len(others) else [UNKNOWN] * 4
        rows.append([setting.label, *told])
    return Table(titles, rows)


def _gain(row: Any) -> list[str]:
    interval = span(row["difference_low"], row["difference_high"], "+.3f")
    return [row["activation"], number(row["difference"], "+.3f"), interval, row["finding"]]


def markdown(shown: Table) -> str:
    """The table for a page in Markdown; numbers to the right."""
    rule = ["---"] + ["---:"] * (len(shown.titles) - 1)
    lines = [shown.titles, rule, *shown.rows]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def frame(comparison: Comparison) -> pd.DataFrame:
    """All columns of all settings in full precision, for `table.csv`.

    Returns:
        A row per setting and activation; first `setting`, its number from 1, and a column a key
        that varies between settings.
    """
    parts = []
    for n, setting in enumerate(comparison.settings, 1):
        keys = {key: [value] * len(setting.rows) for key, value in setting.setting.items()}
        own = pd.DataFrame({"setting": n, **keys}, index=setting.rows.index)
        parts.append(pd.concat([own, setting.rows], axis=1))
    return pd.concat(parts, ignore_index=True).rename(columns={ACTIVATION: comparison.by})
