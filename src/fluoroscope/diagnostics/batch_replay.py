"""Run a training batch again to find the first value that is not finite."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


def first_nonfinite(
    trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
) -> str | None:
    """Run a training batch again and name the first value that is not finite; None if all are.

    In the forward pass it is the output of the first module with finite inputs, or the loss. In
    the backward pass it is the gradient of the parameter nearest to the output. The run changes
    the buffers, but not the gradients.
    """
    with _watched(pl_module) as outputs, _unlogged(pl_module), torch.enable_grad():
        pl_module.on_train_batch_start(batch, batch_idx)  # seeds dropout
        with (
            torch.compiler.set_stance("force_eager"),
            trainer.precision_plugin.train_step_context(),
        ):
            loss: Any = pl_module.training_step(batch, batch_idx)
    named = [(name, p) for name, p in pl_module.named_parameters() if p.requires_grad]
    # Not `backward`, which would start DDP's averaging.
    grads = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    bad = [name for (name, _), grad in zip(named, grads, strict=True) if not _is_finite(grad)]
    if _is_finite(loss) and not bad:
        return None
    if outputs and outputs[0] != "loss":
        return f"output of {outputs[0]}"
    return f"gradient of {bad[-1]}" if _is_finite(loss) else "loss"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that receives the name of the first module to break: finite inputs, other output."""
    names: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any, name: str) -> None:
        if not names and not _is_finite(output) and _is_finite(inputs):
            names.append(name)

    modules = [(name or type(model).__name__, module) for name, module in model.named_modules()]
    handles = [m.register_forward_hook(partial(look, name=name)) for name, m in modules]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unlogged(pl_module: pl.LightningModule) -> Iterator[None]:
    """Discard what the module logs while a batch runs again."""
    vars(pl_module)["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del vars(pl_module)["log"]


def _is_finite(value: Any) -> bool:
    """Whether all tensors in `value` are finite; waits for the device."""
    if isinstance(value, Tensor):
        return bool(value.detach().isfinite().all())  # detached: checkpointing must not see it
    if isinstance(value, Mapping):
        value = list(value.values())
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))
