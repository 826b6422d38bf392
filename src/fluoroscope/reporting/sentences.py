"""The sentences of a report: the evidence for the verdict, and what to run next."""

import math

import pandas as pd

from fluoroscope.reporting.columns import SHOWN, UNKNOWN, count
from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.evidence import LEARNING_RATES, Evidence

MORE_RATES = "-m optimizer.lr=1e-4,3e-4,1e-3,3e-3"


def explain(comparison: Comparison, evidence: list[Evidence], dark: pd.DataFrame) -> list[str]:
    """One sentence for each piece of evidence.

    Args:
        comparison: to be explained.
        evidence: from `evidence.gather`.
        dark: from `evidence.blackouts`.
    """
    name = display_name(comparison.reference)
    lines = [_blackout_line(name, dark)]
    for e in evidence:
        lines += [_tuned_line(name, e), _dead_line(e), _score_line(name, e)]
        if e.linear is not None:
            lines.append(_linear_line(name, e.linear, at(e)))
    return lines + _elsewhere(name, comparison, evidence)


def display_name(activation: str) -> str:
    """The activation's name in a sentence."""
    return "ReLU" if activation == "relu" else activation


def dead_share(e: Evidence) -> str:
    first, last = e.row["dead_first"], e.row["dead"]
    return f"{first:.1%} of its {width(e)} units after the first epoch, {last:.1%} at the end"


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


def _blackout_line(name: str, dark: pd.DataFrame) -> str:
    if dark.empty:
        return f"Blackout: not measured in any {name} run."
    hit = int((dark["worst"] > 0).sum())
    return (
        f"Blackout: in {hit} of {len(dark)} {name} runs an image closed every unit, in any "
        "training or validation window."
    )


def _tuned_line(name: str, e: Evidence) -> str:
    rates, where = [_rates(table.setting, e) for table in e.tried], at(e, rates=False)
    if len(e.tried) == 1:
        return f"Learning rate{where}: only {rates[0]} was tried; the answer may differ at another."
    return (
        f"Learning rate{where}: at {_rates(e.table.setting, e)} {name} has its best validation "
        f"AUROC (mean {e.row['val_auroc']:.3f}) among {'; '.join(rates)}."
    )


def only_rate(e: Evidence) -> str:
    """The limitation of a verdict that rests on one learning rate."""
    return "" if len(e.tried) > 1 else "; only one learning rate was tried"


def _rates(setting: dict[str, object], e: Evidence) -> str:
    """The learning rates of a setting; one that does not vary stands in the configuration only."""
    varying = [key for key in LEARNING_RATES if key in setting] or [LEARNING_RATES[0]]
    config = e.table.runs[0].config["optimizer"]
    return ", ".join(f"{k}={setting.get(k, config[k.partition('.')[2]])}" for k in varying)


def _dead_line(e: Evidence) -> str:
    mean, low, high = e.growth
    if math.isnan(mean):
        return f"Dead units{at(e)}: not measured."
    if math.isnan(low):
        grows = "grew in the only seed" if mean > 0 else "did not grow in the only seed"
        return f"Dead units{at(e)}: {dead_share(e)}; their share {grows}."
    change = f"{mean:+.1%}, 95 % interval over seeds {low:+.1%} to {high:+.1%}"
    return f"Dead units{at(e)}: {dead_share(e)} ({change}). The share {growth(e)}."


def _score_line(name: str, e: Evidence) -> str:
    groups = {
        "better": gain,
        "worse": gain,
        "equivalent": lambda row: f"{row['activation']} {_n(row['difference'])}",
        "undecided": gain,
    }
    parts = []
    for finding, describe in groups.items():
        members = e.others[e.others["finding"] == finding]
        if len(members):
            title = SHOWN.get(finding, finding)
            parts.append(f"{title}: {', '.join(describe(row) for _, row in members.iterrows())}")
    scores = "; ".join(parts) or "no other activation"
    return f"Test AUROC{at(e)}: {name} {e.row['auroc']:.3f}; {scores}."


def _linear_line(name: str, row: pd.Series, at: str) -> str:
    finding = {
        "better": f"scores better than {name}: the nonlinearity does more harm than good",
        "worse": f"scores worse than {name}: the head benefits from its nonlinearity",
        "equivalent": f"is equivalent to {name}: the head needs no nonlinearity",
        "undecided": f"may score better or worse than {name}: it is not decided whether the head "
        "needs a nonlinearity",
    }[row["finding"]]
    return f"The linear head{at} {finding}."


def _elsewhere(name: str, comparison: Comparison, evidence: list[Evidence]) -> list[str]:
    """Gains at learning rates that are not tuned; the rule does not count them."""
    chosen = {e.table.label for e in evidence}
    lines = []
    for table in comparison.settings:
        better = table.rows[table.rows["finding"] == "better"]
        if table.label not in chosen and len(better):
            names = ", ".join(better["activation"])
            lines.append(
                f"Not counted, because {name} validates better elsewhere: at {table.label} these "
                f"score better: {names}."
            )
    return lines


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
    seeds, patients = row["seeds_for_margin"], row["patients_for_margin"]
    begin = f"To find a true difference of {margin} in four of five studies{at} takes"
    with_these = f"{count(patients)} test patients with these {row['difference_seeds']:.0f} seeds"
    if seeds == math.inf:
        smallest = f"{row['smallest_difference']:.3f}"
        return (
            f"{begin} {with_these} (for {row['activation']}, the hardest); with these patients no "
            f"number of seeds finds less than {smallest}."
        )
    return (
        f"{begin} {with_these}, or {count(seeds)} seeds with these patients (for "
        f"{row['activation']}, the hardest)."
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
