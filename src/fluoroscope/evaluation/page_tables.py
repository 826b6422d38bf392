"""The tables of the evaluation page, from the content of `evaluation.json`."""

from collections.abc import Callable, Sequence
from typing import Any

from fluoroscope.evaluation.wording import Values, estimate, is_known, known, number, point_name
from fluoroscope.evaluation.worst_errors import WorstError
from fluoroscope.reporting.columns import SHOWN, UNKNOWN
from fluoroscope.reporting.tables import Table

NOT_JUDGED, NONE = "not judged", "–"
UNCHANGED = "the probabilities stay those for the prevalence of the validation split"
SCORES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier",
    "ece": "ECE",
    "log_loss": "Log loss",
}
# What a decision table shows of an operating point: key, title and form.
DECISIONS = (
    ("sensitivity", "Sensitivity", ".3f"),
    ("specificity", "Specificity", ".3f"),
    ("ppv", "PPV", ".3f"),
    ("npv", "NPV", ".3f"),
    ("f1", "F1", ".3f"),
    ("lr_positive", "LR+", ".2f"),
    ("lr_negative", "LR−", ".2f"),
    ("tp", "True positives", ".0f"),
    ("fp", "False positives", ".0f"),
    ("fn", "False negatives", ".0f"),
    ("tn", "True negatives", ".0f"),
    ("net_benefit", "Net benefit", ".3f"),
)
AT_PREVALENCE = (("ppv", "PPV"), ("npv", "NPV"), ("net_benefit", "Net benefit"))
QUALITY = ("brier", "ece", "log_loss")
WHEN = ("before", "after")


def scores(content: Values) -> Table:
    """One row per label; the mean first if there are several labels."""
    macro = content["macro"]
    own = list(macro["own"])
    titles = ["Label", *SCORES.values(), *own, "Positive images"]
    rows = [_label_row(name, label, own) for name, label in content["labels"].items()]
    if len(rows) > 1:
        rows = [[f"mean of {macro['labels']}", *_cells(macro, own), NONE], *rows]
    return Table.of(titles, rows)


def _cells(scored: Values, own: Sequence[str]) -> list[str]:
    estimates = [*(scored[key] for key in SCORES), *(scored["own"][name] for name in own)]
    return list(map(estimate, estimates))


def _label_row(name: str, label: Values, own: Sequence[str]) -> list[str]:
    images, positives = label["images"], label["positives"]
    share = f" ({100 * positives / images:.1f} %)" if images else ""
    of = f"{positives:,} of {images:,}{share}"
    if not label["judged"]:
        return [name, NOT_JUDGED, *[NONE] * (len(SCORES) + len(own) - 1), of]
    return [name, *_cells(label, own), of]


def decisions(points: Values) -> Table | None:
    """One column per operating point of a label; None if it has none."""
    if not points:
        return None
    own = list(points.values())
    rows = [
        _across("Threshold", own, lambda p: _threshold(p["threshold"])),
        _across("before calibration", own, lambda p: _threshold(p["raw_threshold"])),
    ]
    for key, title, form in DECISIONS:
        rows.append([title, *(estimate(point[key], form) for point in own)])
    if own[0]["at_prevalence"]:
        of = f"{own[0]['at_prevalence']['prevalence']:g}"
        for key, title in AT_PREVALENCE:
            cells = (estimate(point["at_prevalence"][key]) for point in own)
            rows.append([f"{title} at prevalence {of}", *cells])
    return Table.of(["", *map(point_name, points)], rows)


def _across(title: str, points: Sequence[Values], cell: Callable[[Values], str]) -> list[str]:
    return [title, *map(cell, points)]


def _threshold(value: float | None) -> str:
    """A threshold with three significant digits: calibrated ones can be small.

    >>> _threshold(0.00034), _threshold(0.51234), _threshold(None)
    ('0.00034', '0.512', 'n/a')
    """
    return number(known(value), ".3g")


def mean_decisions(points: Values) -> Table:
    """Means over the judged labels: one column per operating point."""
    rows = [
        [title, *(estimate(point[key], form) for point in points.values())]
        for key, title, form in DECISIONS[:5]
    ]
    return Table.of(["", *map(point_name, points)], rows)


def quality(label: Values) -> Table:
    """Brier score, ECE and log loss before and after calibration."""
    both = [label["before"], label["after"]]
    rows = [
        [SCORES[key], *(estimate(part[key]) if part else UNKNOWN for part in both)]
        for key in QUALITY
    ]
    return Table.of(["", "Before calibration", "After calibration"], rows)


def bins(part: Values) -> Table:
    """The bins of a reliability curve that hold images."""
    rows = [
        [
            f"{own['low']:.2f} to {own['high']:.2f}",
            f"{own['images']:,}",
            number(known(own["predicted"])),
            estimate(own["observed"]),
        ]
        for own in part["reliability"]
        if own["images"]
    ]
    return Table.of(["Probability", "Images", "Predicted", "Observed"], rows)


