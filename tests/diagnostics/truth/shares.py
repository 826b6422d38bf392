"""Shares of units, images and networks that are open, dead, rare or dormant."""

import math
from functools import cache

import torch
from scipy.special import ndtr
from scipy.stats import binom

from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.model.activations import make_activation
from tests.diagnostics.truth import Truth, cases, standard_errors

IMAGES, UNITS, NETWORKS, DEPTH = 40_000, 8_000, 4_000, 10
BIASES, SPREADS = (-2.0, -0.5, 0.0, 1.0), (0.5, 1.0, 3.0)
FIVE = (-3.0, -1.0, 0.0, 1.0, 3.0)


def closed_census(z, name="relu", batch=None):
    """The census of pre-activations `[N, D]`, after `compute`, and what that returned."""
    census = UnitCensus(make_activation(name), z.shape[1], effective_rank=False)
    for part in z.split(batch or len(z)):
        census.update(part)
    return census, census.compute()


def normal(*shape, seed=0, **kind):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kind)


@cache
def biased():
    grid = torch.cartesian_prod(torch.tensor(BIASES), torch.tensor(SPREADS))  # [D, 2]
    return closed_census(grid[:, 0] + grid[:, 1] * normal(IMAGES, len(grid)), batch=9_000)


@cases(*[(b, s) for b in BIASES for s in SPREADS])
def gate_open_share_of_bias_and_spread(bias, spread):
    unit = BIASES.index(bias) * len(SPREADS) + SPREADS.index(spread)
    expected = ndtr(bias / spread)
    measured = biased()[0].gate_open_share[unit].item()
    error = standard_errors(expected, IMAGES)
    return Truth("Phi(b / s)", expected, measured, error, f"4.5 se, {IMAGES} images")


@cases()
def gate_open_frac_of_those_units():
    expected = sum(ndtr(b / s) for b in BIASES for s in SPREADS) / 12
    error = standard_errors(expected, 12 * IMAGES)
    because = f"4.5 se, {12 * IMAGES} pairs"
    return Truth("mean of Phi(b / s)", expected, biased()[1]["gate_open_frac"], error, because)


@cache
def five_biases(images):
    bias = torch.tensor(FIVE).repeat_interleave(UNITS)
    return closed_census(bias + normal(images, len(bias), seed=images), batch=7)


@cases(1, 4, 16, 64)
def dead_frac_over_n_images(images):
    expected = sum(ndtr(-b) ** images for b in FIVE) / 5
    error = standard_errors(expected, 5 * UNITS)
    because = f"4.5 se, {5 * UNITS} units"
    measured = five_biases(images)[1]["dead_frac"]
    return Truth("mean over b = -3, -1, 0, 1, 3 of Phi(-b)^N", expected, measured, error, because)


@cases(1, 4, 16, 64)
def always_on_share_over_n_images(images):
    expected = sum(ndtr(b) ** images for b in FIVE) / 5
    error = standard_errors(expected, 5 * UNITS)
    measured = (five_biases(images)[0].gate_open_share == 1).double().mean().item()
    return Truth("mean over b of Phi(b)^N", expected, measured, error, f"4.5 se, {5 * UNITS} units")


@cases(*FIVE)
def dead_share_of_one_bias_over_16_images(bias):
    expected = ndtr(-bias) ** 16
    dead = five_biases(16)[0].dead.view(5, UNITS)[FIVE.index(bias)]
    error = standard_errors(expected, UNITS)
    measured = dead.double().mean().item()
    return Truth("Phi(-b)^16", expected, measured, error, f"4.5 se, {UNITS} units")


@cases()
def linear_frac_of_units_that_are_always_on():
    z = 2 + normal(16, UNITS)
    on = (z > 0).all(dim=0)
    assert 0 < on.sum() < UNITS
    _, values = closed_census(z[:, on])
    return Truth("a = z on the data", 1, values["linear_frac"], 0, "exact")


@cases("rare_frac", "dead_frac", "gate_open_frac")
def units_open_on_0_1_7_8_and_12_of_12_images(key):
    opened = torch.tensor([0, 1, 7, 8, 12])
    z = torch.where(torch.arange(12)[:, None] < opened, 1.0, -1.0)
    z *= torch.arange(1, 13)[:, None]
    expected = {"rare_frac": 2 / 5, "dead_frac": 1 / 5, "gate_open_frac": 28 / 60}[key]
    return Truth("by hand", expected, closed_census(z, batch=5)[1][key], 1e-15, "rounding")


