"""The callback that stops a run when its loss or gradient is not finite."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fluoroscope.diagnostics.batch_replay import first_nonfinite
from fluoroscope.diagnostics.media import alert, send
from fluoroscope.errors import InputError, plural

CHECKPOINT = "nonfinite.ckpt"
SHOWN_ROWS = 5


@dataclass
class Step:
    """An optimizer step that the host has not checked yet, with its numbered batches."""

    number: int
    batches: list[tuple[int, Any]]
    found: Tensor  # on the device: 1 if anything was not finite, else 0


class NonFinite(pl.Callback):
    """Stops the run before a loss or gradient that is not finite reaches the weights.

    It saves `checkpoints/nonfinite.ckpt` and raises an `InputError` that names the optimizer step,
    the batch and the layer that broke first. All processes stop at the same step.

    Every gradient is checked after it is averaged over processes. On a CPU the host reads the
    result at once. On a GPU reading it waits for the device, so the host reads it at every n-th
    step and at the last step of an epoch. Until then, `found_inf` makes the fused AdamW skip its
    updates: weights and optimizer state stay as they were before the bad step. Limits:
        - another optimizer on a GPU ignores `found_inf`: the run stops at the next check, when its
          weights may already be damaged;
        - with 16-mixed, the loss scaler expects and skips gradients that are not finite, so only
          the loss is checked.

    The checkpoint is a normal one with the additional entry `nonfinite`: `step`, `epoch` (from 0)
    and `batches`, a list of `rank`, `batch_idx`, `index` (rows of the study table) and `first`
    (what broke first; None if not found). The augmentation and dropout of a batch depend only on
    the seed, the epoch and these numbers, so the batch can be run again. The running statistics
    are those of the last check, since the bad batch has damaged the present ones; a forward pass
    in training mode does not read them. If weights are averaged, `current_model_state` holds the
    weights to replay.

    Args:
        folder: run folder.
        every_n_steps: optimizer steps between two checks on a GPU; as many batches stay in memory.

    Raises:
        InputError: during the fit, if the loss or a gradient is not finite.
    """

    def __init__(self, folder: Path, every_n_steps: int = 10) -> None:
        self.path = Path(folder) / "checkpoints" / CHECKPOINT
        self.every_n_steps = every_n_steps
        self._entry: dict[str, Any] | None = None
        self._handle: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        device = pl_module.device
        self.immediate = device.type == "cpu"
        self._loss_alone = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._found, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        parameters = [p for p in pl_module.parameters() if p.requires_grad]
        self._parameters = _by_dtype(parameters)
        # The last parameter belongs to the output layer and gets its gradient first.
        self._handle = parameters[-1].register_hook(self._spread)
        self._buffers = _Snapshot(pl_module)
        self._batches: list[tuple[int, Any]] = []
        self._steps: list[Step] = []
        self._entry = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batches.append((batch_idx, batch))

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        bad = ~loss.detach().isfinite().all()
        torch.maximum(self._found, bad.to(self._found), out=self._found)

    def _spread(self, grad: Tensor) -> Tensor:
        """Make the gradient NaN if the loss is not finite, so that DDP shows it to all ranks."""
        return torch.where(self._found > 0, float("nan"), grad)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not self._loss_alone:
            self._check_gradients()
            if getattr(optimizer, "_step_supports_amp_scaling", False):  # a fused optimizer
                optimizer.found_inf = self._found  # type: ignore[attr-defined]
        self._steps.append(Step(trainer.global_step, self._batches, self._found.clone()))
        self._batches = []
        if self.immediate:
            self._look(trainer, pl_module)

    def _check_gradients(self) -> None:
        for parameters in self._parameters:
            grads = [p.grad for p in parameters if p.grad is not None]
            if grads:
                # The loss scaler's kernel with scale 1: one pass over all gradients, no sync.
                torch._amp_foreach_non_finite_check_and_unscale_(grads, self._found, self._one)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Runs after the monitor, which waits for the device at the same steps."""
        if not self._steps:
            return
        last = batch_idx + 1 == trainer.num_training_batches
        if last or self._steps[-1].number % self.every_n_steps == 0:
            self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = torch.stack([step.found for step in self._steps])
        if self._loss_alone:  # the loss differs between processes
            found = trainer.strategy.reduce(found, reduce_op="sum")
        bad = [step for step, flag in zip(self._steps, found.tolist(), strict=True) if flag]
        if bad:
            self._stop(bad[0], trainer, pl_module)
        self._steps = []
        self._buffers.take()

    def _stop(self, step: Step, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._handle.remove()
        own = []
        for number, batch in step.batches:
            self._buffers.restore()
            first = first_nonfinite(trainer, pl_module, batch, number)
            index = batch["index"].tolist()
            place = {"rank": trainer.global_rank, "batch_idx": number, "index": index}
            own.append({**place, "first": first})
        self._buffers.restore()
        batches = _gather(own)
        batches = [batch for batch in batches if batch["first"]] or batches
        self._entry = {"step": step.number, "epoch": trainer.current_epoch, "batches": batches}
        trainer.save_checkpoint(self.path)
        text = _cause(self._entry)  # without the table rows, which must stay on this machine
        title = "Training is not finite"
        send(trainer, "the alert", partial(alert, title=title, text=text, level="ERROR"))
        raise InputError(_sentence(self._entry, self.path, str(trainer.precision)))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._entry is not None:
            checkpoint["nonfinite"] = self._entry

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clean_up(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._clean_up(trainer)

    def _clean_up(self, trainer: pl.Trainer) -> None:
        self._batches, self._steps = [], []
        if self._handle is not None:
            self._handle.remove()
        for optimizer in trainer.optimizers:
            vars(optimizer).pop("found_inf", None)


class _Snapshot:
    """A copy of a module's buffers, taken and restored without a device sync."""

    def __init__(self, module: nn.Module) -> None:
        self.live = _by_dtype(module.buffers())
        self.kept = [[buffer.clone() for buffer in group] for group in self.live]

    @torch.no_grad()
    def take(self) -> None:
        for kept, live in zip(self.kept, self.live, strict=True):
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def restore(self) -> None:
        for kept, live in zip(self.kept, self.live, strict=True):
            torch._foreach_copy_(live, kept)


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """One list per dtype, as PyTorch's multi-tensor kernels require."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _gather(own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The batches of all processes, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return [batch for part in parts for batch in part]


def _cause(entry: dict[str, Any]) -> str:
    first = entry["batches"][0]["first"]
    what = f"the {first} is the first value that" if first else "the loss or a gradient"
    step, epoch = entry["step"], entry["epoch"] + 1
    return f"training stopped at optimizer step {step} in epoch {epoch}: {what} is not finite"


def _sentence(entry: dict[str, Any], path: Path, precision: str) -> str:
    rows = [str(row) for batch in entry["batches"] for row in batch["index"]]
    shown = ", ".join(rows[:SHOWN_ROWS]) + (", ..." if len(rows) > SHOWN_ROWS else "")
    remedies = ["lower optimizer.lr", "set trainer.gradient_clip_val"]
    if "mixed" in precision:
        remedies.append("set trainer.precision=32-true")
    return (
        f"{_cause(entry)}, on {plural(len(rows), 'image')} (rows {shown} of the study table); the "
        f"state before this step is in {path}; {', or '.join(remedies)}"
    )
