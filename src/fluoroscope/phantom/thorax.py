"""Soft tissue of the phantom: chords along the beam of body, lungs, heart and diaphragm.

All lengths are millimetres at the detector. x grows to the patient's left, which is image right; y
grows downwards from the apex of the lungs; side is -1 for the patient's right lung and +1 for the
left one. Every chord is `float32 [H, W]` over a canvas.
"""

import math
from copy import copy
from dataclasses import dataclass, replace

import cv2
import numpy as np

FIELD_MM = 400.0  # side of an image
APEX_BELOW_TOP_MM = 64.0
SIDES = (-1, 1)


class Canvas:
    """A pixel grid in millimetres, larger than the image so that a pose never shows its border."""

    def __init__(self, size_px: int, coarse: int = 1) -> None:
        self.size_px = size_px
        self.margin_px = round(0.05 * size_px)
        fine = size_px + 2 * self.margin_px
        n = fine // coarse
        self.px_mm = FIELD_MM / size_px * fine / n
        start = -self.margin_px * FIELD_MM / size_px
        steps = (start + (np.arange(n) + 0.5) * self.px_mm).astype(np.float32)
        self.x = (steps - FIELD_MM / 2)[None, :]  # [1, W]
        self.y = (steps - APEX_BELOW_TOP_MM)[:, None]  # [H, 1]

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def coarser(self) -> "Canvas":
        """The same field with a quarter of the pixels, for structures without fine detail."""
        return Canvas(self.size_px, coarse=2)

    def half(self, side: int) -> "Canvas":
        """The columns of one side of the midline."""
        part = copy(self)
        part.x = self.x[:, (self.x[0] < 0) == (side < 0)]
        return part

    def enlarge(self, chord: np.ndarray) -> np.ndarray:
        return cv2.resize(chord, self.shape[::-1], interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Anatomy:
    """Differences between patients and, after `breathe`, between images of one patient."""

    chest_mm: float  # half of the widest inner diameter of the rib cage
    depth_mm: float  # front to back, inside the ribs
    wall_mm: float  # muscle and fat around the ribs
    dome_mm: float  # apex of the lung to the top of the right diaphragm
    left_drop_mm: float  # how much lower the left diaphragm stands
    heart_frac: float  # cardiothoracic ratio
    heart_tilt: float  # radians of the long axis below the horizontal
    knob_mm: float  # radius of the aortic arch
    spine_lean: float  # mm sideways per mm down
    spine_bow_mm: float
    rib_pitch_mm: float
    rib_drop: float  # 1 = ordinary slope of the ribs
    ribs: int
    breast_mm: float  # 0 for none
    gas_mm: float  # radius of the stomach bubble, 0 for none
    shoulder_mm: float  # how much higher than usual the shoulders stand
    turn_mm: float = 0.0  # sideways shift of the front against the back

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Anatomy":
        build = 0.04 * _spread(rng)  # tall or short, shared by all lengths

        def around(mean: float, spread: float) -> float:
            return mean * (1 + build + spread * _spread(rng))

        return cls(
            chest_mm=around(136, 0.03),
            depth_mm=around(160, 0.05),
            wall_mm=around(22, 0.2),
            dome_mm=around(212, 0.04),
            left_drop_mm=rng.uniform(6, 18),
            heart_frac=rng.uniform(0.41, 0.48),
            heart_tilt=rng.uniform(0.55, 0.85),
            knob_mm=around(16, 0.12),
            spine_lean=0.012 * _spread(rng),
            spine_bow_mm=3 * _spread(rng),
            rib_pitch_mm=around(22.5, 0.03),
            rib_drop=rng.uniform(0.85, 1.25),
            ribs=int(rng.integers(9, 12)),
            breast_mm=float(rng.random() < 0.45) * rng.uniform(44, 66),
            gas_mm=float(rng.random() < 0.75) * rng.uniform(12, 24),
            shoulder_mm=rng.uniform(-14, 8),
        )

    def breathe(self, rng: np.random.Generator) -> "Anatomy":
        """The same patient in another image: depth of breath and a slight turn of the trunk."""
        breath_mm = 6 * _spread(rng)
        return replace(
            self,
            dome_mm=self.dome_mm + breath_mm,
            rib_drop=self.rib_drop - 0.008 * breath_mm,
            heart_frac=self.heart_frac - 0.0008 * breath_mm,
            turn_mm=3 * _spread(rng),
        )

    @property
    def heart_mm(self) -> float:
        """Widest transverse diameter of the heart."""
        return 2 * self.chest_mm * self.heart_frac

    def dome_top_mm(self, side: int) -> float:
        return self.dome_mm + (self.left_drop_mm if side > 0 else 0.0)


def _spread(rng: np.random.Generator) -> float:
    """A standard normal draw without its far tails, which would give implausible bodies."""
    return float(np.clip(rng.normal(), -2, 2))


def ramp(t: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def ball(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Half chord of the unit ball at (u, v): 1 in the middle, 0 outside, with a steep edge."""
    return np.sqrt(np.maximum(1 - u * u - v * v, 0))


def join(*chords: np.ndarray) -> np.ndarray:
    """Union of bodies that pass smoothly into each other: the 4-norm of their chords."""
    total: np.ndarray = sum(np.square(np.square(c)) for c in chords)
    return np.sqrt(np.sqrt(total))


Point = tuple[float, float]


def capsule(canvas: Canvas, start: Point, end: Point, radius_mm: float) -> np.ndarray:
    """Chord of a cylinder with round ends between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = canvas.x - start[0], canvas.y - start[1]
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    return 2 * radius_mm * ball((x - along * dx) / radius_mm, (y - along * dy) / radius_mm)


def body_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Trunk, neck, shoulders and upper arms."""
    x, y = canvas.x, canvas.y
    half = a.chest_mm + a.wall_mm + 10 - 10 * ramp((y - 60) / 120) + 6 * ramp((y - 230) / 90)
    thick = (a.depth_mm + 2 * a.wall_mm) * (0.45 + 0.55 * ramp((y + 45) / 150))
    u = np.minimum(np.abs(x) / half, 1)
    trunk = thick * ramp((y + 52) / 60) * np.sqrt(1 - u * u * u)
    parts = [trunk, capsule(canvas, (0, -140), (0, 0), 56)]
    for side in SIDES:
        joint = (side * (a.chest_mm + 40), 24 - a.shoulder_mm)
        parts.append(capsule(canvas, (side * 26, -24), joint, 44))
        parts.append(capsule(canvas, joint, (side * (a.chest_mm + 82), 340), 44))
    return join(*parts)


def breast_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Two half ellipsoids that fade upwards and have a definite lower fold; zeros for none."""
    if not a.breast_mm:
        return np.zeros(canvas.shape, np.float32)
    r = a.breast_mm
    y = canvas.y - (a.dome_mm - 0.25 * r)
    fade = ramp((y / r + 1) / 1.6)
    both = [ball((canvas.x - s * 0.66 * a.chest_mm) / (1.4 * r), y / r) for s in SIDES]
    return 0.5 * r * fade * np.square(join(*both))


def wall_mm(a: Anatomy, y: np.ndarray) -> np.ndarray:
    """Distance of the lateral pleura from the midline at height y (same shape as y)."""
    t = 1 - np.clip(y / (0.95 * a.dome_mm), 0, 1)
    return 44 + (a.chest_mm - 44) * (1 - t**3.4) ** 0.60


def cavity_chord(a: Anatomy, canvas: Canvas, side: int) -> np.ndarray:
    """Space of one lung down to its recess, before organs are subtracted."""
    outer = wall_mm(a, canvas.y)
    inner = 43 - 36 * np.sqrt(1 - (1 - np.clip(canvas.y / 55, 0, 1)) ** 2)
    depth = a.depth_mm * np.sqrt(1 - (1 - np.clip(canvas.y / 120, 0, 1)) ** 2) * (canvas.y > 0)
    u = np.clip((side * canvas.x - inner) / (outer - inner), 0, 1)
    return depth * np.sqrt((1 - u * u * u) * (u > 0)) * ramp(0.06 + u / 0.42)


def dome_y(a: Anatomy, x: np.ndarray, side: int) -> np.ndarray:
    """Height of the diaphragm where it stands highest along the beam, over x `[1, W]`."""
    middle = 0.50 * a.chest_mm
    t = (side * x - middle) / (a.chest_mm - middle)
    lateral = 46 * (1 - np.sqrt(1 - np.clip(t, 0, 0.999) ** 2.6))
    medial = (12 if side < 0 else 5) * np.clip(-t, 0, 1.2) ** 2
    return a.dome_top_mm(side) + lateral + medial


def abdomen_chord(a: Anatomy, canvas: Canvas, side: int) -> np.ndarray:
    """Share of a lung's space that the abdomen takes: little at the dome's top, all far below."""
    below = np.maximum(canvas.y - dome_y(a, canvas.x, side), 0)
    return a.depth_mm * np.sqrt(1 - np.exp(-below / 26))


def heart_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Ventricles, right atrium and base; width over the chest's is `heart_frac` by construction."""
    w, cos, sin = a.heart_mm, math.cos(a.heart_tilt), math.sin(a.heart_tilt)
    long, short = 0.52 * w, 0.37 * w
    reach = math.hypot(long * cos, short * sin)
    x = canvas.x - a.turn_mm
    u, v = x - (0.66 * w - reach), canvas.y - (a.dome_top_mm(1) - 0.23 * w)
    ventricles = ball((u * cos + v * sin) / long, (v * cos - u * sin) / short)
    v = canvas.y - (a.dome_mm - 0.28 * w)
    atrium = ball((x + 0.07 * w) / (0.27 * w), v / (0.36 * w))
    tall = 0.3 * w + 0.6 * a.chest_mm  # a large heart grows sideways more than upwards
    base = ball((x - 0.10 * w) / (0.28 * w), (v + 0.27 * tall) / (0.42 * tall))
    return 0.96 * w * join(ventricles, atrium, 0.8 * base)


def mediastinum_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Great vessels, aortic knob, pulmonary trunk and descending aorta."""
    x, y = canvas.x, canvas.y
    half = 27 - 5 * np.exp(-(((y - 84) / 34) ** 2)) + 15 * ramp((30 - y) / 90)
    u = np.minimum(np.abs(x + 3) / half, 1)
    column = 84 * np.sqrt(1 - u * u * u)
    knob = 62 * ball((x - 38 + a.knob_mm) / a.knob_mm, (y - 56) / (1.2 * a.knob_mm))
    trunk = 66 * ball((x - 16) / 28, (y - 108) / 36)
    descending = 40 * ramp((y - 56) / 20) * ball((x - 24 + 0.03 * y) / 13, np.zeros_like(y))
    return join(column, knob, trunk, descending)


def gas_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Air in the stomach under the left diaphragm; zeros for none."""
    if not a.gas_mm:
        return np.zeros(canvas.shape, np.float32)
    y = (canvas.y - a.dome_top_mm(1) - 14 - a.gas_mm) / a.gas_mm
    return (26 - 14 * ramp((y + 0.2) / 1.2)) * ball((canvas.x - 60) / (1.5 * a.gas_mm), y)
