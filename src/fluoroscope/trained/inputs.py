"""Recognise films that are unlike those a model was trained on.

`measure` looks at training and validation films once; `flags` compares further films with them. A
flag's limit is the most extreme of the validation films, or the k-th most extreme of N, so that of
further films like them at most k / (N + 1) get the flag by chance: its false-alarm rate.

| flag | the film |
|---|---|
| `not_chest` | its coarse picture (8 x 8 gray levels) is far from those of training |
| `inverted` | looks like a negative: bone dark, air bright; its negative is like a training film |
| `lateral` | has no mediastinum between two lungs, and no training film is known to be lateral |
| `constant` | has hardly any contrast; then no other flag of its content is given |
| `tiny` | is much smaller than the model's input |
| `colour` | holds colours |
| `unusual` | the backbone's features are far from those of all kinds of training films |
"""

import warnings
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from fluoroscope.commands import called
from fluoroscope.console import show_progress
from fluoroscope.data.image_stats import SMALLEST_PX
from fluoroscope.errors import InputError
from fluoroscope.run.input_check import NARROW
from fluoroscope.trained.film_facts import GRAYS_PX, NUMBERS
from fluoroscope.trained.film_loader import film_loader
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.stored_arrays import Array, from_text, to_text

VERSION = 1
FALSE_ALARM = 0.01  # aimed at for each flag; more if there are fewer than 99 validation films
LOOKED_AT = 2000  # films of each split at most
KINDS = 64  # of training films
COLOURED = 0.05  # share of the pixels: a small coloured mark is no colour picture
FLAGS = ("not_chest", "inverted", "lateral", "constant", "tiny", "colour", "unusual")
FIXED = ("constant", "tiny", "colour")  # flags whose limits need no statistics
GRAYS = GRAYS_PX**2


class Inputs(NamedTuple):
    """What is known of the films of training.

    Attributes:
        limits: by flag; a film whose score (larger is more suspicious) exceeds it gets the flag.
        rates: by flag, the share of films like those of validation that get it at most; empty if
            nothing was measured.
        gray_mean, gray_precision: of the coarse pictures, [64] and [64, 64].
        kinds: unit vectors [C, F], the centres of the kinds of training films.
    """

    limits: dict[str, float]
    rates: dict[str, float]
    gray_mean: Array
    gray_precision: Array
    kinds: Array


def flags(inputs: Inputs, facts: np.ndarray, features: np.ndarray) -> list[list[str]]:
    """The flags of each film.

    Args:
        inputs: of `read_inputs`.
        facts: [N, 69] of `film_facts`; a film without any has no flags.
        features: [N, F] of the backbone.
    """
    scores = _scores(inputs, facts, features)
    found = {name: scores[name] > inputs.limits[name] for name in FLAGS}
    # A negative is recognised by the film that it is the negative of.
    found["inverted"] &= _gray_distance(inputs, -_grays(facts)) <= inputs.limits["not_chest"]
    found["not_chest"] &= ~found["inverted"]
    found["lateral"] &= ~found["inverted"]
    unknown = np.isnan(facts).all(axis=1)
    for name in ("not_chest", "inverted", "lateral", "unusual"):
        found[name] &= ~(found["constant"] | unknown)
    return [[name for name in FLAGS if found[name][row]] for row in range(len(facts))]


def measure(
    trained: Trained, table: pd.DataFrame, num_workers: int | None = None
) -> dict[str, Any]:
    """The statistics of training films and the limits from validation films, for JSON.

    Empty if a split has no film that can be read.

    Args:
        table: the study table, with its splits.
        num_workers: loader processes; None means one per core, at most 8.
    """
    train, val = (_look_at(trained, table, split, num_workers) for split in ("train", "val"))
    if not len(train[0]) or not len(val[0]):
        return {}
    stored = _of_training(*train)
    unlimited = Inputs(dict.fromkeys(FLAGS, inf), {}, *_arrays(stored))
    laterals = bool((table["view"][table["split"] == "train"] == "Lateral").any())
    limits, rates = _limits(_scores(unlimited, *val), _floors(trained.image_px), laterals)
    return {
        "version": VERSION,
        "training_images": len(train[0]),
        "validation_images": len(val[0]),
        "limits": limits,
        "false_alarm_rates": rates,
        **stored,
    }


def read_inputs(values: Mapping[str, Any], image_px: int) -> Inputs:
    """What `measure` found; from an empty mapping, the limits that hold for every collection.

    Raises:
        InputError: the values are damaged.
    """
    if not values:
        fixed = {name: _floors(image_px)[name] if name in FIXED else inf for name in FLAGS}
        return Inputs(fixed, {}, np.zeros(GRAYS), np.zeros((GRAYS, GRAYS)), np.zeros((1, 1)))
    try:
        limits = {
            name: inf if (v := values["limits"][name]) is None else float(v) for name in FLAGS
        }
        rates = {name: float(values["false_alarm_rates"][name]) for name in FLAGS}
        if values["version"] != VERSION:
            raise ValueError("of another version")
        return Inputs(limits, rates, *_arrays(values))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "the input statistics in calibration.json are damaged, or of another version; run "
            f"{called('evaluate')} again"
        ) from None


