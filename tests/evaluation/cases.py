"""Predictions with planted truths, and the slow, plain way to resample them."""

import numpy as np
import pandas as pd


def predictions(images=300, patients=90, seed=0, share=0.3, strength=1.5, label="Disc"):
    """A table as `predictions/test.csv`: images of a patient resemble each other."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, patients, images)
    truth = (rng.random(patients)[group] < share).astype(float)
    truth = np.where(rng.random(images) < 0.1, 1 - truth, truth)
    logits = strength * (truth - 0.5) + rng.normal(size=patients)[group] + rng.normal(size=images)
    table = {"row": np.arange(images), "group": group, label: truth}
    return pd.DataFrame(table | {f"{label}_probability": 1 / (1 + np.exp(-logits))})


def resampled(table, patients):
    """The rows of each draw, repeated as often as their patient was drawn."""
    for drawn in patients.drawn:
        yield table.loc[np.repeat(table.index, drawn[patients.number])]
