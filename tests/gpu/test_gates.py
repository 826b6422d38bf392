"""Gates and censuses of every activation, from the papers' formulas in float64."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from fluoroscope import build
from fluoroscope.diagnostics.census import UnitCensus, gate
from fluoroscope.diagnostics.monitor import HeadListener
from fluoroscope.model.activations import make_activation
from tests.diagnostics.truth.activations import FORMULAS
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer

pytestmark = pytest.mark.gpu
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
DTYPES = (torch.float32, *HALVES.values())
TOLERANCE, B, D = 1e-6, 203, 60
GRID = np.arange(-161, 162, 2) / 16  # 8 bits; odd, so that no kink is among them


def gate_error(dtype):
    """How far a gate may be from the exact one, which is 1.8 at most.

    In float32 the two or three special functions of a gate are each good to a few ulp (CUDA's
    guide: 2), and mish multiplies such an error by z. Halves are computed in float32 and rounded
    twice: the activation, from which tanh and sigmoid take their gates, and the gate. The square
    of the activation doubles the first half ulp.
    """
    return (32 if dtype == torch.float32 else 2) * torch.finfo(dtype).eps


def exact(name, z):
    """phi and its derivative of a float64 numpy array."""
    with np.errstate(over="ignore"):
        return [np.vectorize(f, otypes=[float])(z) for f in FORMULAS[name]]


@cache
def over_grid(name):
    return exact(name, GRID)


def rounding_decides(derivative, error):
    """Whether a gate that is so far from the exact one may be on either side of the tolerance; an
    exact zero, as of relu, is computed as one.
    """
    return (np.abs(np.abs(derivative) - TOLERANCE) <= error) & (derivative != 0)


def on(device, dtype, name, z):
    """The activation and the numbers as the device gets them."""
    return make_activation(name).to(device, dtype), torch.from_numpy(z).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_gates_are_the_formulas(device, name, dtype):
    """Over numbers that are the same in each precision, and where gates close, in the tails."""
    a, g = gate(*on(device, dtype, name, GRID))
    assert a.dtype == g.dtype == dtype
    assert a.device.type == device.type
    phi, derivative = over_grid(name)
    error = gate_error(dtype)
    np.testing.assert_allclose(g.double().cpu(), derivative, rtol=0, atol=error)
    np.testing.assert_allclose(a.double().cpu(), phi, rtol=error, atol=error)
    closed = (g.abs() <= TOLERANCE).cpu().numpy()
    clear = ~rounding_decides(derivative, error)
    assert (closed == (np.abs(derivative) <= TOLERANCE))[clear].all()
    assert clear.sum() > 20


@cache
def units():
    """Pre-activations `[B, D]` whose gates are clearly open or closed in every precision.

    A third of the units lie far below zero, a third far above, and the rest around it; of these
    six are a mixture. All numbers have 8 bits, so that no precision rounds them.
    """
    rng = np.random.default_rng(5)
    z = rng.integers(-48, 48, (B, D)) / 16 + 1 / 32  # around zero, at no kink
    far = 30 + rng.integers(-4, 4, (B, D)) / 4 + 1 / 8
    z[:, :20], z[:, 20:40] = -far[:, :20], far[:, 20:40]
    z[:, 40:46] = np.where(rng.random((B, 6)) < 0.03, z[:, 40:46], -far[:, 40:46])
    z[7, 20:] = -30  # an image that opens nothing, if such can be
    return z


@cache
def counted(name):
    """What a census of `units` counts, by numpy."""
    z = units()
    phi, derivative = exact(name, z)
    opened = np.abs(derivative) > TOLERANCE
    dead = ~opened.any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        corr2 = np.array([np.corrcoef(z[:, d], phi[:, d])[0, 1] ** 2 for d in range(z.shape[1])])
    linear = ~dead & ~(corr2 <= 0.99)
    values = {
        "dead_frac": dead.mean(),
        "linear_frac": linear.mean(),
        "nonlinear_frac": 1 - dead.mean() - linear.mean(),
        "blackout_frac": (~opened.any(axis=1)).mean(),
        "gate_open_frac": opened.mean(),
        "rare_frac": (~dead & (opened.sum(axis=0) < 8)).mean(),
    }
    return values, phi, derivative


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_the_census_is_the_same_in_every_precision(device, name, dtype):
    expected, phi, derivative = counted(name)
    # Clear cases alone: no rounding decides.
    edge = np.abs(derivative)
    assert ((edge < TOLERANCE / 4) | (edge > 5e-4)).all()
    activation, z = on(device, dtype, name, units())
    census = UnitCensus(activation, D).to(device)
    for part in z.split(64):
        census.update(part)
    values = census.compute()
    # Such as softsign at 30, whose values differ by less than they are rounded.
    size = np.abs(phi).max(axis=0) * torch.finfo(dtype).eps
    vague = (phi.var(axis=0) < 100 * size**2).mean()
    for key, share in expected.items():
        slack = vague if "linear" in key else 0
        assert values[key] == pytest.approx(share, rel=0, abs=1e-12 + slack), key
    assert census.z_max.tolist() == z.double().amax(dim=0).tolist()
    singular = np.linalg.svd(phi, compute_uv=False)
    share = singular[singular > 0] / singular.sum()
    rank = math.exp(-(share * np.log(share)).sum())
    # Of the 60 directions, rounding to half fills those that the activation leaves empty.
    assert values["effective_rank"] == pytest.approx(rank, rel=1e-3 if dtype == DTYPES[0] else 0.2)


class Heard(HeadListener):
    """Outputs of `head.dense` in training, and the training windows that the monitor closed."""

    def on_fit_start(self, trainer, pl_module):
        self.z, self.windows = [], []
        self.handle = pl_module.head.dense.register_forward_hook(self.keep)

    def keep(self, dense, inputs, z):
        if dense.training:
            self.z.append(z.detach().clone())

    def on_head_window(self, trainer, pl_module, closed):
        if closed.name == "train":
            self.windows.append(closed)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", ["relu", "gelu", "softplus", "prelu"])
def test_under_autocast_the_census_is_of_what_the_activation_receives(
    device, keys, precise, uneven, name, precision
):
    """Of half-precision z, which float32 ones would not equal; CUDA's autocast computes softplus
    in float32, and casts the slope of prelu.
    """
    cfg = tiny_config(uneven, *keys, "trainer.max_epochs=1", f"head.activation={name}")
    data = build.build_data(cfg, build.build_studies(cfg))
    model, heard = build.build_classifier(cfg, data), Heard()
    arguments = precise(precision) | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
    bare_trainer(cfg, [build.build_monitor(cfg), heard], **arguments).fit(model, datamodule=data)
    (closed,) = heard.windows
    z = torch.cat(heard.z)
    assert z.dtype == HALVES[precision]
    assert len(z) == 80
    z = z.double()
    assert torch.equal(closed.z_max.double(), z.amax(dim=0))
    torch.testing.assert_close(closed.z_mean, z.mean(dim=0), rtol=0, atol=1e-12)
    derivative = np.abs(exact(name, z.cpu().numpy())[1])
    near = rounding_decides(derivative, gate_error(HALVES[precision]))
    apart = np.abs(closed.gate_open_share.cpu().numpy() - (derivative > TOLERANCE).mean(axis=0))
    assert (apart <= near.mean(axis=0) + 1e-6).all()
    assert near.mean() < 0.05
