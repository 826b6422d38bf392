"""Figures as SVG: files that stand alone, and drawings that a page can hold many of."""

import re
from html import escape
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fluoroscope.reporting.theme import LIGHT

# Text stays text: it can be searched, and it is a tenth of the size of glyphs drawn as paths. The
# same salt and no date give the same bytes for the same figure.
RC: Any = {"svg.fonttype": "none", "svg.hashsalt": "fluoroscope", "svg.image_inline": True}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
VARIABLES = {color: f"var(--{name})" for name, color in LIGHT.items()}


def standalone(figure: Figure) -> str:
    """The figure as an SVG file, on a white ground."""
    with matplotlib.rc_context(RC):
        text = StringIO()
        figure.savefig(text, format="svg", facecolor=LIGHT["ground"], metadata=NO_METADATA)
    return text.getvalue()


def inline(drawing: str, name: str, title: str, alt: str) -> str:
    """The drawing for a page that shows others too, in light or in dark.

    Args:
        drawing: of `standalone`.
        name: unique on the page; every id inside starts with it.
        title, alt: what it is, and what it says, for those who do not see it.
    """
    body = drawing[drawing.index("<svg") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r' id="([^"]+)"', lambda m: _own_id(m[1], name, drawing), body)
    body = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda m: VARIABLES.get(m[0], m[0]), body)
    body = re.sub(r"[ \n]*\n *", " ", body).replace("> <", "><")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)[0]
    label = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-alt" class="chart" '
        # Below this its type is too small to read, and its box scrolls.
        f'viewBox="0 0 {width} {height}" style="min-width:{1.15 * float(width):.0f}px">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-alt">{escape(alt)}</desc>'
    )
    return re.sub(r"^<svg[^>]*>", lambda _: label, body)


def _own_id(old: str, name: str, drawing: str) -> str:
    """An id that something refers to keeps its place under the drawing's name; others go."""
    return f' id="{name}-{old}"' if f"#{old}" in drawing else ""
