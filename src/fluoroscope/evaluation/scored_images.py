"""The images that are scored, with the probabilities of a model, an ensemble, or a part of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from fluoroscope.model.scores import Predictions, score


@dataclass
class ScoredImages:
    """Predictions with their scores, as `run.summary` takes them from a classifier.

    Attributes:
        predictions, scores: of `Classifier`, under "test".
        thresholds: of `Classifier` [K].
    """

    predictions: dict[str, Predictions]
    scores: dict[str, dict[str, float]]
    thresholds: Tensor


def scored_images(
    predictions: Predictions,
    thresholds: Tensor,
    labels: Sequence[str],
    own: Mapping[str, Callable[..., float]] = MappingProxyType({}),
) -> ScoredImages:
    """Score predictions for K labels; `thresholds` are on their probability [K]."""
    scores = score(predictions.probability, predictions.target, thresholds, labels, own)
    return ScoredImages({"test": predictions}, {"test": scores}, thresholds)


def some_of(predictions: Predictions, kept: np.ndarray) -> Predictions:
    """The predictions for the images that are `kept`, bool [N]."""
    chosen = torch.from_numpy(np.asarray(kept))
    return Predictions(*(part[chosen] for part in predictions))


def with_probability(predictions: Predictions, probability: np.ndarray) -> Predictions:
    """The same images with other probabilities [N, K]."""
    logits = torch.logit(torch.from_numpy(probability), eps=1e-12)
    return predictions._replace(logits=logits.float())