def _look_at(
    trained: Trained, table: pd.DataFrame, split: str, num_workers: int | None
) -> tuple[Array, Array]:
    """Facts and features of the films of a split that can be read, `LOOKED_AT` at most."""
    paths = table["path"][table["split"] == split].to_numpy()
    chosen = np.sort(np.random.default_rng(0).permutation(len(paths))[:LOOKED_AT])
    size = trained.config.data.batch_size
    loader = film_loader([str(paths[row]) for row in chosen], trained.image_px, size, num_workers)
    facts: list[np.ndarray] = []

    def images() -> Iterator[Tensor]:
        for films in show_progress(loader, f"looking at {split} films, batches", len(loader)):
            facts.append(films.facts.numpy())
            yield films.image

    features = [part.numpy() for _, part in predict_batches(trained, images())]
    if not features:
        return np.empty((0, 0)), np.empty((0, 0))
    readable = ~np.isnan(np.concatenate(facts)).all(axis=1)
    return np.concatenate(facts)[readable], np.concatenate(features)[readable].astype(float)


def _of_training(facts: Array, features: Array) -> dict[str, Any]:
    """The coarse pictures' mean and precision and the kinds of films, as they are stored."""
    from sklearn.cluster import KMeans
    from sklearn.covariance import LedoitWolf

    grays = LedoitWolf().fit(_grays(facts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different films than kinds
        kinds = KMeans(min(KINDS, len(features)), n_init=1, random_state=0).fit(_unit(features))
    return {
        "features": features.shape[1],
        "gray_mean": to_text(grays.location_, np.float32),
        "gray_precision": to_text(grays.precision_, np.float32),
        "kinds": to_text(_unit(kinds.cluster_centers_), np.float16),
    }


def _limits(
    scores: Mapping[str, Array], floors: Mapping[str, float], laterals: bool
) -> tuple[dict[str, float | None], dict[str, float]]:
    """Limits and false-alarm rates; None for a flag that no film can get.

    Source: of N + 1 films in random order, the last is among the k most extreme with probability
        k / (N + 1): V. Vovk and others, Algorithmic Learning in a Random World (2005).
    """
    limits: dict[str, float | None] = {}
    rates = {}
    for name in FLAGS:
        known = np.sort(scores[name][~np.isnan(scores[name])])
        k = max(1, int(FALSE_ALARM * (len(known) + 1)))
        limits[name] = max(floors[name], float(known[-k])) if len(known) else None
        rates[name] = k / (len(known) + 1) if len(known) else 0.0
    if laterals:
        limits["lateral"], rates["lateral"] = None, 0.0
    return limits, rates


def _floors(image_px: int) -> dict[str, float]:
    """Scores up to which no film gets the flag, whatever the collection."""
    floors = {"tiny": -max(SMALLEST_PX, image_px / 2), "constant": -NARROW, "colour": COLOURED}
    return {"not_chest": -inf, "inverted": 0.0, "lateral": 0.0, "unusual": -inf, **floors}


def _scores(inputs: Inputs, facts: Array, features: Array) -> dict[str, Array]:
    """By flag [N]; larger is more suspicious."""
    number = {name: facts[:, i].astype(float) for i, name in enumerate(NUMBERS)}
    return {
        "not_chest": _gray_distance(inputs, _grays(facts)),
        "inverted": -number["polarity"],
        "lateral": -number["mediastinum"],
        "constant": -number["contrast"],
        "tiny": -number["side_px"],
        "colour": number["colour_frac"],
        "unusual": _feature_distance(inputs, features),
    }


def _grays(facts: Array) -> Array:
    return facts[:, len(NUMBERS) :].astype(float)


def _gray_distance(inputs: Inputs, grays: Array) -> Array:
    """Squared Mahalanobis distance of the coarse pictures [N, 64] from training's."""
    centred = grays - inputs.gray_mean
    return np.einsum("ni,ij,nj->n", centred, inputs.gray_precision, centred)


def _feature_distance(inputs: Inputs, features: Array) -> Array:
    """1 - the cosine of the features with the nearest kind of training film."""
    if inputs.kinds.shape[1] != features.shape[1]:  # nothing was measured
        return np.zeros(len(features))
    return 1 - (_unit(features) @ inputs.kinds.T).max(axis=1)


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _arrays(values: Mapping[str, Any]) -> tuple[Array, Array, Array]:
    """Mean and precision of the coarse pictures, and the kinds."""
    mean = from_text(values["gray_mean"], np.float32)
    precision = from_text(values["gray_precision"], np.float32)
    kinds = from_text(values["kinds"], np.float16).reshape(-1, int(values["features"]))
    return mean.reshape(GRAYS), precision.reshape(GRAYS, GRAYS), kinds
