"""W&B's commands: `wandb sync` uploads a log, and `wandb leet inspect` prints its content."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fluoroscope.errors import plural

# Limits, since the client would repeat a refused request for hours.
PATIENCE = {
    "WANDB__GRAPHQL_RETRY_MAX": "3",
    "WANDB__FILE_STREAM_RETRY_MAX": "3",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "3",
    "WANDB_HTTP_TIMEOUT": "20",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "60",
}
# The client would send the path of its program, and tracebacks.
PRIVATE = {"WANDB_PROGRAM": "not-shared", "WANDB_ERROR_REPORTING": "false"}
# The parts of the client whose errors mean that some of the run was not uploaded.
LOSSES = ("filestream:", "runupserter:", "runfiles:", "fileTransfer:", "sender:")
SYNC_S, INSPECT_S = 1800, 60
INCOMPLETE = "incomplete record"  # in the client's words, of a log that was cut off
NAMED = 6  # keys


def sync(log: Path) -> str | None:
    """Upload a log of one run with `wandb sync`; return the error, or None.

    Logs are uploaded one at a time, since an empty log ends the upload of all. The client's exit
    code is always 0, so its log decides whether it failed.
    """
    marker = Path(f"{log}.synced")
    marker.unlink(missing_ok=True)
    with TemporaryDirectory() as scratch:  # for the client's own log
        more = {"WANDB_DIR": scratch, "WANDB_SILENT": "false"}
        try:
            done = _wandb("sync", "--include-synced", str(log.parent), timeout=SYNC_S, **more)
        except subprocess.TimeoutExpired:
            return f"wandb sync did not end within {SYNC_S} s"
        errors = re.findall(r"wandb: ERROR (?:\[\S+\] )?(.*)", done.stderr)
        errors += lost_data(Path(scratch))
    if not errors and not done.returncode and marker.exists():
        return None
    marker.unlink(missing_ok=True)  # the client also marks a log that it failed to upload
    return errors[0] if errors else f"wandb sync ended with code {done.returncode}"


def lost_data(folder: Path) -> Iterator[str]:
    """Errors on lost data of the run, which the client writes only to its own log."""
    for log in folder.glob("**/debug-*.log"):
        for line in log.read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            message = str(entry.get("msg"))
            if str(entry.get("level")).startswith("ERROR") and message.startswith(LOSSES):
                yield message


def destinations(log: Path) -> Iterator[tuple[str, str]]:
    """Entity and project of each run in a log; "" for what the account decides."""
    for record in _records([log]):
        if record["type"] == "run":
            yield record["run"].get("entity", ""), record["run"].get("project", "")


def left_behind(logs: Iterable[Path], brought: set[str]) -> str:
    """Describe the values in logs whose keys a replay does not send; "" if there are none."""
    values: Counter[str] = Counter()
    samples = 0
    for record in _records(logs):
        samples += record["type"] == "stats"
        if record["type"] == "history":
            keys = [key for key in record["history"]["item"] if not key.startswith("_")]
            # The parts of a picture or a histogram are listed as `key.part`.
            values.update({key if key in brought else key.split(".")[0] for key in keys} - brought)
    return _counted(values, samples)


def _counted(values: Counter[str], samples: int) -> str:
    parts = []
    if values:
        names = sorted(values)
        more = f" and {len(names) - NAMED} more keys" if len(names) > NAMED else ""
        parts.append(f"{values.total()} values of {', '.join(names[:NAMED])}{more}")
    if samples:
        parts.append(f"{samples} samples of system metrics")
    return f"{' and '.join(parts)}, which are only in W&B's log" if parts else ""


def lost_tables(log: Path) -> str:
    """Number of tables that `wandb sync` left out, because their files are on another machine.

    The client stores such files outside the run folder, and does not report a missing one.
    """
    lost = 0
    for record in _records([log]):
        if record["type"] == "artifact":
            parts = record["artifact"].get("manifest", {}).get("contents", [])
            files = [Path(part["local_path"]) for part in parts if part.get("local_path")]
            lost += not all(file.exists() for file in files)
    return f"{plural(lost, 'table')} with files on another machine" if lost else ""


def _records(logs: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records that `wandb leet inspect` prints of logs, up to the end of a truncated one."""
    for log in logs:
        with suppress(subprocess.TimeoutExpired):
            lines = _wandb("leet", "inspect", "--json", str(log), timeout=INSPECT_S).stdout
            yield from map(json.loads, lines.splitlines())


def _wandb(*words: str, timeout: float, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wandb", *words],
        check=False,
        env={**os.environ, **PATIENCE, **PRIVATE, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
