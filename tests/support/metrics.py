"""`metrics.csv` without the times at which its rows were logged."""

import csv
from pathlib import Path

import pandas as pd

TIME = "time_s"


def metric_rows(folder: Path) -> list[dict[str, str]]:
    """The cells of each row as they are written, the empty ones too."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != TIME} for row in csv.DictReader(file)]


def metric_table(folder: Path) -> pd.DataFrame:
    """As numbers; a head of an ablation has no times."""
    return pd.read_csv(folder / "metrics.csv").drop(columns=TIME, errors="ignore")
