"""One picture of every unit's gate over the epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fluoroscope.diagnostics.head_metrics import ClosedWindow
from fluoroscope.diagnostics.media import send
from fluoroscope.diagnostics.monitor import HeadListener

TABLE, PICTURE, SCORES = "gate_open.npy", "gate_open.png", "grad_score.npy"
DEAD = "#D55E00"


class GateMap(HeadListener):
    """Stores each unit's gate-open share in each validation, and its gradient score in each
    training epoch (`UnitGradient`); plots the shares at the end of the fit.

    `gate_open.npy` and `grad_score.npy` in the run folder hold float32 `[epochs, D]`, in the order
    of the units.
    `gate_open.png` and W&B's image `gate_open` show the plot, see `draw`.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shares: list[Tensor] = []
        self.scores: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"shares": self.shares, "scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.shares = state_dict["shares"]
        nan = [torch.full_like(share, float("nan")) for share in self.shares]
        self.scores = state_dict.get("scores", nan)  # an earlier version stored none

    def on_head_window(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, closed: ClosedWindow
    ) -> None:
        if closed.name == "val":
            self.shares.append(closed.gate_open_share.float().cpu())
        elif closed.grad_score is not None:
            self.scores.append(closed.grad_score.float().cpu())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not (trainer.is_global_zero and self.shares):
            return
        shares = torch.stack(self.shares).numpy()
        np.save(self.folder / TABLE, shares)
        np.save(self.folder / SCORES, torch.stack(self.scores).numpy())
        picture = self.folder / PICTURE
        draw(shares).savefig(picture, dpi=120)
        send(trainer, PICTURE, lambda logger: logger.log_image("gate_open", [str(picture)]))


def draw(shares: np.ndarray) -> Any:
    """Plot gate-open shares `[E, D]`: epochs on the x axis, units sorted by their last share.

    Dead units, with a share of exactly 0, are orange.
    """
    # Imported here, since it takes 0.4 s.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots(gridspec_kw={"left": 0.11, "right": 1.0, "bottom": 0.11, "top": 0.92})
    order = np.lexsort((shares.mean(0), shares[-1]))
    image = axes.imshow(
        np.ma.masked_equal(shares[:, order].T, 0),
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        vmin=0,
        vmax=1,
        cmap=colormaps["cividis"].with_extremes(bad=DEAD),
        extent=(0.5, len(shares) + 0.5, 0, shares.shape[1]),
    )
    figure.colorbar(image, label="share of validation images with an open gate")
    dead = (shares == 0).sum(1)
    title = f"dead units (orange): {dead[0]} after the first epoch, {dead[-1]} after the last"
    axes.set_title(title)
    axes.set(xlabel="epoch", ylabel="units, sorted by their last share")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
