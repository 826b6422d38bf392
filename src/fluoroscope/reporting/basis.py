"""What a verdict stands on: a table with one column of facts for each setting."""

import math
from collections import Counter
from dataclasses import replace

import pandas as pd

from fluoroscope.reporting.blackouts import blackouts, geometry, percent
from fluoroscope.reporting.columns import (
    COLUMNS,
    FINDINGS,
    SHOWN,
    UNKNOWN,
    interval,
    is_predicted,
    number,
)
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.evidence import Evidence, gather
from fluoroscope.reporting.rows import ACTIVATION, plural_of
from fluoroscope.reporting.sentences import dead_share, display_name, growth, rates
from fluoroscope.reporting.tables import Table

CHARACTERS = 300  # that a cell shows
LINEAR_SAYS = {
    "better": "better: the nonlinearity does more harm than good",
    "worse": "worse: the head benefits from its nonlinearity",
    "equivalent": "equivalent: the head needs no nonlinearity",
    "undecided": "not decided: it may score better or worse",
}


def basis(comparison: Comparison) -> Table:
    """One row per fact, one column per setting.

    Of activations: the score of the reference and of its seeds' ensemble, blackouts, learning
    rates, dead units and their growth, the linear head, and how many of the others are better,
    worse, equivalent or not decided. Of other rows: blackouts, dead units and findings.
    """
    chosen = gather(comparison) if comparison.by == ACTIVATION else []
    columns = [_facts(comparison, table, chosen) for table in comparison.settings]
    names = dict.fromkeys(title for facts in columns for title in facts)
    rows = [[name, *(facts.get(name, UNKNOWN) for facts in columns)] for name in names]
    labels = [f"{n}: {table.label}" for n, table in enumerate(comparison.settings, 1)]
    titles = ["Evidence", *(labels if len(labels) > 1 else ["Value"])]
    return Table.of(titles, rows, CHARACTERS)


def _facts(comparison: Comparison, table: SettingTable, chosen: list[Evidence]) -> dict[str, str]:
    name = display_name(comparison.reference)
    others = f"Other {plural_of(comparison.by).lower()}"
    found = {others: _findings(table)}
    if comparison.by != ACTIVATION:
        dark = _blackouts(table.by_run)
        return {"Blackouts": dark, "Dead units": _dead_range(table, comparison.reference)} | found
    tuned = next((e for e in chosen if any(table is tried for tried in e.tried)), None)
    if tuned is None:
        return {f"Test AUROC of {name}": f"no run of {name}"} | found
    e = replace(tuned, table=table)
    runs = table.by_run[table.by_run["activation"] == comparison.reference]
    auroc = f"{number(e.row['auroc'])} ({interval(e.row['auroc_low'], e.row['auroc_high'])})"
    return {
        f"Test AUROC of {name}": auroc,
        **_ensembles(e),
        "Learning rate": _tuned(e, tuned, name),
        f"Blackouts of {name}": _blackouts(runs),
        "Lasting blackouts": _lasting(comparison, table),
        f"Dead units of {name}": UNKNOWN if math.isnan(e.row["dead"]) else dead_share(e),
        "Growth of their share": _growth(e),
        "By training": _by_training(e),
        "Linear head": UNKNOWN if e.linear is None else LINEAR_SAYS[e.linear["finding"]],
    } | found


def _ensembles(e: Evidence) -> dict[str, str]:
    """The reference's seeds as one model, and the row whose ensemble gains most."""
    if math.isnan(e.row["ensemble"]):
        return {}
    own = COLUMNS["ensemble"].cell(e.row)
    others = e.others.dropna(subset="ensemble_difference").sort_values("ensemble_difference")
    if others.empty:
        return {"Ensemble of its seeds": own}
    best = others.iloc[-1]
    gain = f"{best['activation']} {COLUMNS['ensemble_difference'].cell(best)}"
    return {"Ensemble of its seeds": f"{own}; largest gain over it: {gain}"}


def _tuned(e: Evidence, tuned: Evidence, name: str) -> str:
    """Whether the verdict counts this setting, and the learning rates that were tried."""
    own = rates(e.table.setting, e)
    if len(e.tried) == 1:
        return f"only {own} was tried"
    if e.table is not tuned.table:
        best = rates(tuned.table.setting, e)
        return f"{own}: not counted, {name} validates better at {best}"
    tried = "; ".join(rates(table.setting, e) for table in e.tried)
    return f"{own}: best validation AUROC ({number(e.row['val_auroc'])}) of {tried}"


def _blackouts(runs: pd.DataFrame) -> str:
    """In how many runs some image closed every unit, and how many images at most."""
    worst = runs["blackout_max"].dropna()
    if worst.empty:
        return "not measured"
    most = f", up to {worst.max():.1%} of a window's images" if worst.max() > 0 else ""
    return f"in {(worst > 0).sum()} of {len(worst)} runs{most}"


def _lasting(comparison: Comparison, table: SettingTable) -> str:
    """The share of images that decides, beside what geometry alone predicts."""
    found = next((b for b in blackouts(comparison) if b.table is table), None)
    if found is None:
        return "not measured"
    return f"{percent(found.lasting)} of the images; {geometry(found)}"


def _by_training(e: Evidence) -> str:
    """The dead share that geometry does not predict, and what it predicts."""
    training, expected = e.row["dead_training"], e.row["dead_expected"]
    if math.isnan(training):
        return UNKNOWN
    runs = [run for run in e.table.runs if run.row == e.reference]
    if math.isnan(expected) or not all(is_predicted(run.config["head"]) for run in runs):
        return number(training, "+.1%")
    known = f" (geometry alone: {expected:.1%} at the end)"
    return f"{number(training, '+.1%')}{known}"


def _growth(e: Evidence) -> str:
    mean, low, high = e.growth
    if math.isnan(mean):
        return "not measured"
    if math.isnan(low):
        return f"{number(mean, '+.1%')} in the only seed"
    since = "" if e.from_start else "; without the first epoch: no census at the start"
    return f"{number(mean, '+.1%')} ({interval(low, high, '+.1%')}): it {growth(e)}{since}"


def _findings(table: SettingTable) -> str:
    found = Counter(table.rows["finding"])
    return ", ".join(
        f"{found[name]} {SHOWN.get(name, name)}" for name in (*FINDINGS, "equivalent", "undecided")
    )


def _dead_range(table: SettingTable, name: str) -> str:
    """The reference's share, the smallest and the largest."""
    shares = table.rows.dropna(subset="dead").sort_values("dead")
    own = shares[shares["activation"] == name]
    rows = pd.concat([own, shares.iloc[[0, -1][: len(shares)]]]).drop_duplicates("activation")
    cells = [f"{row['activation']} {COLUMNS['dead'].cell(row)}" for _, row in rows.iterrows()]
    return ", ".join(cells) or "not measured"
