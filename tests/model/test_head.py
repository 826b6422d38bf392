import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch

from fluoroscope.errors import InputError
from fluoroscope.model.activation_table import ACTIVATIONS
from fluoroscope.model.activations import make_activation
from fluoroscope.model.head import Head

B, F, D, K = 6, 13, 17, 3
KERAS_NAMES = {
    "relu": "relu",
    "elu": "elu",
    "selu": "selu",
    "silu": "silu",
    "mish": "mish",
    "softplus": "softplus",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softsign": "softsign",
    "relu6": "relu6",
    "celu": "celu",
    "gelu": "gelu",
    "hardswish": "hard_swish",
    "identity": "linear",
}


def keras_head(activation="relu"):
    """The question's layers, with logits in place of the sigmoid."""
    kernel = {"kernel_initializer": "glorot_uniform", "bias_initializer": "normal"}
    return keras.Sequential(
        [
            keras.Input((F,)),
            keras.layers.Dense(D, activation=activation, **kernel),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(K, **kernel),
        ]
    )


def copied(model, activation="relu"):
    """A `Head` with the weights of the Keras model; both stay where they are."""
    head = Head(F, K, width=D, activation=activation)
    dense, norm, out = model.layers
    with torch.no_grad():
        for ours, theirs in ((head.dense, dense), (head.out, out)):
            ours.weight.copy_(torch.from_numpy(keras.ops.convert_to_numpy(theirs.kernel).T))
            ours.bias.copy_(torch.from_numpy(keras.ops.convert_to_numpy(theirs.bias)))
        norm.gamma.assign(np.linspace(0.5, 1.5, D))
        norm.beta.assign(np.linspace(-1, 1, D))
        head.norm.weight.copy_(torch.linspace(0.5, 1.5, D))
        head.norm.bias.copy_(torch.linspace(-1, 1, D))
    return head


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_forward_equals_keras(name):
    model = keras_head(KERAS_NAMES[name])
    head = copied(model, name)
    x = torch.randn(B, F)
    torch.testing.assert_close(head(x), model(x, training=True), rtol=1e-4, atol=1e-5)


def test_running_statistics_and_evaluation_equal_keras_after_five_steps():
    model = keras_head()
    head = copied(model)
    for _ in range(5):
        x = torch.randn(B, F)
        head(x), model(x, training=True)
    norm = model.layers[1]
    mean = torch.from_numpy(keras.ops.convert_to_numpy(norm.moving_mean))
    torch.testing.assert_close(head.norm.running_mean, mean, rtol=1e-4, atol=1e-6)
    # Keras keeps the biased variance of the batch, PyTorch n / (n - 1) of it.
    var = torch.from_numpy(keras.ops.convert_to_numpy(norm.moving_variance))
    ours = (head.norm.running_var - 0.99**5) * (B - 1) / B + 0.99**5
    torch.testing.assert_close(ours, var, rtol=1e-4, atol=1e-6)


def test_evaluation_equals_keras_on_the_same_statistics():
    model = keras_head()
    head = copied(model).eval()
    mean, var = np.linspace(-1, 1, D), np.linspace(0.001, 2, D)
    model.layers[1].moving_mean.assign(mean)
    model.layers[1].moving_variance.assign(var)
    head.norm.running_mean.copy_(torch.from_numpy(mean))
    head.norm.running_var.copy_(torch.from_numpy(var))
    x = torch.randn(B, F)
    torch.testing.assert_close(head(x), model(x, training=False), rtol=1e-4, atol=1e-5)


def test_gradients_equal_keras():
    model = keras_head()
    head = copied(model)
    x = torch.randn(B, F)
    weight = torch.randn(B, K)
    (head(x) * weight).sum().backward()
    (model(x, training=True) * weight).sum().backward()
    dense, norm, out = model.layers
    pairs = [
        (head.dense.weight, dense.kernel.value.grad.T),
        (head.norm.weight, norm.gamma.value.grad),
        (head.norm.bias, norm.beta.value.grad),
        (head.out.weight, out.kernel.value.grad.T),
        (head.out.bias, out.bias.value.grad),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-3, atol=1e-5)


