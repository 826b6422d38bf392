"""Upload offline runs: find and list them, upload them one by one, and name those that failed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fluoroscope.config.loaded import load_file
from fluoroscope.config.sync import Job
from fluoroscope.config.train import Train
from fluoroscope.console import short_path
from fluoroscope.errors import first_sentence, plural
from fluoroscope.escaping import shortened
from fluoroscope.launch.run_status import CONFIG
from fluoroscope.run.wandb_mode import check_online
from fluoroscope.tracking import replay, wandb_cli
from fluoroscope.tracking.offline_runs import OfflineRun, find_runs


def main(job: Job) -> None:
    """Entry of `scripts/sync.py`; ends with exit code 1 if an upload failed."""
    runs, todo = find_runs(job.places), []
    for run in runs:
        reason = _why_skipped(run) or ("" if run.current else _goes_elsewhere(run, job))
        if reason:
            print(f"skipped {short_path(run.folder)}: {reason}")
        elif not run.current:
            todo.append(run)
    rest = len(runs) - len(todo)
    offline = plural(len(runs), "offline run")
    print(f"{offline}: {len(todo)} to upload, {rest} uploaded before or skipped")
    if job.dry_run:
        for run in todo:
            print(f"  {short_path(run.folder)}: {_plan(run)}")
    elif todo:
        os.environ.pop("WANDB_MODE", None)  # may be `offline` for the training on this machine
        check_online("cannot upload")
        _upload_all(todo)


def _why_skipped(run: OfflineRun) -> str:
    if not run.readable:
        return "no run folder of fluoroscope; `wandb sync` uploads it"
    if run.damaged:
        return f"{run.damaged} is damaged; `wandb sync` uploads W&B's own log, wandb/offline-run-*"
    return "it is still running; repeat this once it has ended" if run.running else ""


def _goes_elsewhere(run: OfflineRun, job: Job) -> str:
    """Why a run is not for the project and entity of the command; empty if it is."""
    for entity, project in destinations(run):
        if (entity or None, project) != (job.entity, job.project):
            keys = f"project={shortened(project, 60)}" + f" entity={shortened(entity, 60)}" * bool(
                entity
            )
            return f"it is for another place on W&B; repeat this with {keys} to upload it there"
    return ""


def destinations(run: OfflineRun) -> Iterator[tuple[str, str]]:
    """Entity ("" for the account's default) and project that the run and its log name."""
    logger = load_file(run.folder / CONFIG, Train, checked=False).config["logger"]
    yield logger["entity"] or "", str(logger["project"])
    if run.whole and run.uploaded is None:
        yield from wandb_cli.destinations(run.logs[0])


def _plan(run: OfflineRun) -> str:
    way = "W&B's own log" if run.whole and run.uploaded is None else "replayed from the run folder"
    return f"{run.status}, {plural(len(run.rows), 'row')}, {way}"


def _upload_all(runs: list[OfflineRun]) -> None:
    failed: list[Path] = []
    for number, run in enumerate(runs, start=1):
        name = f"[{number}/{len(runs)}] {short_path(run.folder)}"
        print(f"{name}: {_plan(run)} ... ", end="", flush=True)
        problem, missing = upload(run)
        without = f"; not {missing}" if missing else ""
        print(f"FAILED: {problem}" if problem else f"uploaded{without}", flush=True)
        if problem:
            failed.append(run.folder)
    if failed:
        names = "".join(f"\n  {short_path(folder)}" for folder in failed)
        print(f"{len(failed)} of {len(runs)} not uploaded; repeat this to try again:{names}")
        sys.exit(1)


def upload(run: OfflineRun) -> tuple[str | None, str]:
    """Upload a run; return what went wrong, if anything did, and what could not be uploaded.

    A whole log goes through `wandb sync`, unless a part of the run may have arrived before: that
    command would send all rows again. Every other run is replayed.
    """
    if run.whole and run.uploaded is None:
        run.note(None, complete=False)
        problem = wandb_cli.sync(run.logs[0])
        if problem is None:
            run.note(None, complete=True)
            return None, wandb_cli.lost_tables(run.logs[0])
        if wandb_cli.INCOMPLETE not in problem:
            return first_sentence(RuntimeError(problem)), ""
    problem = replay.replay(run)
    return problem, "" if problem else wandb_cli.left_behind(run.logs, replay.brought(run))
