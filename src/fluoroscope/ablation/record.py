"""The diagnostics of one head of a bank, without a Lightning trainer."""

from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.diagnostics.feature_moments import FeatureMoments
from fluoroscope.diagnostics.gradients import parts
from fluoroscope.diagnostics.head_metrics import HeadMetrics
from fluoroscope.diagnostics.keys import START, WINDOWS, Window


class HeadRecord:
    """Feeds the tensors of one head of a bank to its `HeadMetrics`.

    Args:
        index: position of the head in the bank.
        every_n_steps: optimizer steps between two logged steps.
        tolerance: gates at or below it count as closed.

    Attributes:
        gate_open: one float32 tensor `[D]` per validation, the gate-open share of each unit.
        grad_score: one float32 tensor `[D]` per training epoch, the gradient score of each unit.
    """

    def __init__(self, bank: HeadBank, index: int, every_n_steps: int, tolerance: float) -> None:
        head, self.units = bank.heads[index], bank.of(index)
        self.every_n_steps = every_n_steps
        self.metrics = HeadMetrics(
            head.activation,
            head.dense.weight,
            head.pre_activation,
            head.norm,
            parts(nn.Identity(), head),
            tolerance,
            effective_rank=False,
        )
        self.window: Window | None = None
        self.logged = False
        self.gate_open: list[Tensor] = []
        self.grad_score: list[Tensor] = []
        self._handles = [
            head.activation.register_forward_pre_hook(self._receive_units),
            head.activation.register_forward_hook(self._receive_activation),
        ]

    def begin_step(self, features: Tensor, step: int) -> None:
        """Call before the forward pass of a training batch, with its features `[B, F]`."""
        self.window, self._f = "train", features
        self.logged = step % self.every_n_steps == 0

    def before_update(self, dz: Tensor, known: Tensor) -> None:
        """Call after the backward pass, before clipping.

        Args:
            dz: dL/dz of the whole bank, `[B, M * D]`.
            known: images with a label, bool `[B]`.
        """
        self.metrics.add_dense_gradient(dz[:, self.units], known, measure=self.logged)
        if self.logged:
            self.metrics.begin_step()
        self.metrics.forget_accumulated()

    def after_update(self) -> dict[str, float]:
        """Numbers of a logged step, empty for other steps; call after the optimizer step."""
        return self.metrics.end_step()

    def begin_validation(self, last: bool) -> None:
        """Start a validation; only the last one computes the effective rank, which is expensive."""
        self.window = "val"
        if last:
            self.metrics.add_effective_rank("val")

    def end_start(self, features: dict[str, float]) -> dict[str, float]:
        """Close the window of the validation before the first step, and return its numbers."""
        self.window = None
        return self.metrics.close(START, features).values

    def end_epoch(self, features: dict[Window, dict[str, float]]) -> dict[str, float]:
        """Close both windows and return their numbers.

        Args:
            features: numbers of `FeatureMoments`, by window.
        """
        self.window = None
        train, val = (self.metrics.close(window, features[window]) for window in WINDOWS)
        self.gate_open.append(val.gate_open_share.float().cpu())
        gradients = self.metrics.close_gradients()
        self.grad_score.append(self.metrics.grad_score.float().cpu())
        return train.values | val.values | gradients

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _receive_units(self, activation: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.window is not None:
            self.metrics.update(self.window, inputs[0].detach())

    def _receive_activation(self, activation: nn.Module, inputs: tuple[Tensor], a: Tensor) -> None:
        if self.window == "train":
            f, gate, logged = self._f, self.metrics.gate, self.logged
            a.register_hook(lambda da: self.metrics.add_activation_gradient(f, gate, da, logged))


class SharedFeatures:
    """Moments of the features, which are the same for all heads of a pass."""

    def __init__(self, width: int, device: torch.device) -> None:
        windows: tuple[Window, ...] = (START, *WINDOWS)
        self.moments: dict[Window, Any] = {w: FeatureMoments(width).to(device) for w in windows}

    def update(self, window: Window, features: Tensor) -> None:
        self.moments[window].update(features)

    def close(self, window: Window) -> dict[str, float]:
        values: dict[str, float] = self.moments[window].compute()
        self.moments[window].reset()
        return values

    def end_epoch(self) -> dict[Window, dict[str, float]]:
        return {window: self.close(window) for window in WINDOWS}
