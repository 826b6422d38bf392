"""The figures of a report: drawn once, kept as files and as drawings for the page."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from fluoroscope.reporting import charts, svg, theme
from fluoroscope.reporting.cells import FINDINGS
from fluoroscope.reporting.charts import Chart
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.curves import CURVES, curve, histories
from fluoroscope.reporting.theme import Style

FOLDER = "figures"
GATES = "gate_open.npy"
PNG_DPI = 160
FEW = 5  # so many activations have a style of their own

# Called with the name of each figure that is done.
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: of its files, and its ids on the page.
        svg: for the page.
    """

    name: str
    title: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Pictures:
    """What was drawn of a setting, or (`overview`) of all of them; empty where there is nothing."""

    overview: list[Picture] = field(default_factory=list)
    scores: list[Picture] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    gates: list[Picture] = field(default_factory=list)


def draw_overview(comparison: Comparison, folder: Path, tick: Tick) -> list[Picture]:
    """Activations by settings; nothing where there is one setting only."""
    if len(comparison.settings) == 1:
        return []
    names = dict.fromkeys(name for s in comparison.settings for name in s.rows["activation"])

    def grid(column: str) -> pd.DataFrame:
        return pd.DataFrame(
            {
                n: s.rows.set_index("activation")[column]
                for n, s in enumerate(comparison.settings, 1)
            }
        ).reindex(list(names))

    others = [name for name in names if name != comparison.reference]
    gain, found = grid("difference").loc[others], grid("finding").loc[others].isin(FINDINGS)
    told = f"test AUROC minus {comparison.reference}'s"
    with matplotlib.rc_context(theme.RC):
        plan = {
            "overview-difference": (f"Difference: {told}", charts.matrix(gain, told, True, found)),
            "overview-dead": ("Dead units", charts.matrix(grid("dead"), "Dead share", False)),
        }
        return [_keep(folder, name, *drawn, tick) for name, drawn in plan.items()]


def draw_setting(
    comparison: Comparison, number: int, looks: Mapping[str, Style], folder: Path, tick: Tick
) -> Pictures:
    """The figures of one setting.

    Args:
        number: of the setting, from 1.
        looks: of `looks_of`.
        folder: gets PNG and SVG files.
    """
    setting = comparison.settings[number - 1]
    prefix = f"setting-{number}-" if len(comparison.settings) > 1 else ""

    def keep(plan: Iterator[tuple[str, str, Chart]]) -> list[Picture]:
        return [_keep(folder, prefix + name, title, chart, tick) for name, title, chart in plan]

    with matplotlib.rc_context(theme.RC):
        return Pictures(
            scores=keep(_scores(setting, comparison.reference, looks)),
            curves=keep(_curves(setting, looks)),
            gates=keep(_gates(setting)),
        )


def looks_of(comparison: Comparison) -> dict[str, Style]:
    """A style for each activation, the same in all settings.

    Highlighted beside the reference and the linear head: the best, the one with most dead units
    and the worst, by the mean over settings; where there are few, all.
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


def _scores(
    setting: SettingTable, reference: str, looks: Mapping[str, Style]
) -> Iterator[tuple[str, str, Chart]]:
    if setting.rows["difference"].notna().any():
        title = f"Paired difference to {reference}"
        yield "difference", title, charts.forest(setting.rows, reference, looks)
    if len(setting.by_run[["dead", "auroc"]].dropna()):
        chart = charts.scatter(setting.by_run, looks)
        yield "dead-auroc", "Dead units against AUROC, a mark a run", chart


def _curves(setting: SettingTable, looks: Mapping[str, Style]) -> Iterator[tuple[str, str, Chart]]:
    history = histories(setting.runs)
    for shown in CURVES:
        chart = curve(history, shown, looks)
        if chart is not None:
            yield f"curve-{shown.name}", shown.title, chart


def _gates(setting: SettingTable) -> Iterator[tuple[str, str, Chart]]:
    """Of one seed per activation, the first whose run has it."""
    done: set[str] = set()
    for activation in setting.rows["activation"]:
        for run in sorted(setting.runs, key=lambda run: run.seed):
            file = None if run.folder is None else run.folder / GATES
            if run.row == activation and activation not in done and file and file.is_file():
                done.add(activation)
                title = f"Gates of {activation}, seed {run.seed}"
                name = f"gates-{_file_name(activation)}"
                yield name, title, charts.gates(np.load(file), activation, run.seed)


def _file_name(activation: str) -> str:
    """Without what a file name or an id on the page cannot hold."""
    return "".join(c if c.isalnum() else "-" for c in activation).strip("-")


def _keep(folder: Path, name: str, title: str, chart: Chart, tick: Tick) -> Picture:
    drawing = svg.standalone(chart.figure)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / FOLDER / f"{name}.svg").write_text(drawing, encoding="utf-8")
    chart.figure.savefig(folder / FOLDER / f"{name}.png", dpi=PNG_DPI, metadata={"Software": None})
    tick(name)
    return Picture(name, title, chart.alt, svg.inline(drawing, name, title, chart.alt))
