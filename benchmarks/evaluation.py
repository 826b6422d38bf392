"""Seconds and memory of the scores of an evaluation, after the forward pass.

python -m benchmarks.evaluation [IMAGES PATIENTS LABELS]

The default is the size of the test split of NIH ChestX-ray14: 25,596 images of 2,797 patients, 14
labels, of which 0.2 to 30 % of the images are positive. `of one core` counts the time in which the
process computed, so that other work on the machine does not change it.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd

from fluoroscope.config.point_names import POINTS
from fluoroscope.evaluation.scoring import Settings, score_table
from fluoroscope.trained.calibration import fit_calibration, sigmoid

PREVALENCE = (0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def predictions(images: int, patients: int, labels: int) -> pd.DataFrame:
    """A table as `predictions/test.csv`, of probabilities that are too extreme."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, patients, images)
    table: dict[str, np.ndarray] = {"row": np.arange(images), "group": group}
    for k in range(labels):
        share = PREVALENCE[k % len(PREVALENCE)]
        logits = rng.normal(size=images) + 0.5 * rng.normal(size=patients)[group]
        logits += np.log(share / (1 - share))
        table[f"L{k}"] = (rng.random(images) < sigmoid(logits)).astype(float)
        table[f"L{k}_probability"] = sigmoid(2 * logits)
    return pd.DataFrame(table)


def main(images: int = 25_596, patients: int = 2_797, labels: int = 14) -> None:
    table, names = predictions(images, patients, labels), [f"L{k}" for k in range(labels)]
    fitted = fit_calibration(table, names, "", "").labels
    before, wall, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    score_table(table, names, fitted, Settings(POINTS, 0.02))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{images:,} images of {patients:,} patients, {labels} labels: {wall:.1f} s, {cpu:.1f} s "
        f"of one core; {_peak_mib() - before:.0f} MiB more than before"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
