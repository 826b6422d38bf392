"""W&B's own commands: `wandb sync` uploads a log, `wandb leet inspect` prints what is in one."""

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

# The client would repeat for hours what a server refuses.
PATIENCE = {
    "WANDB__GRAPHQL_RETRY_MAX": "3",
    "WANDB__FILE_STREAM_RETRY_MAX": "3",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "3",
    "WANDB_HTTP_TIMEOUT": "20",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "60",
}
# It would send the path of its program, and tracebacks.
PRIVATE = {"WANDB_PROGRAM": "not-shared", "WANDB_ERROR_REPORTING": "false"}
# The parts of the client whose errors mean that some of the run was not uploaded.
LOSSES = ("filestream:", "runupserter:", "runfiles:", "fileTransfer:", "sender:")
SYNC_S, INSPECT_S = 1800, 60
INCOMPLETE = "incomplete record"  # in the client's words, of a log that was cut off
NAMED = 6  # keys


def sync(log: Path) -> str | None:
    """Upload a log of one run with `wandb sync`; return what went wrong, if anything did.

    One at a time, since an empty log ends the upload of all. The client's exit code is 0 whatever
    happens, so its errors decide.
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
    marker.unlink(missing_ok=True)  # the client also marks what it gave up on
    return errors[0] if errors else f"wandb sync ended with code {done.returncode}"


def lost_data(folder: Path) -> Iterator[str]:
    """Errors that the client writes to its log alone, though they lost some of the run's data."""
    for log in folder.glob("**/debug-*.log"):
        for line in log.read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            message = str(entry.get("msg"))
            if str(entry.get("level")).startswith("ERROR") and message.startswith(LOSSES):
                yield message


def left_behind(logs: Iterable[Path], brought: set[str]) -> str:
    """What logs hold besides the keys that a replay brings, counted and named; "" if nothing."""
    values: Counter[str] = Counter()
    samples = 0
    for record in _records(logs):
        samples += record["type"] == "stats"
        if record["type"] == "history":
            keys = [key for key in record["history"]["item"] if not key.startswith("_")]
            # Of a picture or a histogram the parts are listed, as `key.part`.
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
    return f"{' and '.join(parts)}, which W&B's log alone holds" if parts else ""


def lost_tables(log: Path) -> str:
    """How many tables `wandb sync` left out, because their files are on the machine that trained.

    The client keeps such a file outside the run folder, and does not say that it is missing.
    """
    lost = 0
    for record in _records([log]):
        if record["type"] == "artifact":
            parts = record["artifact"].get("manifest", {}).get("contents", [])
            files = [Path(part["local_path"]) for part in parts if part.get("local_path")]
            lost += not all(file.exists() for file in files)
    return f"{lost} tables, whose files are on another machine" if lost else ""


def _records(logs: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """What `wandb leet inspect` prints of logs, up to where one was cut off."""
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
