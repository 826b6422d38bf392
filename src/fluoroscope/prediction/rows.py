"""The table of predictions: its columns, and one row per image."""

from collections.abc import Sequence

from fluoroscope.escaping import csv_cell
from fluoroscope.prediction.predictor import Prediction

SEPARATOR = ";"  # between flags
UNCALIBRATED = "uncalibrated"  # a flag of all rows: the model has no calibration


def columns(labels: Sequence[str], by_row: bool) -> dict[str, str]:
    """Names and types: `image`, probability and decision of each label, `flags`, `error`.

    Args:
        by_row: whether images are named by their row in a table.
    """
    kinds = {"image": "int64" if by_row else "string"}
    for label in labels:
        kinds |= {f"{label}_probability": "double", f"{label}_decision": "int8"}
    kinds |= {"flags": "string", "error": "string"}
    return {csv_cell(name): kind for name, kind in kinds.items()}


def row(name: str, prediction: Prediction, is_calibrated: bool) -> list[str]:
    """The cells of one image; an unknown probability or decision is empty."""
    cells: list[str] = []
    for label, probability in prediction.probability.items():
        decision = prediction.decision[label]
        cells.append("" if prediction.error else f"{probability:.8g}")
        cells.append("" if decision is None else str(int(decision)))
    has_raw = not is_calibrated and not prediction.error
    flags = SEPARATOR.join([*prediction.flags, *([UNCALIBRATED] if has_raw else [])])
    return [csv_cell(name), *cells, flags, csv_cell(prediction.error)]
