"""The five findings of the phantom, as changes of the lungs' content.

Each has its own random generator, so that no finding changes another, and draws from it in the same
order at every subtlety.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from fluoroscope.phantom.thorax import Anatomy, Canvas, ball, dome_y, ramp, wall_mm

FINDINGS = ("Nodule", "Consolidation", "Effusion", "Cardiomegaly", "Pneumothorax")


@dataclass
class Lesions:
    """Replacements of air-filled lung, each `float32 [H, W]`."""

    filled: np.ndarray  # share of the lung's chord that holds fluid or tissue
    emptied: np.ndarray  # share that holds free air
    solid_mm: np.ndarray  # chord of solid bodies: nodule, pleural line


def enlarge_heart(a: Anatomy, rng: np.random.Generator, subtlety: float) -> Anatomy:
    """A cardiothoracic ratio of 0.52 (nearly invisible) to 0.66."""
    ratio = 0.62 - 0.09 * subtlety + rng.uniform(-0.01, 0.04)
    return replace(a, heart_frac=ratio, heart_tilt=0.85 * a.heart_tilt)


def find_lesions(
    a: Anatomy, canvas: Canvas, rngs: Mapping[str, np.random.Generator], subtlety: float
) -> Lesions:
    """All lesions of the lungs, for the findings that are keys of `rngs`."""
    nothing = np.zeros(canvas.shape, np.float32)
    lesions = Lesions(nothing, nothing, nothing)
    for finding, rng in rngs.items():
        if finding == "Nodule":
            lesions.solid_mm = lesions.solid_mm + nodule(a, canvas, rng, subtlety)
        elif finding == "Consolidation":
            lesions.filled = np.maximum(lesions.filled, consolidation(a, canvas, rng, subtlety))
        elif finding == "Effusion":
            lesions.filled = np.maximum(lesions.filled, effusion(a, canvas, rng, subtlety))
        elif finding == "Pneumothorax":
            lesions.emptied, line_mm = pneumothorax(a, canvas, rng, subtlety)
            lesions.solid_mm = lesions.solid_mm + line_mm
    return lesions


def contrast(subtlety: float) -> float:
    return 1 - 0.9 * subtlety


def extent(subtlety: float) -> float:
    return 1 - 0.5 * subtlety


def place(a: Anatomy, rng: np.random.Generator, top: float, bottom: float) -> tuple[float, float]:
    """X and y of a lesion's centre in a lung, clear of the heart.

    Args:
        a: the anatomy.
        rng: determines the site.
        top: highest centre, as a share of the lung's height.
        bottom: lowest centre; on the left at most 0.55, above the heart.
    """
    side = 1 if rng.random() < 0.5 else -1
    y = a.dome_mm * rng.uniform(top, min(bottom, 0.55) if side > 0 else bottom)
    x = side * wall_mm(a, np.array(y)) * rng.uniform(0.48, 0.72)
    return float(x), float(y)


def nodule(a: Anatomy, canvas: Canvas, rng: np.random.Generator, subtlety: float) -> np.ndarray:
    """Chord of a sphere of 6 to 15 mm radius, denser than soft tissue if not subtle."""
    x, y = place(a, rng, 0.25, 0.8)
    radius = rng.uniform(12, 15) * extent(subtlety)
    sphere = ball((canvas.x - x) / radius, (canvas.y - y) / radius)
    return 3.4 * contrast(subtlety) * radius * sphere


def consolidation(
    a: Anatomy, canvas: Canvas, rng: np.random.Generator, subtlety: float
) -> np.ndarray:
    """Patchy filling of part of one lung with an ill-defined margin, as a share of its chord."""
    x, y = place(a, rng, 0.25, 0.85)
    across, along = (rng.uniform(34, 50) * extent(subtlety) for _ in range(2))
    coarse, fine = texture(canvas, rng, 20), texture(canvas, rng, 6)
    distance = np.hypot((canvas.x - x) / across, (canvas.y - y) / along)
    patch = ramp((1.25 - distance + 0.22 * coarse) / 1.1)
    grain = np.clip(0.88 + 0.12 * coarse + 0.1 * fine, 0, 1.15)
    return 0.82 * contrast(subtlety) * patch * grain


def effusion(a: Anatomy, canvas: Canvas, rng: np.random.Generator, subtlety: float) -> np.ndarray:
    """Fluid in one costophrenic angle, its meniscus climbing the wall, as a share of chord."""
    side = 1 if rng.random() < 0.5 else -1
    depth = rng.uniform(45, 80) * extent(subtlety) ** 1.5
    wall = wall_mm(a, canvas.y)
    angle_y = float(dome_y(a, np.array([[side * a.chest_mm]]), side)[0, 0])
    climb = 0.9 * depth * np.exp(-np.maximum(wall - side * canvas.x, 0) / 20)
    level = angle_y - 0.75 * depth - climb
    here = ramp(side * canvas.x / 25)
    return contrast(subtlety) ** 0.5 * here * ramp((canvas.y - level) / (0.3 * depth))


def pneumothorax(
    a: Anatomy, canvas: Canvas, rng: np.random.Generator, subtlety: float
) -> tuple[np.ndarray, np.ndarray]:
    """Share of chord that holds free air above and beside a shrunken lung, and its pleural line."""
    side = 1 if rng.random() < 0.5 else -1
    above, beside = (rng.uniform(*span) * extent(subtlety) for span in ((30, 46), (16, 26)))
    loose = 1 - ramp(canvas.y / (0.75 * a.dome_mm))
    y = canvas.y - above * loose
    edge = wall_mm(a, y) - beside * loose
    lung = ramp((edge - side * canvas.x) / 2 + 0.5) * ramp(y / 3)
    lung = cv2.GaussianBlur(lung.astype(np.float32), (0, 0), 0.9 / canvas.px_mm)
    chest = ramp(side * canvas.x / 4) * (loose > 0)
    # The pleura is seen edge on: a shell of 1 mm is up to 25 mm deep there.
    line_mm = 150 * contrast(subtlety) * lung**3 * (1 - lung) * chest
    return contrast(subtlety) * (1 - lung) * chest, line_mm


def texture(canvas: Canvas, rng: np.random.Generator, cell_mm: float) -> np.ndarray:
    """Smooth noise of unit scale whose grain is `cell_mm` wide at every resolution."""
    n = math.ceil(canvas.shape[0] * canvas.px_mm / cell_mm)
    cells = rng.standard_normal((n, n), np.float32)
    return cv2.resize(cells, canvas.shape[::-1], interpolation=cv2.INTER_CUBIC)