@cases(("dormant_frac_0025", 2), ("dormant_frac_01", 4))
def dormant_units_of_mean_abs_a_0_02_03_09_11_and_more(key, dormant):
    size = torch.tensor([0, 0.02, 0.03, 0.09, 0.11, 2.5, 2.25])
    size[5:] *= (7 - size[:5].sum()) / size[5:].sum()  # the layer's mean is 1
    sign = torch.where(torch.arange(7) % 2 == 1, -1.0, 1.0)  # abs a counts, not a
    z = torch.stack([size, sign * size, 1.5 * size, 1.5 * sign * size])
    _, values = closed_census(z, "identity", batch=3)
    return Truth("mean abs a <= 0.025, 0.1", dormant / 7, values[key], 1e-15, "rounding")


@cases(1, 59, 1_000)
def chance_to_miss_a_unit_at_dead_bound_frac(images):
    _, values = closed_census(-torch.ones(images, 1))
    missed = binom.pmf(0, images, values["dead_bound_frac"])
    return Truth("(1 - bound)^N = 0.05", 0.05, missed, 1e-12, "rounding")


@cases("newly_dead_frac", "revived_frac")
def units_that_cross_between_windows(key):
    """Of seven units: three die, two come back, one stays dead, one stays alive."""
    census = UnitCensus(make_activation("relu"), 7)
    for opened in ([1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 0, 1]):
        census.reset()
        census.update(torch.tensor([opened, opened]).float() - 0.5)
        values = census.compute()
    expected = {"newly_dead_frac": 3 / 7, "revived_frac": 2 / 7}[key]
    return Truth("by hand", expected, values[key], 1e-15, "rounding")


@cases()
def blackout_frac_of_independent_units():
    """Three units with gates closed by chance Phi(-b) each."""
    bias = torch.tensor([-1.0, 0.0, 0.5])
    expected = math.prod(ndtr(-b) for b in bias.tolist())
    _, values = closed_census(bias + normal(IMAGES, 3), batch=9_000)
    error = standard_errors(expected, IMAGES)
    because = f"4.5 se, {IMAGES} images"
    return Truth("product of Phi(-b)", expected, values["blackout_frac"], error, because)


def born_dead_bounds(width):
    """Of the share of networks with a dead layer: input in R, zero biases, symmetric weights.

    The first of the 9 hidden layers lets each of the two rays x > 0, x < 0 pass and cannot be
    dead; each of the 8 others is dead with a chance of 2^-N at most, and of just that if one ray
    is left. The lower bound counts on how long both are.

    Source: Lu, Shin, Su and Karniadakis 2020, "Dying ReLU and Initialization".
    """
    one, layers = 1 - 2.0**-width, DEPTH - 2
    two = 1 - 2.0 ** (1 - width) - (width - 1) * 4.0**-width
    share = (1 - 2.0 ** (1 - width)) * one / (1 + (width - 1) * 2.0**-width)
    upper = 1 - one**layers
    return upper + share * (two**layers - one**layers), upper


@cases(2, 3, 5, 10)
def born_dead_networks_of_depth_10_and_width(width):
    """A layer of all networks side by side is one layer to the census."""
    draw = torch.Generator().manual_seed(width)
    x = torch.tensor([[-2.0], [-0.3], [0.7], [5.0]])
    a = x[:, None].expand(-1, NETWORKS, -1)  # [B, networks, units]
    born_dead = torch.zeros(NETWORKS, dtype=torch.bool)
    for _ in range(DEPTH - 1):
        kernel = torch.randn(NETWORKS, a.shape[2], width, generator=draw)
        z = torch.einsum("bni,nij->bnj", a, kernel * math.sqrt(2 / a.shape[2]))
        census, _ = closed_census(z.flatten(1))
        born_dead |= census.dead.view(NETWORKS, width).all(dim=1)
        a = z.relu()
    low, high = born_dead_bounds(width)
    formula = f"in [{low:.4f}, {high:.4f}], Lu et al. 2020"
    measured = born_dead.double().mean().item()
    return Truth(formula, (low + high) / 2, measured, (high - low) / 2, "half of the interval")
