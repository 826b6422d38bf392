"""Read what was counted: a table, a DataFrame, values for a logger, a picture."""

from collections import deque
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.diagnostics.layer_metrics import GRADIENT, LayerSums
from fluoroscope.errors import InputError
from fluoroscope.instrument.shares import share
from fluoroscope.instrument.windows import WindowSums

KEPT = 100  # windows whose gate-open shares are kept


class Reading:
    """The readers of `Units`. In a distributed training they add up the processes, so all processes
    must call them.

    Attributes:
        unseen: what was not counted, by name, and why.
    """

    model_name = ""
    patterns: tuple[str, ...]

    def __init__(self) -> None:
        self.unseen: dict[str, str] = {}
        self._passed_over: dict[str, None] = {}  # activations that no pattern names
        self._history: dict[str, dict[str, deque[np.ndarray]]] = {}

    def frame(self, window: str | None = None) -> pd.DataFrame:
        """One row per window and layer, in the order of the first calls.

        Columns: `units` (channels), `images` (entries of the first dimension), and those of
        `LayerSums.numbers`.

        Raises:
            InputError: the network was not called, or no activation was seen.
        """
        rows = [
            {"window": name, "layer": layer, **_facts(sums), **sums.numbers()}
            for name, found in self._read(window).items()
            for layer, sums in found.layers.items()
        ]
        return pd.DataFrame(rows).set_index(["window", "layer"])

    def channels(self, window: str | None = None) -> pd.DataFrame:
        """One row per window, layer and unit: `dead`, `linear`, `gate_open_share`, `grad_score`."""
        parts = {
            (name, layer): pd.DataFrame({k: v.numpy() for k, v in sums.units()._asdict().items()})
            for name, found in self._read(window).items()
            for layer, sums in found.layers.items()
        }
        return pd.concat(parts, names=["window", "layer", "unit"])

    def values(self, window: str | None = None, prefix: str = "units") -> dict[str, float]:
        """Numbers for any logger, as `units/train/layer1.0.relu/dead_frac`.

        Those of the gradient are absent from a window without a backward pass.

        `units/train/grad_l2` is the L2 norm of the whole gradient as the optimizers used it, its
        root mean square over the steps.
        """
        found: dict[str, float] = {}
        for name, sums in self._read(window).items():
            for layer, layer_sums in sums.layers.items():
                found |= {
                    f"{prefix}/{name}/{layer}/{k}": v
                    for k, v in layer_sums.numbers().items()
                    if layer_sums.squares[1] or k not in GRADIENT
                }
            if sums.squares[1]:
                found[f"{prefix}/{name}/grad_l2"] = sums.grad_l2
        return found

    def table(self, window: str | None = None) -> str:
        """`frame` as text, with shares in percent, and what was not counted."""
        frame = self.frame(window)
        shown = pd.DataFrame(index=frame.index)
        for column in map(str, frame):
            values = frame[column]
            if column.endswith("_frac"):
                shown[column.removesuffix("_frac") + ", %"] = values.map(_percent)
            else:
                shown[column] = values.map("{:.3g}".format if column == "grad_l2" else str)
        lines = [f"{self.model_name}: activations", shown.to_string()]
        return "\n".join([*lines, *(f"not seen: {n} ({why})" for n, why in self.unseen.items())])

    def plot(self, layer: str | None = None, window: str | None = None) -> Any:
        """A matplotlib figure of the share of samples on which each unit's gate is open.

        Args:
            layer: the last 100 windows of this layer that `reset` ended, and the present one, side
                by side; None: all layers of the present window.
            window: None: the first one.
        """
        from fluoroscope.diagnostics.gate_picture import draw, draw_layers

        name = window or next(iter(self._read(None)))
        layers = self._read(name)[name].layers
        now = {n: _open_shares(sums) for n, sums in layers.items()}
        if layer is None:
            return draw_layers(now)
        if layer not in now:
            raise InputError(f"plot: {layer!r} was not seen in the window {name!r}")
        past = self._history.get(name, {}).get(layer, ())
        rows = [row for row in past if row.shape == now[layer].shape]
        return draw(np.stack([*rows, now[layer]]), "window", "samples")

    def _read(self, window: str | None) -> dict[str, WindowSums]:
        found = {n: sums for n, sums in self._sums().items() if window in (None, n)}
        if not any(sums.calls for sums in found.values()):
            where = "" if window is None else f" in the window {window!r}"
            raise InputError(
                f"{self.model_name} was not called{where} since watch or reset; call it before its "
                "units are read (if it was compiled later, watch what torch.compile returns)"
            )
        if not any(sums.layers for sums in found.values()):
            raise InputError(self._nothing_seen())
        return found

    def _nothing_seen(self) -> str:
        if self._passed_over:
            near = get_close_matches(self.patterns[0], self._passed_over, n=3, cutoff=0)
            return (
                f"no call of {self.model_name} reached a layer of layers={list(self.patterns)}; "
                f"the closest names that it called: {', '.join(near)}"
            )
        not_seen = "; ".join(f"{name}: {why}" for name, why in self.unseen.items())
        return (
            f"no activation was seen in {self.model_name}; it has none, or one that watch cannot "
            f"see{f' ({not_seen})' if not_seen else ''}"
        )

    def _sums(self) -> dict[str, WindowSums]:
        raise NotImplementedError

    def _remember(self, window: str, sums: WindowSums) -> None:
        kept = self._history.setdefault(window, {})
        for name, layer in sums.layers.items():
            kept.setdefault(name, deque(maxlen=KEPT)).append(_open_shares(layer))

    def _note(self, name: str, why: str) -> None:
        self.unseen.setdefault(name, why)


def _facts(sums: LayerSums) -> dict[str, int]:
    images = sum(int(width.images[0]) for width in sums.by_width.values())
    return {"units": sum(sums.by_width), "images": images}


def _percent(value: float) -> str:
    return share(value).removesuffix(" %")


def _open_shares(sums: LayerSums) -> np.ndarray:
    return sums.units().gate_open_share.numpy().astype(np.float32)
