"""Prepare batches before they are needed: loader processes, and copies to the GPU."""

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

# Time from SIGTERM to the end of a loader process; the run stops at its next step.
GRACE_S = 10
T = TypeVar("T")
Tensors = dict[str, Tensor]


def loading(num_workers: int | None, processes: int) -> dict[str, Any]:
    """Arguments of a `DataLoader`.

    Args:
        num_workers: number of loader processes; None means one per core available to this process,
            at most 8.
        processes: number of training processes on this machine.
    """
    workers = available_cores(processes) if num_workers is None else num_workers
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": settle,
    }


def available_cores(processes: int) -> int:
    """Number of cores for each of the training processes on this machine, 1 to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # SLURM may or may not have bound a task to its cores.
    own = min(cores or 1, int(os.environ.get("SLURM_CPUS_PER_TASK", cores or 1)))
    return max(1, min(8, own if _are_tasks(processes) else own // processes))


def _are_tasks(processes: int) -> bool:
    """Whether SLURM started each process as a task; otherwise one task started the others."""
    tasks, nodes = (int(os.environ.get(name, "1")) for name in ("SLURM_NTASKS", "SLURM_NNODES"))
    return tasks // nodes >= processes and "LOCAL_WORLD_SIZE" not in os.environ


def settle(worker: int) -> None:
    """Set up a loader process: without threads of OpenCV, since workers already use all cores.

    Workers ignore signals of a terminal or scheduler, because the run still needs them to stop.
    SIGTERM, with which PyTorch ends a stuck worker, takes effect after `GRACE_S`.
    """
    cv2.setNumThreads(0)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)


class DevicePrefetch:
    """A loader that copies batches to a CUDA device, one batch ahead of the training step.

    The next batch is copied from pinned memory in a separate stream, while the current step runs.
    All other attributes are the loader's: its length, `sampler`, `batch_sampler`, `batch_size`,
    `dataset`, and the iterator that Lightning shuts down.

    Args:
        loader: yields dicts of tensors; copies are asynchronous only with `pin_memory`.
        device: the CUDA device.
    """

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name in ("loader", "device"):  # not set yet while this object is being copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    @property
    def _iterator(self) -> Any:
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        # Lightning sets this to end persistent workers; the loader must know that they ended.
        self.loader._iterator = value

    def __iter__(self) -> Iterator[Tensors]:
        stream = torch.cuda.Stream(self.device)
        for batch, copied in one_ahead(self._copy(batch, stream) for batch in self.loader):
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)
            for tensor in batch.values():
                # Otherwise a later copy could reuse its memory while this step still reads it.
                tensor.record_stream(current)
            yield batch

    def _copy(self, batch: Tensors, stream: torch.cuda.Stream) -> tuple[Tensors, torch.cuda.Event]:
        """The batch on the device, and the event after which its copy is complete."""
        with torch.cuda.stream(stream):
            moved = {key: part.to(self.device, non_blocking=True) for key, part in batch.items()}
            return moved, stream.record_event()


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, each after the next item was read.

    >>> list(one_ahead("abc"))
    ['a', 'b', 'c']
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
