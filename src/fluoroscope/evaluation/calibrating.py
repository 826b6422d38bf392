"""The calibration that an evaluation uses, and the places where it is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fluoroscope.config.point_names import POINTS
from fluoroscope.errors import InputError, plural
from fluoroscope.trained.calibration import (
    FILE,
    Calibration,
    fit_calibration,
    load_calibration,
    read_calibration,
    save_calibration,
)
from fluoroscope.trained.loading import Trained


def kept_at(trained: Trained) -> Path:
    """`calibration.json` in the run folder, or beside a checkpoint that lies alone."""
    return (trained.folder or trained.place.parent) / FILE


def stored_for_own(trained: Trained, points: Sequence[str]) -> Calibration | None:
    """The stored calibration for the checkpoint's own data; None if it must be fitted (again).

    Args:
        points: operating points that it must have.

    Raises:
        InputError: the file is damaged.
    """
    file = kept_at(trained)
    if not file.is_file():
        return None
    stored = read_calibration(file)
    has_points = all(set(points) <= set(label.points) for label in stored.labels.values())
    return stored if _is_of(stored, trained) and has_points and stored.inputs else None


def _is_of(stored: Calibration, trained: Trained) -> bool:
    """Whether it was fitted for these weights and labels, on this split."""
    return (stored.fingerprint, stored.split_fingerprint, tuple(stored.labels)) == (
        trained.fingerprint,
        str(trained.checkpoint["split_fingerprint"]),
        trained.labels,
    )


def fit_own(
    trained: Trained, points: Sequence[str], validation: pd.DataFrame, inputs: dict[str, Any]
) -> Calibration:
    """A new calibration, with the usual operating points and the given ones.

    Args:
        validation: predictions of the validation split.
        inputs: see `trained.inputs.measure`.
    """
    split = str(trained.checkpoint["split_fingerprint"])
    wanted = tuple(dict.fromkeys((*POINTS, *points)))
    fitted = fit_calibration(validation, trained.labels, trained.fingerprint, split, wanted)
    return fitted._replace(inputs=inputs)


def stored_for_other(trained: Trained, points: Sequence[str]) -> Calibration | None:
    """The calibration for another collection: what the run has; None if it has none.

    Raises:
        InputError: it is damaged, of other weights, or lacks an operating point.
    """
    found = load_calibration(trained, points)
    fitted = found.labels.values() if found else ()
    for name in points:
        if any(name not in label.points for label in fitted):
            raise InputError(
                f"{kept_at(trained)} lacks the operating point {name}; first run "
                f"scripts/evaluate.py checkpoint={trained.place} 'points=[{','.join(points)}]'"
            )
    return found


def keep(trained: Trained, calibration: Calibration, folder: Path) -> str:
    """Save a calibration in the evaluation's folder, and in the run's if it is not there yet.

    A file of other weights stays as it is. The run's folder may be read-only.

    Returns:
        Where it lies, for the console.
    """
    save_calibration(folder, calibration)
    file = kept_at(trained)
    if file.is_file():
        stored = read_calibration(file)
        if not _is_of(stored, trained):
            return f"{folder / FILE}; {file} belongs to other weights and stays as it is"
        if stored == calibration:
            return str(file)
    try:
        save_calibration(file.parent, calibration)
    except OSError as error:
        return f"{folder / FILE}; {file.parent} cannot be written ({error.strerror})"
    return str(file)


def source_text(calibration: Calibration | None) -> str:
    """Where a calibration comes from, in words; empty without one."""
    if calibration is None:
        return ""
    images = max(label.images for label in calibration.labels.values())
    return f"a temperature per label, fitted on {plural(images, 'image')} of validation"
