"""Calibration on the validation split: probabilities that can be read, and operating points."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fluoroscope.commands import called
from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_cell
from fluoroscope.run import run_folder
from fluoroscope.statistics import Floats
from fluoroscope.trained.fitting import NO_BOUNDS, Bounds, fit_logistic
from fluoroscope.trained.operating_points import POINTS, choose_point

FILE, VERSION = "calibration.json", 1
SMALLEST = 1e-12  # probabilities are kept this far from 0 and 1
LARGEST = math.log((1 - SMALLEST) / SMALLEST)  # and logits within -27.6 and 27.6


class LabelCalibration(NamedTuple):
    """Of one label.

    Attributes:
        temperature: logits are divided by it.
        platt: slope and intercept of the logits.
        images, positives: of the validation, with a known label.
        points: thresholds on the calibrated probability, by the name of the operating point.
        raw_points: the same thresholds on the probability before calibration.
        temperature_bounds, platt_bounds: 95 % intervals over patients; NaN if they are not known,
            as in a file of an earlier version.
    """

    temperature: float
    platt: tuple[float, float]
    images: int
    positives: int
    points: dict[str, float]
    raw_points: dict[str, float]
    temperature_bounds: Bounds = NO_BOUNDS
    platt_bounds: tuple[Bounds, Bounds] = (NO_BOUNDS, NO_BOUNDS)


class Calibration(NamedTuple):
    """Of a model.

    Attributes:
        labels: by name, in the order of the logits.
        fingerprint: of the weights.
        split_fingerprint: of the studies whose validation split was used.
        inputs: statistics of the images that the model knows; empty if not measured.
    """

    labels: dict[str, LabelCalibration]
    fingerprint: str
    split_fingerprint: str
    inputs: dict[str, Any]


def logit(probability: ArrayLike) -> Floats:
    p = np.clip(np.asarray(probability, dtype=float), SMALLEST, 1 - SMALLEST)
    return np.log(p / (1 - p))


def sigmoid(logits: ArrayLike) -> Floats:
    from scipy.special import expit

    return expit(np.asarray(logits, dtype=float))


def fit_calibration(
    table: pd.DataFrame,
    labels: Sequence[str],
    fingerprint: str,
    split_fingerprint: str,
    points: Sequence[str] = POINTS,
) -> Calibration:
    """Fit all labels on the predictions of the validation split.

    Args:
        table: as `predictions/val.csv`.
        labels: names, in the order of the logits.
        fingerprint, split_fingerprint: of `Calibration`.
        points: names of `operating_points.choose_point`.
    """
    fitted = {label: _fit_label(table, label, points) for label in labels}
    return Calibration(fitted, fingerprint, split_fingerprint, {})


def _fit_label(table: pd.DataFrame, label: str, points: Sequence[str]) -> LabelCalibration:
    known = table[table[label].isin([0, 1])]
    truth, raw = known[label].to_numpy(), known[f"{label}_probability"].to_numpy(dtype=float)
    logits, patient = logit(raw), known.get("group")
    fitted, platt = (fit_logistic(logits, truth, both, patient) for both in (False, True))
    temperature = fitted.temperature
    cuts = {name: choose_point(name, logits, truth) for name in points}
    return LabelCalibration(
        temperature,
        (platt.slope, platt.intercept),
        len(known),
        int((truth == 1).sum()),
        {name: float(sigmoid(cut / temperature)) for name, cut in cuts.items()},
        {name: float(sigmoid(cut)) for name, cut in cuts.items()},
        fitted.temperature_bounds,
        platt.platt_bounds,
    )


def calibrated(calibration: Calibration, logits: ArrayLike) -> Floats:
    """Calibrated probabilities [N, K] of logits [N, K].

    Larger logits than `LARGEST` count as this, since a stored probability cannot tell them apart.
    """
    temperatures = [label.temperature for label in calibration.labels.values()]
    kept = np.clip(np.asarray(logits, dtype=float), -LARGEST, LARGEST)
    return sigmoid(kept / np.array(temperatures))


def read_predictions(file: Path, labels: Sequence[str]) -> pd.DataFrame:
    """A table such as `predictions/val.csv`.

    Raises:
        InputError: it cannot be read, lacks a label, or holds what is no probability.
    """
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot read {file} ({reason}); remove or restore it") from None
    needed = [name for label in labels for name in (label, f"{label}_probability")]
    table = table.rename(columns={csv_cell(name): name for name in needed})
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"{file} has no column {missing[0]}; remove or restore it")
    probability = table[needed[1::2]].apply(pd.to_numeric, errors="coerce")
    if not ((probability >= 0) & (probability <= 1)).all(axis=None):
        raise InputError(f"{file} holds a probability outside [0, 1]; remove or restore it")
    return table


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration.json`; readers see the old file or the new one."""
    labels = {name: own._asdict() for name, own in calibration.labels.items()}
    values = {"version": VERSION} | calibration._asdict() | {"labels": labels}
    run_folder.write_json(folder / FILE, values)


def read_calibration(file: Path) -> Calibration:
    """Read `calibration.json`.

    Raises:
        InputError: it is damaged, or of a later version.
    """
    advice = f"remove it, and run {called('evaluate')} again"
    values = run_folder.read_json(file, advice)
    try:
        labels = {str(name): _label(own) for name, own in values["labels"].items()}
        facts = str(values["fingerprint"]), str(values["split_fingerprint"])
        inputs = dict(values["inputs"])
        if len({frozenset(own.points) for own in labels.values()}) > 1:
            raise ValueError("every label has the same operating points")
        known = values["version"] == VERSION
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{file} is damaged; {advice}") from None
    if not known:
        raise InputError(f"{file} is of another version; {advice}")
    return Calibration(labels, *facts, inputs)


def _label(values: Mapping[str, Any]) -> LabelCalibration:
    slope, intercept = map(float, values["platt"])
    temperature = float(values["temperature"])
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError("a temperature is above zero")
    points, raw = (
        {str(k): _number(v) for k, v in values[name].items()} for name in ("points", "raw_points")
    )
    cuts = *points.values(), *raw.values()
    if points.keys() != raw.keys() or any(cut < 0 or cut > 1 for cut in cuts):
        raise ValueError("a threshold is a probability, before and after calibration")
    return LabelCalibration(
        *(temperature, (slope, intercept), int(values["images"]), int(values["positives"])),
        points,
        raw,
        *_bounds(values),
    )


def _bounds(values: Mapping[str, Any]) -> tuple[Bounds, tuple[Bounds, Bounds]]:
    """Those of the temperature, and of slope and intercept; a file may lack them."""
    lists = [values.get("temperature_bounds"), *(values.get("platt_bounds") or (None, None))]
    temperature, slope, intercept = map(_pair, lists)
    return temperature, (slope, intercept)


def _pair(bounds: Any) -> Bounds:
    low, high = bounds or NO_BOUNDS
    if low is None or math.isnan(low):
        return NO_BOUNDS
    return float(low), math.inf if high is None else float(high)


def _number(value: Any) -> float:
    return math.nan if value is None or math.isnan(value) else float(value)
