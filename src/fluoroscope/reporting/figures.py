"""The figures of a report: each is drawn once, as PNG and SVG files and as SVG for the page."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from fluoroscope.reporting import charts, forest, theme
from fluoroscope.reporting.charts import Chart
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.curves import CURVES, draw_curve, histories
from fluoroscope.reporting.drawings import Picture, inline_svg, png, standalone_svg
from fluoroscope.reporting.theme import Style

FOLDER = "figures"
GATES = "gate_open.npy"
FEW = 5  # up to this number every activation has its own style

# Called with the name of each figure after it was drawn.
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Figures:
    """The figures of one setting, by the part of the page they belong to."""

    scores: list[Picture] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    gates: list[Picture] = field(default_factory=list)


def draw_verdict(comparison: Comparison, folder: Path, tick: Tick) -> list[Picture]:
    """The figure of the verdict, one part per setting; see `forest`."""
    with matplotlib.rc_context(theme.RC):
        return [
            _keep(folder, f"{_prefix(comparison, n)}difference", title, chart, tick)
            for n, (title, chart) in enumerate(_verdict(comparison), 1)
        ]


def verdict_pngs(comparison: Comparison) -> list[tuple[str, bytes]]:
    """Titles and PNG files of the parts of `draw_verdict`."""
    with matplotlib.rc_context(theme.RC):
        return [(title, png(chart.figure)) for title, chart in _verdict(comparison)]


def _verdict(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    """The title and the chart of each setting."""
    for number, setting in enumerate(comparison.settings, 1):
        title = f"Difference to {comparison.reference} in test AUROC, and the units"
        if len(comparison.settings) > 1:
            title = f"Setting {number}: {setting.label}"
        yield title, forest.draw(comparison, setting)


def _prefix(comparison: Comparison, number: int) -> str:
    """Beginning of the names of a setting's files; `number` from 1."""
    return f"setting-{number}-" if len(comparison.settings) > 1 else ""


def draw_setting(
    comparison: Comparison, number: int, looks: Mapping[str, Style], folder: Path, tick: Tick
) -> Figures:
    """The figures of one setting.

    Args:
        number: of the setting, from 1.
        looks: from `looks_of`.
        folder: receives the PNG and SVG files.
    """
    setting = comparison.settings[number - 1]
    prefix = _prefix(comparison, number)

    def keep(plan: Iterator[tuple[str, str, Chart]]) -> list[Picture]:
        return [_keep(folder, prefix + name, title, chart, tick) for name, title, chart in plan]

    with matplotlib.rc_context(theme.RC):
        return Figures(
            scores=keep(_scores(setting, looks)),
            curves=keep(_curves(setting, looks)),
            gates=keep(_gates(setting)),
        )


def looks_of(comparison: Comparison) -> dict[str, Style]:
    """A style for each activation, the same in all settings.

    Besides the reference and the linear head, the activation with the highest score, the one with
    the most dead units and the one with the lowest score stand out, by the mean over settings. Up
    to five activations all stand out.
    """
    rows = pd.concat([setting.rows for setting in comparison.settings])
    means = rows.groupby("activation", sort=False)[["difference", "dead"]].mean()
    names = list(means.index)
    gains = means["difference"].dropna().sort_values(ascending=False, kind="stable")
    notable = [*gains.index[:1]]
    if means["dead"].max() > 0:
        notable.append(means["dead"].idxmax())
    notable += [*gains.index[-1:]]
    return theme.styles(names, comparison.reference, notable + names * (len(names) <= FEW))


def _scores(setting: SettingTable, looks: Mapping[str, Style]) -> Iterator[tuple[str, str, Chart]]:
    if len(setting.by_run[["dead", "auroc"]].dropna()):
        chart = charts.scatter(setting.by_run, looks)
        yield "dead-auroc", "Dead units and AUROC, one mark per run", chart


def _curves(setting: SettingTable, looks: Mapping[str, Style]) -> Iterator[tuple[str, str, Chart]]:
    history = histories(setting.runs)
    for drawn in CURVES:
        chart = draw_curve(history, drawn, looks)
        if chart is not None:
            yield f"curve-{drawn.name}", drawn.title, chart


def _gates(setting: SettingTable) -> Iterator[tuple[str, str, Chart]]:
    """One figure per activation, of the first seed whose run folder holds the gates."""
    done: set[str] = set()
    for activation in setting.rows["activation"]:
        for run in sorted(setting.runs, key=lambda run: run.seed):
            file = None if run.folder is None else run.folder / GATES
            if run.row == activation and activation not in done and file and file.is_file():
                done.add(activation)
                title = f"Gates of {activation}, seed {run.seed}"
                name = f"gates-{file_name(activation)}"
                yield name, title, charts.gates(np.load(file), activation, run.seed)


def file_name(activation: str) -> str:
    """The name without characters that a file name or an id on the page cannot hold.

    Unusual names get a tail, so that two of them are never one file.
    """
    name = re.sub("[^a-zA-Z0-9]", "-", activation).strip("-")
    if re.fullmatch(r"[\w(),.= +-]{1,60}", activation, re.ASCII):
        return name
    return f"{name[:40]}-{sha256(activation.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _keep(folder: Path, name: str, title: str, chart: Chart, tick: Tick) -> Picture:
    drawing = standalone_svg(chart.figure)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / FOLDER / f"{name}.svg").write_text(drawing, encoding="utf-8")
    (folder / FOLDER / f"{name}.png").write_bytes(png(chart.figure))
    tick(name)
    return Picture(name, title, chart.alt, inline_svg(drawing, name, title, chart.alt))