def groups(own: Sequence[Values]) -> Table:
    """The groups of one label, or of the mean: scores, and their gaps to the reference."""
    shown = [key for key in ("auroc", "sensitivity", "specificity") if _any(own, key)]
    titles = ["Group", "Images", "Patients", "Positive", "Compared with"]
    for key in shown:
        name = SCORES.get(key, key.capitalize())
        titles += [name, f"{name}, gap"]
    return Table.of(titles, [_group_row(group, shown) for group in own])


def _any(own: Sequence[Values], key: str) -> bool:
    return key == "auroc" or any(is_known(group[key]) for group in own)


def _group_row(group: Values, shown: Sequence[str]) -> list[str]:
    positives, patients = group["positives"], group["patients"]
    cells = [
        f"{group['attribute']}: {group['group']}",
        f"{group['images']:,}",
        NONE if patients is None else f"{patients:,}",
        NONE if positives is None else f"{positives:,}",
        group["reference"] or NONE,
    ]
    for key in shown:
        gap = group["gaps"].get(key)
        cells.append(estimate(group[key]) if group["judged"] else "too few")
        cells.append(estimate(gap, "+.3f") if gap else NONE)
    return cells


def pairs(found: Sequence[Values]) -> Table:
    """Two models: one row per label, the mean first."""
    titles = ["Label", "This model", "Other model", "Difference", "Finding"]
    return Table.of(titles, [_pair_row(pair) for pair in found])


def _pair_row(pair: Values) -> list[str]:
    name = pair["label"] or "mean over labels"
    if pair["why_not"]:
        return [name, NOT_JUDGED, NONE, NONE, NONE]
    scores = (estimate(pair[key]) for key in ("auroc", "other_auroc"))
    finding = str(pair["finding"])
    found = SHOWN.get(finding, finding)
    return [name, *scores, estimate(pair["difference"], "+.3f"), found]


def prevalences(collection: Values) -> Table:
    """How common each label is on another collection."""
    titles = ["Label", "Its name there", "Positive in validation", "Positive here"]
    rows = [
        [label, collection["names"][label], number(known(own["validation"])), estimate(own["here"])]
        for label, own in collection["prevalence"].items()
    ]
    return Table.of(titles, rows)


def recalibrated(labels: Values) -> Table:
    """Quality of the probabilities of each label before and after recalibration."""
    titles = ["Label", "Fitted on", *(f"{SCORES[key]}, {when}" for key in QUALITY for when in WHEN)]
    return Table.of(titles, [_recalibrated_row(name, own) for name, own in labels.items()])


def _recalibrated_row(name: str, own: Values) -> list[str]:
    if own["why_not"]:
        return [name, "too few images", *[NONE] * (len(QUALITY) * len(WHEN))]
    cells = [estimate(own[when][key]) for key in QUALITY for when in WHEN]
    return [name, f"{own['images']:,}, {own['positives']:,} positive", *cells]


def probes(label: Values) -> Table:
    """The changes of the images, and what they did to the score of one label."""
    rows = [["unchanged", estimate(label["auroc"]), NONE, NONE]] if label["probes"] else []
    for name, probe in label["probes"].items():
        change = estimate(probe["change"], "+.3f")
        words = name.replace("_", " ")
        rows.append([words, estimate(probe["auroc"]), change, probe["verdict"] or NONE])
    rows += [[f"view {n}", estimate(own), NONE, NONE] for n, own in label["views"].items()]
    return Table.of(["Images", "AUROC", "Change", "Verdict"], rows)


def errors(found: Sequence[WorstError]) -> Table:
    """The worst errors, without anything that names an image but its row."""
    rows = [
        [
            str(error.row),
            error.label,
            "missed finding" if error.present else "false alarm",
            number(error.probability),
            beaten(error),
        ]
        for error in found
    ]
    return Table.of(["Row", "Label", "Error", "Probability", "Ranked"], rows)


def beaten(error: WorstError) -> str:
    """`below 93 % of the images without the finding`."""
    side, others = ("below", "without") if error.present else ("above", "with")
    return f"{side} {100 * error.beaten_frac:.0f} % of the images {others} the finding"


def facts(content: Values, data: str) -> list[tuple[str, Any]]:
    """What was evaluated: terms and their texts."""
    given, members = content["prevalence"], content["ensemble"]
    return [
        ("Data", data),
        ("Calibration", content["calibrated"] or "none: probabilities are those of the network"),
        ("Intervals", f"{100 * content['level']:.0f} %, over patients"),
        *([("Prevalence", f"{given:g}, as given; {UNCHANGED}")] if given is not None else []),
        ("Weights", ", ".join(members["fingerprints"] if members else [content["fingerprint"]])),
        ("Split", content["split_fingerprint"]),
    ]
