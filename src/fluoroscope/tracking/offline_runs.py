"""Run folders with offline W&B logs, and the record of what the server already has of each."""

import csv
import fcntl
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterable
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import CONFIG, FAILED, RESULT
from fluoroscope.run import run_folder
from fluoroscope.run.csv_logger import TIME
from fluoroscope.run.metrics_file import read_rows
from fluoroscope.run.run_folder import LOCK, METRICS, PROVENANCE

MARKER = "wandb/uploaded.json"
# If a run's process is on another machine, it counts as running for this time after its last row.
QUIET_S = 60.0


class Uploaded(NamedTuple):
    """The record of an upload in `wandb/uploaded.json`.

    Attributes:
        rows: number of rows of `metrics.csv` that the server has after it.
        fingerprint: hash of these rows, without their times.
        status: how the run had ended, see `OfflineRun.status`.
        shift: W&B's number of a row minus its position in `metrics.csv`; None before a replay.
        complete: False while the upload runs, and after a failed upload.
    """

    rows: int
    fingerprint: str
    status: str
    shift: int | None
    complete: bool


class OfflineRun:
    """A run folder with logs of W&B's client, `wandb/offline-run-TIME-ID`, one for each process.

    Attributes:
        folder: run folder.
        logs: the logs that are not empty, the oldest first.
        empty: number of empty logs, whose process was killed early.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        logs = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
        self.logs = [log for log in logs if log.stat().st_size]
        folders = [path for path in folder.glob("wandb/offline-run-*") if path.is_dir()]
        self.empty = len(folders) - len(self.logs)
        self.started = min(path.name for path in folders)

    @property
    def readable(self) -> bool:
        """Whether it is a run folder of this project, with the files that a replay needs."""
        return all((self.folder / name).exists() for name in (CONFIG, PROVENANCE, METRICS))

    @property
    def damaged(self) -> str:
        """The name of a file that a replay cannot read; empty if it can read all."""
        rows = read_rows(self.folder / METRICS, sys.maxsize)
        if rows.damaged or not rows.header:
            return METRICS
        try:
            named = isinstance(self.provenance.get("run_id"), str)
        except InputError:
            named = False
        return "" if named else PROVENANCE

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return run_folder.read_json(self.folder / PROVENANCE)

    @property
    def status(self) -> str:
        """How the run ended: `finished`, `failed`, or `stopped` if it can be resumed."""
        if (self.folder / RESULT).exists():
            return "finished"
        return "failed" if (self.folder / FAILED).exists() else "stopped"

    @property
    def running(self) -> bool:
        """Whether a process holds the run's lock, or the lock file exists and a row is recent."""
        lock = self.folder / LOCK
        if self.status != "stopped" or not lock.exists():
            return False
        newest = max((path.stat().st_mtime for path in [lock, *self.logs]), default=0.0)
        return time.time() - newest < QUIET_S or _is_held(lock)

    @property
    def whole(self) -> bool:
        """Whether one log of W&B holds the entire run, which ended and was never resumed."""
        resumed = "resumed_from" in self.provenance or self.empty or len(self.logs) != 1
        return self.status != "stopped" and not resumed

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`, without an incomplete last one."""
        whole = (self.folder / METRICS).read_text().rpartition("\n")[0]
        return list(csv.DictReader(StringIO(whole)))

    def fingerprint(self, rows: int) -> str:
        """Hash of the first rows, without their times and empty cells, so that a new column or a
        rerun of the same steps does not change it.
        """
        kept = [{k: v for k, v in row.items() if v and k != TIME} for row in self.rows[:rows]]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    @property
    def uploaded(self) -> Uploaded | None:
        """The record of the last upload; None if there was none."""
        try:
            return Uploaded(**json.loads((self.folder / MARKER).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def current(self) -> bool:
        """Whether the server has all data, by the record or by the marks of W&B's client."""
        record = self.uploaded
        if record is None:
            return bool(self.logs) and all(map(_is_marked, self.logs))
        return record.complete and record[:3] == (
            len(self.rows),
            self.fingerprint(len(self.rows)),
            self.status,
        )

    def note(self, shift: int | None, complete: bool) -> None:
        """Record an upload of the run as it is now."""
        rows = len(self.rows)
        record = Uploaded(rows, self.fingerprint(rows), self.status, shift, complete)
        run_folder.write_json(self.folder / MARKER, record._asdict())


def find_runs(places: Iterable[Path]) -> list[OfflineRun]:
    """All runs with offline logs below the folders, the oldest first."""
    logs = {log.resolve() for place in places for log in place.glob("**/wandb/offline-run-*")}
    runs = [OfflineRun(folder) for folder in {log.parent.parent for log in logs if log.is_dir()}]
    return sorted(runs, key=lambda run: (run.started, str(run.folder)))


def numbers(row: dict[str, str]) -> dict[str, float]:
    """The filled cells of a row of `metrics.csv`."""
    return {key: float(value) for key, value in row.items() if value}


def last_step(rows: Iterable[dict[str, str]]) -> float:
    """The optimizer step of the last row."""
    return max((float(row["step"]) for row in rows), default=-math.inf)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        pass  # the run ended just now, or the file system has no locks
    return False


def _is_marked(log: Path) -> bool:
    """Whether W&B's client marked the log as uploaded, and nothing was written to it since."""
    try:
        return Path(f"{log}.synced").stat().st_mtime >= log.stat().st_mtime
    except FileNotFoundError:
        return False
