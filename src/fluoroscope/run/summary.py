"""What a run says to a person, and what `result.json` says to a program."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.callbacks import Callback
from rich.table import Table
from torch import Tensor

from fluoroscope.build import Studies, plain
from fluoroscope.config.train import Train
from fluoroscope.console import make_console, short_path
from fluoroscope.data.splits import count_table
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.postmortem import PostMortem
from fluoroscope.model.classifier import Predictions
from fluoroscope.model.scores import auroc_interval
from fluoroscope.run.story import story

Result = dict[str, Any]


class Scored(Protocol):
    """A model whose best epoch was scored on validation and test, such as `Classifier`."""

    scores: dict[str, dict[str, float]]
    predictions: dict[str, Predictions]
    thresholds: Tensor


class Watched(Protocol):
    """Whoever remembers the numbers of a head, such as `Monitor`."""

    first: dict[str, float]
    last: dict[str, float]
    dead_max: float


def result(
    cfg: Train, studies: Studies, model: Scored, epochs: int, steps: int, watched: Result
) -> Result:
    """Everything that a comparison of runs needs; plain values.

    Args:
        watched: of `watched`, or what stands for it.
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
        "splits": count_table(studies.table, studies.labels),
        "skipped_images": studies.skipped,
        "epochs": epochs,
        "steps": steps,
        "val": model.scores["val"],
        "test": test_scores(studies, model),
        **watched,
    }


def watched(watchers: Sequence[Callback]) -> Result:
    """What the diagnostics of a fit found, of `build.build_watchers`.

    Keys: those of `measured`, and `postmortem`, a line on the units that died.
    """
    found: Result = {}
    for watcher in watchers:
        if isinstance(watcher, Monitor):
            found |= measured(watcher)
        if isinstance(watcher, PostMortem):
            found["postmortem"] = watcher.summary()
    return found


def measured(watcher: Watched) -> Result:
    """`units`, the census of the last training epoch and the last validation of the fit, and
    `grad`, the first and the last logged gradients.
    """
    first, last = _part(watcher.first, "grad/"), _part(watcher.last, "grad/")
    return {
        "units": _part(watcher.last, "units/") | {"val/dead_max": watcher.dead_max},
        "grad": {"first": first, "last": last},
    }


def test_scores(studies: Studies, model: Scored) -> Result:
    """The test scores with the 95 % interval of the AUROC, over patients, and what they are of."""
    predictions = model.predictions["test"]
    patients = studies.table["patient"].to_numpy()[predictions.rows.numpy()]
    low, high = auroc_interval(predictions.probability, predictions.target, patients)
    return {
        **model.scores["test"],
        "auroc_low": low,
        "auroc_high": high,
        "images": len(patients),
        "patients": len(set(patients)),
        **{
            f"threshold/{label}": float(t)
            for label, t in zip(studies.labels, model.thresholds, strict=True)
        },
    }


def _part(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def print_studies(studies: Studies) -> None:
    """Images, patients and positives per split."""
    table = Table(box=None, pad_edge=False)
    counts = count_table(studies.table, studies.labels)
    for column in counts[0]:
        table.add_column(column, justify="left" if column == "split" else "right")
    for row in counts:
        table.add_row(*map(str, row.values()))
    console = make_console()
    console.print(table)
    for decision in studies.decisions:
        console.print(decision.told(), highlight=False)
    if studies.skipped:
        console.print(f"{studies.skipped} unusable images were left out (data.on_unreadable=skip)")


def print_result(result: Result, folder: Path) -> None:
    """The closing summary."""
    sections = {"Test": _test_lines(result)}
    if "units" in result:
        sections["Head"] = _head_lines(result)
        sections["Gradient"] = _gradient_lines(result)
        sections["In short"] = story(result)
    sections["Run"] = _run_lines(result, folder)
    _print_sections(f"fluoroscope: {result['name']}", sections)


def print_evaluation(result: Result, folder: Path) -> None:
    """The scores of a checkpoint."""
    lines = [f"checkpoint {result['checkpoint']}", f"folder     {short_path(folder)}"]
    _print_sections("fluoroscope: evaluation", {"Test": _test_lines(result), "Run": lines})


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
    test = result["test"]
    what = "synthetic phantom x-rays" if result["source"] == "phantom" else "x-rays"
    unseen = "" if result.get("split") == "val" else " the model has not seen"
    labels = result["labels"]
    told = labels[0]
    chosen = f"threshold {test[f'threshold/{told}']:.2g}"
    if len(labels) > 1:
        told = "mean of " + ", ".join(f"{k} {_n(test[f'auroc/{k}'])}" for k in labels)
        chosen = "thresholds"
    return [
        f"AUROC {_n(test['auroc'])}, 95 % interval {_n(test['auroc_low'])} to "
        f"{_n(test['auroc_high'])} ({told})",
        f"on {test['images']} {what} of {test['patients']} patients{unseen}",
        f"sensitivity {_n(test['sensitivity'])}, specificity {_n(test['specificity'])} at the "
        f"{chosen} chosen on validation; AUPRC {_n(test['auprc'])}, Brier {_n(test['brier'])}",
    ]


def _head_lines(result: Result) -> list[str]:
    units, width = result["units"], result["width"]
    images = result["splits"][1]["images"]
    shares = {kind: units[f"val/{kind}_frac"] for kind in ("dead", "linear", "nonlinear")}
    census = ", ".join(f"{round(s * width)} {kind} ({_p(s)})" for kind, s in shares.items())
    return [
        f"{width} {result['activation']} units on {images} validation images, last epoch: {census}",
        f"highest dead share of any epoch {_p(units['val/dead_max'])}; a unit open on fewer than "
        f"{_p(units['val/dead_bound_frac'])} of images cannot be told from a dead one",
        f"blackout: {_p(units['val/blackout_frac'])} of images left every unit closed; "
        f"{_p(units['val/gate_open_frac'])} of all gates were open",
    ]


def _gradient_lines(result: Result) -> list[str]:
    first, last, width = result["grad"]["first"], result["grad"]["last"], result["width"]
    zero, starved = last["features_zero_frac"], round(last["starved_frac"] * width)
    backbone = "frozen"
    if not math.isnan(last["l2/backbone"]):
        backbone = f"{_g(first['l2/backbone'])} to {_g(last['l2/backbone'])}"
    return [
        f"{_p(zero)} of the last epoch's images sent no gradient at all back through the head; "
        f"{starved} of {width} units got none",
        f"norms, first to last: backbone {backbone}, head {_g(first['l2/head'])} to "
        f"{_g(last['l2/head'])}, features {_g(first['features_l2'])} to {_g(last['features_l2'])}",
    ]


def _run_lines(result: Result, folder: Path) -> list[str]:
    folder = short_path(folder)
    lines = [
        f"{result['epochs']} epochs, {result['steps']} steps, best epoch {result['best_epoch']}, "
        f"{result['total_s']:.0f} s in all",
        f"folder   {folder}",
    ]
    tracked = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime)
    if tracked:
        lines.append(f"look     wandb leet {tracked[-1]}")
    if tracked and tracked[-1].name.startswith("offline"):
        lines.append(f"upload   python scripts/sync.py runs={folder}")
    if result["source"] == "phantom":
        lines.append(
            f"This was {result['backbone']} at {result['image_px']} px on drawn x-rays, the small "
            "stand-in; the question's EfficientNet-B4 at 380 px is experiment=question data=..."
        )
    return lines


def _n(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _p(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1%}"


def _g(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2g}"
