"""The sentences of a report: phrases of the verdict, and what to run next."""

import math

import pandas as pd

from fluoroscope.reporting.columns import UNKNOWN, count
from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.evidence import LEARNING_RATES, Evidence

MORE_RATES = "-m optimizer.lr=1e-4,3e-4,1e-3,3e-3"


def display_name(activation: str) -> str:
    """The activation's name in a sentence."""
    return "ReLU" if activation == "relu" else activation


def dead_share(e: Evidence) -> str:
    """The dead share at the start (if measured), after the first epoch, and at the end."""
    start, first, last = (f"{e.row[name]:.1%}" for name in ("dead_start", "dead_first", "dead"))
    units = f"of its {width(e)} units"
    if not e.from_start:
        return f"{first} {units} after the first epoch, {last} at the end"
    between = f", {first} after the first epoch" if e.windows > 2 else ""
    return f"{start} {units} at the start{between}, {last} at the end"


def growth(e: Evidence) -> str:
    """What the dead share does over the epochs; a rise within chance is no growth."""
    if e.grows:
        return "grows"
    return "does not grow detectably" if e.growth[0] > 0 else "does not grow"


def width(e: Evidence) -> int:
    return e.table.runs[0].config["head"]["width"]


def gain(row: pd.Series, brackets: bool = True) -> str:
    numbers = f"interval {_n(row['difference_low'])} to {_n(row['difference_high'])}"
    numbers = f"{_n(row['difference'])}, {numbers}"
    return f"{row['activation']} ({numbers})" if brackets else f"{row['activation']} {numbers}"


def only_rate(e: Evidence) -> str:
    """The limitation of a verdict that rests on one learning rate."""
    return "" if len(e.tried) > 1 else "; only one learning rate was tried"


def rates(setting: dict[str, object], e: Evidence) -> str:
    """The learning rates of a setting; one that does not vary stands in the configuration only."""
    varying = [key for key in LEARNING_RATES if key in setting] or [LEARNING_RATES[0]]
    config = e.table.runs[0].config["optimizer"]
    return ", ".join(f"{k}={setting.get(k, config[k.partition('.')[2]])}" for k in varying)


def advise(comparison: Comparison, evidence: list[Evidence]) -> list[str]:
    """Further runs that would make the verdict more certain."""
    advice = []
    if any(len(e.tried) == 1 for e in evidence):
        advice.append(f"Try several learning rates: {MORE_RATES}.")
    for e in evidence:
        hardest = e.others.dropna(subset="smallest_difference").sort_values("smallest_difference")
        if len(hardest) and (hardest["finding"] == "undecided").any():
            advice.append(_what_would_decide(hardest.iloc[-1], at(e), comparison.rule.margin))
    if images := comparison.common.get("test images"):
        patients = comparison.common.get("test patients")
        known = comparison.common.get("patients_known", "all")
        advice.append(
            "More seeds do not replace more patients: part of each interval's width comes from "
            f"having only {images} test images{patients_phrase(patients, known)}."
        )
    return advice


def _what_would_decide(row: pd.Series, at: str, margin: float) -> str:
    """How many patients or seeds find the margin, for the activation that needs most."""
    seeds, patients = row["seeds_for_margin"], row["patients_for_margin"]
    begin = f"To find a true difference of {margin} in four of five studies{at} takes"
    these, hardest = f"{row['difference_seeds']:.0f} seeds", f"for {row['activation']}, the hardest"
    if patients == seeds == math.inf:
        return (
            f"{begin} more patients and more seeds: with these {these} no number of patients "
            f"suffices, and with these patients no number of seeds ({hardest})."
        )
    if seeds == math.inf:
        return (
            f"{begin} {count(patients)} test patients with these {these} ({hardest}); with these "
            f"patients no number of seeds finds less than {row['smallest_difference']:.3f}."
        )
    if patients == math.inf:
        return f"{begin} {count(seeds)} seeds with these patients ({hardest})."
    return (
        f"{begin} {count(patients)} test patients with these {these}, or {count(seeds)} seeds with "
        f"these patients ({hardest})."
    )


def patients_phrase(patients: int | None, known: str) -> str:
    """` of 72 patients`; see `score_limits` for `known`.

    >>> patients_phrase(72, "some"), patients_phrase(None, "none")
    (' of at most 72 patients', ' (patients unknown)')
    """
    if known == "none":
        return " (patients unknown)"
    return f" of {'at most ' if known == 'some' else ''}{patients} patients"


def at(e: Evidence, rates: bool = True) -> str:
    setting = {k: v for k, v in e.table.setting.items() if rates or k not in LEARNING_RATES}
    return f" at {', '.join(f'{k}={v}' for k, v in setting.items())}" if setting else ""


def _n(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:+.3f}"
