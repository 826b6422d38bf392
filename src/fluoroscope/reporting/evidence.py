"""The evidence for the decision rule: learning rates, dead shares and gains of each setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fluoroscope.diagnostics.keys import DEAD
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.statistics import t_interval

LEARNING_RATES = ("optimizer.lr", "optimizer.backbone_lr")
LINEAR = "identity"


@dataclass(frozen=True)
class Evidence:
    """A setting at its tuned learning rate.

    Attributes:
        table: the setting.
        reference: the activation that the others are compared with.
        tried: the settings that differ in learning rates only, including this one.
        margin: differences of AUROC up to this size do not matter.
    """

    table: SettingTable
    reference: str
    tried: Sequence[SettingTable]
    margin: float

    @cached_property
    def row(self) -> pd.Series:
        """The reference's row."""
        return row(self.table, self.reference)

    @cached_property
    def others(self) -> pd.DataFrame:
        """The rows of the other activations, by falling difference."""
        rows = self.table.rows
        others = rows[rows["activation"] != self.reference]
        return others.sort_values("difference", ascending=False)

    @cached_property
    def linear(self) -> pd.Series | None:
        """The row of the linear head; None if it is missing or is itself the reference."""
        rows = self.others[self.others["activation"] == LINEAR]
        return rows.iloc[0] if len(rows) else None

    @property
    def has_linear(self) -> bool:
        return LINEAR in set(self.table.rows["activation"])

    @cached_property
    def _own(self) -> pd.DataFrame:
        """The reference's runs."""
        return self.table.by_run[self.table.by_run["activation"] == self.reference]

    @cached_property
    def from_start(self) -> bool:
        """Whether all of these runs have a census at the start; those of earlier versions lack it.

        Without it, growth begins with the first validation, after an epoch in which units may die.
        """
        return bool(self._own["dead_start"].notna().all())

    @cached_property
    def growth(self) -> tuple[float, float, float]:
        """Increase of the reference's dead share, until the last validation.

        Mean over seeds, and its 95 % t interval (NaN for one seed).
        """
        before = "dead_start" if self.from_start else "dead_first"
        growth = self._own["dead"] - self._own[before]
        return t_interval(growth.groupby(self._own["seed"]).mean())  # over the folds of each seed

    @cached_property
    def windows(self) -> int:
        """Number of validations of the reference's shortest run, with that at the start; growth
        needs two.
        """
        runs = [run for run in self.table.runs if run.row == self.reference]
        validations = (run.metrics.get(DEAD.key(), pd.Series()).notna().sum() for run in runs)
        return self.from_start + int(min(validations))

    @property
    def grows(self) -> bool:
        return self.growth[1] > 0

    @property
    def gainers(self) -> pd.DataFrame:
        return self.others[self.others["finding"] == "better"]

    @property
    def destructive(self) -> bool:
        """Whether the second case of the rule holds; lasting blackouts are the first case."""
        return self.grows and len(self.gainers) > 0

    @property
    def measured(self) -> bool:
        """Whether the growth of the dead share has an interval."""
        return not math.isnan(self.growth[1])

    @property
    def excluded(self) -> bool:
        """Whether no other activation is better by the margin."""
        return bool((self.others["difference_high"] < self.margin).all())


def row(table: SettingTable, activation: str) -> pd.Series:
    """The activation's row of the table."""
    return table.rows[table.rows["activation"] == activation].iloc[0]


def gather(comparison: Comparison) -> list[Evidence]:
    """The settings at their tuned learning rates, the reference's best first.

    Among settings that differ in learning rates only, the tuned one has the reference's highest
    mean validation AUROC. Settings without the reference are skipped.
    """
    families: list[tuple[dict[str, Any], list[SettingTable]]] = []
    for table in comparison.settings:
        if comparison.reference not in set(table.rows["activation"]):
            continue
        rest = {key: value for key, value in table.setting.items() if key not in LEARNING_RATES}
        family = next((tables for known, tables in families if known == rest), None)
        if family is None:
            families.append((rest, family := []))
        family.append(table)

    def score(table: SettingTable) -> float:
        value = row(table, comparison.reference)["val_auroc"]
        return -1.0 if math.isnan(value) else value

    margin = comparison.rule.margin
    tuned = [Evidence(max(f, key=score), comparison.reference, f, margin) for _, f in families]
    return sorted(tuned, key=lambda evidence: -score(evidence.table))
