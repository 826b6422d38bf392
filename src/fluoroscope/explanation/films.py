"""The films to explain, and the regions of findings on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fluoroscope.config.explain import AUTO, Job
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import left_out
from fluoroscope.config.train import Train
from fluoroscope.console import show_progress
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError, plural
from fluoroscope.explanation.box_files import Drawn, find_boxes, read_boxes
from fluoroscope.explanation.regions import Region, paint
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.sources import findings
from fluoroscope.sources.reading.tree import film_key, look_through
from fluoroscope.trained.loading import Trained
from fluoroscope.trained.same_studies import same_studies


class Film(NamedTuple):
    """A film, before it is read.

    Attributes:
        row: of the run's study table, as in `predictions/test.csv`; with `images` its place in the
            order of the folder.
        model: number of the model that explains it.
        truth: by label; empty if not known.
        regions: of the labels that have some.
        known: whether the patient is known; otherwise the film counts as a separate one.
    """

    path: str
    row: int
    patient: str
    model: int
    truth: Mapping[str, float]
    regions: Mapping[str, Sequence[Region]] = {}
    known: bool = True


class Picture(NamedTuple):
    """A film that was read.

    Attributes:
        shape: of the file, in pixels.
        image: uint8 `[1, 1, S, S]`.
        regions: by label, the union of the regions, bool `[S, S]`; none is empty.
    """

    shape: tuple[int, int]
    image: Tensor
    regions: Mapping[str, np.ndarray]


def find_films(job: Job, models: Sequence[Trained]) -> list[Film]:
    """The films of `images`, or of the split of each model, each once.

    With boxes only those that have a region of a label.

    Raises:
        InputError: there is none, or the data of a model are not those of its training.
    """
    films, drawn = _listed(job) if job.images else _of_splits(job, models)
    if job.boxes is None:
        return films[: job.films]
    drawn = read_boxes(Path(job.boxes)) if drawn is None else drawn
    source = None if job.images else str(models[0].checkpoint.get("source") or "") or None
    names = _box_names(job, models[0], drawn, source)
    boxed = [film._replace(regions=_regions(film, drawn, names)) for film in films]
    kept = [film for film in boxed if film.regions]
    if not kept:
        raise InputError(
            f"boxes: of {plural(len(films), 'film')} to explain and "
            f"{plural(len(drawn.regions), 'film')} with boxes none is the same and has "
            f"{' or '.join(names)}; check that the names of the films are those in the table"
        )
    keys = [film_key(Path(film.path).name) for film in kept]
    if same := len(keys) - len({*keys}):
        raise InputError(
            f"boxes: {same:,} of {len(kept):,} films with boxes have the name of another film, so "
            "it is not known whose a box is; give each film a name of its own"
        )
    return kept


def _listed(job: Job) -> tuple[list[Film], None]:
    """A file, or all films of a folder; every film counts as a separate patient."""
    place = Path(str(job.images))
    try:
        paths = [str(place)] if place.is_file() else look_through(place).images
    except OSError as error:
        raise InputError(f"images: cannot open {error.filename} ({error.strerror})") from None
    if not paths:
        raise InputError(f"images: there is no image in {place}")
    return [Film(path, row, str(row), 0, {}, known=False) for row, path in enumerate(paths)], None


def _of_splits(job: Job, models: Sequence[Trained]) -> tuple[list[Film], Drawn | None]:
    films: dict[str, Film] = {}
    drawn = None
    for number, trained in enumerate(models):
        studies, root = own_studies(trained, job.root)
        if job.boxes == AUTO and drawn is None:
            drawn = find_boxes(studies.source, root)
        for film in _rows(studies, job.split, number, trained.labels):
            films.setdefault(film.path, film)
    if not films:
        raise InputError(f"split={job.split} holds no film")
    return list(films.values()), drawn


def own_studies(trained: Trained, root: str | None) -> tuple[Studies, Path]:
    """The collection that a model was trained on, and its folder.

    Args:
        root: where the collection lies now; None: where the run found it.

    Raises:
        InputError: its place is not known, or images, labels or splits have changed.
    """
    config: Train = trained.config.copy()  # type: ignore[attr-defined]
    if root is not None:
        config.data.root = root
    missing = [f"data.{key}" for key in left_out(plain(config)["data"])]
    if missing:
        raise InputError(
            f"{trained.place} does not hold {' and '.join(missing)}, which may name people or "
            "places; give the run folder, whose config.yaml holds them, or add data.root=DIR"
        )
    if not isinstance(config.data.root, str):
        raise InputError("explanations read one folder of films; use images=FOLDER boxes=FILE")
    config.data.features = "live"
    return same_studies(config, trained.checkpoint), Path(config.data.root)


def _rows(studies: Studies, split: str, model: int, labels: Sequence[str]) -> list[Film]:
    table: pd.DataFrame = studies.table[studies.table["split"] == split]
    known = studies.patients_known == "all"
    columns = (table["path"], table.index, table["patient"], table[list(labels)].to_numpy(float))
    return [
        Film(path, row, patient, model, dict(zip(labels, truth, strict=True)), known=known)
        for path, row, patient, truth in zip(*columns, strict=True)
    ]


def _box_names(job: Job, trained: Trained, drawn: Drawn, source: str | None) -> dict[str, str]:
    """By label of the model, the spelling of the boxes.

    Raises:
        InputError: no label has boxes.
    """
    there = list(dict.fromkeys(name for film in drawn.regions.values() for name in film))
    labels = trained.labels if job.labels is None else job.labels
    own = plain(trained.config)["data"]["label_map"]
    wanted = findings.names_of(labels, source, own)
    names = findings.pair(wanted, findings.names_of(there, drawn.source, job.label_map))
    if not names:
        raise InputError(
            f"boxes: there are boxes of {', '.join(there)} and none of {', '.join(labels)}; if one "
            f"means the other, add 'data.label_map={{{(there or ['NAME'])[0]}: {labels[0]}}}'"
        )
    return names


def _regions(film: Film, drawn: Drawn, names: Mapping[str, str]) -> dict[str, list[Region]]:
    on_film = drawn.regions.get(film_key(Path(film.path).name), {})
    return {label: on_film[name] for label, name in names.items() if name in on_film}


def read_films(films: Sequence[Film], models: Sequence[Trained]) -> list[tuple[Film, Picture]]:
    """All films with their regions, before anything is written.

    Films whose masks are all empty are left out: some collections have a mask for every film.

    Raises:
        InputError: a file cannot be read, a box lies outside its film, or no film is left.
    """
    shown = show_progress(films, "reading films", len(films))
    read = [(film, _read(film, models[film.model].image_px)) for film in shown]
    kept = [(film, picture) for film, picture in read if picture.regions or not film.regions]
    if not kept:
        raise InputError(f"boxes: the masks of {plural(len(films), 'film')} are all empty")
    return kept


def _read(film: Film, size_px: int) -> Picture:
    pixels = read_image(film.path)
    square = np.ascontiguousarray(fit_square(pixels, size_px))
    painted = {k: paint(found, pixels.shape, size_px) for k, found in film.regions.items()}
    drawn = {label: region for label, region in painted.items() if region.any()}
    return Picture(pixels.shape, torch.from_numpy(square)[None, None], drawn)
