"""The story of an upload: find, list, ask for the server, upload one by one, tell what failed."""

import os
import sys
from pathlib import Path

from fluoroscope.config.sync import Job
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.run import wandb_mode
from fluoroscope.tracking.client import Outcome, upload
from fluoroscope.tracking.offline import Run, find_runs


def main(job: Job) -> None:
    """Entry of `scripts/sync.py`; ends with exit code 1 if an upload failed."""
    runs = find_runs(job.places)
    going_on = [run for run in runs if run.going_on]
    todo = [run for run in runs if run.pending and run not in going_on]
    rest = len(runs) - len(todo) - len(going_on)
    for run in runs:
        for segment in run.empty:
            print(f"skipped {_near(segment.folder)}: empty, its process was killed early")
    for run in going_on:
        print(f"skipped {_near(run.folder)}: still being written; repeat this once it has ended")
    print(f"{len(runs)} offline runs: {len(todo)} to upload, {rest} uploaded already or empty")
    if job.dry_run:
        for run in todo:
            print(f"  {_near(run.folder)}: {_parts(run)}")
    elif todo:
        _check_server()
        _upload_all(todo)


def _upload_all(runs: list[Run]) -> None:
    failed = []
    for number, run in enumerate(runs, start=1):
        print(f"[{number}/{len(runs)}] {_near(run.folder)}: {_parts(run)} ... ", end="", flush=True)
        problem, lost = _upload(run)
        without = f" without {lost} tables whose files are on another machine" if lost else ""
        print(f"FAILED: {problem}" if problem else f"uploaded{without}", flush=True)
        if problem:
            failed.append(run)
    if failed:
        names = "".join(f"\n  {_near(run.folder)}" for run in failed)
        print(f"{len(failed)} of {len(runs)} not uploaded; repeat this to try again:{names}")
        sys.exit(1)


def _upload(run: Run) -> Outcome:
    """All pending segments in order, up to one that fails, behind which the rest must wait."""
    lost = 0
    for segment in run.pending:
        outcome = upload(segment, run.rewound_at(segment))
        lost += outcome.lost
        if outcome.problem is not None:
            return Outcome(first_sentence(RuntimeError(outcome.problem)), lost)
    return Outcome(None, lost)


def _check_server() -> None:
    """Ask once, for three seconds, before the client would try each run for minutes.

    Raises:
        InputError: no key, or no server.
    """
    os.environ.pop("WANDB_MODE", None)  # what an offline machine says of training
    mode, why = wandb_mode.choose_mode("auto")
    if mode != "online":
        raise InputError(f"cannot upload: {why.partition(': ')[2]}")


def _parts(run: Run) -> str:
    pending = run.pending
    rows, rewound = sum(len(segment.steps) for segment in pending), run.rewound(pending)
    online = run.rewound(segment for segment in run.segments if segment.uploaded)
    told = [f"{rows - rewound} rows"]
    told += [f"of {len(pending)} segments"] if len(pending) > 1 else []
    told += [f"without {rewound} that were rewound"] if rewound else []
    told += [f"({online} rewound ones were uploaded before and stay)"] if online else []
    return " ".join(told)


def _near(path: Path) -> str:
    """Relative to where the command runs, if it lies there."""
    try:
        return str(path.relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
