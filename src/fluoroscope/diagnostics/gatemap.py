"""One picture of every unit's gate over the epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fluoroscope.diagnostics.gate_picture import draw
from fluoroscope.diagnostics.head_metrics import ClosedWindow
from fluoroscope.diagnostics.media import send
from fluoroscope.diagnostics.monitor import HeadListener

TABLE, PICTURE, SCORES = "gate_open.npy", "gate_open.png", "grad_score.npy"


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
