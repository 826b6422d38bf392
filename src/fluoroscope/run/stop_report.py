"""Tell how a run that was stopped can be resumed."""

import signal
from pathlib import Path

from fluoroscope.commands import called
from fluoroscope.console import short_path
from fluoroscope.launch.process_setup import is_first_process
from fluoroscope.launch.stopping import hear
from fluoroscope.run import run_folder, wandb_logger
from fluoroscope.run.preemption import Preempted, requeue


def report_stop(stopped: Preempted, folder: Path) -> None:
    """Report a run that was stopped and saved, and requeue its SLURM job."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM ends a job that it queues again
    if not is_first_process():
        # No failure code: the launcher would end the first process because of it.
        raise SystemExit(0)
    wandb_logger.finish(1, preempted=True)
    hear()  # Ctrl-C may have ended the reader of a pipe
    print(f"{stopped.signum.name}: {resume_advice(folder)}", flush=True)
    stopped.told = True
    outcome = requeue(stopped)
    if outcome:
        print(outcome, flush=True)


def resume_advice(folder: Path) -> str:
    if not has_checkpoint(folder):
        return "stopped before the first checkpoint"
    return f"stopped; continue with: {called('train')} run.resume={short_path(folder)}"


def has_checkpoint(folder: Path) -> bool:
    return any(run_folder.checkpoint(folder, name).exists() for name in ("last", "step"))
