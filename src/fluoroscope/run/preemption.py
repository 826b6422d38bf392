"""A scheduler's signals: noted when they come, obeyed by all processes at the same batch."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

from fluoroscope.launch.run_id import job_id

# TERM comes from a person, or from SLURM to a job that has to make room; USR1 is what `sbatch
# --signal` sends here, USR2 what submitit asks for. Of several the last in this row counts.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# A launcher may pass on a TERM that has come to all its processes anyway.
ECHO_S = 5.0


class Preempted(SystemExit):
    """The run was asked to stop, and everything is saved.

    Args:
        signum: what asked.
        before: the handler that this signal had before the run.
    """

    def __init__(self, signum: signal.Signals, before: Any = None) -> None:
        super().__init__(128 + signum)
        self.signum, self.before = signum, before


class Preemption:
    """Notes the signals of a scheduler during a run, see `listening`.

    A process cannot stop on its own: the others would wait for it in a collective operation for
    ever. So at every batch the processes tell one another what they have noted, on the CPU and
    without waiting for this batch's answer: they act on the answer of the batch before.

    During the fit a signal is noted, and obeyed at the next batch; a second TERM ends the process
    at once. Before and after, where there is nothing to save, the first signal does.
    """

    def __init__(self) -> None:
        self.before: dict[signal.Signals, Any] = {}
        self._noted, self._noted_at = 0, 0.0  # place in SIGNALS, from 1
        self._attending = False
        self._group: Any = None
        self._launcher: Any = None
        self._question: tuple[Any, torch.Tensor] | None = None

    @contextmanager
    def listening(self) -> Iterator["Preemption"]:
        """Handle the signals; afterwards their handlers are what they were."""
        self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        for signum in SIGNALS:
            signal.signal(signum, self._note)
        # They were held back while the program started.
        held = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield self
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            for signum, handler in self.before.items():
                signal.signal(signum, handler)

    def _note(self, signum: int, frame: Any) -> None:
        now = time.monotonic()
        insisting = signum == signal.SIGTERM and self._noted and now > self._noted_at + ECHO_S
        if not self._noted:
            self._noted_at = now
        self._noted = max(self._noted, SIGNALS.index(signal.Signals(signum)) + 1)
        if insisting or not self._attending:
            if self._launcher is not None:
                self._launcher.kill(signum)
            self._stop(self._noted)

    def attend(self, trainer: pl.Trainer) -> None:
        """The fit begins: signals wait for `obey`."""
        self._launcher = trainer.strategy.launcher
        if trainer.world_size > 1:
            _mute_lightning(trainer)
            self._group = distributed.new_group(backend="gloo")
        self._attending = True

    def obey(self, save: Callable[[], None] | None = None) -> None:
        """Stop here if any process was asked to; all of them must call it equally often.

        Args:
            save: what is to be done before.

        Raises:
            Preempted: in all processes alike.
        """
        asked = self._ask()
        if asked:
            if save is not None:
                save()
            self._stop(asked)

    def rest(self) -> None:
        """The fit is over, and everything saved: from now on a signal ends the run at once."""
        asked = max(self._ask(), self._answer())
        self._attending, self._group = False, None
        if asked:
            self._stop(asked)

    def _stop(self, asked: int) -> None:
        signum = SIGNALS[asked - 1]
        raise Preempted(signum, self.before.get(signum))

    def _ask(self) -> int:
        """What the processes had noted when they were asked before this."""
        if self._group is None:
            return self._noted
        answer = self._answer()
        noted = torch.tensor(self._noted)
        largest = distributed.ReduceOp.MAX
        work = distributed.all_reduce(noted, largest, group=self._group, async_op=True)
        self._question = work, noted
        return answer

    def _answer(self) -> int:
        if self._question is None:
            return 0
        work, noted = self._question
        self._question = None
        work.wait()
        return int(noted)


def _mute_lightning(trainer: pl.Trainer) -> None:
    """Lightning asks every batch whether the first process got TERM, and waits for the device."""
    loop: Any = trainer.fit_loop.epoch_loop
    if hasattr(loop, "_broadcast_sigterm_tensor"):
        loop._broadcast_sigterm_tensor = lambda: None


def gather(own: Any) -> list[Any]:
    """Of every process its own, by rank."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return parts


def requeue(stopped: Preempted) -> str:
    """Ask SLURM to start the job again, where it will not do so itself.

    Under submitit its own handler does, and ends the process.

    Returns:
        What became of it, in a sentence; empty outside a job.
    """
    if _of_submitit(stopped.before) and stopped.signum != signal.SIGTERM:
        stopped.before(stopped.signum, None)
    job = job_id(os.environ)
    if job is None:
        return ""
    if shutil.which("scontrol") is None:
        return f"job {job} was not requeued: there is no scontrol here"
    # TERM also comes to a job that a person cancels, which must not come back.
    by_term = stopped.signum == signal.SIGTERM
    if by_term and _first_line("squeue", "-h", "-j", job, "-o", "%T") != "RUNNING":
        return f"job {job} was not requeued: it was cancelled, or SLURM does that itself"
    answer = _first_line("scontrol", "requeue", job)
    return f"job {job} was not requeued: {answer}" if answer else f"job {job} is requeued"


def _of_submitit(handler: Any) -> bool:
    owner = type(getattr(handler, "__self__", None)).__module__
    return callable(handler) and owner.partition(".")[0] == "submitit"


def _first_line(*command: str) -> str:
    """The first line of what a command of SLURM printed, its error if it failed."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    lines = (answer.stdout + answer.stderr).strip().splitlines()
    return lines[0] if lines else ""
