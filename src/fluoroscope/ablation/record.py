"""What one head of a bank does: the monitor's numbers without a trainer."""

from typing import Any

import torch
from torch import Tensor, nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.diagnostics import gradients
from fluoroscope.diagnostics.census import UnitCensus, tail_gain
from fluoroscope.diagnostics.feature_moments import FeatureMoments
from fluoroscope.diagnostics.monitor import WINDOWS, Window
from fluoroscope.diagnostics.step_gradients import StepGradients


class HeadRecord:
    """Census, gradients and logged rows of a head, by the keys of `diagnostics.monitor.Monitor`.

    Two numbers are had without the `[D, F]` gradient that each head would need to itself: an image
    sends no gradient where its row of dL/dz is zero, and a unit is starved where its column is.

    Args:
        index: of the head in the bank.
        every_n_steps: optimizer steps between two looks at the gradient.
        tolerance: of the census.
    """

    def __init__(self, bank: HeadBank, index: int, every_n_steps: int, tolerance: float) -> None:
        self.model = _Alone(bank, index)
        self.head, self.units = bank.heads[index], bank.of(index)
        self.every_n_steps, self.tolerance = every_n_steps, tolerance
        self.window: Window | None = None
        self.census: dict[Window, UnitCensus] = {w: self._census() for w in WINDOWS}
        self.images: Any = 0  # of the epoch: without gradient, and all that have a label
        self.starved, self.steps = gradients.StarvedRows(), StepGradients(tolerance)
        self.logged = False
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.dead_max = 0.0
        self.gate_open: list[Tensor] = []  # of each validation, float32 `[D]`
        activation = self.head.activation
        self._handles = [
            activation.register_forward_pre_hook(self._tap_units),
            activation.register_forward_hook(self._tap_activation),
        ]

    def _census(self, effective_rank: bool = False) -> UnitCensus:
        width, device = self.head.dense.out_features, self.head.dense.weight.device
        activation = self.head.activation
        return UnitCensus(activation, width, self.tolerance, effective_rank).to(device)

    def begin_step(self, features: Tensor, step: int) -> None:
        """Before the forward pass of a training batch `[B, F]`."""
        self.window, self._f = "train", features
        self.logged = step % self.every_n_steps == 0

    def receive(self, dz: Tensor, known: Tensor) -> None:
        """After the backward pass: dL/dz `[B, M * D]` of the bank, images with a label `[B]`."""
        mine = dz[:, self.units]
        silent = (mine == 0).all(dim=1) & known
        self.images = self.images + torch.stack([silent.sum(), known.sum()])
        self.starved.update(mine.T)
        if self.logged:
            weight = self.head.dense.weight.detach()
            self._squares = (mine.to(weight) @ weight).double().square().sum()  # of dL/df

    def before_update(self) -> None:
        """When the gradients are there, not yet clipped."""
        if self.logged:
            self.steps.take(self.model, self._squares)

    def after_update(self) -> dict[str, float]:
        """The step's numbers; empty where it is not logged."""
        values = self.steps.values(self.model)
        self._remember(values)
        return values

    def begin_validation(self, last: bool) -> None:
        """The effective rank costs an eigenvalue problem a head, so the last window alone has it.

        Args:
            last: whether this is the last validation.
        """
        self.window = "val"
        if last:
            dead_before = self.census["val"].dead_before
            self.census["val"] = self._census(effective_rank=True)
            self.census["val"].dead_before = dead_before

    def end_epoch(self, features: dict[Window, dict[str, float]]) -> dict[str, float]:
        """The windows' numbers, of training and validation.

        Args:
            features: of `FeatureMoments`, by window.
        """
        self.window = None
        values: dict[str, float] = {}
        for window, census in self.census.items():
            found = census.compute() | features[window]
            found["bn_tail_gain_max"] = float(tail_gain(self.head.norm))
            values |= {f"units/{window}/{key}": value for key, value in found.items()}
        self.gate_open.append(self.census["val"].gate_open_share.float().cpu())
        for census in self.census.values():
            census.reset()
        values["grad/starved_frac"] = float(self.starved.frac())
        values["grad/features_zero_frac"] = gradients.frac(self.images)
        self.starved.reset()
        self.images = 0
        self.dead_max = max(self.dead_max, values["units/val/dead_frac"])
        self._remember(values)
        return values

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _remember(self, values: dict[str, float]) -> None:
        self.first = {**values, **self.first}
        self.last = {**self.last, **values}

    def _tap_units(self, activation: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.window is not None:
            self.census[self.window].update(inputs[0].detach())

    def _tap_activation(self, activation: nn.Module, inputs: tuple[Tensor], a: Tensor) -> None:
        if self.window == "train" and self.logged:
            gate = self.census["train"].gate
            assert gate is not None  # of this batch, by `_tap_units`
            self.steps.listen(self._f, gate, a)


class _Alone(nn.Module):
    """One head as a model of its own, for what watches models."""

    def __init__(self, bank: HeadBank, index: int) -> None:
        super().__init__()
        self.backbone, self.head = nn.Identity(), bank.heads[index]


class SharedFeatures:
    """What the features alone say, the same for all heads that see them."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.moments: dict[Window, Any] = {w: FeatureMoments(width).to(device) for w in WINDOWS}

    def update(self, window: Window, features: Tensor) -> None:
        self.moments[window].update(features)

    def end_epoch(self) -> dict[Window, dict[str, float]]:
        values = {window: moments.compute() for window, moments in self.moments.items()}
        for moments in self.moments.values():
            moments.reset()
        return values
