"""The numbers of a watched layer by numpy, from a twin network that records its pre-activations."""

import copy

import numpy as np
import torch
from scipy.stats import norm
from torch import nn


def logistic(z):
    return 1 / (1 + np.exp(-z.clip(-700)))


# a and da/dz, as textbooks have them.
PHI = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "gelu": (lambda z: z * norm.cdf(z), lambda z: norm.cdf(z) + z * norm.pdf(z)),
    "silu": (
        lambda z: z * logistic(z),
        lambda z: logistic(z) * (1 + z * (1 - logistic(z))),
    ),
}


class Recorded(nn.Module):
    """An activation that keeps its pre-activations, and autograd's gradient of them."""

    def __init__(self, phi):
        super().__init__()
        self.phi, self.calls = phi, []

    def forward(self, z):
        own = z.clone()  # other uses of z do not reach its gradient
        if own.requires_grad:
            own.retain_grad()
        self.calls.append(own)
        return self.phi(own)


OUT_OF_PLACE = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}


def twin(model, layers):
    """A copy of the network whose layers record, and they by name.

    Args:
        layers: kind of activation by module name.
    """
    model = copy.deepcopy(model)
    recorded = {}
    for name, kind in layers.items():
        recorded[name] = Recorded(OUT_OF_PLACE[kind])
        model.set_submodule(name, recorded[name])
    return model, recorded


def expected(kind, calls, dim, tolerance=1e-6):
    """The numbers of one layer from its calls, each a tensor with its gradient."""
    phi, slope = PHI[kind]
    zs = [z.detach().double().movedim(dim, -1).numpy() for z in calls]
    flat = np.concatenate([z.reshape(-1, z.shape[-1]) for z in zs])
    a, opened = phi(flat), np.abs(slope(flat)) > tolerance
    dead = ~opened.any(0)
    linear = []
    for x, y in zip(flat.T, a.T, strict=True):
        constant = x.std() < 1e-12 or y.std() < 1e-12
        linear.append(constant or np.corrcoef(x, y)[0, 1] ** 2 > 0.99)
    linear = np.array(linear) & ~dead
    black = [~(np.abs(slope(image)) > tolerance).any() for z in zs for image in z]
    found = {
        "dead_frac": dead.mean(),
        "linear_frac": linear.mean(),
        "nonlinear_frac": (~dead & ~linear).mean(),
        "gate_open_frac": opened.mean(),
        "nonfinite_frac": 0.0,
        "blackout_frac": np.mean(black),
        "grad_dormant_frac": np.nan,
        "grad_l2": np.nan,
        "images": len(black),
        "units": flat.shape[1],
    }
    grads = [z.grad.double().movedim(dim, -1).numpy() for z in calls if z.grad is not None]
    if grads:
        sums = sum(np.abs(g.reshape(-1, g.shape[-1])).sum(0) for g in grads)
        found["grad_dormant_frac"] = np.mean(~(sums / sums.mean() > 0.01))
        found["grad_l2"] = np.sqrt(np.mean([(g**2).sum() for g in grads]))
    return found