def test_initial_weights_follow_keras_rules():
    head = Head(500, K, width=400)
    limit = (6 / (500 + 400)) ** 0.5  # glorot uniform
    assert head.dense.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert head.dense.weight.std().item() == pytest.approx(limit / 3**0.5, rel=1e-2)
    assert head.dense.bias.abs().sum() == head.out.bias.abs().sum() == 0
    assert (head.norm.eps, head.norm.momentum) == (1e-3, 0.01)


def test_the_same_seed_gives_every_activation_the_same_weights():
    def kernels(name):
        torch.manual_seed(7)
        head = Head(F, K, width=D, activation=name)
        return torch.cat([head.dense.weight.flatten(), head.out.weight.flatten()])

    reference = kernels("relu")
    assert all(torch.equal(kernels(name), reference) for name in ACTIVATIONS)


def test_orders_and_norms():
    x = torch.randn(B, F)
    head = Head(F, K, width=D, order="norm-activation", norm="layer")
    z = torch.nn.functional.layer_norm(head.dense(x), (D,), eps=1e-3)
    torch.testing.assert_close(head(x), head.out(z.relu()))
    assert isinstance(Head(F, K, norm="none").norm, torch.nn.Identity)
    he = Head(1000, K, width=300, init="he").dense.weight.std().item()
    assert he == pytest.approx((2 / 1000) ** 0.5, rel=2e-2)
    assert Head(F, K, init="torch", bias_init=0.25).dense.bias.unique().tolist() == [0.25]


def test_prior_sets_the_output_bias():
    head = Head(F, K)
    head.set_prior(torch.tensor([-1.0, 0.0, 2.0]))
    assert head.out.bias.tolist() == [-1.0, 0.0, 2.0]


def test_centred_units_have_a_mean_pre_activation_of_zero():
    head = Head(F, K, width=D, init="torch", bias_init="centered")
    assert head.dense.bias.abs().min() > 0  # the data come later
    features = torch.randn(50, F) + 3
    head.center(features.double().mean(0))
    expected = -head.dense.weight.detach().double().numpy() @ features.double().numpy().mean(0)
    assert head.dense.bias.detach().numpy() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(head.dense(features).mean(0), torch.zeros(D), rtol=0, atol=1e-5)


def shut(activation="relu", **keys):
    """A head in which units 2, 5 and 11 are closed on all features, and these features."""
    torch.manual_seed(3)
    head = Head(F, K, width=D, activation=activation, norm_momentum=0.5, **keys)
    units = torch.zeros(D, dtype=torch.bool)
    units[[2, 5, 11]] = True
    far = torch.tensor([-1000.0, 1000.0 if activation == "sigmoid" else -1000.0, -1000.0])
    with torch.no_grad():
        for name, p in head.named_parameters():
            if not name.startswith("activation"):
                p.normal_()
        layer = head.norm if head.order == "norm-activation" else head.dense
        layer.bias[units] = far
    features = torch.randn(50, F) + 0.5
    for _ in range(60):  # until running statistics have settled
        head(features)
    return head, units, features


