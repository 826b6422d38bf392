"""Start the head with a bias that cancels the mean of the training features."""

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
    """Set `head.dense.bias` to -W mean(f) when a new fit starts; f are the backbone's features.

    The mean is over the first training batches, as the head will see them: augmented, and with
    batch statistics where batch norm is in training mode. A mean over features of a backbone in
    evaluation mode would leave the head 1 to 7 standard deviations off centre (three networks on
    the phantom). Dropout is off. Nothing else of the model changes, and no random state. All
    processes end with the same bias. A resumed fit keeps the bias of its checkpoint.

    Must come before callbacks that watch the backbone. The trainer needs a datamodule.

    Args:
        images: number of images of all processes, rounded down to whole batches; every process
            uses at least one batch.
    """

    def __init__(self, images: int = 512) -> None:
        self.images = images

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None:  # a resumed fit has loaded its bias already
            head: Any = pl_module.head
            head.center(self._mean_features(trainer, pl_module))

    @torch.no_grad()
    def _mean_features(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        """Mean over the batches of all processes, float64 `[F]`."""
        backbone: Any = pl_module.backbone
        total = torch.zeros(backbone.num_features, dtype=torch.float64, device=pl_module.device)
        count = total.new_zeros(1)
        # A loader's iterator draws a seed. Without eager mode, the backbone would be recompiled.
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
    """Keep batch norm in training mode, without dropout and without updating running statistics.

    Afterwards the mode of every part is restored.
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
