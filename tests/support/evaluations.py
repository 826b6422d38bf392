"""Contents of `evaluation.json` made by hand, with the predictions they belong to."""

from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn import metrics

from fluoroscope.evaluation.contents import (
    UNKNOWN,
    AtPrevalence,
    BenefitAt,
    Bin,
    CalibrationUsed,
    Estimate,
    Evaluation,
    LabelScores,
    Macro,
    MacroPoint,
    Point,
    Quality,
    as_json,
)

POINTS = ("youden", "sensitivity_90", "sensitivity_95", "specificity_90", "specificity_95")
CUTS = (0.5, 0.3, 0.2, 0.65, 0.8, 0.9)


def around(value, half=0.05):
    return Estimate(float(value), max(0.0, float(value) - half), min(1.0, float(value) + half))


def make_predictions(labels=("Pneumonia",), images=120, rare=(), seed=0):
    """Two images per patient; the labels in `rare` have 6 positive images."""
    rng = np.random.default_rng(seed)
    columns = {"row": 3 * np.arange(images) + 5, "group": np.arange(images) // 2}
    for label in labels:
        truth = (rng.random(images) < 0.4).astype(float)
        if label in rare:
            truth[:] = 0
            truth[:6] = 1
        columns[label] = truth
        logit = 1.8 * (truth - 0.5) + rng.normal(0, 1, images)
        columns[f"{label}_probability"] = 1 / (1 + np.exp(-logit))
    return pd.DataFrame(columns)


def make_content(predictions, labels, prevalence=None, points=POINTS, **more):
    """The content for these predictions, as plain values."""
    scored = {name: _label(predictions, name, prevalence, points) for name in labels}
    judged = [label for label in scored.values() if label.judged]
    head = {
        "fingerprint": "0123456789abcdef",
        "source": "phantom",
        "split": "test",
        "split_fingerprint": "fedcba9876543210",
        "images": len(predictions),
        "patients": int(predictions["group"].nunique()),
        "patients_known": "all",
        "patients_compared": True,
        "calibrated": "temperature fitted on the validation split",
        "prevalence": prevalence,
        "notes": [],
    }
    return as_json(Evaluation(**{**head, "labels": scored, "macro": _macro(judged), **more}))


def _macro(judged):
    if not judged:
        return Macro(0)
    means = {
        key: around(np.mean([getattr(label, key).value for label in judged]))
        for key in ("auroc", "auprc", "brier", "ece", "log_loss")
    }
    points = {name: _mean_point([x.points[name] for x in judged]) for name in judged[0].points}
    return Macro(len(judged), **means, points=points)


def _mean_point(points):
    keys = ("sensitivity", "specificity", "ppv", "npv", "f1")
    return MacroPoint(*(around(np.mean([getattr(p, key).value for p in points])) for key in keys))


def _label(predictions, name, prevalence, points):
    truth = predictions[name].to_numpy()
    score = predictions[f"{name}_probability"].to_numpy()
    positives = int(truth.sum())
    counts = (len(truth), positives, len(truth) - positives, 60, 30, 40)
    if positives < 10:
        why = f"not judged: {positives} positive images; 10 are needed"
        return LabelScores(False, why, *counts)
    before, after = _quality(truth, score, 0.03), _quality(truth, score, 0)
    return LabelScores(
        *(True, "", *counts),
        prevalence=around(truth.mean()),
        auroc=around(metrics.roc_auc_score(truth, score)),
        auprc=around(metrics.average_precision_score(truth, score)),
        **{key: getattr(after, key) for key in ("brier", "ece", "log_loss")},
        calibration=CalibrationUsed(Estimate(1.0, 0.8, 1.3), around(0.9), around(-0.1), 109, 55),
        before=before,
        after=after,
        points={p: _point(truth, score, CUTS[i], prevalence) for i, p in enumerate(points)},
        decision_curve=[_benefit(truth, score, t) for t in np.arange(0.01, 1, 0.02)],
    )


def _quality(truth, score, worse):
    edges = np.linspace(0, 1, 11)
    inside = [(score >= low) & (score < high) for low, high in pairwise(edges)]
    bins = [
        Bin(low, high, int(own.sum()), float(score[own].mean()), around(truth[own].mean()))
        if own.any()
        else Bin(low, high, 0, float("nan"), UNKNOWN)
        for low, high, own in zip(edges[:-1], edges[1:], inside, strict=True)
    ]
    ece = sum(b.images * abs(b.predicted - b.observed.value) for b in bins if b.images) / len(truth)
    return Quality(
        around(metrics.brier_score_loss(truth, score) + worse),
        around(ece + worse),
        around(metrics.log_loss(truth, score) + worse),
        bins,
    )


def _point(truth, score, cut, prevalence):
    tn, fp, fn, tp = metrics.confusion_matrix(truth, score >= cut).ravel()
    at = None
    if prevalence is not None:
        at = AtPrevalence(prevalence, around(0.3), around(0.95), around(0.01))
    ratios = (tp / (tp + fn)) / (fp / (fp + tn) or np.inf), (fn / (tp + fn)) / (tn / (fp + tn))
    return Point(
        *(float(cut), float(cut) / 3),
        *map(around, (tp / (tp + fn), tn / (tn + fp), tp / max(1, tp + fp), tn / max(1, tn + fn))),
        around(metrics.f1_score(truth, score >= cut)),
        Estimate(ratios[0], ratios[0] / 2, float("inf")),
        around(ratios[1]),
        *(Estimate(float(n), n - 3.0, n + 3.0) for n in (tp, fp, fn, tn)),
        around(tp / len(truth) - fp / len(truth) * cut / (1 - cut)),
        at,
    )


def _benefit(truth, score, cut):
    odds, share = cut / (1 - cut), truth.mean()
    model = (truth * (score >= cut)).mean() - ((1 - truth) * (score >= cut)).mean() * odds
    return BenefitAt(float(cut), around(model, 0.02), float(share - (1 - share) * odds))
