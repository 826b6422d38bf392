"""From chords to a film: attenuation, projection, quantum noise, scatter and the display curve."""

import cv2
import numpy as np

from fluoroscope.phantom import skeleton, thorax
from fluoroscope.phantom.lesions import Lesions, texture
from fluoroscope.phantom.thorax import SIDES, Anatomy, Canvas

# Attenuation per millimetre at about 120 kVp, scatter build-up included; bone is above soft tissue.
SOFT, LUNG, BONE = 0.0195, 0.0042, 0.0273
SCATTER_FRAC = 0.06
QUANTA_PER_MM2 = 4e4


def line_integral(
    a: Anatomy, canvas: Canvas, lesions: Lesions, rng: np.random.Generator
) -> np.ndarray:
    """Attenuation summed along the beam, `float32 [H, W]`."""
    coarse = canvas.coarser()
    body = canvas.enlarge(thorax.body_chord(a, coarse)) + thorax.breast_chord(a, canvas)
    lung = lung_chord(a, canvas)
    vessels = skeleton.vessel_chord(a, canvas, rng) * np.sqrt(lung / a.depth_mm)
    grain = 0.6 * texture(canvas, rng, 5) + 0.5 * texture(canvas, rng, 2.5)
    muscle = 1 + 0.012 * texture(canvas, rng, 30) + 0.005 * texture(canvas, rng, 9)
    air = skeleton.airway_chord(a, canvas) + thorax.gas_chord(a, canvas)
    aerated = lung * (1 - lesions.filled) * (1 - lesions.emptied)
    total = SOFT * muscle * (body - lung - 0.9 * air) + LUNG * (1 + 0.1 * grain) * aerated
    total += SOFT * lung * lesions.filled * (1 - lesions.emptied)
    # Filled lung hides its vessels and shows its airways: air bronchograms.
    seen = (1 - 1.5 * lesions.filled) * (1 - lesions.emptied)
    total += (SOFT - LUNG) * (1.7 * vessels * seen + lesions.solid_mm * (lung > 1))
    return total + BONE * skeleton.bone_chord(a, canvas)


def lung_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Air-filled lung under each pixel: the pleural space less heart, vessels and abdomen."""
    halves = []
    for side in SIDES:
        half = canvas.half(side)
        organs = thorax.heart_chord(a, half), thorax.mediastinum_chord(a, half)
        full = thorax.join(*organs, thorax.abdomen_chord(a, half, side))
        halves.append(np.maximum(thorax.cavity_chord(a, half, side) - full, 0))
    return np.concatenate(halves, axis=1)


def pose(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """The patient's pose: an affine map `[2, 3]` from canvas to image pixels."""
    turn_deg, grow, right_mm, down_mm = np.clip(rng.normal(size=4), -2, 2) * (1.2, 0.015, 4.0, 5.0)
    centre = canvas.shape[1] / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), turn_deg, 1 + grow)
    shift = np.array([right_mm, down_mm]) / canvas.px_mm - canvas.margin_px
    matrix[:, 2] = matrix[:, 2] + shift
    return matrix


def expose(
    integral: np.ndarray, canvas: Canvas, matrix: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Optical density of the film, `float32 [size, size]`: 0 for the open beam."""
    size = (canvas.size_px, canvas.size_px)
    posed = cv2.warpAffine(
        integral, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    beam = cv2.GaussianBlur(np.exp(-posed), (0, 0), 0.7 / canvas.px_mm)
    cells = cv2.resize(beam, (40, 40), interpolation=cv2.INTER_AREA)
    haze = cv2.resize(cv2.GaussianBlur(cells, (0, 0), 4), size, interpolation=cv2.INTER_CUBIC)
    beam = beam + SCATTER_FRAC * haze
    quanta = QUANTA_PER_MM2 * canvas.px_mm**2 * 2 ** float(np.clip(rng.normal(0, 0.4), -0.8, 0.8))
    noisy = beam + np.sqrt(beam / quanta) * rng.standard_normal(size, np.float32)
    return -np.log(np.maximum(noisy, 1e-4))


def develop(
    density: np.ndarray, a: Anatomy, canvas: Canvas, rng: np.random.Generator
) -> np.ndarray:
    """Display values, `uint8 [H, W]`: edge enhancement as on digital films, then a window.

    The window follows the patient's thickness, not the pixels, so that a finding cannot be read off
    the grey level of the rest of the image.
    """
    density = density + 0.45 * (density - cv2.GaussianBlur(density, (0, 0), 7 / canvas.px_mm))
    thick = SOFT * (a.depth_mm + 2 * a.wall_mm)
    low, high = rng.uniform((0.5, 1.05), (0.8, 1.15))
    return (255 * np.clip((density - low) / (high * thick - low), 0, 1)).astype(np.uint8)


def mark(image: np.ndarray) -> np.ndarray:
    """The image with `SYNTHETIC` and the side marker, always at the same places."""
    size = image.shape[0]
    for text, x, y, scale in (("SYNTHETIC", 0.025, 0.05, 0.0013), ("L", 0.925, 0.085, 0.0026)):
        origin = (round(x * size), round(y * size))
        thick = max(1, round(scale * size))
        cv2.putText(
            image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale * size, 230, thick, cv2.LINE_AA
        )
    return image
