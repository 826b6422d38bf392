"""Checks of the batches of a run: their size before it starts, and the first one before a step."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from fluoroscope.config.train import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone

SMALL_BATCH = 16  # below it the statistics of a batch are noise
NARROW = 16  # gray levels that the whole batch must exceed
SPREAD = 0.1  # least standard deviation of what the network sees
FAR = 20.0  # from zero: weights never saw such values


def look_at(image: torch.Tensor, backbone: Backbone) -> None:
    """Refuse images, uint8 [B, 1, H, W], that came out wrong.

    Raises:
        InputError: what `check_batch` finds.
    """
    problems = check_batch(image, backbone.normalise(image))
    if problems:
        raise InputError("; ".join(problems))


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


def check_batch_norm(cfg: Train, data: XrayDataModule, processes: int) -> None:
    """Warn if batch norm will not work as expected: running statistics that still hold their
    initial values, or batch statistics of a few images of one process.

    Raises:
        InputError: the training split does not fill one batch of every process.
    """
    momentum = cfg.head.norm_momentum
    batches = data.train_sampler(world_size=processes).batches * cfg.trainer.max_epochs
    needed = math.ceil(math.log(0.01) / math.log(1 - momentum)) if momentum < 1 else 1
    few = cfg.data.batch_size < SMALL_BATCH and not cfg.trainer.sync_batchnorm
    on_gpus = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    if processes > 1 and few and on_gpus and not cfg.backbone.frozen:
        rank_zero_warn(
            f"batch norm in each process sees its own {cfg.data.batch_size} images alone; with "
            f"fewer than {SMALL_BATCH}, trainer.sync_batchnorm=true lets it see those of all"
        )
    if cfg.head.norm == "batch" and batches < needed:
        enough = math.ceil(100 * (1 - 0.01 ** (1 / batches))) / 100
        rank_zero_warn(
            f"batch norm needs about {needed} batches to forget its start at "
            f"head.norm_momentum={momentum}, and this run has {batches}: evaluation will use stale "
            f"statistics; train longer, or set head.norm_momentum={enough}"
        )


def check_batch(image: torch.Tensor, normalised: torch.Tensor) -> list[str]:
    """What is wrong with a batch of images; empty where nothing is.

    Args:
        image: uint8 [B, 1, H, W], as the loader gives it.
        normalised: float [B, C, H, W], as the network sees it, after scaling by its mean and std.
    """
    problems = [*_check_pixels(image), *_check_normalised(normalised)]
    return [f"first training batch: {sentence}" for sentence in problems]


def _check_pixels(image: torch.Tensor) -> list[str]:
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 1:
        return [f"images are {image.dtype} {list(image.shape)}, not uint8 [B, 1, H, W]"]
    problems = []
    low, high = (int(value) for value in image.aminmax())
    if high - low < NARROW:
        problems.append(
            f"all pixels lie between {low} and {high} of 0 to 255: the files are read at the wrong "
            "scale, or the augmentation darkens them (data.augment)"
        )
    else:
        pixels = image.flatten(1)
        constant = int((pixels.amin(1) == pixels.amax(1)).sum())
        if constant:
            problems.append(
                f"{constant} of {len(image)} images have the same value everywhere: the "
                "augmentation blanks them (data.augment)"
            )
    if len(image) > 1 and bool((image == image[:1]).all()):
        problems.append(f"all {len(image)} images are the same: check what names the files")
    return problems


def _check_normalised(normalised: torch.Tensor) -> list[str]:
    x = normalised.detach().float()
    if not bool(torch.isfinite(x).all()):
        return ["the network sees values that are not finite: check the backbone's mean and std"]
    low, high = (float(value) for value in x.aminmax())
    spread = float(x.std(dim=(0, 2, 3), correction=0).max())  # channels differ in their mean
    if spread < SPREAD or max(-low, high) > FAR:
        return [
            f"the network sees values between {low:.3g} and {high:.3g} with a standard deviation "
            f"of {spread:.3g}, where its weights expect about -2 to 2.7 and 1: the scaling, or the "
            "backbone's mean and std, are wrong"
        ]
    return []
