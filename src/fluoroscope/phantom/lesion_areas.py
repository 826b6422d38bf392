"""Where a phantom's findings are, for films that `write_collection` has drawn."""

import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fluoroscope.errors import InputError
from fluoroscope.phantom.render import FINDINGS, draw

VISIBLE_FRAC = 0.25  # of the largest change of a gray value by the finding


def lesion_area(
    finding: str,
    patient: int,
    image: int,
    findings: Collection[str] = (),
    subtlety: float = 0.3,
    size_px: int = 320,
    seed: int = 0,
) -> np.ndarray:
    """The pixels that a finding changes, bool `[size_px, size_px]`.

    The film is drawn with and without the finding, which changes neither body nor noise. A pixel
    belongs to the area if it changes by at least a quarter of the largest change.

    Args:
        finding: one of `findings`.
        patient, image, findings, subtlety, size_px, seed: of `render.draw`.
    """
    others = [other for other in findings if other != finding]
    with_it, without = (
        draw(patient, image, shown, subtlety, size_px, seed).astype(np.int16)
        for shown in ([*others, finding], others)
    )
    change = np.abs(with_it - without)
    return change >= max(1, VISIBLE_FRAC * change.max())


def lesion_areas(root: Path) -> dict[str, dict[str, Callable[[], np.ndarray]]]:
    """By film (its file name) and finding, a function that draws the area.

    Args:
        root: of a collection of `write_collection`.

    Raises:
        InputError: the folder holds no such collection.
    """
    try:
        recipe = json.loads((root / "phantom.json").read_text())
        studies = pd.read_csv(root / "studies.csv")
        drawn = {key: recipe[key] for key in ("subtlety", "size_px", "seed")}
        return {
            Path(study["file"]).name: _areas(study, drawn) for study in studies.to_dict("records")
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{root} is not a collection of phantoms ({error}); let data=phantom draw it again"
        ) from None


def _areas(study: dict, drawn: dict) -> dict[str, Callable[[], np.ndarray]]:
    findings = [finding for finding in FINDINGS if study[finding]]
    image = int(Path(study["file"]).stem.rpartition("_")[2])
    place = {"patient": study["patient"], "image": image, "findings": findings, **drawn}
    return {finding: partial(lesion_area, finding, **place) for finding in findings}
