"""The callback that watches the head while it trains."""

from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from fluoroscope.diagnostics import gradients
from fluoroscope.diagnostics.census import UnitCensus, histogram, tail_gain
from fluoroscope.diagnostics.feature_moments import FeatureMoments
from fluoroscope.diagnostics.hooks import Tapping
from fluoroscope.diagnostics.step_gradients import StepGradients
from fluoroscope.diagnostics.windows import counted, go_on

Window = Literal["train", "val"]
WINDOWS: tuple[Window, Window] = ("train", "val")


class Monitor(Tapping):
    """Census of the head's units and norms of its gradient during a fit, to every logger.

    Window keys cover a training epoch, or the whole validation set, where the weights stand
    still. Step keys are taken after the gradients are averaged across processes and unscaled,
    before clipping. Between the logged steps nothing waits for the device.

    | key | when | meaning |
    | --- | --- | --- |
    | `units/{train,val}/dead_frac` | window | units whose gate is closed on every image |
    | `units/{train,val}/linear_frac` | window | not dead and corr(z, a)^2 > 0.99 |
    | `units/{train,val}/nonlinear_frac` | window | the rest |
    | `units/{train,val}/blackout_frac` | window | images on which every gate is closed |
    | `units/{train,val}/gate_open_frac` | window | image-unit pairs with an open gate |
    | `units/{train,val}/zero_frac` | window | image-unit pairs with an activation of zero |
    | `units/{train,val}/rare_frac` | window | units open on 1 to 7 images |
    | `units/{train,val}/dormant_frac_0025` | window | mean abs a at most 0.025 of the layer's |
    | `units/{train,val}/dormant_frac_01` | window | mean abs a at most 0.1 of the layer's |
    | `units/{train,val}/dead_bound_frac` | window | a rarer unit passes for dead, at 95 % |
    | `units/{train,val}/newly_dead_frac` | window | units dead now, not in the window before |
    | `units/{train,val}/revived_frac` | window | units dead in the window before, not now |
    | `units/{train,val}/effective_rank` | window | exp of the entropy of a's singular values |
    | `units/{train,val}/feature_gamma` | window | norm(mean f) / sqrt(tr cov f) of the features |
    | `units/{train,val}/dead_expected_frac` | window | dead ReLU units that gamma alone predicts |
    | `units/{train,val}/bn_tail_gain_max` | window | largest gain of batch norm at evaluation |
    | `grad/starved_frac` | window | rows of `head.dense` with no gradient at any step |
    | `grad/features_zero_frac` | window | labelled images whose dL/df is exactly zero |
    | `grad/features_l2` | step | norm of dL/df over the accumulated batch |
    | `grad/gate_transmission` | step | norm of dL/df with the gate / without it (`GateEffect`) |
    | `grad/gate_cosine` | step | cosine between the two |
    | `grad/update_ratio` | step | norm of the step of `head.dense.weight` / norm of the weight |
    | `grad/l2/total` | step | norm of the whole accumulated gradient |
    | `grad/l2/total_clipped` | step | the same as the optimizer used it |
    | `grad/l2/backbone` | step | of the backbone; NaN where it is frozen |
    | `grad/l2/head` | step | of the head |
    | `grad/l2/head_dense` | step | of `head.dense` |
    | `grad/l2/head_norm` | step | of `head.norm`; NaN where there is none |
    | `grad/l2/head_out` | step | of `head.out` |

    Per window and to W&B alone: histograms `hist/{train,val}/gate_open_share` (over units) and
    `hist/{train,val}/pre_activation` (of the window's last batch), 64 bins.

    Args:
        every_n_steps: optimizer steps between two logs of the step keys.
        tolerance: of the census.
    """

    def __init__(self, every_n_steps: int = 10, tolerance: float = 1e-6) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.tolerance = tolerance
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.dead_max = 0.0
        self._dead_before: dict[Window, Tensor] = {}
        self._counted: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same story."""
        dead = {w: c.dead_before.cpu() for w, c in self.census.items() if c.dead_before is not None}
        return {
            "first": self.first,
            "last": self.last,
            "dead_max": self.dead_max,
            "dead_before": dead,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.last = state_dict["first"], state_dict["last"]
        self.dead_max, self._dead_before = state_dict["dead_max"], state_dict["dead_before"]

    def window_state(self) -> dict[str, Any]:
        """What this process has seen of the training epoch that is going on."""
        return {
            "census": counted(self.census["train"]),
            "features": counted(self.features["train"]),
            "fed": _on_cpu(self.starved.fed),
            "counts": _on_cpu(self.feature_gradient.counts),
        }

    def load_window_state(self, state: dict[str, Any]) -> None:
        """The fit that is about to start goes on there."""
        self._counted = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        head: Any = pl_module.head
        device, width = pl_module.device, head.dense.out_features
        self.census: dict[Window, UnitCensus] = {
            window: UnitCensus(head.activation, width, self.tolerance).to(device)
            for window in WINDOWS
        }
        self.features: dict[Window, FeatureMoments] = {
            window: FeatureMoments(head.dense.in_features).to(device) for window in WINDOWS
        }
        for window, dead in self._dead_before.items():
            self.census[window].dead_before = dead.to(device)
        self.feature_gradient = gradients.FeatureGradient()
        self.starved = gradients.StarvedRows()
        self.steps = StepGradients(self.tolerance)
        if self._counted:
            self._go_on(self._counted, device)
            self._counted = {}
        self._known: Tensor | None = None
        self._f = torch.empty(0)
        self._z: dict[Window, Tensor] = {}
        self._trainer = trainer
        self._handles = [
            head.register_forward_pre_hook(self._tap_features),
            # Before the activation, since one that works in place overwrites z.
            head.activation.register_forward_pre_hook(self._tap_units),
            head.activation.register_forward_hook(self._tap_activation),
        ]

    def _go_on(self, state: dict[str, Any], device: torch.device) -> None:
        go_on(self.census["train"], state["census"])
        go_on(self.features["train"], state["features"])
        fed, counts = state["fed"], state["counts"]
        self.starved.fed = None if fed is None else fed.to(device)
        self.feature_gradient.counts = None if counts is None else counts.to(device)

    def _window(self) -> Window | None:
        if self._trainer.training:
            return "train"
        return "val" if self._trainer.validating else None  # the sanity check is its own stage

    def _is_logged(self) -> bool:
        return self._trainer.global_step % self.every_n_steps == 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._known = ~batch["target"].isnan().all(dim=1)

    def _tap_features(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        """Listen to dL/df; features of a frozen backbone are asked for a gradient of their own."""
        window, features = self._window(), inputs[0]
        if window is not None:
            self._f = features.detach()
            self.features[window].update(self._f)
        if window == "train" and torch.is_grad_enabled():
            if not features.requires_grad:
                features.requires_grad_(True)
            features.register_hook(self._receive_feature_gradient)

    def _receive_feature_gradient(self, grad: Tensor) -> None:
        self.feature_gradient.update(grad, self._known)

    def _tap_units(self, activation: nn.Module, inputs: tuple[Tensor]) -> None:
        window = self._window()
        if window is not None:
            z = inputs[0].detach()
            self.census[window].update(z)
            self._z[window] = z.clone() if getattr(activation, "inplace", False) else z

    def _tap_activation(self, activation: nn.Module, inputs: tuple[Tensor], a: Tensor) -> None:
        if self._window() == "train" and self._is_logged() and a.requires_grad:
            gate = self.census["train"].gate
            assert gate is not None  # of this batch, by `_tap_units`
            self.steps.listen(self._f, gate, a)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        head: Any = pl_module.head
        if head.dense.weight.grad is not None:
            self.starved.update(head.dense.weight.grad)
        if self._is_logged():
            reduce = partial(trainer.strategy.reduce, reduce_op="sum")
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            divisor = trainer.world_size * (1.0 if scaler is None else scaler.get_scale())
            self.steps.take(pl_module, self.feature_gradient.squares, reduce, divisor)
        self.feature_gradient.end_step()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        values = self.steps.values(pl_module)
        if values:
            self._remember(values)
            values["epoch"] = trainer.current_epoch
            for logger in trainer.loggers:
                logger.log_metrics(values, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = self._close_window("train", trainer, pl_module)
        values["grad/starved_frac"] = float(self.starved.frac())
        counts = self.feature_gradient.counts
        if counts is not None:
            counts = trainer.strategy.reduce(counts, reduce_op="sum")
        values["grad/features_zero_frac"] = gradients.frac(counts)
        self.starved.reset()
        self.feature_gradient.reset()
        self._log_window(values, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.census["val"].reset()
            self.features["val"].reset()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and self._handles:
            self._log_window(self._close_window("val", trainer, pl_module), pl_module)

    def _close_window(
        self, window: Window, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, float]:
        """The window's numbers over all processes; the next window begins."""
        census, features = self.census[window], self.features[window]
        head: Any = pl_module.head
        if not census.update_called:
            rank_zero_warn(
                f"the monitor saw no pre-activation in this {window} window: its numbers are NaN; "
                "does the model call `head.activation`?"
            )
        values = {**census.compute(), **features.compute()}
        values["bn_tail_gain_max"] = float(tail_gain(head.norm))
        if window in self._z:
            self._log_histograms(window, trainer)
        census.reset()
        features.reset()
        return {f"units/{window}/{key}": value for key, value in values.items()}

    def _log_histograms(self, window: Window, trainer: pl.Trainer) -> None:
        sinks = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not sinks or not trainer.is_global_zero:
            return
        from wandb import Histogram

        panels: dict[str, Any] = {
            "gate_open_share": self.census[window].gate_open_share,
            "pre_activation": self._z[window],
        }
        entry = {
            f"hist/{window}/{name}": Histogram(np_histogram=histogram(values))
            for name, values in panels.items()
        }
        for logger in sinks:
            logger.experiment.log({**entry, "trainer/global_step": trainer.global_step - 1})

    def _log_window(self, values: dict[str, float], pl_module: pl.LightningModule) -> None:
        """The values are of all processes already, so there is nothing left to reduce."""
        self._remember(values)
        self.dead_max = max(self.dead_max, values.get("units/val/dead_frac", 0.0))
        pl_module.log_dict(values, on_step=False, on_epoch=True)

    def _remember(self, values: dict[str, float]) -> None:
        self.first = {**values, **self.first}
        self.last = {**self.last, **values}


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
