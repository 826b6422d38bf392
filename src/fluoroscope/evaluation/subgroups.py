"""Scores of groups of images, and the gaps between the groups.

Each group is compared with the largest one of its attribute, the reference. All gaps of an
evaluation form one family: with 95 % probability all of their intervals hold together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from fluoroscope.errors import plural
from fluoroscope.evaluation.attributes import Attribute, hidden_text
from fluoroscope.evaluation.contents import LEVEL
from fluoroscope.evaluation.group_scores import Group, Pair, Table, score_attribute
from fluoroscope.reporting.inference import simultaneous


@dataclass(frozen=True)
class Subgroups:
    """All groups of an evaluation.

    Attributes:
        groups: by attribute, then label (the mean first), then group.
        point: name of the operating point of sensitivity and specificity; empty if there is none.
        level: with which all gaps hold together.
        unknown: images without a known value, by attribute.
        sentences: what the gaps say, and what is not shown, without full stops.
    """

    groups: list[Group]
    point: str
    level: float
    unknown: dict[str, int]
    sentences: list[str]


def compare_groups(
    predictions: pd.DataFrame,
    labels: Sequence[str],
    attributes: Sequence[Attribute],
    thresholds: Mapping[str, float],
    point: str = "",
    patients_known: str = "all",
) -> Subgroups:
    """Score the groups of all attributes, and compare them within each attribute.

    Args:
        predictions: as `run_folder.prediction_table` makes them, [N].
        labels: those to score.
        attributes: of these images.
        thresholds: by label, on the probability of `predictions`; labels without one, or with NaN,
            get no sensitivity and specificity.
        point: name of the operating point that the thresholds belong to.
        patients_known: of "all" images, of "some" or of "none".
    """
    table = Table(predictions, thresholds, patients_known != "none")
    rows: list[Group] = []
    pairs: list[Pair] = []
    for attribute in attributes:
        for cells, gaps in score_attribute(table, labels, attribute):
            pairs += [Pair(len(rows) + row, score, gap) for row, score, gap in gaps]
            rows += [cell.row for cell in cells]
    family = simultaneous([pair.gap.difference for pair in pairs])
    for pair in pairs:
        gaps_of = rows[pair.row].gaps | {pair.score: pair.gap.estimate(_level(family.critical))}
        rows[pair.row] = replace(rows[pair.row], gaps=gaps_of)
    unknown = {own.name: int((own.of < 0).sum()) for own in attributes}
    said = [*filter(None, map(hidden_text, attributes)), *_findings(rows, attributes)]
    return Subgroups(rows, point, LEVEL, unknown, said)


def _level(critical: float) -> float:
    """The level of one interval, if the intervals of a family with this critical value hold."""
    from scipy import stats

    return float(1 - 2 * stats.norm.sf(critical))


def _findings(rows: Sequence[Group], attributes: Sequence[Attribute]) -> list[str]:
    """One sentence per attribute: the gaps that were found, or how large they may be."""
    return [
        text
        for own in attributes
        if (text := _finding([r for r in rows if r.attribute == own.name]))
    ]


def _finding(rows: Sequence[Group]) -> str:
    gaps = [(row, name, gap) for row in rows for name, gap in row.gaps.items()]
    if not gaps:
        return f"{rows[0].attribute}: no two groups are large enough to be compared" if rows else ""
    found = [entry for entry in gaps if entry[2].low > 0 or entry[2].high < 0]
    if not found:
        row, name, gap = max(gaps, key=lambda entry: max(-entry[2].low, entry[2].high))
        return (
            f"{row.attribute}: no gap between groups was found; one of up to "
            f"{max(-gap.low, gap.high):.3f} is not excluded ({_named(row, name)} in {row.group})"
        )
    row, name, gap = max(found, key=lambda entry: abs(entry[2].value))
    more = f"; {plural(len(found) - 1, 'further gap')}" if len(found) > 1 else ""
    side = "higher" if gap.value > 0 else "lower"
    return (
        f"{row.attribute}: {_named(row, name)} is {side} in {row.group} than in {row.reference} by "
        f"{abs(gap.value):.3f} ({gap.low:+.3f} to {gap.high:+.3f}){more}"
    )


def _named(row: Group, score: str) -> str:
    """`AUROC of Mass`, `mean sensitivity`."""
    name = "AUROC" if score == "auroc" else score
    if row.label is None:
        return f"mean {name}"
    return f"{name} of {row.label}"
