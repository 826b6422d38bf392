"""The logits taken apart add up again; gates and blackouts by closed form."""

import math

import numpy as np
import pytest
import torch

from fluoroscope.explanation.head_units import blackout_shift, head_units, units_for_half
from fluoroscope.model.activations import make_activation
from fluoroscope.model.head import Head

B, F, D, K = 5, 7, 11, 3


def trained_head(norm="batch", order="activation-norm", activation="relu"):
    """A head whose norm has seen films, in evaluation mode."""
    torch.manual_seed(4)
    head = Head(F, K, width=D, norm=norm, order=order, activation=activation, norm_momentum=0.3)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, 0.3)
    for _ in range(6):
        head(torch.randn(9, F))
    return head.eval()


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("order", ["activation-norm", "norm-activation"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
def test_base_and_contributions_are_the_logits(norm, order, activation):
    head, features = trained_head(norm, order, activation), torch.randn(B, F)
    units = head_units(head, features)
    assert units.contribution.shape == (B, K, D)
    expected = head.double()(features.double())
    torch.testing.assert_close(units.base + units.contribution.sum(-1), expected.detach())


def test_contributions_are_counted_from_the_mean_of_batch_norm():
    """By hand with numpy; a dead unit that batch norm has forgotten contributes nothing."""
    head, features = trained_head(), torch.randn(B, F)
    with torch.no_grad():
        head.dense.weight[2], head.dense.bias[2] = 0, -1.0
        head.norm.running_mean[2] = 0
    state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    z = features.double().numpy() @ state["dense.weight"].T + state["dense.bias"]
    scale = state["norm.weight"] / np.sqrt(state["norm.running_var"] + 1e-3)
    above = (np.maximum(z, 0) - state["norm.running_mean"]) * scale
    units = head_units(head, features)
    np.testing.assert_allclose(
        units.contribution.numpy(), above[:, None] * state["out.weight"], rtol=1e-6, atol=1e-12
    )
    np.testing.assert_array_equal(units.open.numpy(), z > 0)
    assert (units.contribution[:, :, 2] == 0).all()


def test_the_head_itself_stays_as_it_is():
    head = trained_head()
    calls = []
    head.activation.register_forward_hook(lambda *_: calls.append(1))
    head_units(head, torch.randn(B, F))
    assert head.dense.weight.dtype == torch.float32
    assert not calls


@pytest.mark.parametrize(
    ("activation", "closes_at"),
    [
        ("relu", 0.0),
        ("elu", math.log(1e-6)),  # its derivative below 0 is e^z
        ("sigmoid", math.log(1e-6)),  # about e^z far below 0
        ("tanh", -0.5 * math.log(4e6)),  # 4 e^{-2 |z|} far from 0
        ("relu6", 0.0),
        ("hardswish", -3.0),
    ],
)
def test_a_blackout_comes_when_the_last_gate_closes(activation, closes_at):
    torch.manual_seed(0)
    z = torch.randn(B, D, dtype=torch.float64) + 1
    shift = blackout_shift(make_activation(activation), z)
    expected = (z.max(1).values - closes_at) / z.std(dim=1, correction=0)
    torch.testing.assert_close(shift, expected, rtol=1e-4, atol=1e-6)


def test_a_film_in_the_dark_is_no_step_from_a_blackout_and_a_leaky_gate_never_closes():
    z = -torch.rand(B, D, dtype=torch.float64)
    assert (blackout_shift(make_activation("relu"), z) == 0).all()
    for activation in ("leaky_relu", "identity"):
        assert blackout_shift(make_activation(activation), z).isnan().all()


def test_units_for_half_are_the_fewest():
    contribution = torch.tensor([[3.0, -3, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [-9, 1, 1, 1]])
    assert units_for_half(contribution).tolist() == [2, 0, 2, 1]
