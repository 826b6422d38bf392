"""The census of a given network: open it, count its units on films, write what they are."""

from pathlib import Path
from typing import Any

from fluoroscope.config.census import Job
from fluoroscope.console import make_console, short_path
from fluoroscope.escaping import csv_table
from fluoroscope.network_census import page, wording
from fluoroscope.network_census.counting import Counted, count
from fluoroscope.network_census.films import Films, find_films
from fluoroscope.network_census.subject import Subject, open_subject
from fluoroscope.run import run_folder

HTML, JSON, LAYERS, UNITS = "census.html", "census.json", "layers.csv", "units.csv"
PRINTED = 3  # of the worst layers


def main(job: Job) -> None:
    """Entry of `scripts/census.py`."""
    take_census(job)


def take_census(job: Job) -> dict[str, Any]:
    """Count the units, write the page and the tables to `job.folder`, and print the main numbers.

    Returns:
        The content of `census.json`.

    Raises:
        InputError: the network or the films cannot be used. Nothing is written then.
    """
    subject = open_subject(job)
    films = find_films(job, subject)
    counted = count(subject, films, job)
    content = _content(subject, films, counted)
    html = page.make_page(subject, films, counted)
    run_folder.claim(job.folder, can_resume=False)
    run_folder.write_text(job.folder / HTML, html)
    run_folder.write_json(job.folder / JSON, content)
    for name, table in ((LAYERS, counted.layers), (UNITS, counted.units)):
        run_folder.write_text(job.folder / name, csv_table(table).to_csv(index=False))
    _print(content, job.folder)
    return content


def _content(subject: Subject, films: Films, counted: Counted) -> dict[str, Any]:
    return {
        "network": subject.name,
        "weights": subject.weights,
        "fingerprint": subject.fingerprint,
        "parameters": subject.parameters,
        "source": films.source,
        "images": counted.images,
        "unreadable": counted.unreadable,
        "image_px": subject.image_px,
        "dead_bound_frac": counted.bound,
        "said": [
            " ".join(wording.headline(counted)),
            *wording.warnings(counted),
            *wording.findings(counted),
        ],
        "worst": wording.worst(counted),
        "layers": counted.layers.to_dict("records"),
        "unseen": counted.unseen,
    }


def _print(content: dict[str, Any], folder: Path) -> None:
    console = make_console()
    console.rule("fluoroscope: census")
    console.print(f"{content['network']}, weights {content['weights']}, {content['source']}")
    for line in content["said"]:
        console.print(f"- {line}")
    if content["worst"]:
        console.print("worst layers:")
    for line in content["worst"][:PRINTED]:
        console.print(f"- {line}")
    if content["unseen"]:
        console.print(f"{len(content['unseen'])} activations not seen, see the page")
    console.print(f"page {short_path((folder / HTML).absolute())}")
    console.rule()
