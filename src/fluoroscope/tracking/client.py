"""One segment of a run through `wandb sync`, and whether it really arrived."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fluoroscope.tracking.artifacts import placed
from fluoroscope.tracking.offline import Segment
from fluoroscope.tracking.offline_log import entry, write_log

# Of the client; by its own settings it repeats for hours what a server refuses.
PATIENCE = {
    "WANDB__GRAPHQL_RETRY_MAX": "3",
    "WANDB__FILE_STREAM_RETRY_MAX": "3",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "3",
    "WANDB_HTTP_TIMEOUT": "20",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "60",
}
# It would send the path of its program, and tracebacks.
DISCREET = {"WANDB_PROGRAM": "not-shared", "WANDB_ERROR_REPORTING": "false"}

LOSSES = ("filestream:", "runupserter:", "runfiles:", "fileTransfer:", "sender:")


class Outcome(NamedTuple):
    """Why an upload failed, None if it did not, and how many tables it could not take along."""

    problem: str | None
    lost: int


def upload(segment: Segment, before: float) -> Outcome:
    """Upload a segment without its rows from a step on.

    The client numbers the rows on from those that the server has, and keeps the first number
    beside the log (`.syncstate`), so that a second attempt sends the same rows as the same ones.
    """
    written = segment.path.stat()
    log = segment.read()
    kept, lost = _kept(segment, log.records, before)
    problem: str | None = "interrupted"
    try:
        if kept == log.records and not log.torn:
            problem = _call(segment.path)
        else:
            problem = _call_with_copy(segment, log.start, kept)
    finally:
        if problem is None:  # of the log as it was read, should it grow
            segment.marker.touch()
            os.utime(segment.marker, ns=(written.st_atime_ns, written.st_mtime_ns))
        else:  # the client marks what it gave up on as well
            segment.marker.unlink(missing_ok=True)
    return Outcome(problem, lost)


def _kept(segment: Segment, records: list[bytes], before: float) -> tuple[list[bytes], int]:
    """The records to be uploaded, and how many artifacts are not among them."""
    kept: list[bytes] = []
    lost = 0
    for record in records:
        kind, step = entry(record)
        there = placed(record, segment.staging) if kind == "artifact" else record
        lost += there is None
        if there is not None and (step is None or step < before):
            kept.append(there)
    return kept, lost


def _call_with_copy(segment: Segment, start: bytes, records: list[bytes]) -> str | None:
    # The name and the files as the client expects them.
    with TemporaryDirectory(prefix="offline-", dir=segment.folder) as folder:
        copy = Path(folder) / segment.path.name
        write_log(copy, start, records)
        if (segment.folder / "files").is_dir():
            (Path(folder) / "files").symlink_to("../files")
        state, state_of_copy = Path(f"{segment.path}.syncstate"), Path(f"{copy}.syncstate")
        if state.exists():
            shutil.copy(state, state_of_copy)
        try:
            return _call(copy)
        finally:
            if state_of_copy.exists():
                shutil.copy(state_of_copy, state)


def _call(path: Path) -> str | None:
    marker = Path(f"{path}.synced")
    marker.unlink(missing_ok=True)
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", str(path.parent)]
    with TemporaryDirectory() as scratch:  # for the client's own log
        environ = {**os.environ, **PATIENCE, **DISCREET, "WANDB_DIR": scratch}
        environ["WANDB_SILENT"] = "false"
        done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True)
        errors = [*_said(done.stderr), *_logged(Path(scratch))]
    if errors:
        return errors[0]
    if done.returncode or not marker.exists():
        return f"wandb sync ended with code {done.returncode}"
    return None


def _said(text: str) -> Iterator[str]:
    """Its exit code is 0 whatever happens, and a run that it gave up on is marked as uploaded."""
    for match in re.finditer(r"wandb: ERROR (?:\[\S+\] )?(.*)", text):
        yield match[1]


def _logged(folder: Path) -> Iterator[str]:
    """Errors that it does not show, where they cost some of the run's data."""
    for log in folder.glob("**/debug-sync.*.log"):
        for line in map(json.loads, log.read_text().splitlines()):
            if line["level"].startswith("ERROR") and line["msg"].startswith(LOSSES):
                yield line["msg"]
