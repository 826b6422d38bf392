"""End a run whose validation AUROC no longer rises."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from fluoroscope.errors import plural


class Patience(EarlyStopping):
    """Early stopping whose patience may change at a resume; the count of waited epochs is kept.

    Args:
        patience: epochs without a better `val/auroc`; an undefined one is no better.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val/auroc", mode="max", patience=patience, check_finite=False)

    @property
    def is_exhausted(self) -> bool:
        return self.wait_count >= max(1, self.patience)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def describe(self) -> str:
        """`2 epochs without a better val/auroc (run.patience=2)`."""
        waited = plural(self.wait_count, "epoch")
        return f"{waited} without a better {self.monitor} (run.patience={self.patience})"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.is_exhausted and trainer.is_global_zero:
            print(f"stopped after epoch {trainer.current_epoch}: {self.describe()}")
