"""Processes that train passes at the same time."""

import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from fluoroscope.ablation.passes import Finished, PassRunner
from fluoroscope.errors import InputError
from fluoroscope.launch import process_setup
from fluoroscope.own_code import trusted_names, trusting

# Time for which a stopped process may finish its batch, or write the folders of a trained pass.
GRACE_S = 30
# A fork of this process would hang in its first sum, since OpenMP's threads are not forked. The
# server of `forkserver` is a new process that imports everything once and runs no thread.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_imports() -> None:
    """Let the server import in the background what the processes need, which takes seconds."""
    if METHOD != "forkserver":
        return
    resource_tracker.ensure_running()  # its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the server and its forks inherit it
    CONTEXT.set_forkserver_preload([__name__])
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def share(tensors: Iterable[Any]) -> bool:
    """Move tensors to memory that all processes see; False if it is too small."""
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError:
        print(
            "one pass at a time: shared memory (/dev/shm) is too small for the features; enlarge "
            "it with docker run --shm-size"
        )
        return False
    return True


class Workers:
    """Processes of which each trains one pass after another, the next that nobody has taken.

    A context manager: at its end, also after an error or a signal, each process finishes the batch
    or the writing that it is busy with, and ends.

    Args:
        runner: each process gets a copy, but of tensors that were shared none.
    """

    def __init__(self, count: int, runner: PassRunner, passes: Sequence[Sequence[str]]) -> None:
        self.count, self.runner, self.passes = count, runner, passes
        self.processes: dict[Any, Any] = {}  # by the pipe to each
        # Number of passes that were taken; kept here, since its lock ends with this object.
        self.taken = CONTEXT.Value("q", 0)

    def __enter__(self) -> Self:
        try:
            for _ in range(self.count):
                self._start()
        except BaseException:  # a signal while the server still imports
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        pipe, theirs = CONTEXT.Pipe()
        args = theirs, self.taken, self.runner, self.passes, trusted_names()
        process = CONTEXT.Process(target=_work, args=args)
        process.start()
        theirs.close()  # so that a read of a dead process's pipe ends
        self.processes[pipe] = process

    def __exit__(self, *error: Any) -> None:
        for pipe in self.processes:
            pipe.close()
        for process in self.processes.values():
            process.join(GRACE_S)
            process.kill()
            process.join()

    def finished(self, on_batch: Callable[[int], None]) -> Iterator[Finished]:
        """Yield the passes in their order.

        Args:
            on_batch: called with the number of the pass, from 0, after each training batch.

        Raises:
            InputError: of a pass, or a process was killed. Another error is raised as it is.
        """
        done: dict[int, Finished] = {}
        for number in range(len(self.passes)):
            while number not in done:
                for pipe in wait(list(self.processes)):
                    at, message = self._received(pipe)
                    if isinstance(message, Exception):
                        raise message
                    if message is None:
                        on_batch(at)
                    else:
                        done[at] = message
            yield done.pop(number)

    def _received(self, pipe: Any) -> tuple[int, Finished | Exception | None]:
        try:
            return pipe.recv()
        except (EOFError, OSError):
            process = self.processes[pipe]
            process.join()
            code = process.exitcode
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise InputError(
                f"a process that trained heads ended {how}; if memory is short, lower memory_gib. "
                "Repeat the command with the same run.dir: finished heads are kept"
            ) from None


def _work(
    pipe: Connection,
    taken: Any,
    runner: PassRunner,
    passes: Sequence[Sequence[str]],
    trusted: Iterable[str],
) -> None:
    """Train passes, and send an item for each batch and each pass, until the pipe is closed.

    Signals of a terminal or scheduler are ignored: the first process gets them too, and closes the
    pipe. It also closes if that process is killed.
    """
    process_setup.prepare()
    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)
    process_setup.quiet_lightning()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with suppress(EOFError, OSError), trusting(trusted):
        while (number := _next(taken)) < len(passes):
            try:
                result: Any = runner.run(passes[number], partial(pipe.send, (number, None)))
            except Exception as error:
                if not isinstance(error, InputError):
                    error.add_note(f"in a process that trained heads:\n{traceback.format_exc()}")
                result = error
            pipe.send((number, result))
        pipe.recv()  # wait for the end


def _next(taken: Any) -> int:
    with taken.get_lock():
        taken.value += 1
        return taken.value - 1
