"""A figure as PNG, as SVG, and as part of a page with a light and a dark scheme."""

import re
import warnings
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fluoroscope.escaping import one_line
from fluoroscope.reporting.charts import Chart
from fluoroscope.reporting.theme import LIGHT

PNG_DPI = 160
# Text stays text: it can be searched, and takes a tenth of the size of glyphs drawn as paths. With
# a fixed salt and without a date the same figure gives the same bytes.
SVG_RC: Any = {"svg.fonttype": "none", "svg.hashsalt": "fluoroscope", "svg.image_inline": True}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
VARIABLES = {color: f"var(--{name})" for name, color in LIGHT.items()}


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: of its files, and the beginning of its ids on the page.
        svg: of `inline_svg`.
    """

    name: str
    title: str
    alt: str
    svg: str


def picture(name: str, title: str, chart: Chart) -> Picture:
    """A chart for a page that keeps no files of its figures.

    Args:
        name: unique on the page; the beginning of its ids.
    """
    drawing = standalone_svg(chart.figure)
    return Picture(name, title, chart.alt, inline_svg(drawing, name, title, chart.alt))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = BytesIO()
    _save(figure, file, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return file.getvalue()


def _save(figure: Figure, file: BytesIO | StringIO, **options: Any) -> None:
    """Save the figure; a character that matplotlib's font lacks is no reason for a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, **options)


def standalone_svg(figure: Figure) -> str:
    """The figure as an SVG file, on a white ground."""
    with matplotlib.rc_context(SVG_RC):
        text = StringIO()
        _save(figure, text, format="svg", facecolor=LIGHT["ground"], metadata=NO_METADATA)
    return text.getvalue()


def inline_svg(drawing: str, name: str, title: str, alt: str) -> str:
    """The drawing as part of a page that holds several and has a light and a dark scheme.

    Args:
        drawing: from `standalone_svg`.
        name: unique on the page; every id inside starts with it.
        title, alt: name and text alternative of the figure.
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
        # Below this width its text is too small to read, and its box scrolls.
        f'viewBox="0 0 {width} {height}" style="min-width:{1.15 * float(width):.0f}px">'
        f'<title id="{name}-title">{escape(one_line(title))}</title>'
        f'<desc id="{name}-alt">{escape(one_line(alt))}</desc>'
    )
    return re.sub(r"^<svg[^>]*>", lambda _: label, body)


def _own_id(old: str, name: str, drawing: str) -> str:
    """An id that is referred to gets the drawing's name in front; other ids are removed."""
    return f' id="{name}-{old}"' if f"#{old}" in drawing else ""
