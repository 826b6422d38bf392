"""Check the keys of a training against the size of its data, before anything is written."""

import math
from collections.abc import Collection

import torch
from pytorch_lightning.utilities import rank_zero_warn

from fluoroscope.config.train import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.samplers import ShardBatches
from fluoroscope.errors import InputError
from fluoroscope.run.averaging import reached_decay

SMALL_BATCH = 16  # below it the statistics of a batch are noise
LEFT = 0.01  # share of the initial running statistics that may remain at the end of a run
# Of `head.norm_momentum=auto`. Keras's 0.99 is 0.01. Above one half, the last batch counts more
# than all others together.
MOMENTA = 0.01, 0.5


def settle_momentum(cfgs: Collection[Train], data: XrayDataModule, processes: int) -> None:
    """Replace `head.norm_momentum=auto` by a number that fits the number of training batches.

    Args:
        cfgs: configurations that train on the same number of batches.

    Raises:
        InputError: as in `check_training`.
    """
    first = next(iter(cfgs))
    batches = epoch_batches(first, data, "train", processes) * first.trainer.max_epochs
    for cfg in cfgs:
        if cfg.head.norm_momentum == "auto":
            cfg.head.norm_momentum = momentum_for(batches)


def momentum_for(batches: int) -> float:
    """The smallest momentum, of two decimals, with which batch norm forgets its initial statistics.

    Batch norm keeps `1 - momentum` of its running statistics at each batch. The momentum is between
    0.01 and 0.5, so with fewer than 7 batches more than 1 % of the initial statistics remain.

    >>> [momentum_for(batches) for batches in (3, 40, 150, 500)]
    [0.5, 0.11, 0.04, 0.01]
    """
    enough = math.ceil(100 * (1 - LEFT ** (1 / batches))) / 100
    return min(max(enough, MOMENTA[0]), MOMENTA[1])


def check_training(cfg: Train, data: XrayDataModule, processes: int) -> None:
    """Refuse a training that has no batch or no step, and warn of keys that do not fit its length.

    Raises:
        InputError: if the training split does not fill one batch of every process, an epoch not one
            optimizer step, or a limit leaves no batch of a split.
    """
    batches = epoch_batches(cfg, data, "train", processes)
    for split in ("val", "test"):
        if len(data.target(split)) >= processes:  # fewer are refused where they are divided
            epoch_batches(cfg, data, split, processes)
    accumulated = cfg.trainer.accumulate_grad_batches
    if accumulated > batches:
        raise InputError(
            f"trainer.accumulate_grad_batches={accumulated} is more than an epoch has batches "
            f"({batches}); lower it, or lower data.batch_size"
        )
    _check_batch_norm(cfg, batches * cfg.trainer.max_epochs, processes)
    _check_average(cfg, math.ceil(batches / accumulated) * cfg.trainer.max_epochs)
    if cfg.data.sampler == "balanced" and cfg.loss.pos_weight is not None:
        rank_zero_warn(
            f"data.sampler=balanced and loss.pos_weight={cfg.loss.pos_weight} both make rare "
            "findings count more, so probabilities will be far too high; use one of them"
        )


def epoch_batches(cfg: Train, data: XrayDataModule, split: str, processes: int) -> int:
    """Batches of a split that each process sees in an epoch, or when the split is scored.

    Raises:
        InputError: as in `check_training`.
    """
    if split == "train":
        return _limited(cfg, split, data.train_sampler(world_size=processes).batches)
    size = len(data.target(split))
    return _limited(cfg, split, len(ShardBatches(size, data.batch_size, 0, processes)))


def _limited(cfg: Train, split: str, batches: int) -> int:
    """The number of batches that `trainer.limit_*_batches` leaves, as Lightning counts them."""
    key = f"limit_{split}_batches"
    limit = getattr(cfg.trainer, key)
    if limit is None:
        return batches
    share = isinstance(limit, float) and limit <= 1
    left = int(batches * limit) if share else min(batches, int(limit))
    if not left:
        raise InputError(
            f"trainer.{key}={limit} leaves none of {batches} batches; raise it, or give a number "
            f"of batches, such as trainer.{key}=1"
        )
    return left


def _check_batch_norm(cfg: Train, batches: int, processes: int) -> None:
    """Warn of running statistics that still hold their initial values, or of batch statistics of a
    few images of one process.
    """
    momentum = cfg.head.norm_momentum
    needed = math.ceil(math.log(LEFT) / math.log(1 - momentum)) if momentum < 1 else 1
    few = cfg.data.batch_size < SMALL_BATCH and not cfg.trainer.sync_batchnorm
    on_gpus = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    if processes > 1 and few and on_gpus and not cfg.backbone.frozen:
        rank_zero_warn(
            f"batch norm uses only the images of its process ({cfg.data.batch_size} per batch); "
            f"with fewer than {SMALL_BATCH}, set trainer.sync_batchnorm=true to use those of all"
        )
    if cfg.head.norm == "batch" and batches < needed:
        change = momentum < momentum_for(batches)
        rank_zero_warn(
            f"batch norm needs about {needed} batches to forget its initial statistics at "
            f"head.norm_momentum={momentum}, but this run has {batches}, so evaluation will use "
            f"stale statistics; train longer{', or set head.norm_momentum=auto' * change}"
        )


def _check_average(cfg: Train, steps: int) -> None:
    decay = cfg.optimizer.ema_decay
    if decay is not None and (reached := reached_decay(decay, steps)) < decay:
        rank_zero_warn(
            f"optimizer.ema_decay={decay} is not reached in this run of {steps} steps: its warm-up "
            f"ends at {reached:.3f}, an average over about {round(1 / (1 - reached))} steps"
        )
