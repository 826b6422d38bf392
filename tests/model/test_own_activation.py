"""Activations of the user's own in a head."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.elementwise import gate
from fluoroscope.errors import InputError
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.model.activations import make_activation
from fluoroscope.model.derivatives import check_differentiable
from fluoroscope.model.head import Head
from fluoroscope.model.optimizer import parameter_groups
from fluoroscope.own_code import trusting

B, F, D, K = 6, 13, 17, 3
HEADING = "import numpy, random, torch\nfrom torch import nn\n"
SWISH = """
class Swish(torch.autograd.Function):
    @staticmethod
    def forward({ctx}z):
        {keep}
        return z * torch.sigmoid(z)
    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        gate = torch.sigmoid(z)
        return gradient * (gate + z * gate * (1 - gate))
"""
OLD = SWISH.format(ctx="ctx, ", keep="ctx.save_for_backward(z)")
NEW = (
    SWISH.format(ctx="", keep="pass")
    + """
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)
"""
)
JVP = """
    @staticmethod
    def jvp(ctx, tangent):
        (z,) = ctx.saved_tensors
        gate = torch.sigmoid(z)
        return tangent * {factor} * (gate + z * gate * (1 - gate))
"""
APPLY = "\ndef act(z):\n    return Swish.apply(z)\n"


def module(forward, init="pass"):
    return f"""
class act(nn.Module):
    def __init__(self, a=1.0):
        super().__init__()
        {init}
    def forward(self, z):
        return {forward}
"""


def head_of(name, **args):
    torch.manual_seed(7)
    with trusting([name]):
        return Head(F, K, width=D, activation=name, activation_args=args)


@pytest.fixture
def head(own_package):
    """A head with `mypkg.acts.act` of this code."""

    def make(code, **args):
        own_package(HEADING + code)
        return head_of("mypkg.acts.act", **args)

    return make


@pytest.fixture
def refused(head):
    def refuse(code, **args):
        with pytest.raises(InputError) as refusal:
            head(code, **args)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    return refuse


def snake(z, a):
    return z + np.sin(a * z) ** 2 / a, 1 + np.sin(2 * a * z)


def test_a_learnt_snake_has_the_gates_of_its_formula_and_learns(own_package):
    own_package()
    head = head_of("mypkg.acts.Snake", a=1.5)
    z = torch.linspace(-4, 4, 101, dtype=torch.float64)[:, None]
    a, g = gate(make_double(head), z)
    value, slope = snake(z.numpy(), 1.5)
    np.testing.assert_allclose(a, value, atol=1e-12)
    np.testing.assert_allclose(g, slope, atol=1e-12)
    before = head.activation.a.item()
    groups = parameter_groups(nn.Identity(), head, 0.1, 0.1, weight_decay=0.5)
    (own,) = [x for x in groups if any(p is head.activation.a for p in x["params"])]
    assert own["weight_decay"] == 0
    optimizer = torch.optim.AdamW(groups)
    head(torch.randn(B, F)).square().sum().backward()
    optimizer.step()
    assert head.activation.a.item() != before


def make_double(head):
    return head.activation.double()


def test_its_census_is_that_of_numpy(own_package):
    own_package()
    activation = head_of("mypkg.acts.Snake", a=0.5).activation
    z = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    census = UnitCensus(activation, D)
    census.update(z)
    closed = np.abs(snake(z.double().numpy(), 0.5)[1]) <= 1e-6
    assert census.compute()["gate_open_frac"] == pytest.approx(1 - closed.mean())
    assert census.compute()["dead_frac"] == closed.all(axis=0).mean()


def test_its_parameters_are_in_the_weights_of_the_head(own_package):
    own_package()
    first, second = head_of("mypkg.acts.Snake", a=1.5), head_of("mypkg.acts.Snake", a=3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    f = torch.randn(B, F)
    assert torch.equal(first.eval()(f), second.eval()(f))


@pytest.mark.parametrize("shape", ["()", "1", f"1, {D}", f"{D}, 1"])
def test_a_parameter_of_any_shape_has_no_weight_decay(head, shape):
    code = module("z * self.a.flatten()", f"self.a = nn.Parameter(torch.ones({shape}))")
    made = head(code)
    for holder in (made, HeadBank([made])):
        groups = parameter_groups(nn.Identity(), holder, 0.1, 0.1, weight_decay=0.5)
        own = [x for x in groups if any(p is made.activation.a for p in x["params"])]
        assert [x["weight_decay"] for x in own] == [0.0]


@pytest.mark.parametrize(
    ("code", "args", "expected"),
    [
        ("act = nn.Softplus", {"beta": 2.0}, lambda z: nn.functional.softplus(z, 2.0)),
        ("def act(): return nn.ELU()", {}, nn.functional.elu),
        ("def act(a): return nn.ELU(a)", {"a": 0.3}, lambda z: nn.functional.elu(z, 0.3)),
        ("def act(a=0.3): return nn.ELU(a)", {}, lambda z: nn.functional.elu(z, 0.3)),
        ("def act(z): return z.clamp(0, 1)", {}, lambda z: z.clamp(0, 1)),
        ("def act(z, a=2.0): return a * z", {"a": 3.0}, lambda z: 3 * z),
        ("act = lambda x, *, a: a * x", {"a": 3.0}, lambda z: 3 * z),
        ("act = torch.tanh", {}, torch.tanh),
        ("act = torch.relu_", {}, torch.relu),
        ("act = nn.functional.leaky_relu", {"negative_slope": 0.2}, nn.LeakyReLU(0.2)),
        (NEW + JVP.format(factor=1) + APPLY, {}, nn.functional.silu),
        (module("z.clamp(min=0)"), {"a": 2}, torch.relu),
        (
            "def deco(f):\n    return lambda *a, **k: f(*a, **k)\n"
            "@deco\ndef act(z): return z.sin()",
            {},
            torch.sin,
        ),
    ],
    ids=range(13),
)
def test_classes_factories_and_functions_are_activations(head, code, args, expected):
    activation = head(code, **args).activation
    z = torch.randn(B, D)
    torch.testing.assert_close(activation(z.clone()), expected(z.clone()))


def test_a_trusted_package_does_not_run_any_function_with_the_arguments_of_a_file(own_package):
    """A stranger's checkpoint could name `mypkg.tools.delete` and a folder."""
    own_package(
        HEADING + "def make(folder):\n    open(folder, 'w')\n    return nn.ReLU()\n"
        "def act(z): return z.relu()\nclass Act(nn.ReLU): pass\n"
    )
    with trusting(["mypkg"]):
        for name in ("act", "Act"):
            assert make_activation(f"mypkg.acts.{name}")(torch.ones(1)) == 1
        with pytest.raises(InputError, match=r"names a function, .*trust=\[mypkg.acts.make\]"):
            make_activation("mypkg.acts.make", folder="made")
        assert not Path("made").exists()
    with trusting(["mypkg.acts.make"]):
        assert isinstance(make_activation("mypkg.acts.make", folder="made"), nn.ReLU)


