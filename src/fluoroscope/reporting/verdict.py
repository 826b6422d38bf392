"""The verdict: whether ReLU is destructive on these data, by the decision rule."""

import math
from dataclasses import dataclass

import pandas as pd

from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.evidence import LINEAR, Evidence, blackouts, gather
from fluoroscope.reporting.rows import ACTIVATION, title_of
from fluoroscope.reporting.sentences import (
    advise,
    at,
    dead_share,
    display_name,
    explain,
    gain,
    growth,
    only_rate,
    width,
)

REMEDIES = "head.activation=leaky_relu, a smaller optimizer.lr, or head.order=norm-activation"


@dataclass(frozen=True)
class Verdict:
    """Whether ReLU is destructive on these data.

    Attributes:
        headline: one or two sentences with the numbers that decide.
        because: the evidence, one sentence each.
        advice: runs that would make the verdict more certain; may be empty.
        destructive: None if the runs cannot decide; `headline` then names what is missing.
    """

    headline: str
    because: list[str]
    advice: list[str]
    destructive: bool | None


def verdict(comparison: Comparison) -> Verdict:
    """Decide whether the reference, usually ReLU, is destructive here.

    It is if it blacks out images, or if its dead share grows at a tuned learning rate and another
    activation scores better at the same setting. A blackout counts in any training or validation
    window of any run. The share grows if the 95 % t interval over seeds, of the last validation
    minus the first, lies above zero. For "better" see `comparison.find`, for "tuned"
    `evidence.gather`. If the rows are not activations, the verdict only says what scores better.
    """
    if comparison.by != ACTIVATION:
        return _differences(comparison)
    name, evidence = display_name(comparison.reference), gather(comparison)
    dark = blackouts(comparison)
    because, advice = explain(comparison, evidence, dark), advise(comparison, evidence)
    if (dark["worst"] > 0).any():
        advice = [f"Against blackouts: {REMEDIES}.", *advice]
        return Verdict(_blacked_out(name, dark, evidence), because, advice, True)
    harmful = next((e for e in evidence if e.destructive and e.has_linear), None)
    if harmful is not None:
        advice = [f"Use head.activation={harmful.gainers.iloc[0]['activation']} instead.", *advice]
        return Verdict(_destructive(name, harmful), because, advice, True)
    if missing := _missing(name, dark, evidence):
        return Verdict(f"Undecided: {missing}.", because, advice, None)
    nearest = max(evidence, key=lambda e: (len(e.gainers) > 0, e.row["dead"]))  # to harm
    return Verdict(_harmless(name, nearest, len(dark)), because, advice, False)


def _differences(comparison: Comparison) -> Verdict:
    """The rows that score better and worse than the reference, and the shares of dead units."""
    name, kind = comparison.reference, title_of(comparison.by).lower()
    better, because = [], []
    undecided = compared = 0
    for table in comparison.settings:
        at = f" at {table.label}" if table.label else ""
        others = table.rows[table.rows["finding"] != "reference"]
        for _, row in others[others["finding"] == "better"].iterrows():
            better.append(f"{gain(row)}{at}")
        for _, row in others[others["finding"] == "worse"].iterrows():
            because.append(f"Worse than '{name}'{at}: {gain(row)}.")
        shares = table.rows.dropna(subset="dead").sort_values("dead")
        because += [f"Dead units{at}: {_dead_range(shares, name)}."] if len(shares) else []
        undecided += int((others["finding"] == "unknown").sum())
        compared += len(others)
    if undecided:
        because.append(f"Undecided, for lack of shared seeds: {undecided} of {compared}.")
    headline = (
        f"Better than '{name}': {'; '.join(better)}."
        if better
        else (f"No {kind} scored detectably better than '{name}' ({compared} compared).")
    )
    dark = pd.concat([table.by_run for table in comparison.settings])["blackout_max"].dropna()
    because.append(f"Blackouts: in {(dark > 0).sum()} of {len(dark)} runs.")
    return Verdict(headline, because, [], None)


