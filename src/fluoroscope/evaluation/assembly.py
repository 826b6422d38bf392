"""Put the parts of an evaluation together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fluoroscope.commands import called
from fluoroscope.errors import plural
from fluoroscope.evaluation.calibrating import source_text
from fluoroscope.evaluation.contents import Evaluation, LabelScores
from fluoroscope.evaluation.scoring import Settings, score_table
from fluoroscope.evaluation.wording import point_name
from fluoroscope.run.score_limits import patients_warning
from fluoroscope.trained.calibration import Calibration


def make_evaluation(
    result: Mapping[str, Any],
    table: pd.DataFrame,
    fingerprint: str,
    calibration: Calibration | None,
    settings: Settings,
) -> Evaluation:
    """Score the predictions; other parts of the evaluation are left empty.

    Args:
        result: content of `result.json` of the evaluation.
        table: predictions of the scored images.
        fingerprint: of the weights.
    """
    labels = result["labels"]
    scores, macro = score_table(table, labels, calibration.labels if calibration else {}, settings)
    return Evaluation(
        fingerprint=fingerprint,
        source=result["source"],
        split=result["split"],
        split_fingerprint=result["split_fingerprint"],
        images=len(table),
        patients=result["test"]["patients"],
        patients_known=settings.patients_known,
        patients_compared=result["patients_compared"],
        calibrated=source_text(calibration),
        prevalence=settings.prevalence,
        notes=_notes(result["split"], scores, calibration, settings),
        labels=scores,
        macro=macro,
    )


def _notes(
    split: str,
    scores: Mapping[str, LabelScores],
    calibration: Calibration | None,
    settings: Settings,
) -> list[str]:
    """What the numbers do not show."""
    lines = [patients_warning(settings.patients_known)]
    if calibration is None:
        lines.append(
            "the probabilities are not calibrated and there are no operating points, because "
            f"the run has no validation predictions; first run {called('evaluate')} on its own data"
        )
    elif split == "val":
        lines.append(
            "calibration and operating points were fitted on these images, so they look better "
            "than on others"
        )
    if calibration is not None:
        lines += [_lacking(scores, settings.points), _worse(scores)]
    return [line for line in lines if line]


def _worse(scores: Mapping[str, LabelScores]) -> str:
    """That calibration made the probabilities worse; "" if it did not."""
    worse = [name for name, own in scores.items() if _is_worse(own)]
    if not worse:
        return ""
    return (
        f"calibration made the probabilities of {plural(len(worse), 'label')} ({', '.join(worse)}) "
        "worse on these images: the log loss is larger than before"
    )


def _is_worse(own: LabelScores) -> bool:
    if own.before is None or own.after is None:
        return False
    before, after = own.before.log_loss.value, own.after.log_loss.value
    return after > before and not math.isclose(after, before)


def _lacking(scores: Mapping[str, LabelScores], points: Sequence[str]) -> str:
    """The operating points that judged labels lack, and why; "" if none lacks."""
    judged = {name: own for name, own in scores.items() if own.judged}
    lacking = {name: [p for p in points if p not in own.points] for name, own in judged.items()}
    named = [
        f"{name}: {'all' if len(own) == len(points) else ', '.join(map(point_name, own))}"
        for name, own in lacking.items()
        if own
    ]
    if not named:
        return ""
    return (
        f"operating points that {plural(len(named), 'label')} cannot have ({'; '.join(named)}): in "
        "validation a class is missing, or no threshold is better than chance (Youden)"
    )
