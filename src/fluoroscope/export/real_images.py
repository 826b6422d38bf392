"""Real images on which an exported file is compared with its checkpoint."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import left_out
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError
from fluoroscope.files.images import decode, fit_square
from fluoroscope.files.pixels import UnreadableError
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.same_studies import same_studies

LEAST, MOST = 32, 64
ORDER = ("val", "test", "train")  # splits that are used, until there are enough images


def run_images(trained: Trained, root: str | None = None) -> np.ndarray:
    """Images of the run's validation split, uint8 `[N, 1, S, S]`.

    If they are fewer than `LEAST`, images of the other splits follow: the comparison needs no
    unseen images.

    Args:
        root: `data.root`, if the images were moved.

    Raises:
        InputError: the images are not there, are not those of the run, or are too few.
    """
    try:
        studies = _studies(trained, root)
    except InputError as error:
        raise InputError(
            f"the file is compared with the checkpoint on real images, but {error}; the images can "
            "also be given as images=FOLDER"
        ) from None
    return _enough(_paths(studies), trained.image_px, "the run")


def given_images(places: Sequence[Path], image_px: int) -> np.ndarray:
    """Images of files and of folders with their subfolders, uint8 `[N, 1, S, S]`.

    Files in other formats are passed over.

    Raises:
        InputError: the images are too few.
    """
    files = [file for place in places for file in _files(place)]
    return _enough(_spread(files), image_px, "images")


def _files(place: Path) -> list[Path]:
    return (
        sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    )


def _studies(trained: Trained, root: str | None) -> Studies:
    config = trained.config
    if root is not None:
        config.data.root = root
    if missing := [f"data.{key}" for key in left_out(plain(config)["data"])]:
        raise InputError(f"{trained.place} lies alone and does not hold {' and '.join(missing)}")
    return same_studies(config, trained.checkpoint)


def _paths(studies: Studies) -> list[str]:
    """Paths of the validation split, spread over it, then those of the other splits."""
    table = studies.table
    return [path for split in ORDER for path in _spread(table["path"][table["split"] == split])]


def _spread(items: Iterable[Any]) -> list[Any]:
    """`MOST` of the items, at equal distances, then the others."""
    left = list(items)
    chosen = dict.fromkeys(i * len(left) // MOST for i in range(MOST if left else 0))
    first = [left[i] for i in chosen]
    return first + [item for i, item in enumerate(left) if i not in chosen]


def _enough(files: Iterable[str | Path], image_px: int, where: str) -> np.ndarray:
    """Up to `MOST` different images."""
    found: dict[bytes, np.ndarray] = {}
    for file in files:
        if len(found) == MOST:
            break
        try:
            image = fit_square(decode(file), image_px)
        except UnreadableError:
            continue
        found[image.tobytes()] = image
    if len(found) < LEAST:
        raise InputError(
            f"{where}: {len(found)} different images can be read, and comparing the file with the "
            f"checkpoint needs {LEAST}; give images=FOLDER with more"
        )
    return np.stack(list(found.values()))[:, None]
