"""The loss of an optimizer step is a mean over all its known labels."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class KnownLabels(pl.Callback):
    """Gives the model the numbers by which the losses of an epoch's batches are divided.

    A step may have several batches and processes, with different numbers of known labels. Lightning
    divides each loss by `accumulate_grad_batches`, and DDP averages the gradients of the processes.
    The sum over a batch's labels is therefore divided by the known labels of the whole step, over
    these two numbers: the step is then the gradient of the mean over all its known labels, also for
    the last step of an epoch, which may have fewer batches.
    """

    def __init__(self) -> None:
        self.epoch = -1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """In each epoch set `pl_module.counts` `[B, 2]`, of each batch and its step; None for
        other loaders. A run that is resumed within an epoch does not start the epoch again.
        """
        if self.epoch == trainer.current_epoch:
            return
        self.epoch = trainer.current_epoch
        sampler: Any = getattr(trainer.train_dataloader, "sampler", None)
        pl_module.counts = None
        if hasattr(sampler, "known_labels"):
            accumulated = trainer.accumulate_grad_batches
            known = sampler.known_labels(accumulated, int(trainer.num_training_batches))
            counts = np.maximum(np.stack(known, axis=1), 1) / [1, accumulated]
            counts = torch.tensor(counts / trainer.world_size, dtype=torch.float32)
            pl_module.counts = counts.to(pl_module.device, non_blocking=True)
