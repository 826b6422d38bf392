"""Bones, airways and lung vessels of the phantom: tubes swept along curves.

A tube is a curve sampled at points that each carry the length of curve they stand for, *along the
beam included*. Spreading that length with a disc of the tube's radius gives the chord of a
cylinder, the brighter edges of a hollow one and the dense lateral turn of a rib, with one
convolution for all tubes of a radius.
"""

import math
from functools import cache

import cv2
import numpy as np

from fluoroscope.phantom.thorax import SIDES, Anatomy, Canvas, capsule, ramp, wall_mm

SPONGY_FRAC = 0.25  # density of the inside of a bone, as a share of its cortex
CARINA_Y_MM = 84.0
HILUM_Y_MM = (118.0, 108.0)  # right, left
BRANCH_LENGTHS_MM = (26, 26, 24, 22, 19, 16, 13)
BRANCH_RADII_MM = (4.2, 3.1, 2.3, 1.7, 1.25, 0.9, 0.7)


def curve(
    x: np.ndarray, y: np.ndarray, z: np.ndarray | float = 0.0, weight: np.ndarray | float = 1.0
) -> np.ndarray:
    """Points `[n, 3]` of x, y and weighted arc length; z is the depth along the beam."""
    dx, dy, dz = (np.diff(np.broadcast_to(axis, x.shape)) for axis in (x, y, z))
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    share = (np.append(length, 0) + np.append(0, length)) / 2
    return np.stack([x, y, share * weight], axis=1)


