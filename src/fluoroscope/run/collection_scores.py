"""Scores of each collection if there are several, and the labels of another collection."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from fluoroscope.data.study_table import COLLECTION, NOBODY, Studies
from fluoroscope.errors import plural
from fluoroscope.model.scores import Predictions
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.run.score_limits import interval_text, sample_limits
from fluoroscope.statistics import auroc_interval, macro_auroc


def collection_scores(
    studies: Studies, predictions: Predictions, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """The entry `collections` of a result: by collection, scores and numbers; else nothing.

    Each has `auroc`, its interval over patients, `auroc/LABEL`, `images` and `patients` (None
    if some are unknown; `interval_too_narrow` is then true), and `limits` (`sample_limits`), if
    any. A label that a collection does not have is NaN there.

    Args:
        studies: whose table may have the column `collection`.
        predictions: for some rows of the table.
        labels: those to score; () means all.
    """
    if COLLECTION not in studies.table:
        return {}
    table = prediction_table(studies.table, studies.labels, predictions)
    known = ~studies.table["patient"].str.startswith(f"{NOBODY}\t").to_numpy(bool)[table["row"]]
    return {
        "collections": {
            str(name): _scores(rows, labels or studies.labels, bool(known[rows.index].all()))
            for name, rows in table.groupby(COLLECTION, sort=False)
        }
    }


def _scores(rows: pd.DataFrame, labels: Sequence[str], known: bool) -> dict[str, Any]:
    patients = int(rows["group"].nunique())
    low, high = auroc_interval(rows, labels)
    limits = sample_limits(rows, labels, "all" if known else "none")
    return {
        "auroc": macro_auroc(rows, labels)[0],
        "auroc_low": low,
        "auroc_high": high,
        **{f"auroc/{label}": macro_auroc(rows, [label])[0] for label in labels},
        "images": len(rows),
        "patients": patients if known else None,
        **({} if known else {"interval_too_narrow": True}),
        **({"limits": limits} if limits else {}),
    }


def collection_lines(result: dict[str, Any]) -> list[str]:
    """One line per collection for the console, followed by its limits."""
    return [
        line
        for name, scores in result.get("collections", {}).items()
        for line in (_line(name, scores), *(f"{name}: {t}" for t in scores.get("limits", [])))
    ]


def _line(name: str, scores: dict[str, Any]) -> str:
    size = plural(scores["images"], "x-ray")
    if scores["patients"] is not None:
        size += f" of {plural(scores['patients'], 'patient')}"
    if math.isnan(scores["auroc"]):
        return f"{name}: no AUROC ({size}; no label has positive and negative images)"
    return f"{name}: AUROC {scores['auroc']:.3f}, {interval_text(scores)}, {size}"


def label_lines(result: dict[str, Any]) -> list[str]:
    """The labels of a model that another collection spells differently, or does not have."""
    own, lacking = result.get("labels_in_collection", []), result.get("labels_not_scored", [])
    renamed = [f"{a} (there {b})" for a, b in zip(result["labels"], own, strict=False) if a != b]
    return [
        *([f"same finding under another name: {', '.join(renamed)}"] if renamed else []),
        *([f"not scored, the collection lacks them: {', '.join(lacking)}"] if lacking else []),
    ]
