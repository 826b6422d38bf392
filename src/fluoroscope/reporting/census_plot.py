"""Draw the census of finished runs: dead, linear and nonlinear units over the epochs.

python -m fluoroscope.reporting.census_plot RUN RUN --out census.png
"""

import argparse
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from fluoroscope.diagnostics.keys import DEAD, LINEAR, NONLINEAR
from fluoroscope.errors import InputError
from fluoroscope.escaping import figure_text
from fluoroscope.run.run_folder import METRICS, RESULT, read_json

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLORS = {DEAD: "#D55E00", LINEAR: "#56B4E9", NONLINEAR: "#E5E5E5"}


def census(folders: list[Path]) -> Figure:
    """Dead, linear and nonlinear units at each validation, one panel per run.

    Args:
        folders: of finished runs.

    Raises:
        InputError: a folder holds no finished run, or a run without diagnostics.
    """
    figure = Figure(figsize=(1 + 3.6 * len(folders), 3.4), layout="constrained")
    panels = figure.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    for panel, folder in zip(panels, folders, strict=True):
        result, shares = read_json(folder / RESULT), _shares(folder)
        epochs = shares.index + 1
        panel.stackplot(epochs, shares.to_numpy().T * 100, colors=list(COLORS.values()))
        bottom = 0.0
        for kind in shares:
            middle, bottom = bottom + shares[kind].iloc[-1] / 2, bottom + shares[kind].iloc[-1]
            if shares[kind].iloc[-1] > 0.04:
                label = f"{kind} {shares[kind].iloc[-1]:.0%} "
                panel.text(epochs[-1], middle * 100, label, ha="right", va="center")
        name = figure_text(str(result["activation"]))
        panel.set_title(f"{name}: test AUROC {result['test']['auroc']:.3f}", parse_math=False)
        panel.set(xlabel="epoch", xlim=(epochs[0], epochs[-1]), ylim=(0, 100))
    panels[0].set_ylabel(f"% of the head's {result['width']} units")
    return figure


def _shares(folder: Path) -> pd.DataFrame:
    """One row per epoch, one column per kind of unit."""
    table = pd.read_csv(folder / METRICS)
    columns = [metric.key() for metric in COLORS]
    if not set(columns) <= set(table.columns):
        raise InputError(f"{folder} is a run without diagnostics: {METRICS} holds no census")
    shares = table[["epoch", *columns]].dropna().set_index("epoch")
    return shares.set_axis([metric.column for metric in COLORS], axis=1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    matplotlib.use("agg")
    try:
        census(chosen.runs).savefig(chosen.out, dpi=130)
    except InputError as error:
        parser.error(str(error))  # exit code 2


if __name__ == "__main__":
    main()
