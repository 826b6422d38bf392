"""The callback that watches the activations inside the backbone."""

import math
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from fluoroscope.diagnostics.channels import SHARES, ChannelCensus, at_least_2d, channel_dim
from fluoroscope.diagnostics.keys import WINDOWS, Window
from fluoroscope.diagnostics.known_activations import ELEMENTWISE
from fluoroscope.diagnostics.layer_metrics import LayerMetrics
from fluoroscope.diagnostics.monitor import HookedCallback
from fluoroscope.diagnostics.window_state import metric_state, restore_metric
from fluoroscope.errors import InputError

HEAD = "head.activation"  # the Monitor always watches it


def find_activations(model: nn.Module, patterns: Iterable[str]) -> dict[str, nn.Module]:
    """Elementwise activations by qualified name, without `head.activation`.

    Args:
        patterns: names from `model.named_modules()`; `*`, `?` and `[...]` are wildcards.

    Raises:
        InputError: if a pattern matches no activation, or matches one inside a compiled network,
            where hooks are not called.
    """
    existing = {n: m for n, m in model.named_modules() if isinstance(m, ELEMENTWISE) or n == HEAD}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matches = {name: m for name, m in existing.items() if fnmatchcase(name, pattern)}
        if not matches:
            near = ", ".join(get_close_matches(pattern, existing, n=3, cutoff=0))
            raise InputError(
                f"diagnostics.layers: {pattern!r} matches no elementwise activation; closest "
                f"names: {near}"
            )
        found |= matches
    found = {n: m for n, m in existing.items() if n in found and not n.startswith(HEAD)}
    for name in found:
        if any(module._compiled_call_impl is not None for module in _around(model, name)):
            raise InputError(
                f"diagnostics.layers cannot watch {name} in a compiled network; set "
                f"backbone.compile=false or diagnostics.layers=[{HEAD}]"
            )
    return found


