"""The limits of a score, told beside it: unknown patients, few images, images of one patient."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fluoroscope.errors import plural
from fluoroscope.statistics import count_classes

Result = Mapping[str, Any]  # the content of `result.json`
FEW = 10  # positive or negative images, or their patients
UNKNOWN = {"none": "patients are unknown", "some": "the patients of some images are unknown"}


def patients_warning(patients_known: str) -> str:
    """The effect of unknown patients on a score; empty if all patients are known.

    Args:
        patients_known: of "all" images, of "some" or of "none".
    """
    if patients_known not in UNKNOWN:
        return ""
    return (
        f"{UNKNOWN[patients_known]}: images of one person may be in training and in test, so the "
        "score may be too high, and its interval is too narrow"
    )


def score_limits(
    predictions: pd.DataFrame, labels: Sequence[str], patients_known: str = "all"
) -> list[str]:
    """A sentence without its full stop for each limit; [] if there is none.

    Args:
        predictions: of the scored images, as `run_folder.prediction_table` makes them.
        labels: names.
        patients_known: of "all" images, of "some" or of "none".
    """
    warning = patients_warning(patients_known)
    return [*([warning] if warning else []), *sample_limits(predictions, labels, patients_known)]


def sample_limits(
    predictions: pd.DataFrame, labels: Sequence[str], patients_known: str = "all"
) -> list[str]:
    """As `score_limits`, without unknown patients; a label that is nowhere known is left out."""
    few, alone = [], []
    for label in labels:
        if predictions[label].isna().all():
            continue
        parts = []
        for kind, (images, patients) in count_classes(predictions, label).items():
            of = f" of {plural(patients, 'patient')}" if patients_known != "none" else ""
            if min(images, patients) < FEW:
                parts.append(f"{plural(images, f'{kind} image')}{of}")
            if patients == 1:
                alone.append(f"the {kind} images of {label}")
        few += [f"{label} has {' and '.join(parts)}"] if parts else []
    lines = []
    if few:
        # One row per label; a page joins the rows.
        told = f" {few[0]}" if len(few) == 1 else "".join(f"\n  {text}," for text in few)[:-1]
        lines.append(f"the images are too few for a reliable score:{told}")
    if alone:
        one = "one image" if patients_known == "none" else "of one patient"
        lines.append(f"there is no interval, because {' and '.join(alone)} are all {one}")
    return lines


def interval_text(test: Result) -> str:
    """`95 % interval 0.812 to 0.934`, and what is wrong with it.

    Args:
        test: the section `test` of a result.
    """
    if math.isnan(test["auroc_low"]):
        return "no 95 % interval"
    narrow = ", too narrow" if test.get("interval_too_narrow") else ""
    return f"95 % interval {score(test['auroc_low'])} to {score(test['auroc_high'])}{narrow}"


def images_text(result: Result) -> str:
    """`on 112 x-rays of 72 patients the model has not seen`.

    If patients are unknown, or could not be compared with those of the training
    (`patients_compared`), it only says that the model has not seen the images.
    """
    test, known = result["test"], result.get("patients_known", "all")
    kind = "synthetic phantom x-rays" if result["source"] == "phantom" else "x-rays"
    images = f"on {test['images']} {kind}"
    unseen = "" if result.get("split") == "val" else " the model has not seen"
    if known == "none":
        return f"{images}{unseen}"
    patients = f" of {'at most ' * (known == 'some')}{plural(test['patients'], 'patient')}"
    if known == "all" and result.get("patients_compared", True):
        return f"{images}{patients}{unseen}"
    return f"{images}{patients}, images{unseen}" if unseen else f"{images}{patients}"


def score(value: float) -> str:
    """A score with three decimals; `n/a` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"
