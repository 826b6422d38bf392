"""The numbers of one optimizer step."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from fluoroscope.diagnostics import gradients


class StepGradients:
    """Gradient norms, the gate's effect and the update of a logged step.

    The order is that of a step: `listen` in each forward pass, `take` when the gradients are
    averaged and unscaled but not clipped, `values` after the update.

    Args:
        tolerance: gates at or below it count as closed.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._backward: list[tuple[Tensor, Tensor, Tensor]] = []  # f, gates, dL/da of a batch
        self._due: dict[str, Tensor] = {}

    def listen(self, features: Tensor, gate: Tensor, a: Tensor) -> None:
        """Keep dL/da of a batch when it comes: features `[B, F]`, gates and a `[B, D]`."""
        a.register_hook(lambda grad: self._backward.append((features, gate, grad.detach())))

    def take(self, trainer: pl.Trainer, pl_module: Any, feature_squares: Tensor | None) -> None:
        """Before clipping; `feature_squares` is the sum of squares of dL/df on this process."""
        head = pl_module.head
        norms = gradients.norms(pl_module.backbone, head)
        self._due = {f"grad/l2/{part}": norm for part, norm in norms.items()}
        self._due |= self._of_all_processes(trainer, head, feature_squares)
        self._weight = head.dense.weight.detach().clone()

    def _of_all_processes(
        self, trainer: pl.Trainer, head: Any, feature_squares: Tensor | None
    ) -> dict[str, Tensor]:
        """Of the loss averaged over processes, without the loss scale of fp16."""
        effect = gradients.GateEffect(self.tolerance)
        for batch in self._backward:
            effect.update(head, *batch)
        self._backward = []
        sums = torch.full((4,), float("nan"), dtype=torch.float64, device=head.dense.weight.device)
        if feature_squares is not None and effect.sums is not None:
            sums = torch.cat([feature_squares[None], effect.sums])
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        values = {"features_l2": sums[0].sqrt() / (trainer.world_size * scale)}
        values |= gradients.GateEffect.values(sums[1:])
        return {f"grad/{key}": value for key, value in values.items()}

    def values(self, pl_module: Any) -> dict[str, float]:
        """The step's numbers by key, with one device sync; empty if none was taken."""
        if not self._due:
            return {}
        # The gradients as the optimizer saw them stay until the next backward pass.
        self._due["grad/l2/total_clipped"] = gradients.l2(pl_module.parameters())
        weight = pl_module.head.dense.weight.detach()
        self._due["grad/update_ratio"] = (weight - self._weight).norm() / self._weight.norm()
        device = pl_module.device
        numbers = torch.stack([v.double().to(device) for v in self._due.values()]).tolist()
        values = dict(zip(self._due, numbers, strict=True))
        self._due = {}
        return values
