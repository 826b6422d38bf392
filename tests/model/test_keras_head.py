"""A trained Keras head and ours with its weights: the same logits on the same features."""

import os
import re
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from keras import layers

from fluoroscope.errors import InputError
from fluoroscope.model.keras_head import ACTIVATIONS, head_from_keras

B, F, D, K = 11, 13, 17, 3


def model_of(*parts, seed=0):
    """A Keras model whose every weight is drawn, as if it had been trained."""
    model = keras.Sequential([keras.Input((F,)), *parts])
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        drawn = [rng.uniform(0.2, 1.5, each.shape) for each in layer.get_weights()]
        if type(layer).__name__ == "Dense":
            drawn = [rng.normal(0, 0.5, each.shape) for each in drawn]
        layer.set_weights(drawn)
    return model


def logits(probabilities):
    p = np.asarray(probabilities, dtype=np.float64)
    return np.log(p / (1 - p))


FEATURES = np.random.default_rng(1).normal(0, 1, (B, F)).astype(np.float32)


def test_the_head_of_the_question_gives_the_same_logits():
    model = model_of(
        layers.Dense(896, activation="relu"),
        layers.BatchNormalization(),
        layers.Dense(1, activation="sigmoid"),
    )
    for layer, scale in ((model.layers[0], 0.3), (model.layers[-1], 0.02)):
        layer.set_weights([scale * each for each in layer.get_weights()])
    head = head_from_keras(model.layers)
    ours = head(torch.from_numpy(FEATURES)).detach().numpy()
    expected = logits(model.predict(FEATURES, verbose=0))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1
    assert (head.norm.eps, head.norm.momentum) == (1e-3, pytest.approx(0.01))
    assert not head.training


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_means_the_same(name):
    parts = (layers.Dense(D, activation=name), layers.BatchNormalization(), layers.Dense(K))
    same_logits(model_of(*parts))


ARRANGEMENTS = {
    "no norm": [layers.Dense(D, "relu"), layers.Dense(K)],
    "activation apart": [layers.Dense(D), layers.Activation("gelu"), layers.Dense(K)],
    "norm first": [
        *(layers.Dense(D, use_bias=False), layers.BatchNormalization(), layers.Activation("relu")),
        *(layers.Dropout(0.3), layers.Dense(K)),
    ],
    "a linear activation last": [
        *(layers.Dense(D, "relu"), layers.BatchNormalization(), layers.Activation("linear")),
        layers.Dense(K),
    ],
    "norm without scale": [
        *(layers.Dense(D, "elu"), layers.BatchNormalization(scale=False, epsilon=0.1)),
        layers.Dense(K, use_bias=False),
    ],
    "norm without shift": [
        *(layers.Dense(D, "tanh"), layers.BatchNormalization(center=False, momentum=0.9)),
        layers.Dense(K),
    ],
    "a layer ReLU": [layers.Dense(D), layers.ReLU(), layers.BatchNormalization(), layers.Dense(K)],
    "a layer ReLU up to 6": [layers.Dense(D), layers.ReLU(max_value=6.0), layers.Dense(K)],
    "a layer ReLU with a slope": [
        layers.Dense(D),
        layers.ReLU(negative_slope=0.3),
        layers.Dense(K),
    ],
    "a layer LeakyReLU": [layers.Dense(D), layers.LeakyReLU(0.4), layers.Dense(K)],
    "a layer in a layer": [layers.Dense(D, layers.LeakyReLU(0.4)), layers.Dense(K)],
    "a layer ELU after the norm": [
        *(layers.Dense(D), layers.BatchNormalization(), layers.ELU(alpha=0.7), layers.Dense(K)),
    ],
    "half precision": [layers.Dense(D, "relu", dtype="mixed_bfloat16"), layers.Dense(K)],
}


