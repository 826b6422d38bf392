"""The geometry of the features, and the rank of what the units make of them."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import log_ndtr
from scipy.stats import norm

from fluoroscope.diagnostics.census import UnitCensus, tail_gain
from fluoroscope.diagnostics.feature_moments import FeatureMoments, dead_expected
from fluoroscope.model.activations import make_activation
from fluoroscope.model.head import Head
from tests.diagnostics.truth import Truth, cases
from tests.diagnostics.truth.shares import closed_census, normal

DRAWS, UNITS, F, IMAGES = 300, 250, 1_024, 9
SHAPES = ((0.0, 4), (0.3, 8), (1.0, 9), (1.0, 120), (3.0, 100), (0.01, 10**6), (50.0, 10**6))
EXPECTED = "E_u Phi(-gamma u)^N"


def integral(gamma, images):
    """Where it is not 0: u from -40 on, in pieces around the place at which a unit closes."""
    closes = np.sqrt(2 * np.log(images + 1)) / max(gamma, 1e-3)
    around = [u for u in (-closes, -closes / 2, closes) if abs(u) < 40]
    pieces = sorted({-40.0, *around, 0.0, 40.0})
    total = 0.0
    for low, high in pairwise(pieces):
        total += quad(
            lambda u: norm.pdf(u) * np.exp(images * log_ndtr(-gamma * u)),
            low,
            high,
            epsabs=1e-13,
            limit=500,
        )[0]
    return total


@cases(*SHAPES)
def dead_expected_of_gamma_and_n(gamma, images):
    expected = integral(gamma, images)
    return Truth(EXPECTED, expected, dead_expected(gamma, images), 1e-9, "quadrature")


@cases(1, 9, 255, 10**6)
def dead_expected_at_gamma_1(images):
    return Truth("1 / (N + 1)", 1 / (images + 1), dead_expected(1.0, images), 1e-9, "quadrature")


@cache
def projections():
    """W m and W noise of DRAWS random weights, m a unit direction: `[U]` and `[N, U]`."""
    drawn = []
    for seed in range(DRAWS):
        kernel, noise = normal(F, UNITS, seed=2 * seed), normal(IMAGES, F, seed=2 * seed + 1)
        drawn.append((kernel[0], noise @ kernel))  # m the first axis
    return drawn


@cache
def random_units(gamma):
    """Dead and always-on share by draw, `[DRAWS, 2]`; the trace of the noise is F."""
    shares = []
    for along, across in projections():
        census, values = closed_census(gamma * math.sqrt(F) * along + across)
        on = (census.gate_open_share == 1).double().mean().item()
        shares.append((values["dead_frac"], on))
    return np.array(shares)


@cases(*[(gamma, side) for gamma in (0.3, 1.0, 3.0) for side in ("dead", "always on")])
def random_units_over_9_images(gamma, side):
    shares = random_units(gamma)[:, ("dead", "always on").index(side)]
    expected = integral(gamma, IMAGES)
    # In F dimensions the noise of two images has a correlation of 1 / sqrt(F): per pair of images
    # its square adds to the chance that both leave a unit closed.
    error = 4.5 * shares.std() / math.sqrt(DRAWS) + math.comb(IMAGES, 2) / F * expected
    because = f"4.5 se of {DRAWS} x {UNITS} units, and F = {F}"
    return Truth(EXPECTED, expected, shares.mean(), error, because)


@cases(0.0, 0.4, 1.0, 7.0)
def feature_gamma_of(gamma):
    images, width = 3_000, 31
    noise = normal(images, width, dtype=torch.float64)
    noise = (noise - noise.mean(0)) / noise.std(0, correction=0)  # trace 31, mean 0
    mean = normal(width, seed=1, dtype=torch.float64)
    f = noise + mean * gamma * math.sqrt(width) / mean.norm()
    moments = FeatureMoments(width)
    for part in f.split(700):
        moments.update(part)
    measured = moments.compute()["feature_gamma"]
    return Truth("norm(mean) / sqrt(tr cov)", gamma, measured, 1e-7, "rounding")


def rank_of(a, batch=7):
    census = UnitCensus(make_activation("identity"), a.shape[1])
    for part in a.split(batch):
        census.update(part)
    return census.compute()["effective_rank"]


def orthonormal(rows, columns, seed):
    return torch.linalg.qr(normal(rows, columns, seed=seed, dtype=torch.float64))[0]


@cases(
    (40, 17, (5.0, 3.0, 2.0, 1.0, 0.5, 0.1)),
    (40, 17, (1.0, 1.0, 1.0)),
    (5, 17, (3.0, 3.0, 3.0, 3.0, 3.0)),
)
def effective_rank_of_singular_values(images, width, singular):
    s = np.array(singular)
    share = s / s.sum()
    left, right = orthonormal(images, len(s), 0), orthonormal(width, len(s), 1)
    expected = np.exp(-(share * np.log(share)).sum())
    measured = rank_of(left * torch.from_numpy(s) @ right.T)
    # 1e-16 of a squared singular value is 1e-8 of one, in each of the other directions.
    return Truth("exp(-sum p log p), p = s / sum s", expected, measured, 1e-5, "eigenvalues")


@cases((23, 61), (200, 61))
def effective_rank_of_relu_units(images, width):
    z = normal(images, width, seed=2, dtype=torch.float64)
    s = np.linalg.svd(np.maximum(z.numpy(), 0), compute_uv=False)
    share = s / s.sum()
    census = UnitCensus(make_activation("relu"), width)
    for part in z.split(7):
        census.update(part)
    expected = np.exp(-(share * np.log(share)).sum())
    measured = census.compute()["effective_rank"]
    return Truth("the same of numpy's SVD", expected, measured, 1e-4, "eigenvalues")


@cases()
def bn_tail_gain_by_hand():
    head = Head(3, 1, width=4)
    head.norm.weight.data = torch.tensor([1.0, -3.0, 0.5, 2.0])
    head.norm.running_var.data = torch.tensor([1.0, 0.008, 0.249, 8.999])  # eps is 1e-3
    formula = "3 / sqrt(0.008 + eps), the largest of four"
    return Truth(formula, 3 / math.sqrt(9e-3), tail_gain(head.norm).item(), 1e-4, "float32")
