"""The callback that looks at the first training batch before any step is made from it."""

from typing import Any

import pytorch_lightning as pl
import torch

from fluoroscope.data.firstbatch import check_batch
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone


def look_at(image: torch.Tensor, backbone: Backbone) -> None:
    """Refuse images, uint8 [B, 1, H, W], that came out wrong.

    Raises:
        InputError: what `check_batch` finds.
    """
    told = check_batch(image, backbone.normalise(image))
    if told:
        raise InputError("; ".join(told))


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
        """Look, at the first call alone."""
        # Images of cached features were checked when the features were computed.
        if not self.looked and batch["image"].ndim == 4:
            look_at(batch["image"], pl_module.backbone)
        self.looked = True