def _dead_range(shares: pd.DataFrame, name: str) -> str:
    """The reference's share, the smallest and the largest; `shares` are sorted."""
    own = shares[shares["activation"] == name]
    rows = pd.concat([own, shares.iloc[[0, -1]]]).drop_duplicates(subset="activation")
    return ", ".join(f"{row['activation']} {row['dead']:.1%}" for _, row in rows.iterrows())


def _missing(name: str, dark: pd.DataFrame, evidence: list[Evidence]) -> str:
    """What the runs lack for the rule, as a sentence; empty if they decide."""
    if dark.empty:
        return f"the units of the {name} runs were not measured (diagnostics.enabled=false)"
    lacking = next((e for e in evidence if not e.has_linear), None)
    if lacking is not None:
        return (
            f"the linear head is missing{at(lacking)}, and without it no score shows what a "
            f"nonlinearity is worth; train head.activation={LINEAR} with the same seeds and keys"
        )
    return next(filter(None, (_undecidable(name, e) for e in evidence)), "")


def _undecidable(name: str, e: Evidence) -> str:
    """What the runs of one setting lack for a yes or no; empty if they decide."""
    seeds = e.others["difference_seeds"].max()
    lacking = {
        f"there is no other activation to compare with {name}{at(e)}; train some": e.others.empty,
        f"one seed does not show how much is chance{at(e)}; train each activation with several "
        "seeds": seeds == 1,
        f"{name} shares no seed with another activation{at(e)}; train each activation with the "
        "same seeds": seeds == 0,
        f"one epoch does not show whether the dead share grows{at(e)}; train longer": (
            e.windows == 1
        ),
        f"the test AUROC of {name} is not defined{at(e)}: the test split lacks a class": (
            math.isnan(e.row["auroc"])
        ),
        f"the dead share of {name} was not measured with several seeds{at(e)}": not e.decidable,
    }
    return next((sentence for sentence, is_lacking in lacking.items() if is_lacking), "")


def _blacked_out(name: str, dark: pd.DataFrame, evidence: list[Evidence]) -> str:
    hit = dark[dark["worst"] > 0]
    last = int((hit["end"] > 0).sum())
    where = [label for label in dict.fromkeys(hit["label"]) if label]
    place = f", at {'; '.join(where)}" if where else ""
    if where and not {e.table.label for e in evidence} & set(where):
        place += " (not the learning rate at which it validates best)"
    return (
        f"{name} is destructive here: in {len(hit)} of {len(dark)} runs some images closed every "
        f"unit and sent no gradient back, up to {hit['worst'].max():.1%} of an epoch's images; in "
        f"{last} runs they still did so at the end{place}."
    )


def _destructive(name: str, e: Evidence) -> str:
    return (
        f"{name} is destructive here: its dead share grows{at(e)} ({dead_share(e)}) and "
        f"{gain(e.gainers.iloc[0])} scores better at the same setting{only_rate(e)}."
    )


def _harmless(name: str, e: Evidence, runs: int) -> str:
    begin = f"{name} is not destructive here: no image was blacked out (0 of {runs} runs)"
    best = e.others.iloc[0]
    if len(e.gainers):
        return (
            f"{begin}. {gain(e.gainers.iloc[0])} scores better, but not because of dead units: "
            f"their share {growth(e)}{at(e)} ({dead_share(e)}){only_rate(e)}."
        )
    largest = "largest gain:" if best["difference"] > 0 else "none gains; the closest is"
    none = f"no activation scores better ({largest} {gain(best, brackets=False)})"
    if e.grows:
        dead = f". {e.row['dead']:.1%} of its {width(e)} units are dead at the end{at(e)}, but"
    else:
        dead = f", its dead share {growth(e)}{at(e)} ({dead_share(e)}), and"
    return f"{begin}{dead} {none}{only_rate(e)}."
