"""The verdict: whether ReLU is destructive on these data, by the decision rule."""

import math
from dataclasses import dataclass

import pandas as pd

from fluoroscope.errors import plural
from fluoroscope.reporting.blackouts import Blackouts, alarm, blackouts, lasts, none_lasts
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.evidence import LINEAR, Evidence, gather
from fluoroscope.reporting.rows import ACTIVATION, title_of
from fluoroscope.reporting.sentences import (
    advise,
    at,
    dead_share,
    display_name,
    gain,
    growth,
    only_rate,
    width,
)


@dataclass(frozen=True)
class Verdict:
    """Whether ReLU is destructive on these data.

    Attributes:
        headline: one or two sentences with the numbers that decide.
        advice: runs that would make the verdict more certain; may be empty.
        destructive: None if the runs cannot decide; `headline` then names what is missing.
    """

    headline: str
    advice: list[str]
    destructive: bool | None


def verdict(comparison: Comparison) -> Verdict:
    """Decide whether the reference, usually ReLU, is destructive here.

    It is if it blacks out images for long (`blackouts.Blackouts.last`; other blackouts are told as
    an alarm), or if its dead share grows at a tuned learning rate and another activation scores
    better at the same setting. The share grows if the 95 % t interval over seeds, of the last
    validation minus that before the first step, lies above zero. For "better" see
    `comparison.find`, for "tuned" `evidence.gather`. It is not if the share does not grow, or if no
    other activation can be better
    by the margin. If the rows are not activations, the verdict only says what scores better.
    """
    if comparison.by != ACTIVATION:
        return _differences(comparison)
    name, evidence = display_name(comparison.reference), gather(comparison)
    dark = blackouts(comparison)
    advice = [*alarm(dark, name), *advise(comparison, evidence)]
    if (worst := next((b for b in dark if b.last), None)) is not None:
        tuned = any(e.table is worst.table for e in evidence)
        return Verdict(lasts(worst, name, tuned), advice, True)
    harmful = next((e for e in evidence if e.destructive and e.has_linear), None)
    if harmful is not None:
        gainer = str(harmful.gainers.iloc[0]["activation"])
        advice = [f"Use {_keys(harmful.table, gainer)} instead.", *advice]
        return Verdict(_destructive(name, harmful), advice, True)
    if missing := _missing(name, dark, evidence, comparison):
        return Verdict(f"Undecided: {missing}.", advice, None)
    if (open_ := next((e for e in evidence if e.grows and not e.excluded), None)) is not None:
        return Verdict(_open(name, open_, none_lasts(dark)), advice, None)
    nearest = max(evidence, key=lambda e: (len(e.gainers) > 0, e.row["dead"]))  # to harm
    return Verdict(_harmless(name, nearest, none_lasts(dark)), advice, False)


def _keys(table: SettingTable, name: str) -> str:
    """The keys of a row of activations."""
    head = next(run.config["head"] for run in table.runs if run.row == name)
    arguments = head.get("activation_args") or {}
    given = [f"head.activation_args.{key}={value}" for key, value in arguments.items()]
    return " ".join([f"head.activation={head['activation']}", *given])


def _differences(comparison: Comparison) -> Verdict:
    """The rows that score better than the reference."""
    name, kind = comparison.reference, title_of(comparison.by).lower()
    better, compared = [], 0
    for table in comparison.settings:
        at = f" at {table.label}" if table.label else ""
        others = table.rows[table.rows["finding"] != "reference"]
        compared += len(others)
        for _, row in others[others["finding"] == "better"].iterrows():
            better.append(f"{gain(row)}{at}")
    if comparison.floor:
        whether = f"Undecided whether another {kind} scores better than '{name}'"
        return Verdict(f"{whether}: {comparison.floor}.", [], None)
    if better:
        return Verdict(f"Better than '{name}': {'; '.join(better)}.", [], None)
    none = f"No {kind} was found to score better than '{name}' ({compared} compared)."
    return Verdict(none, [], None)


def _missing(
    name: str, dark: list[Blackouts], evidence: list[Evidence], comparison: Comparison
) -> str:
    """What the runs lack for the rule, as a sentence; empty if they decide."""
    if not dark:
        return f"the units of the {name} runs were not measured (diagnostics.enabled=false)"
    lacking = next((e for e in evidence if not e.has_linear), None)
    if lacking is not None:
        return (
            f"the linear head is missing{at(lacking)}, and without it no score shows what a "
            f"nonlinearity is worth; train head.activation={LINEAR} with the same seeds and keys"
        )
    reasons = (_undecidable(name, e, comparison.rule.min_seeds) for e in evidence)
    return next(filter(None, reasons), comparison.floor)


def _undecidable(name: str, e: Evidence, min_seeds: int) -> str:
    """What the runs of one setting lack for a yes or no; empty if they decide."""
    seeds = int(e.others["difference_seeds"].fillna(0).max()) if len(e.others) else 0
    lacking = {
        f"there is no other activation to compare with {name}{at(e)}; train some": e.others.empty,
        f"{name} shares no seed with another activation{at(e)}; train each activation with the "
        "same seeds": seeds == 0,
        f"{plural(seeds, 'seed')} cannot show how much is chance"
        f"{at(e)}; train each activation with at least {min_seeds} (min_seeds)": seeds < min_seeds,
        f"one epoch does not show whether the dead share grows{at(e)}; train longer": (
            e.windows == 1
        ),
        f"the test AUROC of {name} is not defined{at(e)}: the test split lacks a class": (
            math.isnan(e.row["auroc"])
        ),
        f"the dead share of {name} was not measured with several seeds{at(e)}": not e.measured,
    }
    return next((sentence for sentence, is_lacking in lacking.items() if is_lacking), "")


def _highest(e: Evidence) -> pd.Series:
    """The row that may gain most, by the upper end of its interval."""
    return e.others.sort_values("difference_high").iloc[-1]


def _open(name: str, e: Evidence, dark: str) -> str:
    """The dead share grows, and the scores cannot say whether this does harm."""
    return (
        f"Undecided: {dark}, but {name}'s dead share grows{at(e)} "
        f"({dead_share(e)}), and these test patients cannot exclude that another activation scores "
        f"better by more than the margin of {e.margin}: {gain(_highest(e))}."
    )


def _destructive(name: str, e: Evidence) -> str:
    return (
        f"{name} is destructive here: its dead share grows{at(e)} ({dead_share(e)}) and "
        f"{gain(e.gainers.iloc[0])} scores better at the same setting{only_rate(e)}."
    )


def _harmless(name: str, e: Evidence, dark: str) -> str:
    begin = f"{name} is not destructive here: {dark}"
    if len(e.gainers):
        return (
            f"{begin}, and {gain(e.gainers.iloc[0])} scores better, but not because of dead units: "
            f"their share {growth(e)}{at(e)} ({dead_share(e)}){only_rate(e)}."
        )
    if e.grows:
        return (
            f"{begin}, and although {e.row['dead']:.1%} of its {width(e)} units are dead at the "
            f"end{at(e)}, no activation is better by the margin of {e.margin} (closest: "
            f"{gain(_highest(e), brackets=False)}){only_rate(e)}."
        )
    return f"{begin}, and its dead share {growth(e)}{at(e)} ({dead_share(e)}){only_rate(e)}."
