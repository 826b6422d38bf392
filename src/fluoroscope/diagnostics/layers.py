"""The callback that watches the activations inside the backbone."""

import inspect
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from timm.layers import activations, activations_me
from torch import Tensor, nn

from fluoroscope.diagnostics.census import metric_state, restore_metric
from fluoroscope.diagnostics.channels import SHARES, ChannelCensus, channel_dim
from fluoroscope.diagnostics.hooks import HookedCallback
from fluoroscope.diagnostics.keys import Window
from fluoroscope.errors import InputError

HEAD = "head.activation"  # which the Monitor watches always
NOT_ELEMENTWISE = {"GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
RANDOM = {"RReLU"}  # to evaluate it once more would draw other numbers, here and in the training


def _classes() -> Iterator[type[nn.Module]]:
    for name in nn.modules.activation.__all__:
        if name not in NOT_ELEMENTWISE | RANDOM:
            yield getattr(nn, name)
    for module in (activations, activations_me):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, nn.Module) and cls.__module__ == module.__name__:
                yield cls


ELEMENTWISE = tuple(_classes())


def find_activations(model: nn.Module, patterns: Iterable[str]) -> dict[str, nn.Module]:
    """Elementwise activations by qualified name, without `head.activation`.

    Args:
        patterns: names as of `model.named_modules()`, with `*`, `?` and `[...]`.

    Raises:
        InputError: a pattern without any activation; one inside a compiled network, whose hooks
            would not be called.
    """
    there = {n: m for n, m in model.named_modules() if isinstance(m, ELEMENTWISE) or n == HEAD}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matches = {name: m for name, m in there.items() if fnmatchcase(name, pattern)}
        if not matches:
            near = ", ".join(get_close_matches(pattern, there, n=3, cutoff=0))
            raise InputError(
                f"diagnostics.layers: {pattern!r} names no activation; there is {near}"
            )
        found |= matches
    found = {name: m for name, m in there.items() if name in found and not name.startswith(HEAD)}
    for name in found:
        if any(module._compiled_call_impl is not None for module in _around(model, name)):
            raise InputError(
                f"diagnostics.layers cannot see {name} in a compiled network; set "
                f"backbone.compile=false, or diagnostics.layers=[{HEAD}]"
            )
    return found


def _around(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The module of that name and all that hold it."""
    parts = name.split(".")
    for end in range(len(parts) + 1):
        yield model.get_submodule(".".join(parts[:end]))


class LayerMonitor(HookedCallback):
    """Census of activations inside the backbone during a fit, to every logger.

    | key | when | meaning |
    | --- | --- | --- |
    | `layers/{train,val}/{layer}/dead_frac` | window | channels closed at every counted position |
    | `layers/{train,val}/{layer}/linear_frac` | window | not dead and corr(z, a)^2 > 0.99 |
    | `layers/{train,val}/{layer}/nonlinear_frac` | window | the rest |
    | `layers/{train,val}/{layer}/gate_open_frac` | window | position-channel pairs, open gate |

    `{layer}` is the qualified name, such as `backbone.network.blocks.0.0.bn1.act`. A validation
    window is of every image, which on a CPU takes several times as long as without. Of a training
    epoch only the batches of the logged steps are counted, for a count costs more than the step
    itself there; nothing waits for the device within a window. All calls of an
    activation are counted; where their widths differ, the channels of all of them are its units.

    Args:
        patterns: see `find_activations`; `head.activation` is left to the Monitor.
        every_n_steps: counts while training the batches of optimizer steps divisible by it.
        tolerance: of the census.
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
        self._window_state: dict[str, Any] = {}

    def window_state(self) -> dict[str, Any]:
        """What this process has counted of the current training epoch, by layer and width."""
        return {
            name: {width: metric_state(census) for width, census in widths.items()}
            for name, widths in self.census["train"].items()
        }

    def load_window_state(self, state: dict[str, Any]) -> None:
        """The next fit continues a training epoch from this state."""
        self._window_state = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        layers = find_activations(pl_module, self.patterns)
        # By window, layer, and number of channels.
        self.census: dict[Window, dict[str, dict[int, ChannelCensus]]] = {
            "train": {name: {} for name in layers},
            "val": {name: {} for name in layers},
        }
        self._handles = []
        for name, activation in layers.items():
            parent = pl_module.get_submodule(name.rpartition(".")[0])
            # Before the activation, since one that works in place overwrites z.
            tap = partial(self._tap, name, parent)
            self._handles.append(activation.register_forward_pre_hook(tap))
            for width, state in self._window_state.get(name, {}).items():
                self._add(name, activation, width, pl_module.device)
                restore_metric(self.census["train"][name][width], state)
        self._window_state = {}

    def _add(self, name: str, activation: nn.Module, width: int, device: torch.device) -> None:
        for layers in self.census.values():
            census = ChannelCensus(activation, width, self.tolerance)
            layers[name][width] = census.to(device)

    def _tap(
        self, name: str, parent: nn.Module, activation: nn.Module, inputs: tuple[Tensor]
    ) -> None:
        z = inputs[0] if inputs[0].ndim > 1 else inputs[0].reshape(1, -1)
        dim = channel_dim(z, parent)
        width = z.shape[dim]
        # Also of a batch that is not counted: a process without any validation image has to know
        # the widths, for the others wait for its sums.
        if width not in self.census["train"][name]:
            self._add(name, activation, width, z.device)
        if self._counting is not None:
            self.census[self._counting][name][width].update(z, dim)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        due = trainer.global_step % self.every_n_steps == 0
        self._counting = "train" if due else None

    def on_before_backward(self, *args: Any) -> None:
        """Checkpointed blocks run their forward pass once more within the backward pass."""
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
        """Log the window's census over all processes; the next window begins."""
        if not self._handles:
            return
        layers = self.census[window]
        table = [_shares(census.values(), pl_module.device) for census in layers.values()]
        rows = torch.stack(table).tolist()  # the window's one device sync
        self._warn_if_silent(window, dict(zip(layers, rows, strict=True)))
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
                "its numbers are NaN; does the model call it, and has an epoch more steps than "
                "diagnostics.every_n_steps?"
            )


def _shares(by_width: Iterable[ChannelCensus], device: torch.device) -> Tensor:
    """`SHARES` of all channels of a layer, `[4]`; each census starts anew."""
    total, units = torch.zeros(len(SHARES), dtype=torch.float64, device=device), 0
    for census in sorted(by_width, key=lambda c: c.width):
        with warnings.catch_warnings():  # that there was nothing to count is said once, by layer
            warnings.simplefilter("ignore")
            total = total + census.width * census.compute()
        units += census.width
        census.reset()
    return total / units if units else total.fill_(float("nan"))
