"""Every number of a watched network is that of numpy in float64, and watching changes no weight."""

import copy

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import fluoroscope
from tests.instrument.networks import NETWORKS, fit, make
from tests.instrument.oracle import expected, twin


def calls_of(recorded):
    """Pre-activations by name of the watch: the second call of one pass has its own name."""
    training = [z for z in recorded.calls if z.grad is not None]
    rest = [z for z in recorded.calls if z.grad is None]
    passes = {"train": 3, "eval": 2}
    for window, zs in (("train", training), ("eval", rest)):
        each = len(zs) // passes[window]
        for place in range(each):
            yield window, f"#{place + 1}" if place else "", zs[place::each]


# The first takes long, the second imports transformers, as test_hugging_face.py does.
SLOW = ("resnet", "bert")
EXACT = [pytest.param(n, marks=pytest.mark.whole) if n in SLOW else n for n in NETWORKS]


@pytest.mark.parametrize("name", EXACT)
def test_a_watched_network_has_the_numbers_of_numpy(name):
    model, acts, batch = make(name)
    recording, recorded = twin(model, {layer: kind for layer, (kind, _) in acts.items()})
    with fluoroscope.watch(model) as units:
        fit(model, batch)
    fit(recording, batch)
    frame, rows, kinds = units.frame(), 0, set()
    for layer, (kind, dim) in acts.items():
        for window, suffix, zs in calls_of(recorded[layer]):
            found = frame.loc[(window, layer + suffix)].to_dict()
            wanted = expected(kind, zs, dim)
            assert found == pytest.approx(wanted, rel=1e-9, nan_ok=True), (window, layer + suffix)
            kinds |= {k for k in ("dead_frac", "linear_frac") if 0 < found[k] < 1}
            rows += 1
    assert rows == len(frame) >= 2 * len(acts)
    assert kinds >= {"linear_frac"}
    assert not units.unseen


# The tests of the adapters have the same, for a transformer too.
BITS = [n if n in ("cnn", "vit") else pytest.param(n, marks=pytest.mark.whole) for n in NETWORKS]


@pytest.mark.parametrize("name", BITS)
def test_watching_changes_no_bit(name):
    model, _, batch = make(name, torch.float32)
    plain = copy.deepcopy(model)
    with fluoroscope.watch(model):
        fit(model, batch)
    state = torch.get_rng_state()
    fit(plain, batch)
    assert torch.equal(torch.get_rng_state(), state)
    for (key, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_the_gradient_of_the_network_is_that_of_each_step():
    model, _, batch = make("mlp")
    twin_model, norms = copy.deepcopy(model), []
    with fluoroscope.watch(model) as units:
        fit(model, batch)

    def keep(optimizer, args, kwargs):
        grads = [p.grad for p in twin_model.parameters()]
        norms.append(sum(float(g.square().sum()) for g in grads))

    handle = register_optimizer_step_pre_hook(keep)
    fit(twin_model, batch)
    handle.remove()
    assert len(norms) == 3
    value = units.values()["units/train/grad_l2"]
    assert value == pytest.approx((sum(norms) / 3) ** 0.5, rel=1e-9)
