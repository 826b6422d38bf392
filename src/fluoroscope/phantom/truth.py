"""Where things are on a stored phantom film: known from how it was drawn."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from fluoroscope.errors import InputError
from fluoroscope.phantom import radiograph
from fluoroscope.phantom.lesions import FINDINGS
from fluoroscope.phantom.render import POSE, Recipe, anatomy, draw, stream
from fluoroscope.phantom.thorax import Canvas

FILM = re.compile(r"phantom_(\d+)_(\d+)\.png")
LUNG_MM = 1.0  # least chord of air-filled lung that counts
VISIBLE_FRAC = 0.25  # of the largest change of a gray level by a finding


class StoredFilm(NamedTuple):
    """A film of a collection of `phantom.render.write_collection`.

    Attributes:
        recipe: the arguments of the collection.
        patient, image: numbers, as `draw` takes them.
        findings: those that were drawn.
    """

    recipe: Recipe
    patient: int
    image: int
    findings: tuple[str, ...]

    @classmethod
    def find(cls, path: str | Path) -> "StoredFilm":
        """The film that a file of a collection shows.

        Raises:
            InputError: the file does not belong to a phantom collection of this version.
        """
        film, match = Path(path), FILM.fullmatch(Path(path).name)
        try:
            recipe, table = _collection(film.parent.parent)
            if match is None:
                raise KeyError(film.name)
            row = table.loc[f"images/{film.name}"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{film.parent.parent} is not a complete phantom collection of this version; use "
                "data=phantom with a new data.root"
            ) from error
        present = tuple(finding for finding in FINDINGS if row[finding] == 1)
        return cls(recipe, int(match[1]), int(match[2]), present)

    def lungs(self) -> np.ndarray:
        """The air-filled lungs as they would be without lesions, bool [size_px, size_px]."""
        recipe = self.recipe
        canvas = Canvas(recipe.size_px)
        body = anatomy(self.patient, self.image, self.findings, recipe.subtlety, recipe.seed)
        chord = radiograph.lung_chord(body, canvas)
        rng = stream(recipe.seed, self.patient, POSE, self.image)
        posed = cv2.warpAffine(chord, radiograph.pose(canvas, rng), (recipe.size_px,) * 2)
        return posed > LUNG_MM

    def lesion(self, finding: str) -> np.ndarray:
        """The pixels that a finding changes, bool [size_px, size_px].

        The film is drawn with and without the finding, which changes neither body nor noise. A
        pixel belongs to the lesion if it changes by at least a quarter of the largest change.

        Args:
            finding: one of `findings`.
        """
        others = [other for other in self.findings if other != finding]
        recipe = self.recipe
        with_it, without = (
            draw(self.patient, self.image, shown, recipe.subtlety, recipe.size_px, recipe.seed)
            for shown in ([*others, finding], others)
        )
        change = cv2.absdiff(with_it, without)
        return change >= max(1, VISIBLE_FRAC * change.max())


def stored_films(root: Path) -> dict[str, StoredFilm]:
    """All films of a collection by the names of their files.

    Raises:
        InputError: the folder holds no phantom collection of this version.
    """
    try:
        files = list(_collection(root)[1].index)
    except (OSError, ValueError, TypeError, KeyError):
        files = ["images/none"]
    return {Path(file).name: StoredFilm.find(root / file) for file in files}


@lru_cache(maxsize=4)
def _collection(root: Path) -> tuple[Recipe, pd.DataFrame]:
    recipe = Recipe(**json.loads((root / "phantom.json").read_text()))
    return recipe, pd.read_csv(root / "studies.csv", index_col="file")
