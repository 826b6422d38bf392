"""Gates: moments under a standard normal z, and where they close in finite precision."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from fluoroscope.diagnostics.census import UnitCensus, correlation2, gate
from fluoroscope.model.activations import make_activation
from tests.diagnostics.truth import Truth, cases, standard_errors
from tests.diagnostics.truth.shares import closed_census, normal

QUANTILES, UNITS, SPREAD = 400_001, 50_000, 4.0
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def logistic(z):
    return 1 / (1 + np.exp(-z))


def mish(z):
    return z * np.tanh(np.log1p(np.exp(z)))


def mish_gate(z):
    squashed = np.tanh(np.log1p(np.exp(z)))
    return squashed + z * (1 - squashed**2) * logistic(z)


def tanh_of(z):
    return math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)


def gelu_tanh_gate(z):
    gate = logistic(2 * tanh_of(z))
    return gate + 2 * z * gate * (1 - gate) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)


# phi and its derivative, as they are written in the papers.
FORMULAS = {
    "relu": (lambda z: max(z, 0), lambda z: z > 0),
    "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1 if z > 0 else 0.01),
    "prelu": (lambda z: z if z > 0 else 0.25 * z, lambda z: 1 if z > 0 else 0.25),
    "elu": (lambda z: z if z > 0 else np.expm1(z), lambda z: 1 if z > 0 else np.exp(z)),
    "selu": (
        lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * np.expm1(z)),
        lambda z: SELU_SCALE * (1 if z > 0 else SELU_ALPHA * np.exp(z)),
    ),
    "celu": (lambda z: z if z > 0 else np.expm1(z), lambda z: 1 if z > 0 else np.exp(z)),
    "gelu": (lambda z: z * ndtr(z), lambda z: ndtr(z) + z * norm.pdf(z)),
    "silu": (
        lambda z: z * logistic(z),
        lambda z: logistic(z) * (1 + z * (1 - logistic(z))),
    ),
    "mish": (mish, mish_gate),
    "hardswish": (
        lambda z: z * min(max(z + 3, 0), 6) / 6,
        lambda z: 0 if z < -3 else 1 if z > 3 else (2 * z + 3) / 6,
    ),
    "softplus": (lambda z: np.log1p(np.exp(z)), logistic),
    "tanh": (np.tanh, lambda z: np.cosh(z) ** -2),
    "sigmoid": (logistic, lambda z: logistic(z) * (1 - logistic(z))),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: (1 + abs(z)) ** -2),
    "relu6": (lambda z: min(max(z, 0), 6), lambda z: 0 < z < 6),
    "hard_sigmoid": (lambda z: min(max(z + 3, 0), 6) / 6, lambda z: (-3 < z < 3) / 6),
    "hard_mish": (
        lambda z: z * min(max(z + 2, 0), 2) / 2,
        lambda z: 0 if z < -2 else 1 if z > 0 else z + 1,
    ),
    "gelu_tanh": (lambda z: z * logistic(2 * tanh_of(z)), gelu_tanh_gate),
    "quick_gelu": (
        lambda z: z * logistic(1.702 * z),
        lambda z: logistic(1.702 * z) * (1 + 1.702 * z * logistic(-1.702 * z)),
    ),
    "identity": (lambda z: z, lambda z: 1),
}

# Of the project's design.
PUBLISHED = {
    "relu": (0.5, 0.7335),
    "gelu": (0.4559, 0.7233),
    "silu": (0.3795, 0.7985),
    "elu": (0.6681, 0.9367),
    "tanh": (0.4644, 0.9305),
    "sigmoid": (0.0448, 0.9842),
    "identity": (1.0, 1.0),
}


def expectation(function):
    """Over a standard normal, between the kinks of the activations."""
    pairs = pairwise((-12, -6, -3, -2, 0, 3, 6, 12))
    return sum(quad(lambda z: function(z) * norm.pdf(z), *pair)[0] for pair in pairs)


@cache
def quadrature(name, mean=0.0, spread=1.0):
    """E g^2, corr(z, a)^2 and var a of a normal z; by Stein's lemma cov(z, a) = spread^2 E g."""
    phi, derivative = FORMULAS[name]
    over_z = lambda function: expectation(lambda u: function(mean + spread * u))  # noqa: E731
    variance = over_z(lambda z: phi(z) ** 2) - over_z(phi) ** 2
    square, corr2 = over_z(lambda z: derivative(z) ** 2), over_z(derivative) ** 2 / variance
    return square, spread**2 * corr2, variance


@cache
def census_moments(name, mean=0.0, spread=1.0):
    """E g^2 and corr(z, a)^2 of a census over the quantiles of a normal z."""
    quantiles = ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES)
    census = UnitCensus(make_activation(name).double(), 1, effective_rank=False)
    census.update(torch.from_numpy(mean + spread * quantiles)[:, None])
    corr2 = correlation2(census.moments[:5], census.images)
    return census.gate.square().mean().item(), corr2.item()


ENDS = f"{QUANTILES} quantiles end at 4.6"
STEIN = "corr(z, a)^2 = s^2 (E phi')^2 / var phi"


@cases(*FORMULAS)
def mean_square_gate(name):
    return Truth("E phi'(z)^2", quadrature(name)[0], census_moments(name)[0], 5e-5, ENDS)


