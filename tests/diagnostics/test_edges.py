"""The census at the edges of its input: numbers against numpy's, gates against autograd's."""

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.diagnostics.census import UnitCensus, gate, tail_gain
from fluoroscope.diagnostics.channels import SHARES, ChannelCensus
from fluoroscope.diagnostics.feature_moments import FeatureMoments, dead_expected
from fluoroscope.diagnostics.layers import ELEMENTWISE, LayerMonitor
from fluoroscope.elementwise import as_tensor, check_elementwise, works_in_place
from fluoroscope.errors import InputError
from fluoroscope.model.activation_table import ACTIVATIONS, Activation
from fluoroscope.model.activations import make_activation
from fluoroscope.model.head import Head
from fluoroscope.train import train
from tests.diagnostics.truth.activations import FORMULAS
from tests.support.films import tiny_config

B, D = 37, 11
NAN, INF = math.nan, math.inf
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
KINKS = [-6.0, -3.0, -2.0, -1.0, -0.5, 0.0, -0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0]


def draw(seed=0, images=B, units=D, dtype=torch.float32):
    """Pre-activations of units that are dead, linear and mixed; one is exactly 0 at times."""
    rng = np.random.default_rng(seed)
    z = rng.normal(rng.normal(0, 4, units), rng.gamma(1, 1, units), (images, units))
    z[:, 0] -= 2000
    z[:, 1] += 50
    z[::3, 2] = 0
    return torch.from_numpy(z).to(dtype)


def backpropagated(activation, z):
    """a and dL/dz of the sum of a, as a training step computes them."""
    x = z.detach().clone().requires_grad_()
    a = activation(x * 1)
    if not a.requires_grad:
        return a, torch.zeros_like(x)
    return a.detach(), torch.autograd.grad(a.sum(), x)[0]


def by_numpy(activation, z, tolerance=1e-6):
    """Every key of a first window, unit by unit in float64."""
    a, g = (v.double().numpy() for v in backpropagated(activation, z))
    z = z.double().numpy()
    known = ~(np.isnan(z) | np.isnan(g))
    seen = known.any(1)
    opened = known & (np.abs(g) > tolerance)
    finite = (np.abs(z) < 1e150) & (np.abs(a) < 1e150) & seen[:, None]
    dead, linear, size = [], [], []
    for unit in range(z.shape[1]):
        x, y = z[finite[:, unit], unit], a[finite[:, unit], unit]
        dead.append(known[:, unit].any() and not opened[:, unit].any())
        constant = len(x) and (np.ptp(x) == 0 or np.ptp(y) == 0)
        straight = constant or (len(x) and np.corrcoef(x, y)[0, 1] ** 2 > 0.99)
        linear.append(bool(straight) and not dead[-1])
        size.append(np.abs(y).mean() if len(y) else NAN)
    dead, linear, size = map(np.array, (dead, linear, size))
    singular = np.linalg.svd(np.where(finite, a, 0), compute_uv=False)
    share = singular[singular > 0] / singular.sum()
    rank = np.exp(-(share * np.log(share)).sum()) if len(share) else NAN
    return {
        "dead_frac": dead.mean(),
        "linear_frac": linear.mean(),
        "nonlinear_frac": (~dead & ~linear).mean(),
        "blackout_frac": (~opened[seen].any(1)).mean(),
        "gate_open_frac": opened.sum() / known[seen].sum(),
        "zero_frac": (known & (a == 0)).sum() / known[seen].sum(),
        "rare_frac": ((opened.sum(0) > 0) & (opened.sum(0) < 8)).mean(),
        "dormant_frac_0025": (size <= 0.025 * np.nanmean(size)).mean(),
        "dormant_frac_01": (size <= 0.1 * np.nanmean(size)).mean(),
        "dead_bound_frac": 1 - 0.05 ** (1 / seen.sum()),
        "nonfinite_frac": (~finite).mean(),
        "effective_rank": rank,
    }


