"""All that is explained about one label of one film."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fluoroscope.config.explain import GRAD_CAM, INTEGRATED, Job
from fluoroscope.explanation import maps, pointing
from fluoroscope.explanation.films import Film, Picture
from fluoroscope.explanation.head_units import HeadUnits, head_units, units_for_half
from fluoroscope.explanation.map_layer import Differentiable, find_map_layer
from fluoroscope.explanation.randomised import with_random_weights
from fluoroscope.explanation.regions import film_area
from fluoroscope.trained.calibration import Calibration, calibrated
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.stored_calibration import load_calibration


class Model(NamedTuple):
    """A trained model, ready to be explained.

    Attributes:
        network, random: with its weights, and with these in random order.
        calibration: None if it was never fitted.
    """

    trained: Trained
    network: Differentiable
    random: Differentiable
    calibration: Calibration | None


class Explained(NamedTuple):
    """One label of one film.

    Attributes:
        film: the film.
        image: uint8 `[S, S]`, as the network sees it.
        label: name.
        heat, random: by method, the map of the network and of the one with random weights.
        region: bool `[S, S]`; None without boxes.
        area: of the film on the square, bool `[S, S]`.
        numbers: a row of `explanations.csv`, without what identifies the film.
        units: rows of `units.csv`.
    """

    film: Film
    image: np.ndarray
    label: str
    heat: Mapping[str, np.ndarray]
    random: Mapping[str, np.ndarray]
    region: np.ndarray | None
    area: np.ndarray
    numbers: dict[str, Any]
    units: list[dict[str, Any]]

    def without_maps(self) -> "Explained":
        """What the tables need; the maps of thousands of films would fill the memory."""
        return self._replace(image=np.empty((0, 0), np.uint8), heat={}, random={})


def prepare(trained: Trained, job: Job) -> Model:
    """Find the layer of the maps, and shuffle the weights of a copy.

    Raises:
        InputError: Grad-CAM is wanted and the network has no layer for it.
    """
    layer = None
    if GRAD_CAM in job.methods:
        layer = find_map_layer(trained.network, trained.image_px)
    random = with_random_weights(trained.network)
    networks = Differentiable(trained.network, layer), Differentiable(random, layer)
    return Model(trained, *networks, load_calibration(trained))


def explain_film(film: Film, picture: Picture, model: Model, job: Job) -> list[Explained]:
    """Each label of a film that is to be explained."""
    ((logits, features),) = predict_batches(model.trained, [picture.image])
    units = head_units(model.trained.network.head, features)
    probability = _probability(model, logits)
    labels = model.trained.labels
    if picture.regions:
        chosen = list(picture.regions)
    elif job.labels is not None:
        chosen = job.labels
    else:
        chosen = [labels[int(probability.argmax())]]
    return [
        _explain_label(film, picture, model, job, label, logits[0], probability, units)
        for label in chosen
    ]


def _probability(model: Model, logits: Tensor) -> np.ndarray:
    """Calibrated if possible, `[K]`."""
    if model.calibration is None:
        return torch.sigmoid(logits.double())[0].numpy()
    return calibrated(model.calibration, logits.double().numpy())[0]


def _explain_label(
    film: Film,
    picture: Picture,
    model: Model,
    job: Job,
    label: str,
    logits: Tensor,
    probability: np.ndarray,
    units: HeadUnits,
) -> Explained:
    k, size_px = model.trained.labels.index(label), model.trained.image_px
    area = film_area(picture.shape, size_px)
    region = picture.regions.get(label)
    made = {name: _attribute(name, model.network, picture, k, job) for name in job.methods}
    heat = {name: attribution.heat for name, attribution in made.items()}
    random = {name: _attribute(name, model.random, picture, k, job).heat for name in job.methods}
    numbers = {
        "label": label,
        "truth": film.truth.get(label, np.nan),
        "logit": float(logits[k]),
        "probability": float(probability[k]),
        **_about_head(units, k),
        **_about_path(made.get(INTEGRATED)),
        **{
            f"random_correlation/{name}": pointing.rank_correlation(heat[name], random[name], area)
            for name in heat
        },
    }
    if region is not None:
        numbers |= _agreement(heat, random, region, area)
    listed = _list_units(units, k, label, job.units)
    pixels = picture.image[0, 0].numpy()
    return Explained(film, pixels, label, heat, random, region, area, numbers, listed)


def _attribute(
    method: str, network: Differentiable, picture: Picture, k: int, job: Job
) -> maps.Attribution:
    if method == GRAD_CAM:
        return maps.grad_cam(network, picture.image, k)
    return maps.integrated_gradients(network, picture.image, k, job.steps, job.baseline)


def _about_path(made: maps.Attribution | None) -> dict[str, float]:
    """How exactly integrated gradients add up."""
    return {} if made is None else {"path_logit": made.explained, "path_error": made.error}


def _about_head(units: HeadUnits, k: int) -> dict[str, Any]:
    contribution = units.contribution[0, k]
    return {
        "base": float(units.base[k]),
        "open_units": int(units.open[0].sum()),
        "units": units.open.shape[1],
        "blackout_shift_sd": float(units.blackout_shift[0]),
        "units_for_half": int(units_for_half(contribution)),
        "raising": float(contribution.clamp_min(0).sum()),
        "lowering": float(contribution.clamp_max(0).sum()),
    }


def _agreement(
    heat: Mapping[str, np.ndarray],
    random: Mapping[str, np.ndarray],
    region: np.ndarray,
    area: np.ndarray,
) -> dict[str, float]:
    """Pointing and energy of all maps that this film alone gives."""
    centre = pointing.centre_map(area)
    seen = {**heat, **{f"random_{name}": made for name, made in random.items()}, "centre": centre}
    scores = {"chance": pointing.chance(region, area)}
    for name, each in seen.items():
        scores[f"pointing/{name}"] = pointing.pointing(each, region, area)
        scores[f"energy/{name}"] = pointing.energy(each, region, area)
    return scores


def _list_units(units: HeadUnits, k: int, label: str, most: int) -> list[dict[str, Any]]:
    """The units that contribute most, by absolute value."""
    contribution = units.contribution[0, k]
    order = contribution.abs().argsort(descending=True)[:most].tolist()
    return [
        {
            "label": label,
            "rank": rank,
            "unit": unit,
            "contribution": float(contribution[unit]),
            "pre_activation": float(units.z[0, unit]),
            "open": bool(units.open[0, unit]),
        }
        for rank, unit in enumerate(order, start=1)
    ]
