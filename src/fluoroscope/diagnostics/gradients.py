"""Measures of the gradient that reaches the parts of a head."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

RESTRICTED_TO = 8
GRAD_DORMANT = 0.01


def l2(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients of the parameters, on their device; NaN if there is none.

    No gradient means frozen or absent, which is not the same as a gradient of zero.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(float("nan"))
    return torch.nn.utils.get_total_norm(grads)


def parts(backbone: nn.Module, head: Any) -> dict[str, list[nn.Parameter]]:
    """Parameters of the whole model, of its halves and of the layers of its head, by name."""
    return {
        "total": [*backbone.parameters(), *head.parameters()],
        "backbone": [*backbone.parameters()],
        "head": [*head.parameters()],
        "head_dense": [*head.dense.parameters()],
        "head_norm": [*head.norm.parameters()],
        "head_out": [*head.out.parameters()],
    }


class FeatureGradient:
    """The gradient that reaches the backbone: dL/df of each batch, with features f `[B, F]`.

    Attributes:
        squares: sum of squares over the batches of the accumulated gradient, float64; None before
            the first batch.
        counts: images without gradient, and all images, of the window; None before the first one.
    """

    def __init__(self) -> None:
        self.squares: Tensor | None = None
        self.counts: Tensor | None = None

    def count(self, gradient: Tensor, known: Tensor | None = None) -> None:
        """Count the images of a batch whose row of `gradient` is exactly zero.

        Args:
            gradient: dL/df `[B, F]`, or any tensor with the same zero rows.
            known: bool `[B]`, images with a label; the others never get a gradient and do not
                count. None counts all images.
        """
        zero = (gradient == 0).all(dim=1)
        known = torch.ones_like(zero) if known is None else known
        counts = torch.stack([(zero & known).sum(), known.sum()])
        self.counts = counts if self.counts is None else self.counts + counts

    def measure(self, gradient: Tensor) -> None:
        """Add the squares of dL/df of a batch, `[B, F]`."""
        squares = gradient.detach().double().square().sum()
        self.squares = squares if self.squares is None else self.squares + squares


class GateEffect:
    """Compares the feature gradient of a step with and without the activation's gate.

    With d = dL/da, g the gates and J the Jacobian from features to pre-activations, the gradient
    with the gate is (d g) J, without it d J; both over units open on at least 8 images of a
    process's batch. Without this restriction the ratio means nothing: behind batch norm, a unit
    open on one image keeps eps / (var + eps)^1.5 of its gradient, from almost 0 to 1 / sqrt(eps)
    times it, and the gradient of a unit open on two images is amplified most.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.sums: Tensor | None = None  # squared norm with the gate, without it, their product

    def update(
        self, pre_activation: Callable[[Tensor], Tensor], features: Tensor, gate: Tensor, da: Tensor
    ) -> None:
        """Add a batch.

        Args:
            pre_activation: the function from features to pre-activations.
            features: `[B, F]`.
            gate: `[B, D]`.
            da: dL/da `[B, D]`.
        """
        often = (gate.abs() > self.tolerance).sum(dim=0) >= RESTRICTED_TO
        da = da.detach() * often
        with_gate, without = _pull_back(pre_activation, features, [da * gate, da])
        products = [with_gate * with_gate, without * without, with_gate * without]
        sums = torch.stack([product.double().sum() for product in products])
        self.sums = sums if self.sums is None else self.sums + sums

    @staticmethod
    def values(sums: Tensor) -> tuple[Tensor, Tensor]:
        """Ratio of the norms and cosine, from the sums of all processes; NaN without such units."""
        with_gate, without, both = sums
        return (with_gate / without).sqrt(), both / (with_gate * without).sqrt()


def _pull_back(
    pre_activation: Callable[[Tensor], Tensor], features: Tensor, cotangents: list[Tensor]
) -> list[Tensor]:
    """Map cotangents of the pre-activations `[B, D]` to those of the features `[B, F]`."""
    f = features.detach().requires_grad_()
    with torch.enable_grad():
        z = pre_activation(f)
    return [torch.autograd.grad(z, f, c.to(z.dtype), retain_graph=True)[0] for c in cotangents]


def ratio(counts: Tensor | None) -> float:
    """First count over the second; NaN if there is nothing to count."""
    part, whole = (0, 0) if counts is None else counts.tolist()
    return part / whole if whole else math.nan


class UnitGradient:
    """The gradient score of each unit: its mean abs dL/dz, over the layer's mean of that.

    A unit with an open gate learns nothing if no image sends it a gradient, or too few do.

    Attributes:
        sums: of abs dL/dz over the images of the window, float64 `[D]`; None before the first.

    Source: J. Liu et al. 2025, "Measure gradients, not activations!" (GraMa, arXiv:2505.24061).
        Units with a score of at most 0.01, the threshold of AgileRL's ReGraMa, are dormant.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def update(self, dz: Tensor) -> None:
        """Add dL/dz `[B, D]` of a batch, at any scale that all batches of a window share."""
        # A loss scale that overflowed once must not hide the rest of the window.
        sums = dz.detach().abs().sum(dim=0).double().nan_to_num(0.0, 0.0, 0.0)
        self.sums = sums if self.sums is None else self.sums + sums


def gradient_score(sums: Tensor) -> Tensor:
    """Score of each unit `[D]` from the sums of `UnitGradient`; NaN if no unit has a gradient."""
    return sums / sums.mean()


def is_dormant(score: Tensor) -> Tensor:
    """Units `[D]` that learn nothing; all of them if no unit has a gradient."""
    return ~(score > GRAD_DORMANT)


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