def _around(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The module of that name and all modules that contain it."""
    parts = name.split(".")
    for end in range(len(parts) + 1):
        yield model.get_submodule(".".join(parts[:end]))


class LayerMonitor(HookedCallback):
    """Logs a census of the activations inside the backbone during a fit, by `LayerMetrics`.

    | key | when | meaning |
    | --- | --- | --- |
    | `layers/{train,val}/{layer}/dead_frac` | window | share of channels closed at all positions |
    | `layers/{train,val}/{layer}/linear_frac` | window | share of linear channels, not dead |
    | `layers/{train,val}/{layer}/nonlinear_frac` | window | share of all other channels |
    | `layers/{train,val}/{layer}/gate_open_frac` | window | open (position, channel) pairs |

    `{layer}` is the qualified name, such as `backbone.network.blocks.0.0.bn1.act`. In validation
    every image is counted; on a CPU this takes several times as long as validation alone. In
    training only the batches of logged steps are counted, because a count costs more than the step
    itself. Nothing waits for the device within a window. Every call of an activation is counted;
    if calls differ in width, the channels of all widths are the layer's units.

    Args:
        patterns: see `find_activations`; the Monitor watches `head.activation`.
        every_n_steps: in training, counts the optimizer steps whose number is divisible by it.
        tolerance: gates at or below it count as closed.
    """

    def __init__(
        self, patterns: Sequence[str], every_n_steps: int = 10, tolerance: float = 1e-6
    ) -> None:
        super().__init__()
        self.patterns = tuple(patterns)
        self.every_n_steps = every_n_steps
        self.tolerance = tolerance
        self._counting: Window | None = None
        self._silent: set[str] = set()
        self._broken: set[str] = set()
        self._window_state: dict[str, Any] = {}

    def window_state(self) -> dict[str, Any]:
        """Counts of this process in the current training epoch, by layer and width."""
        return {
            name: {width: metric_state(census) for width, census in layer.by_width.items()}
            for name, layer in self.metrics["train"].items()
        }

    def load_window_state(self, state: dict[str, Any]) -> None:
        """Continue the training epoch from this state in the next fit."""
        self._window_state = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        layers = find_activations(pl_module, self.patterns)
        self.metrics: dict[Window, dict[str, LayerMetrics]] = {
            window: {n: LayerMetrics(layer, self.tolerance) for n, layer in layers.items()}
            for window in WINDOWS
        }
        self._handles = []
        for name, activation in layers.items():
            parent = pl_module.get_submodule(name.rpartition(".")[0])
            # Before the activation, since one that works in place overwrites z.
            tap = partial(self._tap, name, parent)
            self._handles.append(activation.register_forward_pre_hook(tap))
            for width, state in self._window_state.get(name, {}).items():
                self._expect(name, width, pl_module.device)
                restore_metric(self.metrics["train"][name].by_width[width], state)
        self._window_state = {}

    @property
    def census(self) -> dict[Window, dict[str, dict[int, ChannelCensus]]]:
        """By window, layer, and number of channels."""
        return {
            window: {name: layer.by_width for name, layer in layers.items()}
            for window, layers in self.metrics.items()
        }

    def _expect(self, name: str, width: int, device: torch.device) -> None:
        for layers in self.metrics.values():
            layers[name].expect(width, device)

    def _tap(
        self, name: str, parent: nn.Module, activation: nn.Module, inputs: tuple[Tensor]
    ) -> None:
        z = at_least_2d(inputs[0])
        dim = channel_dim(z, parent)
        # Also for a batch that is not counted: a process without validation images must know the
        # widths, because the other processes wait for its sums.
        self._expect(name, z.shape[dim], z.device)
        if self._counting is not None:
            self.metrics[self._counting][name].update(z, dim)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        due = trainer.global_step % self.every_n_steps == 0
        self._counting = "train" if due else None

    def on_before_backward(self, *args: Any) -> None:
        """Stop counting, since checkpointed blocks repeat their forward pass in the backward."""
        self._counting = None

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._counting = None if trainer.sanity_checking else "val"

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._counting = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close_window("train", pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._close_window("val", pl_module)

    def _close_window(self, window: Window, pl_module: pl.LightningModule) -> None:
        """Log the window's census over all processes and start the next window."""
        if not self._handles:
            return
        layers = self.metrics[window]
        table = [layer.close(pl_module.device) for layer in layers.values()]
        rows = torch.stack(table).tolist()  # the window's one device sync
        self._warn_if_silent(window, dict(zip(layers, rows, strict=True)))
        self._warn_if_broken(window, {n: row.pop() for n, row in zip(layers, rows, strict=True)})
        values = {
            f"layers/{window}/{name}/{share}": value
            for name, row in zip(layers, rows, strict=True)
            for share, value in zip(SHARES, row, strict=True)
        }
        # The values cover all processes already, so Lightning has nothing to reduce.
        pl_module.log_dict(values, on_step=False, on_epoch=True)

    def _warn_if_silent(self, window: Window, rows: dict[str, list[float]]) -> None:
        silent = [n for n, row in rows.items() if math.isnan(row[0]) and n not in self._silent]
        if silent:
            self._silent.update(silent)
            rank_zero_warn(
                f"no pre-activation of {', '.join(silent)} was counted in this {window} window, so "
                "the census is NaN; check that the model calls the layer, and that an epoch has at "
                "least diagnostics.every_n_steps optimizer steps"
            )

    def _warn_if_broken(self, window: Window, nonfinite: dict[str, float]) -> None:
        broken = {n: share for n, share in nonfinite.items() if share > 0 and n not in self._broken}
        if broken:
            self._broken.update(broken)
            shares = ", ".join(f"{share:.2g} of {name}" for name, share in broken.items())
            rank_zero_warn(
                f"pre-activations were not finite in this {window} window, and the census left "
                f"them out: a share of {shares}; lower optimizer.lr, or train in float32"
            )
