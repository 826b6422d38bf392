"""A data loader that explains in one sentence why a batch could not be loaded."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader

from fluoroscope.errors import InputError, LoadingError

OF_WORKERS = ("DataLoader worker", "Pin memory thread exited")
NO_SHARED_MEMORY = (
    "the shared memory through which loader processes pass batches is full; enlarge /dev/shm "
    "(docker run --shm-size), or lower data.num_workers"
)


class Loader(DataLoader):
    """A `DataLoader` that raises one-sentence errors, and only while it waits for the next batch.

    PyTorch raises an error for a dead worker at any point of the program, even within a step. Here
    the error is raised up to five seconds later, when the next batch does not arrive.

    Raises:
        LoadingError: an image cannot be read, or a worker has ended.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with self.explained():
            batches = super().__iter__()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # replaces PyTorch's handler
        return _Batches(self, batches)

    @contextmanager
    def explained(self, batches: Any = None) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            # The text of an error from a worker contains the worker's traceback.
            sentence = str(error).rpartition("InputError: ")[2].strip()
            raise LoadingError(f"{sentence}; correct this") from error
        except (RuntimeError, OSError, EOFError) as error:
            sentence = _sentence(error, getattr(batches or self._iterator, "_workers", []))
            if not sentence:
                raise
            raise LoadingError(sentence) from error


class _Batches(Iterator[Any]):
    """A loader's iterator that explains its errors."""

    def __init__(self, loader: Loader, batches: Any) -> None:
        self.loader, self.batches = loader, batches

    def __next__(self) -> Any:
        with self.loader.explained(self.batches):
            return next(self.batches)

    def __getstate__(self) -> dict[str, Any]:
        """A copy of a trainer has no iterator, as with PyTorch's iterators."""
        return {"loader": None, "batches": None}


def _sentence(error: Exception, workers: Sequence[Any]) -> str:
    """Why a worker ended and what to do; empty if no worker ended."""
    # A worker may end after it queued a batch and before the batch is received.
    broken = workers and isinstance(error, OSError | EOFError)
    if broken:
        ends = {worker.sentinel: worker for worker in workers}
        for end in wait(list(ends), timeout=1):  # a process closes its files before it ends
            ends[end].join()
    codes = [worker.exitcode or 0 for worker in workers]
    if "No space left on device" in str(error) or -signal.SIGBUS in codes:
        return NO_SHARED_MEMORY
    if not (str(error).startswith(OF_WORKERS) or (broken and any(codes))):
        return ""
    if -signal.SIGKILL in codes:
        return (
            "a loader process was killed (SIGKILL), usually for lack of memory or by a scheduler's "
            f"memory limit; lower data.num_workers (now {len(codes)}), or request more memory"
        )
    exits = [f"by {signal.Signals(-code).name}" for code in codes if code < 0]
    exits += [f"with exit code {code}" for code in codes if code > 0]
    return f"a loader process ended {', '.join(exits)}; set data.num_workers=0 to load without one"
