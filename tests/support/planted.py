"""A phantom collection with a marker in a corner, which goes with a label or does not."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fluoroscope.phantom.render import write_collection

PX = 96
MARKER = slice(80, 90), slice(6, 16)  # rows and columns: lower left corner


def draw(root: Path, patients: int = 40) -> Path:
    """Obvious findings, half of the films with a Consolidation; about three films per patient."""
    write_collection(root, patients, 3, PX, 0.0, 0.5)
    return root


def plant(drawn: Path, root: Path, agreement: float) -> Path:
    """A copy with a square in the corner of each film, bright or dark.

    Args:
        agreement: share of the films whose square is bright if and only if there is a
            Consolidation; 0.5 has nothing to do with it.
    """
    shutil.copytree(drawn, root)
    table = pd.read_csv(root / "studies.csv")
    agrees = np.random.default_rng(0).random(len(table)) < agreement
    for file, bright in zip(table["file"], (table["Consolidation"] == 1) == agrees, strict=True):
        film = cv2.imread(str(root / file), cv2.IMREAD_GRAYSCALE)
        film[MARKER] = 250 if bright else 60
        cv2.imwrite(str(root / file), film)
    return root


def words(root: Path, patients: int = 40) -> list[str]:
    """The keys of a run on it."""
    return [
        *("data=phantom", f"data.root={root}", f"data.patients={patients}", "data.subtlety=0"),
        *("data.images_per_patient=3", f"data.film_px={PX}", "data.prevalence=0.5"),
        f"data.image_px={PX}",
    ]
