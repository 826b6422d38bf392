"""Maps that say which places of an image raise a logit, by captum.

All maps are float32 `[S, S]` of the network's square input and not negative; a larger value means
more evidence for the finding.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from fluoroscope.errors import InputError
from fluoroscope.explanation.map_layer import Differentiable

# Integrated gradients vary from pixel to pixel; smoothed by this share of the image's side.
SMOOTHING = 0.02
BLUR = 0.1


class Attribution(NamedTuple):
    """One map, and how exactly it adds up.

    Attributes:
        heat: float32 `[S, S]`, not negative.
        explained: of integrated gradients: the logit of the film less that of the baseline.
        error: the sum of the signed attributions less `explained`, which more steps make smaller.
            Both are NaN for Grad-CAM, which does not add up to anything.
    """

    heat: np.ndarray
    explained: float = math.nan
    error: float = math.nan


def check_captum() -> None:
    """Refuse the command if the optional package is not installed.

    Raises:
        InputError: captum cannot be imported.
    """
    try:
        import captum  # noqa: F401
    except ImportError:
        raise InputError(
            "explanations need the package captum; install it with pip install "
            "'fluoroscope[explain]', or pip install -e '.[explain]' in a checkout"
        ) from None


def grad_cam(explained: Differentiable, image: Tensor, label: int) -> Attribution:
    """Grad-CAM at `explained.map`, enlarged to the image.

    Args:
        explained: the network.
        image: uint8 `[1, 1, S, S]`.
        label: number of the logit.

    Source: R. R. Selvaraju and others, Grad-CAM, ICCV (2017), equations 1 and 2.
    """
    from captum.attr import LayerGradCam

    method = LayerGradCam(explained, explained.map)
    given = _floats(explained, image).requires_grad_()
    places = method.attribute(given, target=label, relu_attributions=True)
    heat = torch.nn.functional.interpolate(
        places.detach().float(), image.shape[-2:], mode="bilinear", align_corners=False
    )
    return Attribution(heat[0, 0].cpu().numpy())


def integrated_gradients(
    explained: Differentiable,
    image: Tensor,
    label: int,
    steps: int = 64,
    baseline: str = "blurred",
    batch_size: int = 8,
) -> Attribution:
    """Positive part of integrated gradients, smoothed.

    Args:
        explained: the network.
        image: uint8 `[1, 1, S, S]`.
        label: number of the logit.
        steps: points of the Gauss-Legendre quadrature.
        baseline: name of the image at which the path begins, see `BASELINES`.
        batch_size: images per pass.

    Source: M. Sundararajan and others, Axiomatic attribution for deep networks, ICML (2017).
    """
    from captum.attr import IntegratedGradients

    given = _floats(explained, image)
    start = BASELINES[baseline](given)
    signed, error = IntegratedGradients(explained).attribute(
        given,
        baselines=start,
        target=label,
        n_steps=steps,
        internal_batch_size=batch_size,
        return_convergence_delta=True,
    )
    missing = float(error)
    heat = _smooth(signed[0, 0].detach().cpu().numpy())
    return Attribution(heat, float(signed.sum()) - missing, missing)


def _floats(explained: Differentiable, image: Tensor) -> Tensor:
    return image.to(next(explained.parameters()).device).float()


def _smooth(signed: np.ndarray) -> np.ndarray:
    """The positive part; a Gaussian keeps its sum, except at the border."""
    positive = np.maximum(signed, 0).astype(np.float32)
    sigma = SMOOTHING * positive.shape[0]
    return cv2.GaussianBlur(positive, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _blurred(image: Tensor) -> Tensor:
    gray = image[0, 0].cpu().numpy()
    blurred = cv2.GaussianBlur(gray, (0, 0), BLUR * gray.shape[0])
    return torch.from_numpy(blurred)[None, None].to(image)


# What the network is shown at the beginning of the path. Relative to black, no dark place counts.
BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda image: image.mean().expand_as(image).clone(),
    "black": torch.zeros_like,
    "blurred": _blurred,
}