HEADS = [
    {},
    {"activation": "sigmoid"},
    {"norm": "none"},
    {"activation": "sigmoid", "norm": "none"},
    {"order": "norm-activation"},
    {"order": "norm-activation", "activation": "sigmoid"},
    {"activation": "relu", "activation_args": {"inplace": True}, "order": "norm-activation"},
    {"activation": "prelu", "activation_args": {"num_parameters": D, "init": 0.0}},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("keys", HEADS)
def test_dead_units_start_anew_without_a_change_of_the_logits(keys, training):
    head, units, features = shut(**keys)
    before = head.train(training)(features)
    head.reinitialise(units, features.mean(0), seed=1)
    assert head.out.weight[:, units].abs().sum() == 0
    torch.testing.assert_close(head(features), before, rtol=1e-4, atol=1e-4)


def test_what_out_heard_from_a_dead_unit_is_worth_keeping():
    """Otherwise the test before would pass with nothing folded."""
    head, units, features = shut()
    before = head(features)
    head.out.weight.data[:, units] = 0
    assert (head(features) - before).abs().max() > 0.5


@pytest.mark.parametrize("order", ["activation-norm", "norm-activation"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_under_layer_norm_the_logits_shift_a_little(activation, order):
    """The other units see the new ones in their mean and variance; 3 of 17 units are new here."""
    head, units, features = shut(activation, norm="layer", order=order)
    before = head(features)
    head.reinitialise(units, features.mean(0), seed=1)
    shift = (head(features) - before).abs().mean()
    assert 0 < shift < 0.25 * before.std(0).mean()  # 0.20 seen; 0.18 to 1.2 with nothing folded


def test_only_the_named_units_start_anew_and_nothing_else_notices():
    head, units, features = shut("sigmoid")
    counted = []
    head.activation.register_forward_pre_hook(lambda *_: counted.append(1))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    state = torch.get_rng_state()
    head.reinitialise(units, features.mean(0), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not counted
    after = head.state_dict()
    for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias"):
        assert torch.equal(after[name][~units], before[name][~units]), name
        assert (after[name][units] != before[name][units]).all(), name
    assert torch.equal(after["out.weight"][:, ~units], before["out.weight"][:, ~units])
    for name, start in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert after[f"norm.{name}"][units].tolist() == [start] * 3


def restarted(seed=1, **keys):
    """All of a head's units, started anew from rows that no rule of drawing gives."""
    head = Head(500, K, width=400, **keys)
    torch.nn.init.constant_(head.dense.weight, 9.0)
    torch.nn.init.constant_(head.dense.bias, 9.0)
    head.reinitialise(torch.ones(400, dtype=torch.bool), torch.linspace(0, 1, 500), seed)
    return head.dense


def test_new_rows_come_from_the_distribution_of_the_first_ones():
    limit = (6 / (500 + 400)) ** 0.5  # glorot uniform
    keras = restarted()
    assert keras.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert keras.weight.std().item() == pytest.approx(limit / 3**0.5, rel=1e-2)
    assert keras.bias.abs().sum() == 0
    assert restarted(init="he").weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=1e-2)
    uniform = restarted(init="torch")
    for values in (uniform.weight, uniform.bias):  # within 1 / sqrt(fan-in)
        assert values.abs().max().item() == pytest.approx(500**-0.5, rel=2e-2)
    assert restarted(bias_init=-0.5).bias.unique().tolist() == [-0.5]
    centred = restarted(bias_init="centered")
    expected = -centred.weight @ torch.linspace(0, 1, 500)
    torch.testing.assert_close(centred.bias, expected, rtol=1e-4, atol=1e-5)


def test_new_rows_depend_on_the_seed_alone():
    torch.manual_seed(4)
    first = restarted(seed=1).weight
    torch.manual_seed(5)
    assert torch.equal(first, restarted(seed=1).weight)
    assert not torch.equal(first, restarted(seed=2).weight)


@pytest.mark.parametrize("value", ["center", "0.5", True, float("nan"), float("inf"), [1]])
def test_a_bias_that_is_no_choice_is_refused(value):
    with pytest.raises(InputError, match="bias_init must be a finite number, null or cent"):
        Head(F, K, bias_init=value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"activation_args": {"slope": 1}}, "relu does not take it"),
        ({"activation": "identity", "activation_args": {"a": 1}}, "its arguments: none"),
        ({"norm": "group"}, "head.norm must be one of batch, layer, none"),
        ({"order": "norm"}, "head.order"),
        ({"init": "zeros"}, "head.init"),
        ({"dropout": 1.0}, "head.dropout"),
        ({"width": 0}, "head.width"),
        ({"norm_momentum": 0.0}, "head.norm_momentum"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(keys, message):
    with pytest.raises(InputError, match=message):
        Head(F, K, **keys)


def test_arguments_reach_the_activation():
    assert make_activation("leaky_relu", negative_slope=0.1).negative_slope == 0.1
    assert make_activation("prelu", num_parameters=D).weight.shape == (D,)
