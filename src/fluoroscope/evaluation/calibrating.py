"""The calibration that an evaluation uses, and the places where it is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fluoroscope.commands import called
from fluoroscope.config.point_names import POINTS
from fluoroscope.errors import InputError, plural
from fluoroscope.trained.calibration import FILE, Calibration, fit_calibration, save_calibration
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.stored_calibration import (
    load_calibration,
    name_files,
    places,
    stored_calibrations,
)


def stored_for_own(trained: Trained, points: Sequence[str]) -> Calibration | None:
    """The stored calibration for the checkpoint's own data; None if it must be fitted (again).

    Args:
        points: operating points that it must have.

    Raises:
        InputError: a file is damaged.
    """
    stored = _stored(trained)
    if stored is None or not stored.inputs:
        return None
    has_points = all(set(points) <= set(label.points) for label in stored.labels.values())
    return stored if has_points else None


def _stored(trained: Trained) -> Calibration | None:
    found = stored_calibrations(trained).values()
    return next((each for each in found if _is_of(each, trained)), None)


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
    """A new calibration, with the usual operating points, the given and those already stored.

    Args:
        validation: predictions of the validation split.
        inputs: see `trained.inputs.measure`.
    """
    split = str(trained.checkpoint["split_fingerprint"])
    stored = _stored(trained)
    earlier = [name for label in stored.labels.values() for name in label.points] if stored else []
    wanted = tuple(dict.fromkeys((*POINTS, *earlier, *points)))
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
                f"{places(trained)[0]} lacks the operating point {name}; first run "
                f"{called('evaluate')} checkpoint={trained.place} 'points=[{','.join(points)}]'"
            )
    return found


def keep(trained: Trained, calibration: Calibration, folder: Path) -> str:
    """Save a calibration in the evaluation's folder, and for further use with the model.

    That is in the run folder, or beside the checkpoint if the run folder has the one of another
    checkpoint. A file of other weights stays as it is. The folders may be read-only.

    Returns:
        Where it lies, for the console.
    """
    save_calibration(folder, calibration)
    stored = stored_calibrations(trained)
    own = [file for file, found in stored.items() if _is_of(found, trained)]
    foreign = [file for file in stored if file not in own]
    free = [file for file in places(trained) if file not in stored]
    told = ""
    if foreign:
        files, belong = name_files(foreign)
        stay = "stays as it is" if len(foreign) == 1 else "stay as they are"
        told = f"; {files} {belong} to other weights and {stay}"
    if not own and not free:
        return f"{folder / FILE}{told}"
    file = (own or free)[0]
    if stored.get(file) == calibration:
        return f"{file}{told}"
    try:
        save_calibration(file.parent, calibration)
    except OSError as error:
        return f"{folder / FILE}; {file.parent} cannot be written ({error.strerror}){told}"
    return f"{file}{told}"


def source_text(calibration: Calibration | None) -> str:
    """Where a calibration comes from, in words; empty without one."""
    if calibration is None:
        return ""
    images = max(label.images for label in calibration.labels.values())
    return f"a temperature per label, fitted on {plural(images, 'image')} of validation"
