"""Moments of the backbone's features, and the share of dead units that they alone predict."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fluoroscope.diagnostics.census import LARGEST
from fluoroscope.elementwise import as_tensor


class FeatureMoments(Metric):
    """Mean and spread of the features `[B, F]` over a window, merged exactly across processes.

    Images with a feature that is NaN, infinite or above 1e150 are left out.

    Attributes:
        mean: mean features of the window that `compute` closed, float64 `[F]`.
    """

    full_state_update = False

    images: Tensor
    total: Tensor
    squares: Tensor

    @torch.inference_mode(False)  # sums made in it could not be added to outside of it
    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        squares = torch.tensor(0.0, dtype=torch.float64)
        self.add_state("squares", squares, dist_reduce_fx="sum")
        self.mean = torch.full((width,), math.nan, dtype=torch.float64)

    def update(self, features: Any) -> None:
        """Add the features `[B, F]` of a batch, a tensor or a numpy array.

        Raises:
            ValueError: if `features` has another shape.
        """
        features = as_tensor(features).detach().to(self.total)
        if features.ndim != 2 or features.shape[1] != len(self.total):
            wanted = f"[B, {len(self.total)}]"
            raise ValueError(f"features must have the shape {wanted}; got {list(features.shape)}")
        finite = (features.abs() <= LARGEST).all(dim=1)
        features = features.where(finite[:, None], 0.0)
        self.images += finite.sum()
        self.total += features.sum(dim=0)
        self.squares += features.square().sum()

    @torch.inference_mode(False)
    def reset(self) -> None:
        super().reset()

    def compute(self) -> dict[str, float]:
        """`feature_gamma`, norm(mean f) / sqrt(tr cov f), and `dead_expected_frac`, the share of
        dead ReLU units that it predicts before any training; NaN for a window without images.

        The covariance is divided by N. The square of `feature_gamma` exceeds that of the images'
        population by about (1 + gamma^2) / N: 1 / N since the mean of N images is noisy,
        gamma^2 / N since their spread around it is too small. Infinite if all images are equal.
        """
        n = self.images.double()
        self.mean = self.total / n
        common = self.mean.square().sum()
        spread = (self.squares / n - common).clamp(min=0)
        images, gamma = torch.stack([n, (common / spread).sqrt()]).tolist()
        expected = dead_expected(gamma, int(images))
        return {"feature_gamma": gamma, "dead_expected_frac": expected}


def dead_expected(gamma: float, images: int) -> float:
    """E_u[Phi(-gamma u)^N], u standard normal: a unit with random weights and no bias is closed
    on all N images because its weights point away from what the images have in common.

    The formula assumes that the features spread in many directions. If a few directions hold most
    of the spread, geometry alone makes more units dead: at gamma 1 and 120 images 1.2 % with 20
    directions and 4.8 % with 3, against 0.8 % by this formula.

    Args:
        gamma: norm of the features' mean over their spread; for its bias see
            `FeatureMoments.compute`.
        images: N.

    >>> round(dead_expected(0.0, 4), 6), round(dead_expected(1.0, 9), 6)  # 2^-N and 1 / (N + 1)
    (0.0625, 0.1)
    """
    if not images or math.isnan(gamma):
        return math.nan
    gamma = min(gamma, 1e9)  # features without any spread: half of the units are dead
    # With v = u max(gamma, 1) both factors vary on a scale of about 1. Beyond 12 their product is
    # 0, except for units so far below zero that they are surely closed.
    scale = max(gamma, 1.0)
    v = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    weight = torch.exp(-((v / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
    closed = torch.exp(images * torch.special.log_ndtr(-v * gamma / scale))
    surely = torch.special.ndtr(torch.tensor(-12 / scale, dtype=torch.float64))
    return float(torch.trapezoid(weight * closed, v) + surely)
