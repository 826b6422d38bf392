"""The studies and the result of a run: `result.json`, and what is printed before the training."""

from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.console import fitting_tables, make_console
from fluoroscope.data.splits import count_table
from fluoroscope.data.study_table import ALL_UNKNOWN, Studies
from fluoroscope.diagnostics.head_metrics import History
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.postmortem import PostMortem
from fluoroscope.errors import plural
from fluoroscope.model.scores import Predictions
from fluoroscope.run.collection_scores import collection_scores
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.run.score_limits import patients_warning, score_limits
from fluoroscope.statistics import auroc_interval

Result = dict[str, Any]


class Scored(Protocol):
    """A model whose best epoch was scored on validation and test, such as `Classifier`."""

    scores: dict[str, dict[str, float]]
    predictions: dict[str, Predictions]
    thresholds: Tensor


def result(
    cfg: Train, studies: Studies, model: Scored, epochs: int, steps: int, watched: Result
) -> Result:
    """Everything that a comparison of runs needs; plain values.

    Args:
        watched: return value of `watched`, or a dict with the same keys.
    """
    return {
        "name": cfg.run.name,
        "seed": cfg.seed,
        "source": studies.source,
        "labels": studies.labels,
        "backbone": cfg.backbone.name,
        "image_px": cfg.data.image_px,
        "activation": cfg.head.activation,
        "width": cfg.head.width,
        "head": plain(cfg)["head"],
        "split_fingerprint": studies.fingerprint,
        **about_patients(studies),
        "splits": split_counts(studies),
        **validated(studies, model),
        "skipped_images": studies.skipped,
        "epochs": epochs,
        "steps": steps,
        "val": model.scores["val"],
        "test": test_scores(studies, model, studies.labels),
        **collection_scores(studies, model.predictions["test"]),
        **watched,
        **({"averaged_weights": True} if cfg.optimizer.ema_decay is not None else {}),
    }


def watched(watchers: Sequence[Callback]) -> Result:
    """The findings of the diagnostics of a fit, given the callbacks of `build.build_watchers`.

    Keys: those of `measured`, and `postmortem`, a line on the units that died.
    """
    found: Result = {}
    for watcher in watchers:
        if isinstance(watcher, Monitor):
            found |= measured(watcher.history)
        if isinstance(watcher, PostMortem):
            found["postmortem"] = watcher.summary()
    return found


def measured(history: History) -> Result:
    """`units`, the census of the last training epoch and the last validation of the fit, and
    `grad`, the first and the last logged gradients.
    """
    first, last = _part(history.first, "grad/"), _part(history.last, "grad/")
    return {
        "units": _part(history.last, "units/") | {"val/dead_max": history.dead_max},
        "grad": {"first": first, "last": last},
    }


def test_scores(studies: Studies, model: Scored, labels: Sequence[str]) -> Result:
    """The test scores, the 95 % interval of the AUROC over patients, and the numbers of images and
    patients (None if patients are unknown).

    Args:
        labels: those of the studies that the images have.
    """
    predictions = _predictions(studies, model)
    low, high = auroc_interval(predictions, labels)
    known = studies.patients_known
    return {
        **model.scores["test"],
        "auroc_low": low,
        "auroc_high": high,
        **({} if known == "all" else {"interval_too_narrow": True}),
        "images": len(predictions),
        "patients": _patients(studies, predictions),
        **{
            f"threshold/{label}": float(t)
            for label, t in zip(studies.labels, model.thresholds, strict=True)
        },
    }


def about_patients(studies: Studies) -> Result:
    """The entry `patients_known`, "some" or "none"; empty if all patients are known."""
    known = studies.patients_known
    return {} if known == "all" else {"patients_known": known}


def test_limits(studies: Studies, model: Scored, labels: Sequence[str]) -> list[str]:
    """The limits of the test scores in words; see `score_limits` and `test_scores`."""
    return score_limits(_predictions(studies, model), labels, studies.patients_known)


def _predictions(studies: Studies, model: Scored) -> pd.DataFrame:
    return prediction_table(studies.table, studies.labels, model.predictions["test"])


def validated(studies: Studies, model: Scored) -> Result:
    """The entry `validated`, numbers of images and patients, if a limit left some of them out."""
    predictions = prediction_table(studies.table, studies.labels, model.predictions["val"])
    if len(predictions) == (studies.table["split"] == "val").sum():
        return {}
    return {"validated": {"images": len(predictions), "patients": _patients(studies, predictions)}}


def _patients(studies: Studies, predictions: pd.DataFrame) -> int | None:
    known = studies.patients_known != "none"
    return predictions["group"].nunique() if known else None


def split_counts(studies: Studies) -> list[Result]:
    """`count_table`, with None in place of the number of patients if patients are unknown."""
    counts: list[Result] = [*count_table(studies.table, studies.labels)]
    if studies.patients_known == "none":
        counts = [row | {"patients": None} for row in counts]
    return counts


def _part(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def print_studies(studies: Studies) -> None:
    """Images, patients and positives of each split; one row per label."""
    counts = split_counts(studies)
    names = [name for name, value in counts[0].items() if value is not None and name != "split"]
    titles = ["", *(split["split"] for split in counts)]
    rows = [[name, *(str(split[name]) for split in counts)] for name in names]
    console = make_console()
    console.print(*fitting_tables(titles, rows, console.width))
    warn_of_patients(studies)
    for decision in studies.decisions:
        console.print(decision.describe(), highlight=False)
    if studies.skipped:
        skipped = plural(studies.skipped, "unusable image")
        console.print(f"left out: {skipped} (data.on_unreadable=skip)")


def warn_of_patients(studies: Studies) -> None:
    """Warn if the patients of some or of all images are unknown."""
    if studies.patients_known != "all":
        text = f"warning: {patients_warning(studies.patients_known)}{_advice(studies)}"
        make_console().print(text, style="bold yellow")


def _advice(studies: Studies) -> str:
    key = {"folder": "data.patient_pattern", "table": "data.patient_column"}.get(studies.source)
    unset = any(decision.policy == ALL_UNKNOWN for decision in studies.decisions)
    return f"; set {key} if it can tell patients apart" if key and unset else ""
