"""Overlays of single maps, and the contact sheet of all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fluoroscope.atomic_write import write_atomically
from fluoroscope.escaping import figure_text
from fluoroscope.explanation.agreement import TITLES
from fluoroscope.explanation.film_explained import Explained
from fluoroscope.reporting.theme import RC

SIDE_PX = 384  # least side of an overlay
OPACITY = 0.55  # of the highest place of a map
OUTLINE = (0, 230, 255)  # RGB, of regions
PANEL_IN, CAPTION_IN, GAP_PX = 1.9, 0.28, 6
SHEET_ROWS = 60  # a longer picture is hard to open
SHEET, OVERLAYS = "contact_sheet.png", "overlays"


def gray(image: np.ndarray, side_px: int = SIDE_PX) -> np.ndarray:
    """A film as RGB, enlarged to at least `side_px`; uint8 `[H, W, 3]`."""
    side = max(side_px, image.shape[0])
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.repeat(large[..., None], 3, axis=2)


def overlay(
    image: np.ndarray, heat: np.ndarray, area: np.ndarray, side_px: int = SIDE_PX
) -> np.ndarray:
    """A map over its film: the higher a place, the more of its colour; uint8 RGB `[H, W, 3]`.

    The map is scaled to its highest place on the film; a map of zeros leaves the film as it is.

    Args:
        image: uint8 `[S, S]`.
        heat: float `[S, S]`, not negative.
        area: of the film on the square, bool `[S, S]`.
        side_px: least side of the picture.
    """
    below = gray(image, side_px)
    size = below.shape[1::-1]
    on_film = np.where(area, heat, 0).astype(np.float32)
    scaled = on_film / (on_film.max() or 1)
    share = cv2.resize(scaled, size, interpolation=cv2.INTER_LINEAR)
    levels = np.rint(255 * share).astype(np.uint8)
    colour = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = OPACITY * share[..., None]
    return np.rint((1 - weight) * below + weight * colour).astype(np.uint8)


def outlined(picture: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """The picture with the outline of a region; unchanged without one."""
    if region is None:
        return picture
    large = cv2.resize(
        region.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thick = max(1, round(picture.shape[0] / 200))
    return cv2.drawContours(np.ascontiguousarray(picture), contours, -1, OUTLINE, thick)


def write_overlays(folder: Path, number: int, explained: Explained) -> None:
    """One PNG for each method, `overlays/0007-1-gradcam.png` of the second label of film 7.

    Args:
        folder: of the explanations.
        number: of the label among those that are explained.
        explained: one label of one film.
    """
    (folder / OVERLAYS).mkdir(exist_ok=True)
    for method, heat in explained.heat.items():
        picture = overlay(explained.image, heat, explained.area)
        name = f"{explained.film.row:04d}-{number}-{method}.png"
        _write_png(folder / OVERLAYS / name, outlined(picture, explained.region))


def _write_png(file: Path, rgb: np.ndarray) -> None:
    with write_atomically(file) as part:
        part.write_bytes(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())


def contact_sheet(shown: Sequence[Explained]) -> Any:
    """One row per film and label: the film, its maps, and the maps of random weights.

    Args:
        shown: with maps of the same methods.

    Returns:
        A figure of matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    methods = list(shown[0].heat)
    titles = [
        "film",
        *(TITLES[m] for m in methods),
        *(f"{TITLES[m]},\nrandom weights" for m in methods),
    ]
    height = PANEL_IN + CAPTION_IN
    with rc_context(RC):
        figure = Figure(figsize=(PANEL_IN * len(titles), height * len(shown) + 2 * CAPTION_IN))
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for each, axis in zip(shown, axes, strict=True):
            axis.imshow(_row(each), interpolation="antialiased")
            axis.set_title(caption(each), pad=3)
            axis.set_axis_off()
        for place, title in enumerate(titles):
            across = (place + 0.5) / len(titles)
            figure.text(
                across, 1 - 0.1 * CAPTION_IN / figure.get_figheight(), title, ha="center", va="top"
            )
        top = 1 - 2.1 * CAPTION_IN / figure.get_figheight()
        figure.subplots_adjust(0.005, 0.005, 0.995, top, hspace=CAPTION_IN / PANEL_IN)
    return figure


def _row(each: Explained) -> np.ndarray:
    maps = [*each.heat.values(), *each.random.values()]
    panels = [gray(each.image), *(overlay(each.image, heat, each.area) for heat in maps)]
    white = np.full((panels[0].shape[0], GAP_PX, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (outlined(panel, each.region), white)]
    return np.hstack(parts[:-1])


def caption(each: Explained) -> str:
    """Row, label, probability and truth of a film, and its open units."""
    numbers = each.numbers
    known = "" if np.isnan(numbers["truth"]) else f", truth {numbers['truth']:g}"
    return (
        f"row {each.film.row}: {figure_text(each.label)}, "
        f"probability {numbers['probability']:.2f}{known}; "
        f"{numbers['open_units']} of {numbers['units']} units open"
    )
