"""The result of a run: `result.json` for programs, a few lines on the console for people."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pytorch_lightning.callbacks import Callback
from rich.table import Table
from torch import Tensor

from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.console import make_console, short_path
from fluoroscope.data.splits import count_table
from fluoroscope.data.study_table import ALL_UNKNOWN, Studies
from fluoroscope.diagnostics.head_metrics import History
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.postmortem import PostMortem
from fluoroscope.errors import plural
from fluoroscope.model.scores import Predictions
from fluoroscope.run import run_folder
from fluoroscope.run.collection_scores import collection_lines, collection_scores, label_lines
from fluoroscope.run.run_folder import prediction_table
from fluoroscope.run.score_limits import (
    images_text,
    interval_text,
    patients_warning,
    score,
    score_limits,
)
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
    """Images, patients and positives per split."""
    table = Table(box=None, pad_edge=False)
    counts = split_counts(studies)
    columns = [name for name, value in counts[0].items() if value is not None]
    for column in columns:
        table.add_column(column, justify="left" if column == "split" else "right")
    for row in counts:
        table.add_row(*(str(row[column]) for column in columns))
    console = make_console()
    console.print(table)
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


def print_result(result: Result, folder: Path, limits: Sequence[str] = ()) -> None:
    """The closing summary.

    Args:
        limits: return value of `test_limits`.
    """
    sections = {"Test": [*_test_lines(result), *limits]}
    if "units" in result:
        sections["Head"] = _head_lines(result)
        sections["Gradient"] = _gradient_lines(result)
        sections["In short"] = [units_sentence(result), gradient_sentence(result)]
    sections["Run"] = _run_lines(result, folder)
    _print_sections(f"fluoroscope: {result['name']}", sections)


def print_evaluation(result: Result, folder: Path, limits: Sequence[str] = ()) -> None:
    """The scores of a checkpoint; see `print_result`."""
    lines = [f"checkpoint {result['checkpoint']}", f"folder     {short_path(folder)}"]
    sections = {"Test": [*_test_lines(result), *limits], "Run": lines}
    _print_sections("fluoroscope: evaluation", sections)


def _print_sections(title: str, sections: dict[str, list[str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")  # a path that is cut off cannot be copied
    for name, lines in sections.items():
        table.add_row(name, "\n".join(lines))
    console = make_console()
    console.rule(title)
    console.print(table)
    console.rule()


def _test_lines(result: Result) -> list[str]:
    test, labels = result["test"], result["labels"]
    scored, threshold = labels[0], f"threshold {test[f'threshold/{labels[0]}']:.2g}"
    if len(labels) > 1:
        scored = "mean of " + ", ".join(f"{k} {score(test[f'auroc/{k}'])}" for k in labels)
        threshold = "thresholds"
    return [
        f"AUROC {score(test['auroc'])}, {interval_text(test)} ({scored})",
        images_text(result),
        f"sensitivity {score(test['sensitivity'])}, specificity {score(test['specificity'])} at "
        f"the {threshold} chosen on validation; AUPRC {score(test['auprc'])}, Brier score "
        f"{score(test['brier'])}",
        *collection_lines(result),
        *label_lines(result),
    ]


def _head_lines(result: Result) -> list[str]:
    units, width = result["units"], result["width"]
    images = result.get("validated", result["splits"][1])["images"]
    shares = {kind: units[f"val/{kind}_frac"] for kind in ("dead", "linear", "nonlinear")}
    census = ", ".join(f"{round(s * width)} {kind} ({_share(s)})" for kind, s in shares.items())
    whose = "last epoch, averaged weights" if "averaged_weights" in result else "last epoch"
    return [
        f"{width} {result['activation']} units on {images} validation images, {whose}: {census}",
        f"largest dead share of any epoch {_share(units['val/dead_max'])}; a unit open on fewer "
        f"than {_share(units['val/dead_bound_frac'])} of images may be counted as dead",
        f"blackout: {_share(units['val/blackout_frac'])} of images closed every unit; "
        f"{_share(units['val/gate_open_frac'])} of all gates were open",
    ]


def _gradient_lines(result: Result) -> list[str]:
    first, last, width = result["grad"]["first"], result["grad"]["last"], result["width"]
    zero, starved = last["features_zero_frac"], round(last["starved_frac"] * width)
    backbone = "frozen"
    if not math.isnan(last["l2/backbone"]):
        backbone = f"{_norm(first['l2/backbone'])} to {_norm(last['l2/backbone'])}"
    return [
        f"{_share(zero)} of the last epoch's labelled images sent no gradient at all through the "
        f"head; {starved} of {width} units got none",
        f"L2 norms, first to last: backbone {backbone}, head {_norm(first['l2/head'])} to "
        f"{_norm(last['l2/head'])}, features {_norm(first['features_l2'])} to "
        f"{_norm(last['features_l2'])}",
    ]


def units_sentence(result: Result) -> str:
    """Describe the dead and linear units of the head, from the keys of `result.json`."""
    units, kind = result["units"], f"{result['width']} {result['activation']} units"
    dead = units["val/dead_frac"]
    if math.isnan(dead):
        return "The units were not measured."
    if dead > 0:
        count = round(dead * result["width"])
        share = f"{dead:.1%}{_expected_share(result)}"
        return f"{count} of the head's {kind} ended dead ({share}): {result['postmortem']}."
    sentence = f"None of the head's {kind} ended dead"
    if units["val/dead_max"] > 0:
        sentence += f" (after some epoch, {units['val/dead_max']:.1%} were)"
    linear = units["val/linear_frac"]
    if linear > 0.5:
        sentence += f", but {linear:.0%} of them are linear on these images"
    return f"{sentence}."


def _expected_share(result: Result) -> str:
    """`dead_expected_frac` in words, for the heads that it applies to: ReLU units without bias."""
    head = result["head"]
    no_bias = head["bias_init"] is None and head["init"] != "torch"
    if head["activation"] != "relu" or head["order"] != "activation-norm" or not no_bias:
        return ""
    expected = result["units"]["val/dead_expected_frac"]
    return f"; the features' geometry alone predicts {expected:.1%}"


def gradient_sentence(result: Result) -> str:
    """Say whether the head passed gradient to the backbone, from the keys of `result.json`."""
    blackout = result["units"]["val/blackout_frac"]
    zero = result["grad"]["last"]["features_zero_frac"]
    if blackout == 1:
        constant = result["units"]["val/zero_frac"] == 1
        effect = "the model is a constant" if constant else "the head no longer passes any gradient"
        return f"No validation image opens any gate: {effect}."
    if blackout > 0:
        return (
            f"{blackout:.1%} of the validation images close every gate, and the backbone learns "
            "nothing from such images: try head.activation=leaky_relu, a smaller optimizer.lr or "
            "head.order=norm-activation."
        )
    if math.isnan(zero):
        return "No training image had a label, so the gradient per image was not measured."
    if zero > 0:
        return f"{zero:.1%} of the last epoch's labelled images sent no gradient through the head."
    sentence = "Every image sent gradient back through the head"
    if math.isnan(result["grad"]["last"]["l2/backbone"]):
        sentence += ", but the frozen backbone does not use it"
    if result["units"]["val/dead_frac"] > 0:
        return f"{sentence}. Dead units shrink the head; they do not cut off the backbone."
    return f"{sentence}."


def _run_lines(result: Result, folder: Path) -> list[str]:
    folder = short_path(folder)
    lines = [
        f"{plural(result['epochs'], 'epoch')}, {plural(result['steps'], 'step')}, best epoch "
        f"{result['best_epoch']}, {result['total_s']:.0f} s {_since(folder)}",
        f"folder   {folder}",
    ]
    tracked = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime)
    if tracked:
        lines.append(f"view     wandb leet {tracked[-1]}")
    if tracked and tracked[-1].name.startswith("offline"):
        lines.append(f"upload   python scripts/sync.py runs={folder}")
    if result["source"] == "phantom":
        lines.append(
            f"This run trained {result['backbone']} at {result['image_px']} px on synthetic "
            "x-rays; for EfficientNet-B4 at 380 px on your own, add experiment=question data=..."
        )
    return lines


def _since(folder: Path) -> str:
    file = folder / run_folder.PROVENANCE
    resumed = file.exists() and "resumed_from" in run_folder.read_json(file)
    return "since it was resumed" if resumed else "in total"


def _share(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1%}"


def _norm(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2g}"
