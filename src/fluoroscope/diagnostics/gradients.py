"""How much gradient arrives, and where none does."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

RESTRICTED_TO = 8


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

    `squares` is of the batches since the last optimizer step (one if nothing is accumulated), the
    counts of images are over the window. Sums stay on the device.
    """

    def __init__(self) -> None:
        self.squares: Tensor | None = None
        self.counts: Tensor | None = None  # images without gradient, images

    def update(self, grad: Tensor, known: Tensor | None = None) -> None:
        """Add dL/df of a batch, `[B, F]`.

        Args:
            known: bool `[B]`, images with a label; the others get no gradient whatever the head
                does, and do not count. None: all.
        """
        grad = grad.detach()
        known = torch.ones_like(grad[:, 0], dtype=torch.bool) if known is None else known
        squares = grad.double().square().sum()
        counts = torch.stack([((grad == 0).all(dim=1) & known).sum(), known.sum()])
        self.squares = squares if self.squares is None else self.squares + squares
        self.counts = counts if self.counts is None else self.counts + counts

    def end_step(self) -> None:
        """The accumulated gradient was used: a new one begins."""
        self.squares = None

    def reset(self) -> None:
        """Start a new window."""
        self.counts = None


class GateEffect:
    """The feature gradient with the activation's gate against without it, over a step.

    With d = dL/da, g the gates and J the Jacobian from features to pre-activations, the gradient
    with the gate is (d g) J, without it d J; both over units open on at least 8 images of a
    process's batch. Behind batch norm a unit open on one image alone keeps eps / (var + eps)^1.5 of
    its gradient, next to nothing or up to 1 / sqrt(eps) times it, and one open on two has it
    amplified most, so that the unrestricted ratio means nothing.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.sums: Tensor | None = None  # squared norm with the gate, without it, their product

    def update(self, head: Any, features: Tensor, gate: Tensor, grad: Tensor) -> None:
        """Add a batch: features `[B, F]`, gates and dL/da `[B, D]`."""
        often = (gate.abs() > self.tolerance).sum(dim=0) >= RESTRICTED_TO
        grad = grad.detach() * often
        with_gate, without = _pull_back(head, features, [grad * gate, grad])
        products = [with_gate * with_gate, without * without, with_gate * without]
        sums = torch.stack([product.double().sum() for product in products])
        self.sums = sums if self.sums is None else self.sums + sums

    @staticmethod
    def values(sums: Tensor) -> dict[str, Tensor]:
        """Ratio of the norms and cosine, from the sums of all processes; NaN without such units."""
        with_gate, without, both = sums
        return {
            "gate_transmission": (with_gate / without).sqrt(),
            "gate_cosine": both / (with_gate * without).sqrt(),
        }


def _pull_back(head: Any, features: Tensor, cotangents: list[Tensor]) -> list[Tensor]:
    """Cotangents of the pre-activation `[B, D]` to those of the features `[B, F]`.

    Pure functions of the head's parameters: neither hooks nor running statistics take notice.
    """
    dtype = head.dense.weight.dtype
    f = features.detach().to(dtype).requires_grad_()
    with torch.enable_grad():
        z = linear(f, head.dense.weight.detach(), head.dense.bias.detach())
        if head.order == "norm-activation":
            buffers = {name: buffer.clone() for name, buffer in head.norm.named_buffers()}
            z = functional_call(head.norm, buffers, (z,))
    return [torch.autograd.grad(z, f, c.to(dtype), retain_graph=True)[0] for c in cotangents]


def frac(counts: Tensor | None) -> float:
    """First count over the second; NaN where there is nothing to count."""
    part, whole = (0, 0) if counts is None else counts.tolist()
    return part / whole if whole else math.nan


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
