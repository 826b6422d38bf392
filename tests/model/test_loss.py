import math

import numpy as np
import pytest
import torch
from torch import nn

from fluoroscope.errors import InputError
from fluoroscope.model.loss import MaskedLoss, balanced_pos_weight, prior_logit

NAN = math.nan
POS_WEIGHT = torch.tensor([3.0, 0.5, 7.0])


@pytest.fixture
def batch():
    """Logits and targets [6, 3]; five of the 18 targets are unknown."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(0, 3, (6, 3)), dtype=torch.float32)
    target = torch.tensor(rng.integers(0, 2, (6, 3)), dtype=torch.float32)
    for b, k in ((0, 0), (0, 1), (2, 2), (4, 0), (5, 2)):
        target[b, k] = NAN
    return logits, target


def reference(logits, target, *, pos_weight=(1, 1, 1), smoothing=0.0, gamma=None):
    """Mean loss over the known entries in float64, from probabilities; gamma None is bce."""
    known = ~np.isnan(target.numpy())
    p = (1 / (1 + np.exp(-logits.double().numpy())))[known]
    y = target.double().numpy()[known] * (1 - smoothing) + smoothing / 2
    w = np.broadcast_to(pos_weight, known.shape)[known]
    if gamma is None:
        return np.mean(-w * y * np.log(p) - (1 - y) * np.log(1 - p))
    p_t = p * y + (1 - p) * (1 - y)
    cross_entropy = -y * np.log(p) - (1 - y) * np.log(1 - p)
    return np.mean((w * y + 1 - y) * (1 - p_t) ** gamma * cross_entropy)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
@pytest.mark.parametrize(("name", "gamma"), [("bce", None), ("focal", 2.0), ("focal", 1.5)])
def test_loss_is_the_formula_over_the_known_entries(batch, name, gamma, pos_weight, smoothing):
    loss = MaskedLoss(name, pos_weight, smoothing, gamma or 2.0)(*batch)
    weight = (1, 1, 1) if pos_weight is None else pos_weight.numpy()
    expected = reference(*batch, pos_weight=weight, smoothing=smoothing, gamma=gamma)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_unknown_entries_change_neither_loss_nor_gradient(batch, name):
    """Against a tensor that holds the known entries alone, one label at a time."""
    logits, target = batch
    logits.requires_grad_()
    loss = MaskedLoss(name, POS_WEIGHT)(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    kept = ~target.isnan()
    total = torch.zeros(())
    for k in range(3):
        column = MaskedLoss(name, POS_WEIGHT[[k]])
        x, y = (values[kept[:, k], k].unsqueeze(1) for values in (logits, target))
        total = total + column(x, y) * len(y)
    dropped = total / kept.sum()
    torch.testing.assert_close(loss, dropped)
    torch.testing.assert_close(gradient, torch.autograd.grad(dropped, logits)[0])
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept] != 0).all()


@pytest.mark.parametrize("name", ["bce", "focal"])
@pytest.mark.parametrize("logit", [0.3, -200.0, math.inf, NAN])
def test_nothing_known_gives_zero_loss_and_zero_gradient(name, logit):
    logits = torch.full((6, 3), logit, requires_grad=True)
    loss = MaskedLoss(name, POS_WEIGHT, 0.1)(logits, torch.full((6, 3), NAN))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(6, 3))


def test_focal_at_gamma_zero_is_bce(batch):
    focal, bce = (
        MaskedLoss(name, POS_WEIGHT, focal_gamma=0.0)(*batch) for name in ("focal", "bce")
    )
    torch.testing.assert_close(focal, bce)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("logit", [40.0, -40.0, 200.0])
def test_saturated_logits_keep_a_finite_gradient(gamma, logit):
    for target in (0.0, 1.0):
        x = torch.tensor([[logit]], requires_grad=True)
        MaskedLoss("focal", focal_gamma=gamma)(x, torch.tensor([[target]])).backward()
        right = (logit > 0) == bool(target)
        assert x.grad.item() == pytest.approx(0 if right else math.copysign(1, logit), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["bce", "focal"])
def test_half_precision_logits_get_a_single_precision_loss(batch, dtype, name):
    logits, target = batch[0].to(dtype), batch[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss = MaskedLoss(name, POS_WEIGHT)(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == MaskedLoss(name, POS_WEIGHT)(logits.float(), target).item()


def test_pos_weight_moves_with_the_module_and_travels_in_the_checkpoint():
    loss = MaskedLoss(pos_weight=POS_WEIGHT)
    assert loss.state_dict().keys() == {"pos_weight"}
    assert loss.to("meta").pos_weight.is_meta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "focale"}, r"loss.name must be one of bce, focal; .*did you mean 'focal'"),
        ({"label_smoothing": 1.0}, r"loss.label_smoothing must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "loss.label_smoothing"),
        ({"focal_gamma": 0.5}, "loss.focal_gamma must be 0 or at least 1"),
        ({"focal_gamma": NAN}, "loss.focal_gamma"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MaskedLoss(**arguments)


def test_torchvision_focal_gradient_is_not_finite_between_gamma_zero_and_one():
    """The reason for the refusal."""
    from torchvision.ops import sigmoid_focal_loss

    x = torch.tensor([40.0], requires_grad=True)
    sigmoid_focal_loss(x, torch.ones(1), alpha=-1, gamma=0.5).sum().backward()
    assert not x.grad.isfinite().all()


def prevalence_example():
    """Columns: 2 of 7 known positive, no positive of 8, no negative of 8, nothing known."""
    target = torch.zeros(8, 4)
    target[:2, 0], target[7, 0] = 1, NAN
    target[:, 2], target[:, 3] = 1, NAN
    return target


def test_balanced_weight_gives_both_classes_the_same_share():
    target = prevalence_example()
    assert balanced_pos_weight(target).tolist() == [2.5, 1, 1, 1]
    # At probability 1/2 the gradients of a balanced label cancel.
    logits = torch.zeros(8, 1, requires_grad=True)
    MaskedLoss(pos_weight=torch.tensor([2.5]))(logits, target[:, :1]).backward()
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-7)


def test_prior_logit_starts_at_the_prevalence():
    p = torch.sigmoid(prior_logit(prevalence_example()))
    torch.testing.assert_close(p, torch.tensor([2 / 7, 1 / 9, 8 / 9, 0.5]))


def test_prior_logit_is_where_the_loss_is_lowest():
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0], [NAN, 1.0], [0.0, 0.0], [1.0, 0.0]])
    bias = nn.Parameter(prior_logit(target))
    MaskedLoss()(bias.expand(5, 2), target).backward()
    torch.testing.assert_close(bias.grad, torch.zeros(2), atol=1e-7, rtol=0)


def test_a_soft_target_is_its_share_of_both_hard_ones(batch):
    """Cross-entropy is linear in the target: 0.7 of the loss of a 1 and 0.3 of that of a 0."""
    logits = batch[0]
    loss = MaskedLoss()
    soft, ones, zeros = (loss(logits, torch.full_like(logits, y)) for y in (0.7, 1.0, 0.0))
    torch.testing.assert_close(soft, 0.7 * ones + 0.3 * zeros)


def test_a_soft_target_moves_neither_the_prior_nor_the_weights():
    hard = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    soft = torch.cat([hard, torch.full((5, 1), 0.7)])
    torch.testing.assert_close(prior_logit(soft), prior_logit(hard))
    torch.testing.assert_close(balanced_pos_weight(soft), balanced_pos_weight(hard))
