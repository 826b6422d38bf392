"""Batches that are there before they are needed: loader processes, and copies to the GPU."""

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

# Between a TERM and the end of a loader process; a run stops at its next step.
GRACE_S = 10
T = TypeVar("T")
Tensors = dict[str, Tensor]


def loading(num_workers: int | None, processes: int) -> dict[str, Any]:
    """Arguments of a `DataLoader`.

    Args:
        num_workers: loader processes; None takes one per core that this process has to itself, at
            most 8.
        processes: of the training on this machine.
    """
    workers = available_cores(processes) if num_workers is None else num_workers
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _settle,
    }


def available_cores(processes: int) -> int:
    """The share of this machine's cores that each of so many processes has, 1 to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # SLURM may or may not have bound a task to its cores.
    own = min(cores or 1, int(os.environ.get("SLURM_CPUS_PER_TASK", cores or 1)))
    return max(1, min(8, own if _are_tasks(processes) else own // processes))


def _are_tasks(processes: int) -> bool:
    """Whether SLURM has started so many on each machine; else one task has started the others."""
    tasks, nodes = (int(os.environ.get(name, "1")) for name in ("SLURM_NTASKS", "SLURM_NNODES"))
    return tasks // nodes >= processes and "LOCAL_WORLD_SIZE" not in os.environ


def _settle(worker: int) -> None:
    """The workers are the parallelism; threads of OpenCV on top fight over the cores. And a signal
    from a terminal or a scheduler, which reaches every process, is for the run, which still needs
    them: TERM, by which PyTorch ends one that is stuck, takes effect a while later.
    """
    cv2.setNumThreads(0)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)


class DevicePrefetch:
    """A loader on a CUDA device, one batch ahead of who iterates it.

    The copy of the next batch, out of pinned memory, has a stream of its own and runs beside the
    kernels of the step before. All else is the loader's: its length, `sampler`, `batch_sampler`,
    `batch_size`, `dataset`, and the iterator that Lightning shuts down.

    Args:
        loader: of dicts of tensors; with `pin_memory`, or the copies are not asynchronous.
        device: where they go.
    """

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name in ("loader", "device"):  # not there yet: a copy is being made of this object
            raise AttributeError(name)
        return getattr(self.loader, name)

    @property
    def _iterator(self) -> Any:
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        # Lightning ends persistent workers by this; the loader has to know that they are gone.
        self.loader._iterator = value

    def __iter__(self) -> Iterator[Tensors]:
        stream = torch.cuda.Stream(self.device)
        for batch, copied in one_ahead(self._copy(batch, stream) for batch in self.loader):
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)
            for tensor in batch.values():
                # Else its memory could be given to a later copy while this step still reads it.
                tensor.record_stream(current)
            yield batch

    def _copy(self, batch: Tensors, stream: torch.cuda.Stream) -> tuple[Tensors, torch.cuda.Event]:
        """The batch as it will be on the device, and the event after which it is there."""
        with torch.cuda.stream(stream):
            moved = {key: part.to(self.device, non_blocking=True) for key, part in batch.items()}
            return moved, stream.record_event()


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; each is handed out after the next was taken.

    >>> list(one_ahead("abc"))
    ['a', 'b', 'c']
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