def census_of(z, activation, sizes=None, **keys):
    census = UnitCensus(activation, z.shape[1], **keys)
    for part in z.split(sizes or [len(z)]):
        census.update(part)
    return census.compute()


def assert_census(values, expected):
    for key, number in expected.items():
        rel = 1e-5 if key == "effective_rank" else 1e-12
        assert values[key] == pytest.approx(number, rel=rel, abs=1e-12, nan_ok=True), key
    crossing = {"newly_dead_frac", "revived_frac"}
    assert values.keys() - crossing == expected.keys()
    assert math.isclose(sum(values[f"{kind}_frac"] for kind in ("dead", "linear", "nonlinear")), 1)


# Each takes clean pre-activations and spoils them in one way.
def spoil_one(value):
    return lambda z: z.index_put((torch.tensor(5), torch.tensor(3)), torch.tensor(value).to(z))


def spoil_image(value):
    return lambda z: torch.cat([z[:4], torch.full_like(z[:1], value), z[5:]])


def spoil_unit(value):
    return lambda z: torch.cat([z[:, :6], torch.full_like(z[:, :1], value), z[:, 7:]], dim=1)


def spoil_many(seed):
    def spoil(z):
        rng = np.random.default_rng(seed)
        values = torch.tensor([NAN, INF, -INF]).to(z)[rng.integers(0, 3, z.shape)]
        return torch.where(torch.from_numpy(rng.random(z.shape) < 0.2), values, z)

    return spoil


