"""The feature gradient with the activation's gate against without it."""

import copy
import math
from functools import cache

import torch
from torch import nn

from fluoroscope.diagnostics.census import gate
from fluoroscope.diagnostics.gradients import GateEffect
from fluoroscope.model.head import Head
from tests.diagnostics.truth import Truth, cases
from tests.diagnostics.truth.activations import quadrature
from tests.diagnostics.truth.backward import ROUNDING, B, D, F, K, make_head, normal64
from tests.diagnostics.truth.shares import normal


class Through(nn.Module):
    """ReLU forwards, a straight line backwards."""

    def forward(self, z):
        return z + (z.relu() - z).detach()


class Restricted(nn.Module):
    """An activation that passes on the gradient of some units alone."""

    def __init__(self, activation, units):
        super().__init__()
        self.activation, self.units = activation, units

    def forward(self, z):
        a = self.activation(z)
        a.register_hook(lambda grad: grad * self.units)
        return a


def feature_gradient(head, f, cotangent, activation):
    other, f = copy.deepcopy(head), f.clone().requires_grad_()
    other.activation = activation
    return torch.autograd.grad(other(f), f, cotangent)[0]


def by_autograd(head, f, z, cotangent):
    """Norm of the gradient with the gate over without it, and cosine: through the whole head.

    Args:
        cotangent: dL/dlogits.
    """
    often = (z > 0).sum(dim=0) >= 8
    assert ((z > 0).any(dim=0) & ~often).any()
    gated, through = (
        feature_gradient(head, f, cotangent, Restricted(phi, often))
        for phi in (nn.ReLU(), Through())
    )
    ratio = gated.norm() / through.norm()
    cosine = (gated * through).sum() / (gated.norm() * through.norm())
    return {"gate_transmission": ratio.item(), "gate_cosine": cosine.item()}


def biased_head(order, norm):
    """Some units are open on few images."""
    head = make_head(2, order=order, norm=norm)
    last = head.norm if order == "norm-activation" and norm != "none" else head.dense
    last.bias.data = torch.linspace(-3, 2, D, dtype=torch.float64)
    return head


@cache
def gate_effect(order, norm):
    """What autograd finds, and what the meter does."""
    head, f, cotangent = biased_head(order, norm), normal64(B, F), normal64(B, K, seed=9)
    taps = []
    hook = head.activation.register_forward_hook(lambda phi, inputs, a: taps.extend((*inputs, a)))
    logits = head(f)
    hook.remove()
    z, arrives = taps[0].detach(), torch.autograd.grad(logits, taps[1], cotangent)[0]
    meter = GateEffect(1e-6)
    meter.update(head.pre_activation, f, gate(head.activation, z)[1], arrives)
    return by_autograd(head, f, z, cotangent), dict(
        zip(KEYS, GateEffect.values(meter.sums), strict=True)
    )


STRAIGHT = "dL/df with phi' against dL/df with phi' = 1, by autograd"
KEYS = ("gate_transmission", "gate_cosine")
ORDERS = [
    ("activation-norm", "batch"),
    ("activation-norm", "layer"),
    ("activation-norm", "none"),
    ("norm-activation", "batch"),
    ("norm-activation", "layer"),
]


@cases(*[(key, *order) for order in ORDERS for key in KEYS])
def gate_effect_against_a_straight_through_head(key, order, norm):
    expected, measured = gate_effect(order, norm)
    return Truth(STRAIGHT, expected[key], measured[key].item(), 1e-9, ROUNDING)


WIDE = {"in_features": 512, "num_labels": 64, "width": 2_048}
DRAWN = "512 x 2048 random weights"


def wide_head(norm, activation):
    torch.manual_seed(6)
    return Head(**WIDE, norm=norm, activation=activation)


@cases(*KEYS)
def relu_without_norm_on_independent_units(key):
    head, f = wide_head("none", "relu"), normal(64, 512, seed=7)
    z = head.dense(f).detach()
    arrives = normal(64, 64, seed=8) @ head.out.weight.detach()  # dL/da of random dL/dlogits
    meter = GateEffect(1e-6)
    meter.update(head.pre_activation, f, gate(head.activation, z)[1], arrives)
    measured = GateEffect.values(meter.sums)[KEYS.index(key)].item()
    return Truth("sqrt(1/2): half of the terms", math.sqrt(1 / 2), measured, 0.01, DRAWN)


@cases("relu", "elu", "gelu", "tanh")
def feature_gradient_behind_batch_norm_against_a_linear_head(activation):
    """The same dL/dlogits, weights and features, z standard normal: batch norm divides by the
    spread of a, and the gate lets E g^2 of the power pass.
    """
    f, cotangent = normal(512, 512, seed=7), normal(512, 64, seed=8)
    f *= math.sqrt((512 + 2_048) / 2 / 512)  # glorot's variance of a weight is 2 / (F + D)
    sizes = []
    for name in (activation, "identity"):
        head, x = wide_head("batch", name), f.clone().requires_grad_()
        sizes.append(torch.autograd.grad(head(x), x, cotangent)[0].norm().item())
    square, _, variance = quadrature(activation)
    expected = math.sqrt(square / variance)
    formula = "sqrt(E g^2 / var a), " + ("1.211" if activation == "relu" else "z normal")
    return Truth(formula, expected, sizes[0] / sizes[1], 0.01, DRAWN)
