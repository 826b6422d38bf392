"""What an evaluation adds to a model card."""

import math
from collections.abc import Mapping
from typing import Any

from fluoroscope.data.study_table import COLLECTION
from fluoroscope.errors import plural
from fluoroscope.evaluation.card_sources import Sources
from fluoroscope.evaluation.wording import Values, estimate, is_known, not_judged, point_name
from fluoroscope.reporting.columns import interval, number

METRICS = (
    "AUROC, AUPRC, Brier score, expected calibration error, log loss; at operating points "
    "sensitivity, specificity, PPV, NPV, F1, likelihood ratios, net benefit"
)


def own_test(sources: Sources) -> dict[str, str]:
    """The scores of the run itself, if there is no evaluation."""
    test = sources.run.get("test", {})
    value = test.get("auroc", math.nan)
    if math.isnan(value):
        return {}
    bounds = interval(test.get("auroc_low", math.nan), test.get("auroc_high", math.nan))
    return {
        "performance": f"test AUROC {number(value)} (95 % interval {bounds})",
        "internal": f"test split of the run, {plural(test['images'], 'image')}",
        "metrics": "AUROC",
        "uncertainty": "95 % intervals over patients",
    }


def evaluation_facts(found: Values) -> dict[str, str]:
    """The facts of an evaluation, from the content of `evaluation.json`."""
    other = found["collection"] is not None
    where = f"{found['source']}, {found['split']}: {plural(found['images'], 'image')}"
    macro, labels = found["macro"], found["labels"]
    points = [name for label in labels.values() for name in label["points"]]
    return {
        "metrics": METRICS,
        "uncertainty": f"{100 * found['level']:g} % intervals over patients",
        "external" if other else "internal": where,
        "difference": "another collection" if other else "other patients of the same collection",
        "performance": f"AUROC {estimate(macro['auroc'])}, {_mean(macro, labels)}"
        if is_known(macro["auroc"])
        else "",
        "decisions": f"at {', '.join(map(point_name, dict.fromkeys(points)))}: see the table"
        if points
        else "",
        "calibration_gain": _gain(macro),
        "failures": "the ten worst errors are listed in evaluation.html",
        "limits": "; ".join([*found["notes"], *not_judged(labels)]),
        "subgroups": _joined((found["subgroups"] or {}).get("sentences"), "compared; see the table")
        if found["subgroups"]
        else "",
        "clusters": _clusters(found["subgroups"]),
        "updating": _updating(found["collection"]),
        "probes": _probes(found["probes"]),
        "prevalence": _joined(found["collection"]["sentences"], "see evaluation.html")
        if other
        else "",
    }


def _mean(macro: Values, labels: Values) -> str:
    return next(iter(labels)) if len(labels) == 1 else f"mean of {macro['labels']} labels"


def _gain(macro: Values) -> str:
    if not is_known(macro["ece_before"]) or not is_known(macro["ece"]):
        return ""
    return (
        f"expected calibration error {estimate(macro['ece_before'])} before, "
        f"{estimate(macro['ece'])} after"
    )


def _clusters(subgroups: Values | None) -> str:
    """The gaps between collections; empty if there are not several."""
    if subgroups is None or all(g["attribute"] != COLLECTION for g in subgroups["groups"]):
        return ""
    said = [text for text in subgroups["sentences"] if text.startswith(f"{COLLECTION}: ")]
    return _joined(said, "collections compared; see the table")


def _updating(collection: Values | None) -> str:
    """The recalibration on another collection; empty if there was none."""
    again = None if collection is None else collection["recalibration"]
    if again is None:
        return ""
    labels = [name for name, own in again["labels"].items() if not own["why_not"]]
    return (
        f"Platt's slope and intercept fitted again on {100 * again['share']:g} % of the patients "
        f"of the evaluated collection, for {', '.join(labels) or 'no label'}; see evaluation.html"
    )


def _probes(probes: Mapping[str, Any] | None) -> str:
    if probes is None:
        return ""
    return "; ".join([probes["summary"], *probes["called_out"]])


def _joined(sentences: Any, otherwise: str) -> str:
    return "; ".join(sentences) if sentences else otherwise
