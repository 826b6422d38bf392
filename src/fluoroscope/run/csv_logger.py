"""`metrics.csv`: every number that a run logs, with the time at which it was logged."""

import csv
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from fluoroscope.atomic_write import write_atomically

STEP, TIME = "step", "time_s"


class MetricsCsv(Logger):
    """Writes `metrics.csv`: one row per call, one column per key.

    `step` is the optimizer step, `time_s` the time of the call in seconds since 1970. A resumed run
    appends to the existing file.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Do nothing: the configuration is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {STEP: step, TIME: f"{time.time():.3f}"}
        row |= {key: float(value) for key, value in metrics.items()}
        if not self._columns and self.path.exists():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        # Lightning's own order depends on whether it tried the validation before the first epoch.
        new = [key for key in (STEP, TIME, *sorted(metrics)) if key not in self._columns]
        if new:
            self._widen(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _widen(self, new: list[str]) -> None:
        """Add columns, row by row, since the file of a long run is large."""
        columns = [*self._columns, *new]
        with write_atomically(self.path) as part, part.open("w", newline="") as wider:
            writer = csv.writer(wider, lineterminator="\n")
            writer.writerow(columns)
            if self.path.exists():
                with self.path.open(newline="") as file:
                    rows = csv.reader(file)
                    next(rows, None)
                    writer.writerows([*row, *[""] * len(new)] for row in rows)
        self._columns = columns