def sweep(
    canvas: Canvas, curves: list[np.ndarray], radius_mm: float, cortex_mm: float = 0.0
) -> np.ndarray:
    """Millimetres of tube under each pixel, `float32 [H, W]`.

    Args:
        canvas: where to draw; points outside it are left out.
        curves: each `[n, 3]` as `curve` makes them.
        radius_mm: outer radius.
        cortex_mm: thickness of the dense wall around a spongy inside; 0 for a solid tube.
    """
    height, width = canvas.shape
    x, y, length = np.concatenate(curves).T
    col, row = (x - canvas.x[0, 0]) / canvas.px_mm, (y - canvas.y[0, 0]) / canvas.px_mm
    keep = (col >= 0) & (row >= 0) & (col < width - 1) & (row < height - 1)
    col, row, length = col[keep], row[keep], length[keep]
    corner = row.astype(np.intp) * width + col.astype(np.intp)
    right, low = col % 1, row % 1
    index = np.concatenate([corner, corner + 1, corner + width, corner + width + 1])
    shares = [(1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low]
    mass = np.bincount(index, np.concatenate([s * length for s in shares]), height * width)
    disc = _disc(radius_mm, cortex_mm, canvas.px_mm)
    return cv2.filter2D(mass.reshape(height, width).astype(np.float32), -1, disc)


@cache
def _disc(radius_mm: float, cortex_mm: float, px_mm: float) -> np.ndarray:
    """Density over a disc: 1 in the wall, SPONGY_FRAC inside; averaged over each pixel's area."""
    n, fine = 2 * math.ceil(radius_mm / px_mm) + 1, 5
    steps = (np.arange(n * fine) - (n * fine - 1) / 2) * px_mm / fine
    distance = np.hypot(steps[:, None], steps[None, :])
    disc = (distance < radius_mm).astype(np.float32)
    if cortex_mm:
        disc -= (1 - SPONGY_FRAC) * (distance < radius_mm - cortex_mm)
    return disc.reshape(n, fine, n, fine).mean((1, 3))


def spine_x(a: Anatomy, y: np.ndarray) -> np.ndarray:
    return a.spine_lean * (y - 100) + a.spine_bow_mm * np.sin(y / 75) - a.turn_mm / 2


def rib_curves(a: Anatomy) -> list[np.ndarray]:
    """One curve per rib: sideways from the spine, round the wall, then forwards and down."""
    curves = []
    for i in range(a.ribs):
        top = a.rib_pitch_mm * i - 7
        drop = a.rib_drop * (44 + 88 * (1 - math.exp(-i / 2.6)))
        end = math.pi * (0.80 - 0.07 * max(i - 6, 0))
        phi = np.linspace(0.06, end, 110)  # 0 at the spine, pi / 2 at the side
        front = (1 - np.cos(phi)) / 2
        y = top + drop * front - 5 * np.sin(2 * phi) * (phi < math.pi / 2)
        reach = wall_mm(a, np.array(top + drop / 2)) - 8
        strength = 0.7 + 0.3 * min(i / 2, 1) - 0.4 * (i > 8)
        weight = strength * ramp((end - phi) / 0.25) * (1 - 0.25 * ramp((phi - 1.7) / 0.6))
        shift = a.turn_mm * front + spine_x(a, np.array(top)) * (1 - front)
        for side in SIDES:
            x = side * (12 + reach * np.sin(phi)) + shift
            curves.append(curve(x, y, 0.5 * a.depth_mm * np.cos(phi), weight))
    return curves


def clavicle_curves(a: Anatomy) -> list[np.ndarray]:
    t = np.linspace(0, 1, 120)
    x = 17 + (a.chest_mm + 15) * t
    y = 40 - (34 + a.shoulder_mm) * t + 6 * np.sin(2 * np.pi * t) + 6 * t**3
    weight = 1.1 + 0.6 * (1 - t) ** 4
    depth = 26 * np.sin(np.pi * t)
    return [curve(side * x + a.turn_mm, y, depth, weight) for side in SIDES]


def blade_curves(a: Anatomy) -> list[np.ndarray]:
    """Lateral margin, spine and medial margin of both shoulder blades."""
    t = np.linspace(0, 1, 80)
    edge, top = a.chest_mm, -a.shoulder_mm
    margins = [
        (edge + 22 - 20 * t + 5 * np.sin(np.pi * t), top + 46 + 92 * t, 1.3),
        (edge - 26 + 74 * t, top + 44 - 34 * t + 4 * np.sin(np.pi * t), 0.8),
        (edge - 30 + 32 * t**1.5, top + 30 + 108 * t, 0.4),
    ]
    return [curve(side * x, y, weight=weight) for x, y, weight in margins for side in SIDES]


def humerus_bone(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Heads, necks and shafts of both upper arms, in millimetres of dense bone."""
    t = np.linspace(0, 1, 160)
    heads = np.zeros(canvas.shape, np.float32)
    shafts, necks = [], []
    for side in SIDES:
        x, y = side * (a.chest_mm + 42), 32 - a.shoulder_mm
        heads += capsule(canvas, (x, y), (x + side * 4, y + 10), 21)
        shafts.append(curve(x + side * (6 + 34 * t), y + 300 * t, weight=ramp(t / 0.4)))
        necks.append(curve(x + side * (6 + 9 * t), y + 80 * t, weight=(1 - t) ** 1.5))
    return 0.15 * heads + 1.1 * sweep(canvas, shafts, 11, 3) + 0.5 * sweep(canvas, necks, 18, 2)


def spine_bone(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Vertebrae with discs, end plates, pedicles and processes, in millimetres of dense bone."""
    near = np.flatnonzero(np.abs(canvas.x[0]) < 60)
    strip = slice(near[0], near[-1] + 1)
    x = canvas.x[:, strip] - spine_x(a, canvas.y)
    level = (canvas.y + 60) / a.rib_pitch_mm
    w = level - np.floor(level) - 0.5  # [H, 1], -0.5 .. 0.5 within a vertebra
    half = 15 + 6 * np.clip(canvas.y / 250, -0.2, 1.2) - 1.6 * np.cos(2 * np.pi * w)
    from_edge = half - np.abs(x)
    inside = ramp(from_edge / 2.5 + 0.5)
    body = ramp((0.41 - np.abs(w)) * a.rib_pitch_mm / 2.5 + 0.5)
    plates = _bump((np.abs(w) - 0.38) / 0.045)
    bone = inside * (2.2 + 2.0 * body + 1.1 * plates) + 1.2 * body * _bump((from_edge - 1.2) / 1.3)
    pedicle = np.hypot((from_edge - 0.38 * half) / 3.8, (w + 0.16) / 0.17)
    bone += 2.6 * _bump((pedicle - 0.9) / 0.4)
    bone += 4.0 * _bump(x / 3.2) * _bump((w - 0.28) / 0.22)  # spinous process
    bone += 2.5 * _bump((w + 0.12) / 0.17) * ramp((from_edge + 13) / 10) * (1 - inside)
    whole = np.zeros(canvas.shape, np.float32)
    whole[:, strip] = bone
    return whole


def _bump(t: np.ndarray) -> np.ndarray:
    return np.exp(-t * t)


def bone_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """All bones, in millimetres of dense bone above soft tissue, `float32 [H, W]`."""
    cage = sweep(canvas, rib_curves(a) + clavicle_curves(a), 6.2, 1.25)
    blades = sweep(canvas, blade_curves(a), 4.0, 1.4)
    arms = canvas.enlarge(humerus_bone(a, canvas.coarser()))
    return cage + 1.1 * blades + arms + spine_bone(a, canvas)


def airway_chord(a: Anatomy, canvas: Canvas) -> np.ndarray:
    """Air in trachea and main bronchi, `float32 [H, W]`."""
    t = np.linspace(0, 1, 120)
    front = a.turn_mm / 2
    windpipe = curve(front - 3 * ramp(t * 1.5 - 0.3), -150 + (CARINA_Y_MM + 150) * t)
    right = curve(front - 3 - 30 * t, CARINA_Y_MM - 3 + 30 * t)
    left = curve(front - 3 + 42 * t, CARINA_Y_MM - 3 + 24 * t)
    coarse = canvas.coarser()
    return canvas.enlarge(sweep(coarse, [windpipe], 8.5) + sweep(coarse, [right, left], 5.5))


def vessel_chord(a: Anatomy, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Blood in the branching vessels of both lungs, `float32 [H, W]`."""
    t = np.linspace(0, 1, 30)
    right = curve(-27 - 22 * t, 108 + 52 * t, weight=0.55 - 0.33 * t)
    left = curve(24 + 26 * np.sin(np.pi * t / 2), 96 + 60 * t**2, weight=0.55 - 0.33 * t)
    coarse = canvas.coarser()
    total = canvas.enlarge(sweep(coarse, [right, left], 7.5))
    levels = _branches(a, rng)
    for group in (slice(0, 2), slice(2, 4), slice(4, 7)):
        # One convolution draws tubes of nearly the same radius: their volume is kept exactly.
        radii = list(BRANCH_RADII_MM)[group]
        radius, volume = radii[0], [(r / radii[0]) ** 2 for r in radii]
        curves = [c * [1, 1, v] for c, v in zip(levels[group], volume, strict=True)]
        total += sweep(canvas, curves, radius)
    return total


def _branches(a: Anatomy, rng: np.random.Generator) -> list[np.ndarray]:
    """Points of all branches, one `[n, 3]` per generation from the hilum outwards."""
    fan = np.linspace(-1.35, 1.45, 9) + rng.normal(0, 0.12, (2, 9))
    x = (np.array(SIDES)[:, None] * (34 + rng.uniform(-4, 6, (2, 9)))).ravel()
    y = (np.array(HILUM_Y_MM)[:, None] + 16 * np.sin(fan)).ravel()
    heading = np.stack([np.pi - fan[0], fan[1]]).ravel()
    levels = []
    for length in BRANCH_LENGTHS_MM:
        t = np.linspace(0, 1, length // 2)
        step = length * a.dome_mm / 212 / t.size * rng.uniform(0.7, 1.3, (x.size, 1))
        way = heading[:, None] + rng.normal(0, 0.35, (x.size, 1)) * t
        path_x = x[:, None] + np.cumsum(np.cos(way), 1) * step
        path_y = y[:, None] + np.cumsum(np.sin(way), 1) * step
        share = np.broadcast_to(step, way.shape)
        levels.append(np.stack([path_x, path_y, share], axis=-1).reshape(-1, 3))
        split = rng.uniform(0.18, 0.5, x.size)
        turns = np.concatenate([split, -split * rng.uniform(0.5, 1.2, x.size)])
        x, y = np.tile(path_x[:, -1], 2), np.tile(path_y[:, -1], 2)
        heading = np.tile(way[:, -1], 2) + turns
    return levels
