"""Check the first batch of a run before the first step."""

from typing import Any

import pytorch_lightning as pl
import torch

from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.image_stats import contrast
from fluoroscope.data.study_table import first_three
from fluoroscope.errors import InputError
from fluoroscope.files.images import read_image
from fluoroscope.model.backbone import Backbone

NARROW = 16  # gray levels that the whole batch must exceed
SPREAD = 0.1  # least standard deviation of what the network sees
FAR = 20.0  # pretrained weights never saw values this far from zero


def look_at(batch: dict[str, torch.Tensor], data: XrayDataModule, backbone: Backbone) -> None:
    """Refuse a batch of images that is unusable.

    Raises:
        InputError: names the problems that `check_batch` finds, and files that cause them.
    """
    seen = backbone.normalise(batch["image"]) / backbone.scale
    if problems := check_batch(batch["image"], seen):
        paths = data.table["path"].iloc[batch["index"].tolist()].tolist()
        raise InputError(_flat_files(paths) or "; ".join(problems))


def _flat_files(paths: list[str]) -> str:
    """A sentence if most of the files have no contrast, which then does not come from the run."""
    flat = [path for path in paths if contrast(read_image(path)) < NARROW]
    if 2 * len(flat) <= len(paths):
        return ""
    return (
        f"first training batch: {len(flat)} of {len(paths)} files have 95% of their pixels within "
        f"{NARROW} of 256 gray levels: {first_three(flat)}; check their window, LUT and bit depth"
    )


class FirstBatch(pl.Callback):
    """Stops a fit whose first images are blank, all equal, or at a scale no weights expect.

    The batch is checked as the network receives it: on its device, augmented and normalised.
    """

    def __init__(self) -> None:
        self.looked = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        """Check the batch, at the first call only."""
        # Images of cached features were checked when the features were computed.
        if not self.looked and batch["image"].ndim == 4:
            look_at(batch, trainer.datamodule, pl_module.backbone)  # type: ignore[attr-defined]
        self.looked = True


def check_batch(image: torch.Tensor, normalised: torch.Tensor) -> list[str]:
    """Problems of a batch of images, one sentence each; empty if there are none.

    Args:
        image: uint8 [B, 1, H, W], as the loader gives it.
        normalised: float [B, C, H, W], as the network sees it, divided by its usual size.
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
            f"all pixels lie between {low} and {high} of 0 to 255: the augmentation darkens or "
            "bleaches them (data.augment)"
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
        problems.append(f"all {len(image)} images are the same: check the file names in the table")
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
            f"of {spread:.3g}, but its weights expect about -2 to 2.7 and 1: the scaling, or the "
            "backbone's mean and std, are wrong"
        ]
    return []
