"""What a comparison shows, in sentences: what the verdict stands on, and what to run next."""

import math

import pandas as pd

from fluoroscope.reporting.comparison import EFFECT, Comparison
from fluoroscope.reporting.evidence import LEARNING_RATES, Evidence

MORE_RATES = "-m optimizer.lr=1e-4,3e-4,1e-3,3e-3"


def explain(comparison: Comparison, evidence: list[Evidence], dark: pd.DataFrame) -> list[str]:
    """A sentence for each thing that the verdict stands on.

    Args:
        comparison: of which.
        evidence: of `evidence.gather`.
        dark: of `evidence.blackouts`.
    """
    name = shown(comparison.reference)
    lines = [_blackout_line(name, dark)]
    for e in evidence:
        lines += [_tuned_line(name, e), _dead_line(e), _score_line(name, e)]
        if e.linear is not None:
            lines.append(_linear_line(name, e.linear, at(e)))
    return lines + _elsewhere(name, comparison, evidence)


def shown(activation: str) -> str:
    """As a sentence names it."""
    return "ReLU" if activation == "relu" else activation


def dead_share(e: Evidence) -> str:
    first, last = e.row["dead_first"], e.row["dead"]
    return f"{first:.1%} of its {width(e)} units after the first epoch, {last:.1%} at the end"


def growth(e: Evidence) -> str:
    """What becomes of the dead share over the epochs; a rise that chance explains is not shown."""
    if e.grows:
        return "grows"
    return "is not shown to grow" if e.growth[0] > 0 else "does not grow"


def width(e: Evidence) -> int:
    return e.table.runs[0].config["head"]["width"]


def gain(row: pd.Series, brackets: bool = True) -> str:
    numbers = f"95 % interval {_n(row['difference_low'])} to {_n(row['difference_high'])}"
    numbers = f"{_n(row['difference'])}, {numbers}, Holm p {_p(row['p_holm'])}"
    return f"{row['activation']} ({numbers})" if brackets else f"{row['activation']} {numbers}"


def _blackout_line(name: str, dark: pd.DataFrame) -> str:
    if dark.empty:
        return f"Blackout: not measured in any {name} run."
    hit = int((dark["worst"] > 0).sum())
    return (
        f"Blackout: {hit} of {len(dark)} {name} runs had an image that closed every unit, in any "
        "training or validation window."
    )


def _tuned_line(name: str, e: Evidence) -> str:
    told, where = [_rates(table.setting, e) for table in e.tried], at(e, rates=False)
    if len(e.tried) == 1:
        return (
            f"Learning rate{where}: {told[0]} is the only one tried; another may answer otherwise."
        )
    return (
        f"Learning rate{where}: {_rates(e.table.setting, e)} is where {name} validates best (mean "
        f"validation AUROC {e.row['val_auroc']:.3f}), of {'; '.join(told)}."
    )


def only_rate(e: Evidence) -> str:
    """What limits a verdict that rests on one learning rate."""
    return "" if len(e.tried) > 1 else "; at the only learning rate tried"


def _rates(setting: dict[str, object], e: Evidence) -> str:
    """The learning rates of a setting; those that do not vary are in the configuration alone."""
    varying = [key for key in LEARNING_RATES if key in setting] or [LEARNING_RATES[0]]
    config = e.table.runs[0].config["optimizer"]
    return ", ".join(f"{k}={setting.get(k, config[k.partition('.')[2]])}" for k in varying)


def _dead_line(e: Evidence) -> str:
    mean, low, high = e.growth
    if math.isnan(mean):
        return f"Dead units{at(e)}: not measured."
    if math.isnan(low):
        grows = "grew in the one seed there is" if mean > 0 else "did not grow in the one seed"
        return f"Dead units{at(e)}: {dead_share(e)}; their share {grows}."
    told = f"{mean:+.1%}, 95 % interval over seeds {low:+.1%} to {high:+.1%}"
    return f"Dead units{at(e)}: {dead_share(e)} ({told}): the share {growth(e)}."


def _score_line(name: str, e: Evidence) -> str:
    groups = {
        "better": gain,
        "worse": gain,
        "no difference": lambda row: f"{row['activation']} {_n(row['difference'])}",
        "unknown": lambda row: f"{row['activation']} {_n(row['difference'])}",
    }
    told = []
    for finding, tell in groups.items():
        members = e.others[e.others["finding"] == finding]
        if len(members):
            told.append(f"{finding}: {', '.join(tell(row) for _, row in members.iterrows())}")
    scores = "; ".join(told) or "no other activation"
    return f"Test AUROC{at(e)}: {name} {e.row['auroc']:.3f}; {scores}."


def _linear_line(name: str, row: pd.Series, at: str) -> str:
    told = {
        "better": f"scores better than {name}: the nonlinearity costs more than it brings",
        "worse": f"scores worse than {name}: the nonlinearity earns its place",
        "no difference": f"scores no different from {name}: no sign that the head needs a "
        "nonlinearity",
    }.get(row["finding"])
    if told is None:
        return f"The linear head{at}: whether it scores like {name} is not known."
    return f"The linear head{at} {told}."


def _elsewhere(name: str, comparison: Comparison, evidence: list[Evidence]) -> list[str]:
    """Gains at learning rates that are not the tuned ones, which the rule passes over."""
    chosen = {e.table.label for e in evidence}
    lines = []
    for table in comparison.settings:
        better = table.rows[table.rows["finding"] == "better"]
        if table.label not in chosen and len(better):
            told = ", ".join(better["activation"])
            lines.append(f"At {table.label}, where {name} does not validate best, better: {told}.")
    return lines


def advise(comparison: Comparison, evidence: list[Evidence]) -> list[str]:
    """What would make the verdict firmer."""
    advice = []
    if any(len(e.tried) == 1 for e in evidence):
        advice.append(f"Try several learning rates: {MORE_RATES}.")
    for e in evidence:
        needed = e.others.dropna(subset="seeds_needed").sort_values("seeds_needed")
        if needed.empty:
            continue
        worst = needed.iloc[-1]
        told = f"{worst['seeds_needed']:.0f} seeds, {worst['more_seeds']:.0f} more than there are"
        if worst["more_seeds"] == 0:
            told = f"the {worst['difference_seeds']:.0f} seeds there are"
        advice.append(
            f"To see a true difference of {EFFECT} in four of five studies{at(e)}, every "
            f"activation needs {told} (most for {worst['activation']})."
        )
    if images := comparison.common.get("test images"):
        patients = comparison.common.get("test patients")
        advice.append(
            "More seeds do not stand in for more patients: the intervals also hold what "
            f"{images} test images of {patients} patients leave open."
        )
    return advice


def at(e: Evidence, rates: bool = True) -> str:
    setting = {k: v for k, v in e.table.setting.items() if rates or k not in LEARNING_RATES}
    return f" at {', '.join(f'{k}={v}' for k, v in setting.items())}" if setting else ""


def _n(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.3f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return "below 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
