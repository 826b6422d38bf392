"""A collection with nothing wrong in it, and what can be done to it."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from fluoroscope.data.study_table import Decision, study_table
from fluoroscope.data.survey import survey_images

FILM_PX = 160
PATIENTS = {"train": 40, "val": 20, "test": 20}
IMAGES = 2  # of each patient
LABELS = ["Edema", "Mass"]


class Studies(NamedTuple):
    table: pd.DataFrame
    labels: list[str] = LABELS
    skipped: int = 0
    decisions: tuple[Decision, ...] = ()


def chest(seed: int) -> np.ndarray:
    """Bright spine and abdomen, dark lungs and corners, and shadows that no other film has."""
    y, x = np.mgrid[:FILM_PX, :FILM_PX] / FILM_PX
    body = 120 + 60 * (y > 0.75) + 50 * (abs(x - 0.5) < 0.08)
    body -= 50 * (np.hypot((abs(x - 0.5) - 0.24) / 0.13, (y - 0.42) / 0.25) < 1)
    body *= np.hypot(x - 0.5, y - 0.75) < 0.75
    shadows = np.random.default_rng(seed).normal(0, 30, (24, 24)).astype(np.float32)
    body = body + cv2.resize(shadows, (FILM_PX, FILM_PX), interpolation=cv2.INTER_CUBIC)
    return body.clip(0, 255).astype(np.uint8)


def write_clean(root: Path) -> pd.DataFrame:
    """160 films, each label on every second patient, in another order."""
    splits = np.repeat(list(PATIENTS), list(PATIENTS.values()))
    rows = [(patient, image) for patient in range(len(splits)) for image in range(IMAGES)]
    paths = []
    for patient, image in rows:
        paths.append(root / f"p{patient:02d}_{image}.png")
        cv2.imwrite(str(paths[-1]), chest(IMAGES * patient + image))
    patients = np.array([patient for patient, _ in rows])
    labels = pd.DataFrame({"Edema": patients % 2, "Mass": patients // 2 % 2})
    names = [f"p{patient:02d}" for patient in patients]
    return study_table(paths, labels, names, list(splits[patients]))


def surveyed(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    return survey_images(table["path"].tolist(), cache_dir=root / "cache")