def test_the_same_seed_gives_the_same_weights_whatever_the_activation_draws(head):
    drawn = module("z * self.a", "self.a = nn.Parameter(torch.rand(17))")
    own = head(f"torch.manual_seed(3)\n{drawn}")
    plain = head_of("relu")
    for name in ("dense", "out"):
        assert torch.equal(getattr(own, name).weight, getattr(plain, name).weight)
    assert torch.equal(own.activation.a, head_of("mypkg.acts.act").activation.a)


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        ("z.softmax(-1)", "depends on other units or images"),
        ("z - z.mean(0)", "depends on other units or images"),
        ("nn.functional.dropout(z, 0.5)", "it draws random numbers"),
        ("nn.functional.dropout(z, 1e-7)", "it draws random numbers"),
        ("z + 0 * torch.rand(1)", "it draws random numbers"),
        ("z + random.random()", "it draws random numbers"),
        ("z * torch.from_numpy(numpy.random.rand(17)).float()", "it draws random numbers"),
        ("z.double()", "it turns torch.float32 into torch.float64"),
        ("z.half()", "it turns torch.float32 into torch.float16"),
        ("z > 0", "it does not return one number per unit"),
        ("z[:, :4]", "it does not return one number per unit"),
        ("None", "it does not return one number per unit"),
        ("z.nothing", "cannot be computed for 17 units: 'Tensor' object has no attribute 'nothi"),
        ("1 / 0", "cannot be computed for 17 units: division by zero"),
        ("z.sqrt()", "has no finite value at -"),
        ("z.log()", "has no finite value at -"),
        ("z.sign() * z.abs().sqrt()", "has no finite derivative at 0"),
        ("z.sin() / z", "has no finite value at 0"),
        ("z * torch.arange(len(z))[:, None]", "depends on other units or images"),
        ("z * (1 if z.max() > 3 else 2)", "depends on other units or images"),
        ("z - z.median(0).values", "depends on other units or images"),
        ("(z > 0).float()", "has the derivative 0 from "),
        ("z.detach()", "has the derivative 0 from "),
        ("exit()", "cannot be computed for 17 units: it exits"),
    ],
)
def test_what_is_no_activation_is_refused(refused, forward, told):
    said = refused(module(forward))
    assert said.startswith("head.activation=mypkg.acts.act ")
    assert told in said
    assert told in refused(f"def act(z):\n    return {forward}")


