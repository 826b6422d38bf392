import copy

import pytest
import torch

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.model.head import Head
from fluoroscope.model.optimizer import parameter_groups

B, F, K, D = 7, 13, 3, 17
KINDS = [
    ("relu", "activation-norm", 0.0),
    ("prelu", "norm-activation", 0.4),
    ("gelu", "activation-norm", 0.2),
    ("identity", "norm-activation", 0.0),
]


def heads(norm="batch", width=D):
    torch.manual_seed(3)
    return [
        Head(F, K, width, name, norm=norm, order=order, dropout=p).double()
        for name, order, p in KINDS
    ]


def features():
    return torch.randn(B, F, dtype=torch.double, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=["batch", "layer", "none"])
def both(request):
    """The same heads alone and as a bank."""
    alone = heads(request.param)
    return alone, HeadBank(copy.deepcopy(alone))


def train_step(alone, bank, loss=torch.Tensor.square):
    x, draws = features(), [11, 12, 13, 14]
    logits = bank.train()(x, draws)
    loss(logits).sum().backward()
    for head, draw in zip(alone, draws, strict=True):
        torch.manual_seed(draw)
        loss(head.train()(x)).sum().backward()
    bank.tie_gradients()
    return logits


def test_logits_gradients_and_running_statistics_are_those_of_each_head_alone(both):
    alone, bank = both
    train_step(alone, bank)
    for one, mine in zip(alone, bank.heads, strict=True):
        own = dict(mine.named_parameters())
        for name, parameter in one.named_parameters():
            torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-11, atol=1e-13)
        buffers = dict(mine.named_buffers())
        for name, buffer in one.named_buffers():
            torch.testing.assert_close(buffers[name], buffer)
    x = features()
    whole = bank.eval()(x)
    for m, one in enumerate(alone):
        torch.testing.assert_close(whole[:, m], one.eval()(x))
        torch.testing.assert_close(bank.heads[m](x), one(x))


def test_one_optimizer_over_the_bank_is_one_over_each_head(both):
    alone, bank = both

    def optimizer(module):
        groups = parameter_groups(torch.nn.Identity(), module, 1e-2, 1.0, weight_decay=0.3)
        return torch.optim.AdamW(groups)

    train_step(alone, bank)
    optimizer(bank).step()
    for one in alone:
        optimizer(one).step()
    for one, mine in zip(alone, bank.heads, strict=True):
        own = dict(mine.named_parameters())
        for name, parameter in one.named_parameters():
            # The first step is the sign of the gradient, wherever it is more than rounding.
            settled = parameter.grad.abs() > 1e-9
            torch.testing.assert_close(own[name][settled], parameter[settled])


def test_clipping_a_head_leaves_the_others_alone(both):
    alone, bank = both
    train_step(alone, bank)
    norms = [torch.nn.utils.clip_grad_norm_(head.parameters(), 0.5) for head in alone[:2]]
    mine = [torch.nn.utils.clip_grad_norm_(head.parameters(), 0.5) for head in bank.heads[:2]]
    torch.testing.assert_close(mine, norms)
    for m, one in enumerate(alone):
        torch.testing.assert_close(bank.dense_weight.grad[bank.of(m)], one.dense.weight.grad)


def test_a_head_that_is_not_finite_leaves_the_others_as_they_are(both):
    alone, bank = both
    with torch.no_grad():
        for head in (alone[1], bank.heads[1]):
            head.dense.weight.fill_(torch.inf)
    logits = train_step(alone, bank)
    assert not logits[:, 1].isfinite().any()
    for m in (0, 2, 3):
        assert logits[:, m].isfinite().all()
        torch.testing.assert_close(
            bank.heads[m].dense.weight.grad, alone[m].dense.weight.grad, rtol=1e-11, atol=1e-13
        )


def test_heads_stay_views_after_a_move():
    bank = HeadBank([head.float() for head in heads()]).double()
    with torch.no_grad():
        bank.dense_weight.fill_(7.0)
        bank.norm.running_mean.fill_(2.0)
    for head in bank.heads:
        assert head.dense.weight.dtype == torch.double
        assert (head.dense.weight == 7).all()
        assert (head.norm.running_mean == 2).all()
    own = sum(p.numel() for p in heads()[0].parameters())
    slopes = 1  # of the prelu
    assert sum(p.numel() for p in bank.parameters()) == len(KINDS) * own + slopes


def test_heads_of_two_widths_are_no_bank():
    with pytest.raises(ValueError, match="equal features, width"):
        HeadBank([*heads(), *heads(width=D + 1)])
