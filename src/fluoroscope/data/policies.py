"""Policies for uncertain and blank labels of reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fluoroscope.choices import BLANK, PROPER_SHARE, UNCERTAIN
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError, check_choice

if TYPE_CHECKING:
    import pandas as pd


def apply_policies(
    labels: pd.DataFrame, uncertain: str = "ignore", blank: str = "zero", soft_target: float = 0.7
) -> tuple[pd.DataFrame, tuple[Decision, ...]]:
    """Convert the four values of a report labeller to labels of the study table.

    Args:
        labels: float columns; 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        uncertain: what -1 becomes: "zeros" 0, "ones" 1, "ignore" NaN, "soft" `soft_target`.
        blank: what NaN becomes: "zero" 0, "ignore" NaN.
        soft_target: target of an uncertain label, which is learnt but not scored.

    Returns:
        The labels, and a decision for each policy that changed cells, with their number by label.

    Raises:
        InputError: for an unknown policy, a soft target outside (0, 1), and other cell values.

    Source: Irvin et al. 2019, "CheXpert", section 3 (U-Zeros, U-Ones, U-Ignore); Pham et al. 2021,
        "Interpreting chest X-rays via CNNs that exploit hierarchical disease dependencies and
        uncertainty labels", draws a soft positive from U(0.55, 0.85): 0.7 is its mean.

    >>> frame = pd.DataFrame({"Edema": [1, -1, np.nan]})
    >>> apply_policies(frame, uncertain="soft")[0]["Edema"].tolist()
    [1.0, 0.7, 0.0]
    """
    import numpy as np

    check_choice("data.uncertain", uncertain, UNCERTAIN)
    check_choice("data.blank", blank, BLANK)
    if uncertain == "soft":
        PROPER_SHARE.check("data.soft_target", soft_target)
    _refuse_values(labels)
    targets = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan, "soft": soft_target}
    is_uncertain, is_blank = labels.eq(-1), labels.isna()
    decided = labels.astype(float).mask(is_uncertain, targets[uncertain])
    if blank == "zero":
        decided = decided.mask(is_blank, 0.0)
    policy = f"{uncertain} ({soft_target:g})" if uncertain == "soft" else uncertain
    decisions = (
        Decision(f"uncertain labels: {policy}", count_cells(is_uncertain)),
        Decision(f"blank labels: {blank}", count_cells(is_blank)),
    )
    return decided, tuple(decision for decision in decisions if decision.counts)


def count_cells(concerned: pd.DataFrame) -> Mapping[str, int]:
    """Number of True cells per column; columns without any are omitted."""
    return {str(label): int(count) for label, count in concerned.sum().items() if count}


def add_up(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """One decision per policy, with counts summed over the parts of a collection."""
    counts: dict[str, Counter[str]] = {}
    for decision in decisions:
        counts.setdefault(decision.policy, Counter()).update(decision.counts)
    return tuple(Decision(policy, dict(count)) for policy, count in counts.items())


def _refuse_values(labels: pd.DataFrame) -> None:
    import numpy as np

    values = labels.to_numpy(float)
    wrong = np.argwhere(~(np.isin(values, (-1, 0, 1)) | np.isnan(values)))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"label {labels.columns[column]!r} is {values[row, column]:g} in row {row} "
            f"(invalid cells: {len(wrong)}); labels must be 1, 0, -1 for uncertain, or blank"
        )
