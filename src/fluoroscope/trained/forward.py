"""The forward pass of a trained model over many images."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from fluoroscope.trained.loading import Trained


def predict_batches(trained: Trained, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and features of each batch, in float32 on the CPU.

    Args:
        batches: uint8 `[B, 1, S, S]`, S = `trained.image_px`.

    Yields:
        Logits `[B, K]` and the backbone's features `[B, F]`.
    """
    network = trained.network
    for image in batches:
        with torch.inference_mode():
            features = network.backbone(image.to(trained.device, non_blocking=True))
            logits = network.head(features)
        yield logits.float().cpu(), features.float().cpu()
