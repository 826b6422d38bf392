"""Batches by worker processes, which may die."""

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
    "the shared memory by which loader processes hand over their batches is full: enlarge /dev/shm "
    "(docker run --shm-size), or lower data.num_workers"
)


class Loader(DataLoader):
    """A `DataLoader` that fails in one sentence, and only where the next batch is waited for.

    By itself PyTorch raises the death of a worker wherever the program is at that moment, with a
    step half done. Here it comes up to five seconds later, when the loader misses the batch.

    Raises:
        LoadingError: an image that cannot be read, or a worker that is gone.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with self.explained():
            batches = super().__iter__()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch has set a handler
        return _Batches(self, batches)

    @contextmanager
    def explained(self, batches: Any = None) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            # Out of a worker it comes with the worker's traceback in its text.
            sentence = str(error).rpartition("InputError: ")[2].strip()
            raise LoadingError(f"{sentence}; put that right") from error
        except (RuntimeError, OSError, EOFError) as error:
            sentence = _sentence(error, getattr(batches or self._iterator, "_workers", []))
            if not sentence:
                raise
            raise LoadingError(sentence) from error


class _Batches(Iterator[Any]):
    """A loader's iterator, and what its errors mean."""

    def __init__(self, loader: Loader, batches: Any) -> None:
        self.loader, self.batches = loader, batches

    def __next__(self) -> Any:
        with self.loader.explained(self.batches):
            return next(self.batches)

    def __getstate__(self) -> dict[str, Any]:
        """Who copies a trainer gets none of its iterations, as with PyTorch's own iterators."""
        return {"loader": None, "batches": None}


def _sentence(error: Exception, workers: Sequence[Any]) -> str:
    """What has happened to a worker; empty if nothing has."""
    # A batch may already lie in the queue of a worker that is gone when it is to be handed over.
    broken = workers and isinstance(error, OSError | EOFError)
    if broken:
        ends = {worker.sentinel: worker for worker in workers}
        for end in wait(list(ends), timeout=1):  # what a process had open closes before it is gone
            ends[end].join()
    codes = [worker.exitcode or 0 for worker in workers]
    if "No space left on device" in str(error) or -signal.SIGBUS in codes:
        return NO_SHARED_MEMORY
    if not (str(error).startswith(OF_WORKERS) or (broken and any(codes))):
        return ""
    if -signal.SIGKILL in codes:
        return (
            "a loader process was killed (SIGKILL), mostly for want of memory, as by a scheduler's "
            f"limit: lower data.num_workers (now {len(codes)}), or ask for more memory"
        )
    exits = [f"by {signal.Signals(-code).name}" for code in codes if code < 0]
    exits += [f"with exit code {code}" for code in codes if code > 0]
    return f"a loader process ended {', '.join(exits)}: data.num_workers=0 needs none"
