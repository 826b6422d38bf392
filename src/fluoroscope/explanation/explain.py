"""Explain films: maps, units of the head, agreement with boxes; the story of the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fluoroscope.config.explain import AUTO, RESULT, Job
from fluoroscope.console import make_console, short_path, show_progress
from fluoroscope.errors import InputError, check_choice, plural
from fluoroscope.explanation import agreement, pictures
from fluoroscope.explanation.film_explained import Explained, explain_film, prepare
from fluoroscope.explanation.films import find_films, read_films
from fluoroscope.explanation.maps import check_captum
from fluoroscope.run import run_folder
from fluoroscope.trained.loading import Trained, open_trained

TABLE, UNITS = "explanations.csv", "units.csv"


def main(job: Job) -> None:
    """Entry of `scripts/explain.py`."""
    explain(job)


def explain(job: Job) -> dict[str, Any]:
    """Explain films, write the explanations to `job.folder` and print what they say.

    Returns:
        The content of `explanation.json`.

    Raises:
        InputError: captum is missing; a checkpoint, a film, a label or a box does not fit. Nothing
            is written then.
    """
    check_captum()
    models = [open_trained(place, job.accelerator) for place in job.checkpoints]
    check_labels(job, models)
    ready = [prepare(trained, job) for trained in models]
    films = read_films(find_films(job, models), models)
    run_folder.claim(job.folder, can_resume=False)
    explained: list[Explained] = []
    shown = show_progress(films, "explaining films", len(films))
    for place, (film, picture) in enumerate(shown):
        parts = explain_film(film, picture, ready[film.model], job)
        if job.films is None or place < job.films:
            for number, part in enumerate(parts):
                pictures.write_overlays(job.folder, number, part)
        else:
            parts = [part.without_maps() for part in parts]
        explained += parts
    result = _write(job, len(films), explained, ready[0].network.layer, models)
    _print(job, result)
    return result


def check_labels(job: Job, models: Sequence[Trained]) -> None:
    """Refuse models with different labels or inputs, and labels that they do not have.

    Raises:
        InputError: as said.
    """
    for other in models[1:]:
        if other.labels != models[0].labels:
            raise InputError(
                f"checkpoint: {models[0].place} and {other.place} have different labels; explain "
                "them one at a time"
            )
        if other.image_px != models[0].image_px:
            raise InputError(
                f"checkpoint: {models[0].place} and {other.place} read images of "
                f"{models[0].image_px} and {other.image_px} px; explain them one at a time"
            )
    for label in job.labels or ():
        check_choice("labels", label, models[0].labels)


def _write(
    job: Job,
    films: int,
    explained: Sequence[Explained],
    layer: str | None,
    models: Sequence[Trained],
) -> dict[str, Any]:
    if job.boxes is not None:
        agreement.score_usual_place(explained)
    table = _table(explained)
    summary = agreement.summarise(table, job.methods) if job.boxes is not None else {}
    result = {
        "films": films,
        "fingerprints": [trained.fingerprint for trained in models],
        "split": None if job.images else job.split,
        "boxes": job.boxes if job.boxes in (None, AUTO) else "file",
        "methods": job.methods,
        "steps": job.steps,
        "baseline": job.baseline,
        "map_layer": layer or "forward_features",
        "said": agreement.sentences(summary, table, job.methods),
        "labels": agreement.as_json(summary),
    }
    names = ["image", "patient"] if job.name_images else []
    public = table.drop(columns={"film", "known", "image", "patient"} - {*names})
    run_folder.write_predictions(job.folder / TABLE, public)
    listed = [
        {"row": each.film.row, "model": each.film.model, **unit}
        for each in explained
        for unit in each.units
    ]
    run_folder.write_predictions(job.folder / UNITS, pd.DataFrame(listed))
    shown = [each for each in explained if each.heat]
    pictures.contact_sheet(shown[: pictures.SHEET_ROWS]).savefig(
        job.folder / pictures.SHEET, dpi=110
    )
    run_folder.write_json(job.folder / RESULT, result)
    return result


def _table(explained: Sequence[Explained]) -> pd.DataFrame:
    """One row per film and label."""
    films = pd.factorize(pd.Series([each.film.path for each in explained]))[0]
    return pd.DataFrame(
        {
            "film": number,
            "row": each.film.row,
            "model": each.film.model,
            "image": each.film.path,
            "patient": each.film.patient,
            "known": each.film.known,
            **each.numbers,
        }
        for number, each in zip(films, explained, strict=True)
    )


def _print(job: Job, result: dict[str, Any]) -> None:
    console = make_console()
    console.rule("fluoroscope: explanations")
    console.print(f"{plural(result['films'], 'film')}, {', '.join(job.methods)}")
    for sentence in result["said"]:
        console.print(f"- {sentence}")
    console.print(f"folder {short_path(Path(job.folder).absolute())}")
    console.rule()
