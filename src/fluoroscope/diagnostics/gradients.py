"""How much gradient arrives, and where none does."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def l2(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients of the parameters, on their device; NaN if there is none.

    No gradient means frozen or absent, which is not the same as a gradient of zero.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(float("nan"))
    return torch.nn.utils.get_total_norm(grads)


def norms(backbone: nn.Module, head: Any) -> dict[str, Tensor]:
    """L2 norms of the accumulated gradient: total, by half, and by layer of the head."""
    return {
        "total": l2([*backbone.parameters(), *head.parameters()]),
        "backbone": l2(backbone.parameters()),
        "head": l2(head.parameters()),
        "head_dense": l2(head.dense.parameters()),
        "head_norm": l2(head.norm.parameters()),
        "head_out": l2(head.out.parameters()),
    }


class FeatureGradient:
    """What reaches the backbone: dL/df of each batch, f the features `[B, F]`.

    `l2` is of the batches since the last optimizer step (one if nothing is accumulated), the
    share of images without any gradient is over the window. Sums stay on the device.
    """

    def __init__(self) -> None:
        self.squares: Tensor | None = None
        self.images = 0
        self.zero_images: Tensor | None = None

    def update(self, grad: Tensor) -> None:
        """Add dL/df of a batch, `[B, F]`."""
        grad = grad.detach()
        squares = grad.double().square().sum()
        zero = (grad == 0).all(dim=1).sum()
        self.squares = squares if self.squares is None else self.squares + squares
        self.zero_images = zero if self.zero_images is None else self.zero_images + zero
        self.images += len(grad)

    def end_step(self) -> None:
        """The accumulated gradient was used: a new one begins."""
        self.squares = None

    def reset(self) -> None:
        """Start a new window."""
        self.images, self.zero_images = 0, None


class StarvedRows:
    """Units whose weights got no gradient at any optimizer step of the window."""

    def __init__(self) -> None:
        self.fed: Tensor | None = None

    def update(self, weight_grad: Tensor) -> None:
        """Add the gradient of a dense weight `[D, F]` at an optimizer step."""
        fed = (weight_grad != 0).any(dim=1)
        self.fed = fed if self.fed is None else self.fed | fed

    def frac(self) -> Tensor:
        """Share of rows with a gradient of exactly zero throughout; NaN before the first step."""
        if self.fed is None:
            return torch.tensor(float("nan"))
        return 1 - self.fed.float().mean()

    def reset(self) -> None:
        """Start a new window."""
        self.fed = None