@pytest.mark.parametrize("parts", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_every_arrangement_gives_the_same_logits(parts):
    loose = 0.05 if "bfloat16" in parts[0].dtype_policy.name else 1e-4
    same_logits(model_of(*parts), loose)


def same_logits(model, tolerance=1e-4):
    ours = head_from_keras(model.layers)(torch.from_numpy(FEATURES)).detach().numpy()
    expected = model.predict(FEATURES, verbose=0).astype(np.float32)
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


def test_dropout_and_momentum_come_along():
    head = head_from_keras(model_of(*ARRANGEMENTS["norm first"]).layers)
    assert (head.order, head.dropout.p) == ("norm-activation", 0.3)
    head = head_from_keras(model_of(*ARRANGEMENTS["norm without shift"]).layers)
    assert head.norm.momentum == pytest.approx(0.1)


def relu(x):
    """A function of a user's, with a name that Keras has as well."""
    return x


class ReLU(layers.Layer):
    """A layer of a user's, with a name that Keras has as well."""


NORM = layers.BatchNormalization
REFUSED = {
    "no layers": ([], "layers are none"),
    "one layer": ([layers.Dense(D)], "layers are Dense; a head is"),
    "another layer": ([layers.Dense(D), layers.PReLU(), layers.Dense(K)], "Dense, PReLU, Dense"),
    "a layer of another library": (
        [layers.Dense(D), ReLU(), layers.Dense(K)],
        "Dense, ReLU, Dense",
    ),
    "a bent ReLU": (
        [layers.Dense(D), layers.ReLU(threshold=0.1), layers.Dense(K)],
        "threshold=0.1",
    ),
    "a low ReLU": ([layers.Dense(D), layers.ReLU(max_value=1), layers.Dense(K)], "max_value=1"),
    "ReLU twice": ([layers.Dense(D, "relu"), layers.ReLU(), layers.Dense(K)], "has one"),
    "dropout before the norm": (
        [layers.Dense(D, "relu"), layers.Dropout(0.5), NORM(), layers.Dense(K)],
        "Dropout, BatchNormalization",
    ),
    "two activations": (
        [layers.Dense(D, "relu"), NORM(), layers.Activation("gelu"), layers.Dense(K)],
        "activations relu and gelu; a head has one",
    ),
    "not elementwise": ([layers.Dense(D, "softmax"), layers.Dense(K)], "got 'softmax'"),
    "own function": ([layers.Dense(D, relu), layers.Dense(K)], r"got '.+\.relu'"),
    "own layer": ([layers.Dense(D, layers.PReLU()), layers.Dense(K)], "PReLU'"),
    "other output": ([layers.Dense(D, "relu"), layers.Dense(K, "softmax")], "last Keras layer"),
}


@pytest.mark.parametrize(("parts", "said"), REFUSED.values(), ids=REFUSED)
def test_what_no_head_does_is_refused(parts, said):
    model = model_of(*parts) if parts else None
    with pytest.raises(InputError, match=said):
        head_from_keras(model.layers if model else [])


def test_layers_without_weights_or_with_more_are_refused():
    with pytest.raises(InputError, match=r"has 0 weights where 2 are expected \(kernel, bias\)"):
        head_from_keras([layers.Dense(D, "relu"), layers.Dense(K)])
    model = model_of(layers.Dense(D, "relu"), layers.Dense(K))
    model.layers[0].enable_lora(2)
    with pytest.raises(InputError, match="has 4 weights where 2"):
        head_from_keras(model.layers)


def test_the_example_of_the_page_counts_the_units(capsys):
    page = (Path(__file__).parents[2] / "docs/coming_from.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    place = {}
    exec(example, place)
    expected = place["model"].predict(place["features"].numpy(), verbose=0)
    np.testing.assert_allclose(torch.sigmoid(place["logits"]), expected, atol=1e-5)
    dead = place["units"].channels()["dead"]
    z = place["head"].pre_activation(place["features"])
    assert dead.tolist() == (z <= 0).all(0).tolist()
    assert "896" in capsys.readouterr().out
