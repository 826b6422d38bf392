"""The films that units are counted on."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fluoroscope import sources
from fluoroscope.config.census import Job
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import left_out
from fluoroscope.console import show_progress
from fluoroscope.errors import InputError
from fluoroscope.network_census.subject import BATCH, Subject
from fluoroscope.prediction.image_list import list_images
from fluoroscope.trained.film_loader import film_loader
from fluoroscope.trained.loading import Trained

PATH_COLUMN = "path"  # of a table
FOLDER = "images"  # the source of a folder's films


class Films(NamedTuple):
    """The files to read.

    Attributes:
        paths: those that are used.
        found: how many there are in all.
        source: name of the collection, or `FOLDER`.
    """

    paths: list[str]
    found: int
    source: str


def find_films(job: Job, subject: Subject) -> Films:
    """The films of `images`, of `data`, or of the run's own data; a random part of many.

    Raises:
        InputError: there is none, or the run does not say where its data are.
    """
    if job.images is not None:
        every, source = list_images(job.images, PATH_COLUMN).paths, FOLDER
    else:
        data = job.data if "source" in job.data else _own_data(subject.trained, job.data)
        every, source = sources.load_section(data).table["path"].tolist(), str(data["source"])
    if job.films is None or len(every) <= job.films:
        return Films(every, len(every), source)
    chosen = np.sort(np.random.default_rng(0).permutation(len(every))[: job.films])
    return Films([every[row] for row in chosen], len(every), source)


def _own_data(trained: Trained | None, changed: dict[str, object]) -> dict[str, object]:
    assert trained is not None
    data = plain(trained.config)["data"]
    data["root"] = changed.get("root") or data["root"]
    if missing := [f"data.{key}" for key in left_out(data)]:
        raise InputError(
            f"model: the checkpoint does not hold {' and '.join(missing)}, which may name people "
            "or places; give the run folder, whose config.yaml holds them, or images=FOLDER"
        )
    return dict(data)


def read(films: Films, job: Job, image_px: int) -> Iterator[tuple[Tensor, int]]:
    """Batches uint8 `[B, 1, S, S]` of the films that can be read, and the number of the others."""
    loader = film_loader(films.paths, image_px, job.batch_size or BATCH, job.num_workers)
    for batch in show_progress(loader, "counting units, batches", len(loader)):
        readable = [not error for error in batch.errors]
        yield batch.image[readable], len(readable) - sum(readable)
