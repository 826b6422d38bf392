"""End this process on a signal: without a traceback, with exit code 128 + the signal's number.

Python runs a handler between two of its own instructions. A process that waits in a library, such
as for the other processes of its run, would not run it. A thread watches for that.
"""

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from fluoroscope.errors import BAD_INPUT

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PARENT = "FLUOROSCOPE_PARENT"  # id of the command that started this process
POLL_S = 1.0  # of the thread that watches
STUCK_S = 2.0  # from a signal to the end of a process that cannot run its handler
REFUSED = signal.SIGURG  # from a process that refused its input to the first one of its run
REFUSED_S = 20.0  # from this signal to the end of a process that cannot end by itself
# `timeout` sends a signal twice within a moment; a launcher forwards what all processes have got.
ECHO_S, FORWARDED_S = 0.3, 5.0


class Stopped(SystemExit):
    """A signal asked this process to end.

    Args:
        signum: the signal.
        told: whether a line about it was printed.
    """

    def __init__(self, signum: int, told: bool = False) -> None:
        super().__init__(128 + signum)
        self.signum, self.told = signal.Signals(signum), told


class Watch(threading.Thread):
    """Ends this process where its own handlers cannot.

    | event | end |
    | --- | --- |
    | Ctrl-C after any other signal | at once |
    | a signal, and no handler has run after `STUCK_S`, and nothing is to be saved | by the signal |
    | `REFUSED`, and no end after `REFUSED_S`, which is enough for one by itself | exit code 2 |
    | the command that started this process has ended | killed |

    Attributes:
        heard: whether a handler has run.
        stop: the exception that a handler has raised; a library may turn it into another.
        saving: whether a signal waits until the run is saved.
    """

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self.heard = self.saving = False
        self.stop: Stopped | None = None
        self._first, self._signum = 0.0, 0

    def begin(self) -> None:
        if self.ident is not None:
            return
        self._echo_s = FORWARDED_S if is_launched() else ECHO_S
        self._parent = _find_parent()
        self._wakeup, there = os.pipe()
        os.set_blocking(there, False)
        # Python writes the number of each signal to it, also while a library runs.
        signal.set_wakeup_fd(there, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_be_no_watch)
        self.start()

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            if self._parent is not None and os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGKILL)
            if select.select([self._wakeup], [], [], POLL_S)[0]:
                for signum in os.read(self._wakeup, 64):
                    self._see(signum)
            waited_s = time.monotonic() - self._first if self._first else 0.0
            if self._signum == REFUSED:
                if waited_s > REFUSED_S:
                    os._exit(BAD_INPUT)
            elif waited_s > STUCK_S and not (self.heard or self.saving):
                print_stop(self._signum)
                end_at_once(self._signum)

    def _see(self, signum: int) -> None:
        if signum not in (*ENDING, signal.SIGUSR1, signal.SIGUSR2, REFUSED):
            return
        now = time.monotonic()
        if signum == signal.SIGINT and self._first and now > self._first + self._echo_s:
            end_at_once(signum)
        if not self._first:
            self._first, self._signum = now, signum


WATCH = Watch()


def listen() -> None:
    """End this process on a signal from now on; a signal that is ignored stays so (`nohup`)."""
    for signum in ENDING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _stop)
    sys.unraisablehook = _end_all_the_same
    WATCH.begin()


def hear() -> None:
    """Call it first in a handler of a signal that will end the process.

    Output whose terminal or reader is gone goes nowhere from now on: an error from a `print` would
    come before the run is saved.
    """
    WATCH.heard = True
    for stream in (1, 2):
        output = select.poll()
        output.register(stream, 0)
        if output.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def print_stop(signum: int) -> None:
    """One line from the first process of a run."""
    from fluoroscope.launch.process_setup import is_first_process  # which imports this module

    if is_first_process():
        hear()
        print(f"fluoroscope: stopped by {signal.Signals(signum).name}", file=sys.stderr, flush=True)


def end_at_once(signum: int) -> NoReturn:
    """Leave everything as a kill would, and show the cursor that a progress bar has hidden."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")
    os._exit(128 + signum)


def _stop(signum: int, frame: Any) -> NoReturn:
    hear()
    WATCH.stop = Stopped(signum)
    raise WATCH.stop


def _end_all_the_same(error: Any) -> None:
    """Where Python cannot raise the exception of a handler, it would only print it."""
    if isinstance(error.exc_value, Stopped):
        end_at_once(error.exc_value.signum)
    sys.__unraisablehook__(error)


def _find_parent() -> int | None:
    """Id of the command that started this process and must not end before it."""
    parent = int(os.environ.get(PARENT, "0"))
    os.environ[PARENT] = str(os.getpid())
    if parent == os.getppid():
        return parent
    if parent and is_started_by_lightning():
        end_at_once(signal.SIGKILL)  # Lightning's first process ended before this one looked
    return None


def is_launched() -> bool:
    """Whether torchrun or srun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_STEP_ID" in os.environ


def is_started_by_lightning() -> bool:
    """Whether the first process of the run has started this one."""
    return not is_launched() and os.environ.get("LOCAL_RANK", "0") != "0"


def _be_no_watch() -> None:
    """A forked process, such as a loader's, would write its signals to this process's pipe."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
