"""The closing summary of a run or an evaluation: a few lines on the console for people."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fluoroscope.commands import called
from fluoroscope.console import fitting_tables, make_console, short_path
from fluoroscope.errors import plural
from fluoroscope.model.score_names import TAKEN
from fluoroscope.run import run_folder
from fluoroscope.run.collection_scores import collection_lines, label_lines
from fluoroscope.run.score_limits import images_text, interval_text, score
from fluoroscope.run.summary import Result

Sections = dict[str, Sequence[str | Table]]
SECTION = 10  # columns of the names of the sections
OF_A_LABEL = ("auroc", "auprc", "sensitivity", "specificity", "threshold")


def print_result(result: Result, folder: Path, limits: Sequence[str] = ()) -> None:
    """The closing summary.

    Args:
        limits: return value of `test_limits`.
    """
    sections: Sections = {"Test": [*_test_lines(result), *limits]}
    sections["Labels"] = _label_tables(result)
    if "units" in result:
        sections["Head"] = _head_lines(result)
        sections["Gradient"] = _gradient_lines(result)
        sections["In short"] = [units_sentence(result), gradient_sentence(result)]
    sections["Run"] = _run_lines(result, folder)
    _print_sections(f"fluoroscope: {result['name']}", sections)


def print_evaluation(
    result: Result, folder: Path, limits: Sequence[str] = (), more: Sections | None = None
) -> None:
    """The scores of a checkpoint, then further sections; see `print_result`."""
    lines = [f"checkpoint {result['checkpoint']}", f"folder     {short_path(folder)}"]
    sections: Sections = {"Test": [*_test_lines(result), *limits]}
    sections["Labels"] = _label_tables(result)
    sections |= more or {}
    sections["Run"] = lines
    _print_sections("fluoroscope: evaluation", sections)


def _print_sections(title: str, sections: Sections) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, parts in sections.items():
        # A path that is cut off cannot be copied.
        texts = [Text(p, overflow="fold") if isinstance(p, str) else p for p in parts]
        if texts:
            table.add_row(name, Group(*texts))
    console = make_console()
    console.rule(title)
    console.print(table)
    console.rule()


def _test_lines(result: Result) -> list[str]:
    test, labels = result["test"], result["labels"]
    scored, threshold = labels[0], f"threshold {test[f'threshold/{labels[0]}']:.2g}"
    if len(labels) > 1:
        defined = [label for label in labels if not math.isnan(test[f"auroc/{label}"])]
        undefined = f" of {len(labels)}" * (len(defined) < len(labels))
        scored, threshold = f"mean of {len(defined)}{undefined} labels", "thresholds"
    return [
        f"AUROC {score(test['auroc'])}, {interval_text(test)} ({scored})",
        images_text(result),
        f"sensitivity {score(test['sensitivity'])}, specificity {score(test['specificity'])} at "
        f"the {threshold} chosen on validation; AUPRC {score(test['auprc'])}, Brier score "
        f"{score(test['brier'])}",
        *_own_lines(result),
        *collection_lines(result),
        *label_lines(result),
    ]


def _own_lines(result: Result) -> list[str]:
    """The scores of the key `scores`, if there are some."""
    own = [name for name in result["test"] if "/" not in name and name not in TAKEN]
    return [", ".join(f"{name} {score(result['test'][name])}" for name in own)] if own else []


def _label_tables(result: Result) -> list[Table]:
    """The scores of each label, if there are several."""
    test, labels = result["test"], result["labels"]
    titles = ["", *(name.upper() if name.startswith("au") else name for name in OF_A_LABEL)]
    rows = [[label, *(score(test[f"{name}/{label}"]) for name in OF_A_LABEL)] for label in labels]
    width = make_console().width - SECTION
    return list(fitting_tables(titles, rows, width)) if len(labels) > 1 else []


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
        lines.append(f"upload   {called('sync')} runs={folder}")
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
