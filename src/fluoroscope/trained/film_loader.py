"""Films for a trained model, in batches; a file that cannot be read is an item with its error."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fluoroscope.data.datamodule import Texts
from fluoroscope.data.loader import Loader
from fluoroscope.data.prefetch import loading, settle
from fluoroscope.files.colours import colour_frac
from fluoroscope.files.images import decode_data, fit_square, read_file
from fluoroscope.files.pixels import UnreadableError
from fluoroscope.trained.film_facts import LENGTH, film_facts


class Films(NamedTuple):
    """A batch.

    Attributes:
        image: uint8 `[B, 1, S, S]`, black where the file cannot be read.
        facts: float32 `[B, 69]` of `film_facts`, NaN where the file cannot be read.
        errors: why a file cannot be read, without its path; empty if it can.
    """

    image: Tensor
    facts: Tensor
    errors: tuple[str, ...]


class FilmFiles(Dataset):
    """Image files as `Films` of one film; the pixels are those that training would see.

    Args:
        paths: of the files.
        image_px: side S of the images.
    """

    def __init__(self, paths: Sequence[str], image_px: int) -> None:
        self.paths, self.image_px = Texts(paths), image_px

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Films:
        try:
            data = read_file(self.paths[row])
            pixels = decode_data(data).pixels
        except UnreadableError as error:
            return unreadable(str(error), self.image_px)
        return film(pixels, colour_frac(data), self.image_px)


def film(pixels: np.ndarray, colour_frac: float, image_px: int) -> Films:
    """`Films` of one film, from its pixels uint8 [H, W]."""
    image = torch.from_numpy(fit_square(pixels, image_px).copy())
    return Films(image[None, None], torch.from_numpy(film_facts(pixels, colour_frac))[None], ("",))


def unreadable(reason: str, image_px: int) -> Films:
    """`Films` of one file that cannot be read."""
    image = torch.zeros(1, 1, image_px, image_px, dtype=torch.uint8)
    return Films(image, torch.full((1, LENGTH), float("nan")), (reason,))


def stack(films: Sequence[Films]) -> Films:
    """One batch of several; of errors, as of all fields, in the same order."""
    image, facts, errors = zip(*films, strict=True)
    return Films(torch.cat(image), torch.cat(facts), tuple(e for each in errors for e in each))


def film_loader(
    paths: Sequence[str], image_px: int, batch_size: int, num_workers: int | None = None
) -> Loader:
    """Batches of `Films` in the order of the paths.

    Args:
        num_workers: loader processes; None means one per core, at most 8.
    """
    options = loading(num_workers, 1)
    options |= {"persistent_workers": False, "worker_init_fn": _start_process}
    files = FilmFiles(paths, image_px)
    return Loader(files, batch_size=batch_size, collate_fn=stack, **options)


def _start_process(worker: int) -> None:
    """Set up a loader process, which says nothing when a command that was stopped leaves it."""
    settle(worker)
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # The thread that passes batches on would print that their reader has gone.
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
