"""A start that pushes no unit aside: the head's bias centred on the training features."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CenteredBias(pl.Callback):
    """Sets `head.dense.bias` to -W mean(f) when a new fit starts, f the backbone's features.

    The mean is over the first batches of the training, whose features are those that the head is
    about to see: augmented, and by the statistics of the batch where batch norm will use them. A
    backbone in evaluation mode gives others, on which a head that was centred starts off centre
    (1 to 7 standard deviations off, over three networks on the phantom). Dropout and the like
    are off. Nothing else of the model changes, and no random state. The processes share the images
    and end with the same bias; a resumed fit keeps its checkpoint's.

    Stands before callbacks that watch the backbone. The trainer needs a datamodule.

    Args:
        images: of all processes together, rounded to whole batches, at least one each.
    """

    def __init__(self, images: int = 512) -> None:
        self.images = images

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None:  # else the checkpoint is in place already
            head: Any = pl_module.head
            head.center(self._mean_features(trainer, pl_module))

    @torch.no_grad()
    def _mean_features(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        """Mean over the batches of all processes, float64 `[F]`."""
        backbone: Any = pl_module.backbone
        total = torch.zeros(backbone.num_features, dtype=torch.float64, device=pl_module.device)
        count = total.new_zeros(1)
        # A loader's iterator draws a seed. Compiled code would be compiled again for this alone.
        with isolate_rng(), torch.compiler.set_stance("force_eager"), _as_in_training(backbone):
            for batch in self._batches(trainer):
                with trainer.precision_plugin.forward_context():
                    features = backbone(batch["image"].to(pl_module.device))
                total += features.double().sum(dim=0)
                count += len(features)
        sums = trainer.strategy.reduce(torch.cat([total, count]), reduce_op="sum")
        return sums[:-1] / sums[-1]

    def _batches(self, trainer: pl.Trainer) -> Iterator[dict[str, Tensor]]:
        """The first batches of this process."""
        loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        count = max(1, self.images // (loader.batch_size * trainer.world_size))
        return islice(loader, count)


@contextmanager
def _as_in_training(module: nn.Module) -> Iterator[None]:
    """What is in training mode works so, but for chance and for traces: dropout is off, and batch
    norm leaves its running statistics alone. Afterwards every part is back in its own mode.
    """
    modes = {part: part.training for part in module.modules()}
    norms = [part for part, mode in modes.items() if mode and isinstance(part, _BatchNorm)]
    tracking = {norm: norm.track_running_stats for norm in norms}
    try:
        for part in modes:
            part.training = part in tracking
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for norm, tracked in tracking.items():
            norm.track_running_stats = tracked
