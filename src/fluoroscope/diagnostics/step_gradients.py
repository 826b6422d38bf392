"""The numbers of one optimizer step."""

from collections.abc import Callable
from typing import Any

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

    def take(
        self,
        model: Any,
        feature_squares: Tensor | None,
        reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
        divisor: float = 1.0,
    ) -> None:
        """Before clipping.

        Args:
            model: with `backbone` and `head`.
            feature_squares: sum of squares of dL/df on this process.
            reduce: adds up the processes.
            divisor: of dL/df: processes, over which the loss is averaged, times the loss scale.
        """
        norms = gradients.norms(model.backbone, model.head)
        self._due = {f"grad/l2/{part}": norm for part, norm in norms.items()}
        self._due |= self._of_all_processes(model.head, feature_squares, reduce, divisor)
        self._weight = model.head.dense.weight.detach().clone()

    def _of_all_processes(
        self,
        head: Any,
        feature_squares: Tensor | None,
        reduce: Callable[[Tensor], Tensor],
        divisor: float,
    ) -> dict[str, Tensor]:
        effect = gradients.GateEffect(self.tolerance)
        for batch in self._backward:
            effect.update(head, *batch)
        self._backward = []
        sums = torch.full((4,), float("nan"), dtype=torch.float64, device=head.dense.weight.device)
        if feature_squares is not None and effect.sums is not None:
            sums = torch.cat([feature_squares[None], effect.sums])
        sums = reduce(sums)
        values = {"features_l2": sums[0].sqrt() / divisor}
        values |= gradients.GateEffect.values(sums[1:])
        return {f"grad/{key}": value for key, value in values.items()}

    def values(self, model: Any) -> dict[str, float]:
        """The step's numbers by key, with one device sync; empty if none was taken."""
        if not self._due:
            return {}
        # The gradients as the optimizer saw them stay until the next backward pass.
        self._due["grad/l2/total_clipped"] = gradients.l2(model.parameters())
        weight = model.head.dense.weight.detach()
        self._due["grad/update_ratio"] = (weight - self._weight).norm() / self._weight.norm()
        numbers = torch.stack([v.double().to(weight.device) for v in self._due.values()]).tolist()
        values = dict(zip(self._due, numbers, strict=True))
        self._due = {}
        return values
