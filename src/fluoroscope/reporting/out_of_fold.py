"""The files of a cross-validation: scores of each fold, and the predictions of all folds."""

from pathlib import Path

import pandas as pd

from fluoroscope.escaping import csv_table
from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.figures import file_name
from fluoroscope.reporting.folds import cells, pooled
from fluoroscope.reporting.rows import ACTIVATION

SCORES, FOLDER = "folds.csv", "out_of_fold"


def write_folds(comparison: Comparison, folder: Path) -> None:
    """Write `folds.csv`, the scores of each fold, and the predictions of each activation and seed.

    The columns of `out_of_fold/<activation>-s<seed>.csv` are `fold` (of the model that made the
    row's predictions) and those of a run's `predictions/test.csv`: no image or patient is named.
    Without folds nothing is written.
    """
    scores = [
        table.folds.assign(setting=n)
        for n, table in enumerate(comparison.settings, 1)
        if table.folds is not None
    ]
    if not scores:
        return
    (folder / FOLDER).mkdir(exist_ok=True)
    for n, table in enumerate(comparison.settings, 1):
        prefix = f"setting-{n}-" if len(comparison.settings) > 1 else ""
        for (row, seed), runs in cells(table.runs).items():
            tested = pooled(runs)
            rows = tested.table.copy()
            rows.insert(0, "fold", tested.fold, allow_duplicates=True)  # a label may have the name
            file = folder / FOLDER / f"{prefix}{file_name(row)}-s{seed}.csv"
            csv_table(rows).to_csv(file, index=False)
    whole = pd.concat(scores).rename(columns={ACTIVATION: comparison.by})
    whole.insert(0, "setting", whole.pop("setting"))
    csv_table(whole).to_csv(folder / SCORES, index=False)
