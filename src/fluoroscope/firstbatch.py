"""The callback that looks at the first training batch before any step is made from it."""

from typing import Any

import pytorch_lightning as pl
import torch

from fluoroscope.data.firstbatch import check_batch
from fluoroscope.errors import InputError


class FirstBatch(pl.Callback):
    """Stops a fit whose images came out blank, all the same, or at a scale no weights expect.

    The batch is looked at once, where the network would see it: on its device, augmented and
    normalised.
    """

    def __init__(self) -> None:
        self.looked = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        """Look, at the first call alone.

        Raises:
            InputError: what `check_batch` finds.
        """
        if self.looked:
            return
        self.looked = True
        told = check_batch(batch["image"], pl_module.backbone.normalise(batch["image"]))
        if told:
            raise InputError("; ".join(told))
