"""Count how often the host waits for its device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# `item` (also behind bool, float and int of a tensor), and results whose shape depends on the data.
WAITING = {
    aten._local_scalar_dense,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave,
}
# Methods that call no operator on a CPU, so that only the call itself can be seen.
UNSEEN = {"cpu", "numpy", "__array__", "tolist"}
CUDA_WARNING = "called a synchronizing CUDA operation"


class Syncs:
    """The count so far; see `counting`."""

    def __init__(self) -> None:
        self.count = 0


class _Operators(TorchDispatchMode):
    def __init__(self, syncs: Syncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        self.syncs.count += packet in WAITING or (packet is aten.index and _is_mask(*args))
        return func(*args, **(kwargs or {}))


def _is_mask(tensor: Tensor, indices: list[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


class _Calls(TorchFunctionMode):
    def __init__(self, syncs: Syncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.syncs.count += getattr(func, "__name__", "") in UNSEEN
        return func(*args, **(kwargs or {}))


@contextmanager
def counting(device: torch.device) -> Iterator[Syncs]:
    """Count the calls inside the `with` block that make the host wait for the device.

    On CUDA these are the warnings of `torch.cuda.set_sync_debug_mode`. On a CPU they are the calls
    that would wait if every tensor were on a GPU: an upper bound, since a tensor that is kept on
    the host on purpose counts too. `tensor.to("cpu")` is not seen there, `tensor.cpu()` is.
    """
    with _cuda() if device.type == "cuda" else _elsewhere() as syncs:
        yield syncs


@contextmanager
def _elsewhere() -> Iterator[Syncs]:
    syncs = Syncs()
    with _Calls(syncs), _Operators(syncs):
        yield syncs


@contextmanager
def _cuda() -> Iterator[Syncs]:
    syncs = Syncs()
    show = warnings.showwarning

    def count(message: Any, *rest: Any, **named: Any) -> None:
        if CUDA_WARNING in str(message):
            syncs.count += 1
        else:
            show(message, *rest, **named)

    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=f".*{CUDA_WARNING}")
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        warnings.showwarning = count  # restored at the end of catch_warnings
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield syncs
        finally:
            torch.cuda.set_sync_debug_mode(mode)


class SyncsByStep(pl.Callback):
    """Syncs of each optimizer step of a fit, from the end of one to the end of the next.

    Must be the last callback, and `fit` must be called inside `counting`.
    """

    def __init__(self, syncs: Syncs) -> None:
        self.syncs, self.before = syncs, 0
        self.per_step: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = self.syncs.count

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step > len(self.per_step):  # otherwise the batch was only accumulated
            self.per_step.append(self.syncs.count - self.before)
            self.before = self.syncs.count
