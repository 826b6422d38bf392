"""Colours of the report, for light and dark pages, and the style of each activation.

Figures are drawn in the light colours. On the page each colour becomes the CSS variable of its
name, so one drawing is legible on both backgrounds; see `drawings.inline_svg`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# All values differ, so that a colour in a figure identifies its name.
LIGHT = {
    "ground": "#ffffff",
    "panel": "#f4f5f7",
    "ink": "#1c2026",
    "muted": "#545c69",
    "line": "#cfd4dc",
    "rest": "#79818e",
    "blue": "#0a64a4",
    "green": "#04775c",
    "purple": "#97427e",
    "brown": "#86590a",
    "dead": "#b84a00",
    "link": "#0b5fae",
}
DARK = {
    "ground": "#14171c",
    "panel": "#1e2229",
    "ink": "#e9ecf1",
    "muted": "#a9b1bd",
    "line": "#3a414c",
    "rest": "#858e9c",
    "blue": "#6db6ee",
    "green": "#3fc9a3",
    "purple": "#e394c9",
    "brown": "#dba94c",
    "dead": "#ff9457",
    "link": "#82bdf5",
}


@dataclass(frozen=True)
class Style:
    """How an activation is drawn; dash and marker distinguish it for those who see no colour."""

    color: str
    dash: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = "o"
    width: float = 1.7
    highlighted: bool = True


REFERENCE = Style(LIGHT["ink"], "-", "s", 2.2)
LINEAR = Style(LIGHT["blue"], "--", "D")
OTHERS = (
    Style(LIGHT["green"], "-.", "^"),
    Style(LIGHT["purple"], ":", "v"),
    Style(LIGHT["brown"], (0, (6, 2, 1, 2, 1, 2)), "P"),
)
REST = Style(LIGHT["rest"], "-", "o", 0.9, highlighted=False)
LINEAR_HEAD = "identity"


def styles(activations: Sequence[str], reference: str, notable: Sequence[str]) -> dict[str, Style]:
    """A style for each activation: the reference, the linear head and a few more stand out.

    Args:
        notable: further activations to highlight, as far as there are styles.
    """
    chosen = {reference: REFERENCE} | ({LINEAR_HEAD: LINEAR} if reference != LINEAR_HEAD else {})
    more = [name for name in dict.fromkeys(notable) if name not in chosen]
    chosen |= dict(zip(more, OTHERS, strict=False))
    return {name: chosen.get(name, REST) for name in activations}


def css() -> str:
    """The colours as CSS variables, for both of `prefers-color-scheme`."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in colors.items()) for colors in (LIGHT, DARK)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{light}}}}}\n"
    )


# For figures: thin frames, small type, no box around the axes.
RC: Any = {
    "text.parse_math": False,  # a name may hold $
    "font.size": 8,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": LIGHT["ground"],
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.5,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "hatch.color": LIGHT["blue"],
    "hatch.linewidth": 0.7,
}