SPOILS = {
    "nothing": lambda z: z,
    **{f"one {v}": spoil_one(v) for v in (NAN, INF, -INF)},
    **{f"an image of {v}": spoil_image(v) for v in (NAN, INF, -INF)},
    **{f"a unit of {v}": spoil_unit(v) for v in (NAN, INF, -INF)},
    **{f"a fifth, {seed}": spoil_many(seed) for seed in (1, 2)},
    "largest": lambda z: z.sign() * torch.finfo(z.dtype).max / (z.abs() + 1),
    "subnormal": lambda z: z * torch.finfo(torch.float32).tiny * 1e-3,
    "constant units": lambda z: z[:1].expand(len(z), -1),
    "one image": lambda z: z[:1],
    "one unit": lambda z: z[:, 3:4],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spoil", SPOILS)
def test_each_number_is_that_of_numpy(spoil, dtype):
    if (spoil, dtype) == ("subnormal", torch.float16):
        pytest.skip("these numbers are 0 in float16")
    for name in ("relu", "gelu", "tanh", "elu", "hardswish", "identity"):
        z = SPOILS[spoil](draw(dtype=dtype))
        activation = make_activation(name)
        sizes = [0, len(z) // 3, 0, len(z) - len(z) // 3]
        values = census_of(z, activation, sizes)
        assert_census(values, by_numpy(activation, z))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_pair_that_is_not_finite_moves_no_other_number_of_the_census_far(value):
    """It is one of 407 pairs, and no share may move by more than one unit or image."""
    for name in ("relu", "leaky_relu", "silu", "sigmoid"):
        clean = census_of(draw(), make_activation(name))
        spoilt = census_of(spoil_one(value)(draw()), make_activation(name))
        for key in clean.keys() - {"nonfinite_frac", "newly_dead_frac", "revived_frac"}:
            assert spoilt[key] == pytest.approx(clean[key], rel=0.05, abs=1e-2), key
        assert clean["nonfinite_frac"] == 0
        assert spoilt["nonfinite_frac"] == 1 / (B * D)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_image_without_a_known_gate_is_as_if_it_were_absent(value):
    for name in ("gelu", "mish", "softsign"):  # their gate is NaN at an infinity
        z = draw()
        without = census_of(torch.cat([z[:4], z[5:]]), make_activation(name))
        spoilt = census_of(spoil_image(value)(z), make_activation(name))
        assert spoilt.pop("nonfinite_frac") == 1 / B
        assert without.pop("nonfinite_frac") == 0
        assert spoilt == pytest.approx(without, rel=1e-8, nan_ok=True)


def test_an_infinite_pre_activation_closes_a_gate_that_has_a_limit():
    z = torch.tensor([[-INF, INF, -INF], [-1.0, 2.0, NAN]])
    values = census_of(z, nn.ReLU())
    assert values["dead_frac"] == 2 / 3
    assert values["gate_open_frac"] == pytest.approx(2 / 5)
    assert values["blackout_frac"] == 0
    assert census_of(torch.full((3, 2), -INF), nn.ReLU())["blackout_frac"] == 1
    assert census_of(torch.full((3, 2), INF), nn.Tanh())["dead_frac"] == 1


def test_a_window_of_nothing_but_nan():
    values = census_of(torch.full((3, 2), NAN), nn.Tanh())
    assert values["dead_frac"] == values["linear_frac"] == 0
    assert values["nonlinear_frac"] == values["nonfinite_frac"] == 1
    assert math.isnan(values["gate_open_frac"])


def test_values_per_unit_leave_out_what_is_not_finite():
    census = UnitCensus(nn.ReLU(), 4)
    census.update(torch.tensor([[NAN, 2, -INF, NAN], [1, INF, -1, NAN], [-3, 4, -2, NAN]]))
    census.compute()
    assert census.gate_open_share[:3].tolist() == [1 / 2, 1, 0]
    assert census.z_mean[:3].tolist() == [-1, 3, -1.5]
    assert census.z_max[:3].tolist() == [1, 4, -1]
    assert census.gate_open_share[3].isnan()
    assert census.constant.tolist() == [False, False, True, False]  # so that it can be revived


def test_an_unknown_unit_neither_dies_nor_revives():
    census = UnitCensus(nn.ReLU(), 3)
    windows = [[[-1.0, -1, 1]], [[NAN, 1, NAN]], [[-1.0, 1, -1]]]
    told = []
    for window in windows:
        census.update(torch.tensor(window))
        values = census.compute()
        told.append((values["newly_dead_frac"], values["revived_frac"]))
        census.reset()
    assert told[1:] == [(0, 1 / 3), (1 / 3, 0)]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("first", [0, 1])
def test_a_window_without_images_is_skipped(first):
    census = UnitCensus(nn.ReLU(), 2)
    if first:
        census.update(torch.tensor([[-1.0, 1]]))
        census.compute()
        census.reset()
    for empty in (torch.empty(0, 2), None):
        if empty is not None:
            census.update(empty)
        assert all(math.isnan(value) for value in census.compute().values())
        census.reset()
    census.update(torch.tensor([[1.0, 1]]))
    values = census.compute()
    assert values["dead_frac"] == 0
    assert values["revived_frac"] == (0.5 if first else pytest.approx(NAN, nan_ok=True))


def test_windows_merge_whatever_they_hold():
    parts = [spoil_many(1)(draw(1)), draw(2)[:0], spoil_image(NAN)(draw(3)), draw(4)]
    whole, *others = (UnitCensus(nn.ReLU(), D) for _ in range(5))
    for part, other in zip(parts, others, strict=True):
        whole.update(part)
        other.update(part)
    for other in others[1:]:
        others[0].merge_state(other)
    assert others[0].compute() == pytest.approx(whole.compute(), rel=1e-9, nan_ok=True)
    assert_census(whole.compute(), by_numpy(nn.ReLU(), torch.cat(parts)))


@pytest.mark.parametrize("cls", [nn.GELU, nn.SiLU, nn.Softplus])
def test_a_constant_unit_is_a_straight_line_however_long_the_window(cls):
    census = UnitCensus(cls(), 64, effective_rank=False)
    constant = draw(1, 1, 64) * 0.5
    for _ in range(1_000):
        census.update(constant.expand(7, -1))
    values = census.compute()
    opened = gate(cls(), constant)[1].abs() > 1e-6
    assert values["linear_frac"] == opened.double().mean()
    assert values["nonlinear_frac"] == 0


@pytest.mark.parametrize("shape", [(D,), (B, D + 1), (B, 1), (B, 3, D), ()])
def test_another_shape_is_not_counted(shape):
    census = UnitCensus(nn.ReLU(), D)
    with pytest.raises(ValueError, match=rf"\[B, {D}\]; got \[{', '.join(map(str, shape))}\]"):
        census.update(torch.zeros(shape))
    moments = FeatureMoments(D)
    with pytest.raises(ValueError, match=rf"\[B, {D}\]; got"):
        moments.update(torch.zeros(shape))
    assert census.images == moments.images == 0


# Gates.
class Absolute(torch.autograd.Function):
    """|z| with a convention of its own at 0, and without forward mode."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.abs()

    @staticmethod
    def backward(ctx, da):
        (z,) = ctx.saved_tensors
        return da * torch.where(z == 0, 0.125, z.sign())


class Wrapped(nn.Module):
    """A module that holds others and overwrites what it is given."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.LeakyReLU(0.5, inplace=True)])

    def forward(self, z):
        z.sub_(0.25)
        for module in self.inner:
            z = module(z)
        return z * 2


class Step(nn.Module):
    def forward(self, z):
        return (z > 0).to(z.dtype)


class Custom(nn.Module):
    def forward(self, z):
        return Absolute.apply(z)


def known_activations():
    for cls in ELEMENTWISE:
        yield cls(0.1, 20.0) if cls is nn.Threshold else cls()
    yield from (make_activation(name) for name in ACTIVATIONS)
    yield nn.PReLU(init=0.0)
    yield nn.PReLU(len(KINKS), init=-0.5)
    yield from (Wrapped(), Step(), Custom(), nn.Sequential(nn.Hardtanh(), nn.ReLU(inplace=True)))
    yield from (torch.relu, torch.sin, lambda z: z.clamp_(0, 1), lambda z: z.sqrt())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gate_is_that_of_backpropagation_also_at_kinks(dtype):
    z = torch.tensor([KINKS, KINKS[::-1]], dtype=dtype)
    for activation in known_activations():
        if isinstance(activation, nn.Module):
            activation.to(dtype)
        before = z.clone()
        a, g = gate(activation, z)
        expected = backpropagated(activation, z)
        for measured, right in zip((a, g), expected, strict=True):
            torch.testing.assert_close(measured, right, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(z, before), activation


def test_at_zero_a_prelu_passes_its_slope_and_a_relu_nothing():
    z = torch.zeros(2, 3)
    assert gate(nn.PReLU(init=0.3), z)[1].tolist() == pytest.approx(torch.full((2, 3), 0.3))
    assert census_of(z, nn.PReLU(init=0.0))["dead_frac"] == 1
    assert census_of(z, nn.ReLU())["dead_frac"] == 1
    assert census_of(z, Custom())["dead_frac"] == 0
    assert gate(Custom(), z)[1].unique().tolist() == [0.125]
    assert census_of(z + 1, Step())["dead_frac"] == 1


@pytest.mark.parametrize(
    "activation",
    [
        Wrapped(),
        nn.Sequential(nn.ReLU(inplace=True)),
        nn.Sequential(nn.Sequential(nn.Hardtanh(inplace=True)), nn.ELU(inplace=True)),
        torch.relu_,
    ],
    ids=["wrapped", "sequential", "nested", "function"],
)
def test_what_works_in_place_is_computed_on_a_copy(activation):
    assert works_in_place(activation, D)
    z = draw()
    before = z.clone()
    values = census_of(z, activation)
    assert torch.equal(z, before)
    census = ChannelCensus(activation, D)
    census.update(z, 1)
    assert torch.equal(z, before)
    kinds = ("dead_frac", "linear_frac", "nonlinear_frac", "gate_open_frac")
    assert census.compute().tolist() == pytest.approx([values[kind] for kind in kinds])


def test_parts_that_overwrite_each_others_results_have_the_gate_of_parts_that_do_not():
    """A step of training refuses them, but a census of a validation need not."""
    for chain in itertools.product((nn.ReLU, nn.ELU, nn.Hardtanh, nn.SiLU, nn.LeakyReLU), repeat=3):
        overwriting = nn.Sequential(*(cls(inplace=True) for cls in chain))
        plain = nn.Sequential(*(cls() for cls in chain))
        for measured, right in zip(
            gate(overwriting, draw()), backpropagated(plain, draw()), strict=True
        ):
            torch.testing.assert_close(measured, right, rtol=1e-6, atol=1e-6)


def test_what_works_in_place_is_found_by_what_it_does():
    assert not any(works_in_place(make_activation(name), D) for name in ACTIVATIONS)
    assert not works_in_place(nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True)), D)
    assert works_in_place(make_activation("relu", inplace=True), D)
    with torch.inference_mode():
        assert works_in_place(nn.Sequential(nn.Dropout(0.0), nn.SiLU(inplace=True)), D)


@pytest.mark.parametrize("order", ["activation-norm", "norm-activation"])
def test_a_wrapper_that_works_in_place_trains_in_a_bank_as_alone(monkeypatch, order):
    monkeypatch.setitem(ACTIVATIONS, "wrapped", Activation("tests.diagnostics.test_edges:Wrapped"))
    torch.manual_seed(0)
    heads = [Head(5, 2, width=D, activation=name, order=order) for name in ("wrapped", "relu")]
    alone = [Head(5, 2, width=D, activation=name, order=order) for name in ("wrapped", "relu")]
    for mine, other in zip(alone, heads, strict=True):
        mine.load_state_dict(other.state_dict())
    bank, f = HeadBank(heads), torch.randn(B, 5)
    z = bank.preactivations(f)
    z.retain_grad()
    before = z.detach().clone()
    bank.logits(z).square().sum().backward()
    assert torch.equal(z.detach(), before)
    bank.tie_gradients()
    for mine, head in zip(alone, heads, strict=True):
        mine(f).square().sum().backward()
        for p, q in zip(mine.parameters(), head.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-5)


def test_gates_leave_no_trace():
    """No gradient of parameters, no hook, no saved tensor, no random number."""
    activation, fired, packed = nn.PReLU(), [], []
    activation.register_forward_hook(lambda *_: fired.append(1))
    activation.weight.register_hook(lambda grad: fired.append(2))
    state = torch.get_rng_state()
    z = draw().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(packed.append, lambda t: t):
        a, g = gate(activation, z)
    check_elementwise(activation, D)
    assert {a.requires_grad, g.requires_grad} == {False}
    assert activation.weight.grad is z.grad is None
    assert fired == packed == []
    assert torch.equal(torch.get_rng_state(), state)


def modes():
    yield torch.no_grad
    yield torch.enable_grad
    yield torch.inference_mode


def layouts(z):
    yield z
    yield z.T.contiguous().T
    yield torch.stack([z, z], dim=2)[..., 1]
    yield torch.cat([z, z])[: len(z)]
    yield z.requires_grad_(True)
    yield nn.Parameter(z, requires_grad=False)


def test_no_mode_layout_or_compiler_changes_a_number():
    for name in ("relu", "gelu", "prelu", "softplus"):
        activation = make_activation(name).requires_grad_(False)
        expected = census_of(draw(), activation)
        for mode, place in itertools.product(modes(), range(6)):
            with mode():
                z = list(layouts(draw()))[place]
                assert census_of(z, activation) == pytest.approx(expected, rel=1e-6, nan_ok=True)
        with torch.autocast("cpu", torch.bfloat16):
            halves = gate(activation, draw()), backpropagated(activation, draw())
        torch.testing.assert_close(*halves, rtol=0, atol=0)
        compiled = torch.compile(activation, backend="eager")
        assert census_of(draw(), compiled) == pytest.approx(expected, rel=0, nan_ok=True)


@pytest.mark.parametrize("modes", itertools.product([False, True], repeat=4))
def test_sums_made_in_inference_mode_are_added_to_outside_of_it(modes):
    made, reset, first, second = modes
    with torch.inference_mode(made):
        counts = UnitCensus(nn.PReLU(), D), ChannelCensus(nn.PReLU(), D), FeatureMoments(D)
    for count, dim in zip(counts, ((), (1,), ()), strict=True):
        with torch.inference_mode(reset):
            count.reset()
        for mode in (first, second):
            with torch.inference_mode(mode):
                count.update(draw(), *dim)
    values = counts[0].compute()
    assert_census(values, by_numpy(nn.PReLU(), torch.cat([draw(), draw()])))
    assert counts[1].compute()[0] == values["dead_frac"]
    assert counts[2].images == 2 * B


def test_channels_of_maps_in_any_memory_format():
    z = draw(images=2 * 5 * 3).reshape(2, 5, 3, D).movedim(-1, 1)
    z[0, 3, 2, 1], z[1, 5, 0, 0] = NAN, INF
    flat = z.movedim(1, -1).reshape(-1, D)
    for activation in (nn.ReLU(), nn.GELU(), nn.PReLU(init=0.0)):
        expected = by_numpy(activation, flat)
        for memory in (torch.contiguous_format, torch.channels_last):
            census = ChannelCensus(activation, D)
            census.update(z.contiguous(memory_format=memory), 1)
            census.update(z[:0], 1)
            shares = [expected[share] for share in SHARES]
            assert census.compute().tolist() == pytest.approx(shares, rel=1e-12)
            assert census.nonfinite_frac == pytest.approx(expected["nonfinite_frac"])


def test_a_channel_of_nan_leaves_the_layer_its_census():
    z = draw()
    z[:, 4] = NAN
    census = ChannelCensus(nn.ReLU(), D)
    census.update(z, 1)
    expected = by_numpy(nn.ReLU(), z)
    assert census.compute().tolist() == pytest.approx([expected[share] for share in SHARES])
    assert census.nonfinite_frac == 1 / D
    assert ChannelCensus(nn.ReLU(), D).sums.sum() == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_layers_say_once_which_pre_activations_were_not_finite():
    class Backbone(nn.Module):
        device = torch.device("cpu")

        def __init__(self):
            super().__init__()
            self.act, self.good = nn.ReLU(), nn.ReLU()

    model, logged = Backbone(), {}
    monitor = LayerMonitor(["act", "good"])
    monitor.on_fit_start(None, model)
    model.log_dict = lambda values, **_: logged.update(values)
    monitor._counting = "val"
    for told in (1, 0):
        model.act(torch.tensor([[NAN, 1.0], [2.0, -1.0]]))
        model.good(torch.tensor([[1.0, -1.0]]))
        with warnings.catch_warnings(record=True) as caught:
            monitor._close_window("val", model)
        assert ["0.25 of act" in str(warning.message) for warning in caught] == [True] * told
    assert logged["layers/val/act/gate_open_frac"] == pytest.approx(2 / 3)
    assert len(logged) == 8


def documented_zeros():
    """Activation, precision, z: the table of the page on diagnostics."""
    page = (Path(__file__).parents[2] / "docs/diagnostics.md").read_text()
    table = page.partition("| activation | float32 | bfloat16 | float16 | gate closed |")[2]
    for row in table.partition("\n\n")[0].splitlines()[2:]:
        names, *numbers = row.strip("| ").split(" | ")
        for name in names.split(", "):
            yield name, *map(float, numbers)


def test_zeros_below_zero_start_where_the_page_says():
    rows, told = list(documented_zeros()), set()
    for name, *zeros, closed in rows:
        told.add(name)
        for dtype, zero in zip((torch.float32, torch.bfloat16, torch.float16), zeros, strict=True):
            z = -torch.arange(1e-3, 110, 1e-3, dtype=torch.float64).to(dtype)[:, None]
            a, g = gate(make_activation(name), z)
            assert z[a == 0].max().item() == pytest.approx(zero, rel=6e-3, abs=2e-3)
            assert not a[(z < 1.02 * zero) & (z < -1e-3)].any()
            assert z[g.abs() > 1e-6].min() >= z[a == 0].max() if closed else not g.any()
            if dtype == torch.float32 and closed:
                assert z[g.abs() > 1e-6].min().item() == pytest.approx(closed, rel=5e-3)
    for name in FORMULAS.keys() - told:
        for dtype in DTYPES[1:]:
            a, _ = gate(make_activation(name).to(dtype), -torch.logspace(-3, 3, 999, dtype=dtype))
            assert a.all(), name
    assert {"gelu", "silu", "mish"} <= told


# What is not elementwise.
class Pooled(nn.Module):
    def forward(self, z):
        return z - z.mean()


class Pair(nn.Module):
    def forward(self, z):
        return z, z


REFUSED = {
    "softmax": nn.Softmax(dim=1),
    "softmax over images": nn.Softmax(dim=0),
    "log softmax": nn.LogSoftmax(dim=1),
    "softmin": nn.Softmin(dim=1),
    "glu": nn.GLU(),
    "layer norm": nn.LayerNorm(D + 1),
    "batch norm": nn.BatchNorm1d(D + 1),
    "dropout": nn.Dropout(0.5),
    "rrelu": nn.RReLU(),
    "wrapped softmax": nn.Sequential(nn.ReLU(), nn.Softmax(dim=-1)),
    "mean": Pooled(),
    "normalised": nn.functional.normalize,
    "cumulated": lambda z: z.cumsum(1),
    "neighbours": lambda z: z + 1e-2 * z.roll(1, 0),
    "winners": lambda z: z * (z >= z.topk(3, dim=1).values[:, -1:]),
    "maximum": lambda z: z.amax(1),
    "pair": Pair(),
    "words": lambda z: "z",
    "truth": lambda z: z > 0,
    "slopes that do not fit": nn.PReLU(3),
    "convolution": nn.Conv2d(1, 1, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_elementwise_is_refused_in_a_sentence(name):
    state = torch.get_rng_state()
    for call in (check_elementwise, UnitCensus):
        with pytest.raises(InputError, match=r"^\S+ (is not an elementwise|cannot be comp)") as no:
            call(REFUSED[name], D + 1)
        assert "\n" not in str(no.value)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("path", ["torch.nn:Softmin", "torch.nn:GLU", "torch.nn:RReLU"])
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_a_head_refuses_it_by_its_name(monkeypatch, path):
    monkeypatch.setitem(ACTIVATIONS, "odd", Activation(path))
    with pytest.raises(InputError, match=r"^head\.activation=odd is not an elementwise activation"):
        Head(5, 1, width=D + 1, activation="odd")


def test_slopes_that_do_not_fit_the_width_are_refused_with_their_key():
    told = r"^head\.activation=prelu with head\.activation_args cannot be computed for 12 units: "
    for count in (3, D, 2 * D + 2):
        with pytest.raises(InputError, match=told):
            Head(5, 1, width=D + 1, activation="prelu", activation_args={"num_parameters": count})


@pytest.mark.parametrize("path", ["torch.nn:GLU", "torch.nn:Softmin"])
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_a_run_is_refused_before_anything_is_read_or_written(monkeypatch, tmp_path, path):
    monkeypatch.setitem(ACTIVATIONS, "odd", Activation(path))
    cfg = tiny_config(tmp_path / "no images", "head.activation=odd", "head.width=24")
    with pytest.raises(InputError, match=r"^head\.activation=odd is not an elementwise activation"):
        train(cfg, tmp_path / "run", [])
    assert not list(tmp_path.glob("*/*"))  # the claimed folder is empty


def test_what_is_elementwise_is_accepted():
    for activation in known_activations():
        if isinstance(activation, nn.PReLU) and activation.num_parameters > 1:
            check_elementwise(activation, activation.num_parameters)
            continue
        for width in (1, 2, 7, 896):
            check_elementwise(activation, width)
    for dtype in DTYPES:
        check_elementwise(nn.PReLU(D, dtype=dtype), D)
    check_elementwise(nn.RReLU().eval(), D)
    check_elementwise(nn.PReLU(D, device="meta"), D)


# Numpy.
def test_numpy_is_counted_as_the_same_tensor():
    z = draw(dtype=torch.float64)
    arrays = {
        "float64": z.numpy(),
        "float32": z.float().numpy(),
        "float16": z.half().numpy(),
        "big endian": z.numpy().astype(">f8"),
        "long double": z.numpy().astype(np.longdouble),
        "fortran": np.asfortranarray(z.numpy()),
        "backwards": z.flip(0).numpy()[::-1],
        "list": z.tolist(),
        "integers": z.round().long().numpy(),
        "whole numbers": z.round().long(),
    }
    arrays["read only"] = z.numpy().copy()
    arrays["read only"].flags.writeable = False
    for name, array in arrays.items():
        dtype = {"float32": torch.float32, "float16": torch.float16}.get(name, torch.float64)
        right = torch.from_numpy(np.array(array, dtype="f8")).to(dtype)
        assert torch.equal(as_tensor(array), right)
        assert as_tensor(array).dtype == dtype, name
        census, moments = UnitCensus(nn.ELU(), D), FeatureMoments(D)
        census.update(array)
        moments.update(array)
        assert_census(census.compute(), by_numpy(nn.ELU(), right))
        expected = FeatureMoments(D)
        expected.update(right)
        assert moments.compute() == pytest.approx(expected.compute(), rel=1e-9), name
    a, g = gate(nn.PReLU(), z.numpy())  # the slope is float32
    assert a.dtype == g.dtype == torch.float32


# Features.
def gamma_of(f):
    moments = FeatureMoments(f.shape[1])
    moments.update(f)
    return moments.compute()["feature_gamma"]


@pytest.mark.parametrize("images", [10, 40])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0])
def test_the_square_of_gamma_is_too_large_by_as_much_as_is_documented(gamma, images):
    rng, width, draws = np.random.default_rng(images), 200, 300
    mean = np.full(width, gamma)  # the trace of the covariance is the width
    squares = [gamma_of(rng.normal(mean, 1, (images, width))) ** 2 for _ in range(draws)]
    bias, error = np.mean(squares) - gamma**2, np.std(squares) / math.sqrt(draws)
    stated = (1 + gamma**2) / images
    # Of the second order: 1 / (1 - 1 / N), and the noise of the trace.
    assert abs(bias - stated) < 4 * error + stated * (1.5 / images + 2 / width)
    if gamma == 3.0:
        assert abs(bias - 1 / images) > 10 * error


def test_features_that_are_not_finite_are_left_out():
    f = draw(3)
    for value in (NAN, INF, -INF):
        spoilt = f.clone()
        spoilt[4, 2] = value
        moments = FeatureMoments(D)
        for part in spoilt.split([4, 0, 33]):
            moments.update(part)
        values = moments.compute()
        rest = np.delete(f.double().numpy(), 4, axis=0)
        gamma = np.linalg.norm(rest.mean(0)) / math.sqrt(rest.var(0).sum())
        assert values["feature_gamma"] == pytest.approx(gamma)
        assert values["dead_expected_frac"] == pytest.approx(dead_expected(gamma, B - 1))
        assert moments.mean.tolist() == pytest.approx(rest.mean(0).tolist())


def test_features_without_images_or_spread():
    moments = FeatureMoments(3)
    moments.update(torch.empty(0, 3))
    assert all(math.isnan(value) for value in moments.compute().values())
    moments.update(torch.full((1, 3), NAN))
    assert all(math.isnan(value) for value in moments.compute().values())
    assert gamma_of(np.ones((4, 3))) == INF
    assert dead_expected(INF, 4) == pytest.approx(0.5)
    assert dead_expected(np.float32(1), np.int64(9)) == pytest.approx(0.1)


def test_the_gain_of_a_norm_without_scale():
    norm = nn.BatchNorm1d(3, affine=False, eps=0.0)
    norm.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    assert tail_gain(norm) == 2