@cases(*FORMULAS)
def correlation_of_z_and_a(name):
    return Truth(STEIN, quadrature(name)[1], census_moments(name)[1], 5e-5, ENDS)


@cases(("relu", -1.0, 2.0), ("gelu", 1.0, 0.5), ("tanh", 0.7, 2.0), ("sigmoid", -3.0, 1.0))
def correlation_at_mean_and_spread(name, mean, spread):
    expected, measured = quadrature(name, mean, spread)[1], census_moments(name, mean, spread)[1]
    return Truth(STEIN, expected, measured, 5e-5, ENDS)


@cases("tanh", "gelu", "softplus")
def linear_frac_over_spreads(name):
    """Of units with spreads from 0.02 to 1.5: the narrower, the straighter."""
    spreads = np.linspace(0.02, 1.5, 38)
    expected = np.mean([quadrature(name, spread=spread)[1] > 0.99 for spread in spreads])
    assert 0 < expected < 1
    quantiles = ndtri((np.arange(4_001) + 0.5) / 4_001)
    z = torch.from_numpy(quantiles[:, None] * spreads)
    measured = closed_census(z, name, batch=900)[1]["linear_frac"]
    return Truth("spreads with corr^2 > 0.99", expected, measured, 1e-12, "none is at 0.99")


@cases("gelu", "silu", "mish", "elu", "softplus")
def open_share_at_spread_4(name):
    """Gates below zero are open as well: only the far left tail is closed."""
    closes = brentq(lambda z: abs(FORMULAS[name][1](z)) - 1e-6, -40, -3)
    expected = ndtr(-closes / SPREAD)
    z = SPREAD * normal(UNITS, 1, seed=2, dtype=torch.float64)
    measured = closed_census(z, name)[1]["gate_open_frac"]
    error, because = standard_errors(expected, UNITS), f"4.5 se, {UNITS} images"
    return Truth(f"Phi({-closes:.3g} / 4)", expected, measured, error, because)


@cases(*[(name, i) for name in PUBLISHED for i in (0, 1)])
def published_moments(name, i):
    formula = ("E g^2", "corr(z, a)^2")[i]
    expected, measured = PUBLISHED[name][i], census_moments(name)[i]
    return Truth(formula, expected, measured, 1e-4, "published to 4 digits")


@cases(*[(dtype, name) for dtype in ("float32", "bfloat16") for name in FORMULAS])
def gate_against_autograd(dtype, name):
    z = (6 * normal(4_000, 5)).to(getattr(torch, dtype)).requires_grad_()
    activation = make_activation(name).to(z.dtype)
    expected = torch.autograd.grad(activation(z).sum(), z)[0]
    _, measured = gate(activation, z)
    off = (measured - expected).abs().max().item()
    return Truth("largest difference", 0, off, 0, "bit for bit")


ATANH = math.atanh(math.sqrt(1 - 1e-6))
LOGIT = -math.log(1e-6)
# (dtype, activation, side) -> z where the gate closes, its tolerance, formula, why the tolerance.
CLOSES = {
    ("float32", "tanh", 1): (ATANH, 0.06, "atanh(sqrt(1 - 1e-6))", "1 ulp of a"),
    ("float32", "tanh", -1): (ATANH, 0.06, "atanh(sqrt(1 - 1e-6))", "1 ulp of a"),
    ("float32", "sigmoid", 1): (LOGIT, 0.06, "-log(1e-6)", "1 ulp of a"),
    ("float32", "sigmoid", -1): (LOGIT, 2e-3, "-log(1e-6)", "grid of z"),
    ("bfloat16", "tanh", 1): (math.atanh(1 - 2**-9), 2**-6, "atanh(1 - 2^-9)", "1 ulp of z"),
    ("bfloat16", "tanh", -1): (math.atanh(1 - 2**-9), 2**-6, "atanh(1 - 2^-9)", "1 ulp of z"),
    ("bfloat16", "sigmoid", 1): (math.log(2**9 - 1), 2**-5, "log(2^9 - 1)", "1 ulp of z"),
    ("bfloat16", "sigmoid", -1): (LOGIT, 2**-4, "-log(1e-6)", "1 ulp of z"),
}


@cases(*CLOSES)
def z_at_which_the_gate_closes(dtype, name, side):
    """A unit for each z, on one image: the nearest to 0 that is dead."""
    expected, error, formula, because = CLOSES[dtype, name, side]
    z = side * torch.arange(1, 20, 1e-3, dtype=torch.float64).to(getattr(torch, dtype))
    dead = closed_census(z[None], name)[0].dead
    return Truth(formula, expected, z[dead].abs().min().item(), error, because)


@cases(*[(dtype, name) for dtype in ("float32", "bfloat16") for name in ("tanh", "sigmoid")])
def saturated_units_over_two_images(dtype, name):
    """Of spread 4."""

    def dead(shift):
        ends = [CLOSES[dtype, name, side] for side in (1, -1)]
        return sum(ndtr(-(end[0] + shift * end[1]) / SPREAD) for end in ends) ** 2

    expected = dead(0)
    z = (SPREAD * normal(2, UNITS, seed=1)).to(getattr(torch, dtype))
    measured = closed_census(z, name)[1]["dead_frac"]
    error = standard_errors(expected, UNITS) + dead(-1) - expected
    because = f"4.5 se of {UNITS} units, and that of z"
    return Truth("(Phi(-z+ / s) + Phi(-z- / s))^2", expected, measured, error, because)
