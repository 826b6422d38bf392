"""Gradients through the head, and what batch norm leaves of a rarely open or dead unit."""

import math
from functools import cache

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from fluoroscope.diagnostics.gradients import FeatureGradient, l2, parts
from fluoroscope.model.head import Head
from tests.diagnostics.truth import Truth, cases
from tests.diagnostics.truth.shares import normal

B, C, F, D, K, EPS = 32, 7, 13, 19, 3, 1e-3
ROUNDING = "float64"


def make_head(seed=0, width=D, **keys):
    torch.manual_seed(seed)
    return Head(F, K, width=width, **keys).double()


def normal64(*shape, seed=0):
    return normal(*shape, seed=seed, dtype=torch.float64)


@cache
def by_autograd():
    """Gradients of the mean cross-entropy by name, and the meters that saw them."""
    head, backbone = make_head(), nn.Linear(C, F).double()
    head.dense.bias.data = torch.linspace(-2, 2, D, dtype=torch.float64)
    head.norm.weight.data, head.norm.bias.data = 1 + normal64(D, seed=4), normal64(D, seed=5)
    x, y = normal64(B, C, seed=1), (normal64(B, K, seed=2) > 0).double()
    f = backbone(x)
    f.retain_grad()
    nn.functional.binary_cross_entropy_with_logits(head(f), y).backward()
    meter = FeatureGradient()
    meter.count(f.grad)
    meter.measure(f.grad)
    norms = {name: l2(part) for name, part in parts(backbone, head).items()}
    grads = {name: p.grad for name, p in head.named_parameters()} | {"features": f.grad}
    measured = {name: grad.numpy() for name, grad in grads.items()}
    return head, f.detach().numpy(), x.numpy(), y.numpy(), measured, meter, norms


@cache
def by_hand():
    """The same in numpy, in the order of the chain rule."""
    head, f, x, y, *_ = by_autograd()
    p = {name: value.detach().numpy() for name, value in head.named_parameters()}
    z = f @ p["dense.weight"].T + p["dense.bias"]
    a = np.maximum(z, 0)
    sigma = np.sqrt(a.var(axis=0) + EPS)
    normed = (a - a.mean(axis=0)) / sigma
    h = normed * p["norm.weight"] + p["norm.bias"]
    d_logits = (expit(h @ p["out.weight"].T + p["out.bias"]) - y) / y.size
    d_h = d_logits @ p["out.weight"]
    centred = d_h - d_h.mean(axis=0) - normed * (d_h * normed).mean(axis=0)
    d_z = (z > 0) * p["norm.weight"] / sigma * centred
    return {
        "features": d_z @ p["dense.weight"],
        "dense.weight": d_z.T @ f,
        "dense.bias": d_z.sum(axis=0),
        "norm.weight": (d_h * normed).sum(axis=0),
        "norm.bias": d_h.sum(axis=0),
        "out.weight": d_logits.T @ h,
        "out.bias": d_logits.sum(axis=0),
        "backbone.weight": (d_z @ p["dense.weight"]).T @ x,
        "backbone.bias": (d_z @ p["dense.weight"]).sum(axis=0),
    }


@cases("features", "dense.weight", "dense.bias", "norm.weight", "norm.bias", "out.weight")
def gradient_through_dense_relu_batchnorm(name):
    expected, measured = by_hand()[name], by_autograd()[4][name]
    off = np.linalg.norm(measured - expected) / np.linalg.norm(expected)
    formula = "d_z = 1[z > 0] gamma / sigma (d - mean d - x mean(d x)), relative difference"
    return Truth(formula, 0, off, 1e-12, ROUNDING)


PARTS = {
    "total": ("dense.", "norm.", "out.", "backbone."),
    "backbone": ("backbone.",),
    "head": ("dense.", "norm.", "out."),
    "head_dense": ("dense.",),
    "head_norm": ("norm.",),
    "head_out": ("out.",),
    "features": ("features",),
}


@cases(*PARTS)
def l2_norm_of_gradient(part):
    grads = [grad for name, grad in by_hand().items() if name.startswith(PARTS[part])]
    expected = math.sqrt(sum(np.square(grad).sum() for grad in grads))
    *_, meter, measured = by_autograd()
    value = meter.squares.sqrt() if part == "features" else measured[part]
    return Truth("of numpy's gradients", expected, float(value), 1e-12, ROUNDING)


def taps(head, f, cotangent):
    """Activations `[B, D]`, and the gradients that arrive at them and at the outputs of norm."""
    kept = []
    for layer in (head.activation, head.norm):
        layer.register_forward_hook(lambda m, inputs, output: kept.append(output))
    logits = head(f)
    d_a, d_h = torch.autograd.grad(logits, kept, cotangent)
    return kept[0].detach(), d_a, d_h


@cases(0.1, 1.0, 10.0, 100.0)
def gradient_left_to_a_unit_open_on_one_image_of_32(spread):
    """With a > 0 on one image i of B and 0 elsewhere, sum_k d_k (a_k - mean) = a (d_i - mean d)
    and (a_i - mean) a / B = var, so that batch norm's backward leaves 1 - var / (var + eps).

    Args:
        spread: of the features, and with them of z.
    """
    head, f, unit = make_head(1), spread * normal64(B, F, seed=1), 4
    highest = (f @ head.dense.weight[unit].detach()).topk(2)
    with torch.no_grad():
        head.dense.bias[unit], head.norm.weight[unit] = -highest.values.mean(), 1.7
    a, d_a, d_h = taps(head, f, normal64(B, K, seed=9))
    assert (a[:, unit] > 0).sum() == 1
    arrives = d_h[:, unit] - d_h[:, unit].mean()
    image, var = highest.indices[0], a[:, unit].var(correction=0).item()
    expected = EPS / (var + EPS) ** 1.5
    measured = (d_a[image, unit] / arrives[image]).item() / 1.7
    formula = f"eps / (var + eps)^1.5 of gamma (d - mean d), var = {var:.2g}"
    return Truth(formula, expected, measured, 1e-9 * expected, ROUNDING)


@cases("training", "evaluation")
def a_dead_unit_leaves_batch_norm_as_its_bias(mode):
    head = make_head(norm_momentum=0.1)
    head.norm.weight.data, head.norm.bias.data = 1 + normal64(D, seed=4), normal64(D, seed=5)
    head(normal64(B, F))  # alive at first: the running statistics must forget it
    head.dense.bias.data.fill_(-100)
    for seed in range(400 if mode == "evaluation" else 1):
        head(normal64(B, F, seed=seed))
    left = []
    head.norm.register_forward_hook(lambda m, inputs, output: left.append(output.detach()))
    head.train(mode == "training")(normal64(B, F))
    off = (left[0] - head.norm.bias).abs().max().item()
    error = 0 if mode == "training" else 1e-14
    return Truth("norm.bias, largest difference", 0, off, error, "0.9^400 of the past")
