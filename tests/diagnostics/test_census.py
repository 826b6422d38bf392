import math

import numpy as np
import pytest
import torch

from fluoroscope.diagnostics.census import UnitCensus, gate
from fluoroscope.diagnostics.media import histogram
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.model.activations import make_activation

N, D = 23, 17


def census_of(z, name="relu", batch=N, **args):
    census = UnitCensus(make_activation(name, **args), z.shape[1])
    for part in z.split(batch):
        census.update(part)
    return census.compute()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("k", [0, 5])
def test_exactly_k_dead_units_are_found(name, k):
    z = torch.randn(N, D, generator=torch.Generator().manual_seed(3))
    z[:, :k] -= 2000  # where most gates are closed
    far = torch.full((1,), -2000.0, requires_grad=True)
    closes = torch.autograd.grad(make_activation(name)(far), far)[0].abs() <= 1e-6
    expected = k if closes else 0
    assert census_of(z, name)["dead_frac"] == pytest.approx(expected / D, abs=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gate_is_the_derivative_that_backpropagation_uses(name):
    activation = make_activation(name).double()
    z = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    a, g = gate(activation, z)
    expected = torch.autograd.grad(activation(z).sum(), z)[0]
    torch.testing.assert_close(g, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(a, activation(z))
    assert not a.requires_grad


def test_gate_knows_learned_slopes_and_leaves_inplace_input_alone():
    z = torch.tensor([[-2.0, 3.0]])
    _, g = gate(make_activation("prelu", init=0.7), z)
    torch.testing.assert_close(g, torch.tensor([[0.7, 1.0]]))
    gate(make_activation("relu", inplace=True), z)
    assert z.tolist() == [[-2.0, 3.0]]


def test_gate_works_in_inference_mode():
    with torch.inference_mode():
        z = torch.ones(2, 3) * -1
        assert gate(make_activation("relu"), z)[1].sum() == 0


def test_relu_census_equals_counting_by_hand():
    # Columns: never open, open once, always open (a straight line), mixed.
    z = torch.tensor([[-1.0, 2, 1, 3], [-2, -1, 2, -1], [0, -1, 3, 2], [-1, -3, 4, -2]])
    values = census_of(z)
    assert values["dead_frac"] == 1 / 4
    assert values["linear_frac"] == 1 / 4
    assert values["nonlinear_frac"] == 2 / 4
    assert values["gate_open_frac"] == (0 + 1 + 4 + 2) / 16
    assert values["zero_frac"] == (4 + 3 + 0 + 2) / 16
    assert values["blackout_frac"] == 0
    assert values["dead_bound_frac"] == pytest.approx(1 - 0.05 ** (1 / 4))


def test_blackout_is_an_image_without_any_open_gate():
    z = torch.tensor([[-1.0, -2], [-1, 2], [-3, -3], [1, 1], [2, 2]])
    assert census_of(z)["blackout_frac"] == 2 / 5


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "softplus", "identity"])
def test_census_equals_numpy_on_the_whole_window(name):
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(rng.normal(0, 3, D), rng.gamma(1, 1, D), (200, D)))
    a = make_activation(name)(z).numpy()
    corr2 = [np.corrcoef(z[:, j], a[:, j])[0, 1] ** 2 if a[:, j].std() else 1 for j in range(D)]
    z_grad = z.clone().requires_grad_()
    make_activation(name)(z_grad).sum().backward()
    dead = (z_grad.grad.abs() <= 1e-6).all(0).numpy()
    linear = ~dead & (np.array(corr2) > 0.99)
    values = census_of(z, name, batch=7)
    assert values["dead_frac"] == pytest.approx(dead.mean())
    assert values["linear_frac"] == pytest.approx(linear.mean())
    assert values["nonlinear_frac"] == pytest.approx((~dead & ~linear).mean())


def test_correlation_survives_a_large_mean():
    z = torch.randn(500, D, dtype=torch.float64) + 1e4
    census = UnitCensus(make_activation("gelu"), D)
    census.update(z)
    assert census.compute()["linear_frac"] == 1


def test_units_that_cross_are_counted_against_the_window_before():
    census = UnitCensus(make_activation("relu"), 4)
    census.update(torch.tensor([[-1.0, -1, 1, 1]]))
    assert math.isnan(census.compute()["newly_dead_frac"])
    census.reset()
    census.update(torch.tensor([[-1.0, 1, -1, 1]]))
    values = census.compute()
    assert values["newly_dead_frac"] == values["revived_frac"] == 1 / 4


def test_an_empty_window_is_not_a_number_and_a_closed_one_starts_anew():
    census = UnitCensus(make_activation("relu"), D)
    census.update(-torch.ones(5, D))
    assert census.compute()["dead_frac"] == 1
    census.reset()
    with pytest.warns(UserWarning, match="before"):
        assert math.isnan(census.compute()["dead_frac"])


def test_not_a_number_does_not_pass_for_dead():
    assert census_of(torch.full((3, 2), float("nan")), "tanh")["dead_frac"] == 0


def test_pre_activations_that_are_not_finite_leave_a_census():
    values = census_of(torch.tensor([[float("nan"), 1.0], [2.0, float("inf")]]))
    assert values["dead_frac"] == 0
    assert values["nonfinite_frac"] == 2 / 4
    # Left out as zeros: the rows (0, 1) and (2, 0).
    assert values["effective_rank"] == pytest.approx(math.exp(math.log(3) - 2 / 3 * math.log(2)))


def test_a_histogram_of_nearly_equal_shares():
    counts, edges = histogram(torch.tensor([1.0, 1.0, 1 - 1 / 300_000]))
    assert counts.sum() == 3
    assert len(edges) == 65
