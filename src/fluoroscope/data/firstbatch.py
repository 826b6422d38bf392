"""The first training batch, looked at before any step: what is wrong with it, in sentences."""

import torch
from torch import Tensor

NARROW = 16  # gray levels that the whole batch must exceed
SPREAD = 0.1  # least standard deviation of what the network sees
FAR = 20.0  # from zero: weights never saw such values


def check_batch(image: Tensor, normalised: Tensor) -> list[str]:
    """What is wrong with a batch of images; empty where nothing is.

    Args:
        image: uint8 [B, 1, H, W], as the loader gives it.
        normalised: float [B, C, H, W], as the network sees it, after scaling by its mean and std.
    """
    told = [*_check_pixels(image), *_check_normalised(normalised)]
    return [f"first training batch: {sentence}" for sentence in told]


def _check_pixels(image: Tensor) -> list[str]:
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 1:
        return [f"images are {image.dtype} {list(image.shape)}, not uint8 [B, 1, H, W]"]
    told = []
    low, high = (int(value) for value in image.aminmax())
    if high - low < NARROW:
        told.append(
            f"all pixels lie between {low} and {high} of 0 to 255: the files are read at the wrong "
            "scale, or the augmentation darkens them (data.augment)"
        )
    else:
        pixels = image.flatten(1)
        constant = int((pixels.amin(1) == pixels.amax(1)).sum())
        if constant:
            told.append(
                f"{constant} of {len(image)} images have the same value everywhere: the "
                "augmentation blanks them (data.augment)"
            )
    if len(image) > 1 and bool((image == image[:1]).all()):
        told.append(f"all {len(image)} images are the same: check what names the files")
    return told


def _check_normalised(normalised: Tensor) -> list[str]:
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