@pytest.mark.parametrize("code", [OLD, NEW, OLD + JVP.format(factor=1)])
def test_an_own_derivative_without_forward_mode_is_told_what_to_add(refused, code):
    told = refused(code + APPLY)
    for method in ("setup_context(ctx, inputs, output)", "jvp(ctx, *tangents)", "static method"):
        assert method in told


def test_two_derivatives_that_differ_are_refused(refused):
    told = refused(NEW + JVP.format(factor=2) + APPLY)
    assert "has two derivatives at" in told
    assert "by backward" in told
    assert "by jvp" in told


STATE = "self.register_buffer('m', torch.tensor(1.0))"
GREATEST = module("z / self.m.copy_(torch.maximum(self.m, z.detach().abs().max()))", STATE)
CALLS = module("(self.m.add_(1), z.relu())[1]", STATE)
COUNTS = module("z * (1 + 1e-5 * next(self.calls))", "self.calls = __import__('itertools').count()")
LATE = module("z.relu() if self.training else nn.functional.dropout(z, 0.5)")
OPEN = module("z.relu()", "self.file = open(__file__)")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (GREATEST, "changes its buffer m when it computes"),
        (CALLS, "changes its buffer m when it computes"),
        (COUNTS, "draws random numbers or keeps a state"),
        (LATE, "draws random numbers or keeps a state"),  # in evaluation alone
        (OPEN, "cannot be copied (cannot pickle '_io.TextIOWrapper' object)"),
    ],
)
def test_an_activation_that_is_another_one_later_is_refused(refused, code, told):
    assert told in refused(code)


def test_the_check_leaves_an_activation_as_it_was(head):
    made = head(module("z * self.a", "self.a = nn.Parameter(torch.ones(17)); self.calls = [0]"))
    assert made.activation.training
    assert made.activation.a.grad is None


def test_a_parameter_that_is_not_used_is_refused(refused):
    told = refused(module("z.relu()", "self.a = nn.Parameter(torch.ones(1))"))
    assert "the parameter a gets no gradient" in told


@pytest.mark.parametrize(
    ("code", "args", "told"),
    [
        (module("z"), {"b": 1}, "head.activation_args.b: mypkg.acts.act does not take it (its a"),
        (module("z"), {"aa": 1}, "did you mean 'a'?"),
        (
            "class act(nn.ELU):\n    def __init__(self, a): super().__init__(a)",
            {},
            "needs 'a'; add",
        ),
        ("def act(z, a): return a * z", {}, "needs 'a'; add"),
        ("class act(nn.ReLU):\n    def __init__(self): raise KeyError('x')", {}, "'x'"),
        ("def act(): raise SystemExit(0)", {}, "it exits"),
        ("def act(z, a=1): return a * z", {"b": 1}, "does not take it (its arguments: a)"),
        ("def act(): return nn.ELU()", {"b": 1}, "does not take it (its arguments: none)"),
        ("def act(a): return nn.ELU(a)", {}, "does not return one number per unit"),
        ("class act: pass", {}, "it is another class"),
        ("act = nn.ReLU()", {}, "of type ReLU"),
        ("act = 3", {}, "of type int"),
        ("def act(): return 3", {}, "it returned an object of type int"),
        (NEW + JVP.format(factor=1) + "act = Swish", {}, "calls Swish.apply"),
    ],
    ids=range(14),
)
def test_other_objects_and_arguments_are_refused(refused, code, args, told):
    said = refused(code, **args)
    assert said.startswith("head.activation")
    assert told in said


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_named_activation_is_differentiable_both_ways(name):
    check_differentiable(make_activation(name), D, name)


def test_a_named_activation_needs_no_trust_and_a_path_of_pytorch_does():
    make_activation("softplus")
    with pytest.raises(InputError, match=r"trust=\[torch.nn.Softplus\]"):
        make_activation("torch.nn.Softplus")
    with trusting(["torch"]):
        assert isinstance(make_activation("torch.nn.Softplus", beta=2), nn.Softplus)
    with trusting(["timm"]):
        made = make_activation("timm.models.metaformer.StarReLU", scale_learnable=True)
        check_differentiable(made, D, "star")
