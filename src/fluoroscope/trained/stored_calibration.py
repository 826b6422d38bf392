"""Where the calibration of a trained model is kept, and how it is found again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fluoroscope.commands import called
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.trained.calibration import (
    FILE,
    Calibration,
    fit_calibration,
    read_calibration,
    read_predictions,
)
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.operating_points import POINTS


def places(trained: Trained) -> list[Path]:
    """Where its calibration may be kept: in the run folder, then beside the checkpoint."""
    folders = [trained.folder, trained.place.parent]
    return [folder / FILE for folder in folders if folder is not None]


def stored_calibrations(trained: Trained) -> dict[Path, Calibration]:
    """What is kept at these places, of whichever weights.

    Raises:
        InputError: a file is damaged.
    """
    return {file: read_calibration(file) for file in places(trained) if file.is_file()}


def load_calibration(trained: Trained, points: Sequence[str] = POINTS) -> Calibration | None:
    """The stored calibration of these weights, in the run folder or beside the checkpoint.

    Without it the validation predictions of the run are fitted again (a run of an earlier version);
    nothing is written then. None if there are none either, or if they are of another checkpoint of
    the run: they are of the best one.

    Args:
        points: names of the operating points, if it is fitted.

    Raises:
        InputError: a file is damaged, or all that there are belong to other weights.
    """
    stored = stored_calibrations(trained)
    if stored:
        return _of_weights(stored, trained)
    predictions = None if trained.folder is None else trained.folder / "predictions/val.csv"
    if predictions is None or not predictions.is_file() or not _is_best(trained):
        return None
    split = str(trained.checkpoint["split_fingerprint"])
    table = read_predictions(predictions, trained.labels)
    return fit_calibration(table, trained.labels, trained.fingerprint, split, points)


def _is_best(trained: Trained) -> bool:
    """Whether the predictions in the run folder are those of this checkpoint."""
    assert trained.folder is not None
    best = run_folder.checkpoint(trained.folder, "best")
    return trained.place.samefile(best) if best.is_file() else trained.place.stem == "last"


def _of_weights(stored: Mapping[Path, Calibration], trained: Trained) -> Calibration:
    own = {f: found for f, found in stored.items() if found.fingerprint == trained.fingerprint}
    if not own:
        files, belongs = name_files(list(stored))
        remove = "" if len(stored) < len(places(trained)) else f"remove {list(stored)[-1]}, and "
        raise InputError(
            f"{files} {belongs} to other weights than {trained.place}; {remove}run "
            f"{called('evaluate')} checkpoint={trained.place}"
        )
    file, found = next(iter(own.items()))
    if tuple(found.labels) != trained.labels:
        raise InputError(f"{file} has other labels than {trained.place}; remove it")
    return found


def name_files(files: Sequence[Path]) -> tuple[str, str]:
    """Files in words, with the verb `belong` in its form."""
    return " and ".join(map(str, files)), "belongs" if len(files) == 1 else "belong"
