"""Built-in synthetic x-rays, drawn when they are first needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluoroscope.choices import COUNT, IMAGE_PX, SHARE
from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import number
from fluoroscope.data.study_table import Collection, select_labels, study_table
from fluoroscope.sources import given_root


@dataclass
class Keys(Data):
    """Keys of `data=phantom`."""

    patients: int = number(*COUNT)
    images_per_patient: int = number(*COUNT)
    film_px: int = number(*IMAGE_PX)
    subtlety: float = number(*SHARE)
    prevalence: float = number(*SHARE)


def check_place(data: Mapping[str, Any]) -> None:
    given_root(data["root"])  # films are drawn into it


def read(
    root: str | Path | None, labels: Sequence[str] | None = None, **parameters: Any
) -> Collection:
    """Phantoms in `root`, which are drawn if they do not exist.

    Args:
        root: directory; created if needed.
        labels: findings to keep; None keeps all.
        parameters: arguments of `phantom.render.write_collection`; `film_px` is its `size_px`.
    """
    from fluoroscope.phantom.render import FINDINGS, write_collection

    directory = given_root(root)
    select_labels(FINDINGS, labels)  # refuses unknown labels before drawing
    if "film_px" in parameters:
        parameters["size_px"] = parameters.pop("film_px")
    studies = write_collection(directory, **parameters)
    findings = [column for column in studies.columns if column not in ("file", "patient", "view")]
    table = study_table(
        [directory / file for file in studies["file"]],
        studies[select_labels(findings, labels)],
        patients=list(studies["patient"].astype(str)),
        views=list(studies["view"]),
    )
    return Collection(table, directory, written=True)
