"""Note the signals that stop a run when they arrive; stop all processes at the same batch."""

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
from fluoroscope.launch.stopping import FORWARDED_S, WATCH, Stopped, hear

# TERM comes from a person, or from SLURM to a job that it preempts. The sbatch files ask for USR1,
# and submitit asks for USR2. HUP comes from a terminal that closes, INT from Ctrl-C. If several
# arrive, the last one in this tuple counts.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
BY_A_PERSON = (signal.SIGINT, signal.SIGHUP)


class Preempted(Stopped):
    """The run was asked to stop, and everything is saved.

    Args:
        signum: the signal.
        before: the handler that this signal had before the run.
    """

    def __init__(self, signum: signal.Signals, before: Any = None) -> None:
        super().__init__(signum)
        self.before = before


class Preemption:
    """Notes the signals of a person or a scheduler during a run, see `listening`.

    A process cannot stop alone: the others would wait for it in a collective operation for ever.
    So at every batch the processes exchange the noted signals on the CPU. They do not wait for the
    answer, but act on that of the previous batch.

    During the fit a signal is noted, and obeyed at the next batch; a second TERM ends the process
    at once, as a second Ctrl-C does, see `launch.stopping`. Before and after the fit there is
    nothing to save, so the first signal ends it.
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
        """Handle the signals, but those that are ignored, and restore their handlers afterwards."""
        handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.before = {s: handler for s, handler in handlers.items() if handler != signal.SIG_IGN}
        for signum in self.before:
            signal.signal(signum, self._note)
        # `process_setup.prepare` has blocked them while the program started.
        held = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield self
        finally:
            WATCH.saving = False
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            for signum, handler in self.before.items():
                signal.signal(signum, handler)

    def _note(self, signum: int, frame: Any) -> None:
        hear()
        now = time.monotonic()
        insisting = signum == signal.SIGTERM and self._noted and now > self._noted_at + FORWARDED_S
        if self._noted and self.before[signal.Signals(signum)] is signal.default_int_handler:
            signal.default_int_handler(signum, frame)  # the second Ctrl-C, outside a command
        if not self._noted:
            self._noted_at = now
        self._noted = max(self._noted, SIGNALS.index(signal.Signals(signum)) + 1)
        if insisting or not self._attending:
            if self._launcher is not None:
                self._launcher.kill(signal.SIGTERM)
            self._stop(self._noted)

    def attend(self, trainer: pl.Trainer) -> None:
        """Start of the fit: from now on signals wait for `obey`."""
        self._launcher = trainer.strategy.launcher
        if trainer.world_size > 1:
            _mute_lightning(trainer)
            self._group = distributed.new_group(backend="gloo")
        self._attending = WATCH.saving = True

    def obey(self, save: Callable[[], None] | None = None) -> None:
        """Stop here if any process received a signal; all processes must call it equally often.

        Args:
            save: called before the stop.

        Raises:
            Preempted: in all processes.
        """
        asked = self._ask()
        if asked:
            if save is not None:
                save()
            self._stop(asked)

    def rest(self) -> None:
        """End of the fit, with everything saved: from now on a signal ends the run at once."""
        asked = max(self._ask(), self._answer())
        self._attending = WATCH.saving = False
        self._group = None
        if asked:
            self._stop(asked)

    def _stop(self, asked: int) -> None:
        signum = SIGNALS[asked - 1]
        WATCH.stop = Preempted(signum, self.before.get(signum))
        raise WATCH.stop

    def _ask(self) -> int:
        """The signal that the processes had noted at the previous call; 0 for none."""
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
    """Remove Lightning's own check for TERM, which waits for the device at every batch."""
    loop: Any = trainer.fit_loop.epoch_loop
    if hasattr(loop, "_broadcast_sigterm_tensor"):
        loop._broadcast_sigterm_tensor = lambda: None


def gather(own: Any) -> list[Any]:
    """The `own` of every process, by rank."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return parts


def requeue(stopped: Preempted) -> str:
    """Ask SLURM to start the job again, unless a person stopped the run, or SLURM or submitit does
    so itself.

    submitit's handler requeues the job and ends this process.

    Returns:
        The outcome in one sentence; empty outside a job, or if a person stopped the run.
    """
    if stopped.signum in BY_A_PERSON:
        return ""
    if _of_submitit(stopped.before) and stopped.signum != signal.SIGTERM:
        stopped.before(stopped.signum, None)
    job = job_id(os.environ)
    if job is None:
        return ""
    if shutil.which("scontrol") is None:
        return f"job {job} was not requeued: the command scontrol is not installed here"
    # TERM also comes to a job that a person cancels, which must not come back.
    by_term = stopped.signum == signal.SIGTERM
    if by_term and _first_line("squeue", "-h", "-j", job, "-o", "%T") != "RUNNING":
        return f"job {job} was not requeued: it was cancelled, or SLURM requeues it itself"
    answer = _first_line("scontrol", "requeue", job)
    return f"job {job} was not requeued: {answer}" if answer else f"job {job} is requeued"


def _of_submitit(handler: Any) -> bool:
    owner = type(getattr(handler, "__self__", None)).__module__
    return callable(handler) and owner.partition(".")[0] == "submitit"


def _first_line(*command: str) -> str:
    """The first output line of a SLURM command; the type of the error if it cannot run."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    lines = (answer.stdout + answer.stderr).strip().splitlines()
    return lines[0] if lines else ""
