"""Templates to text: Markdown, and pages of one file that need nothing else."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fluoroscope.reporting import theme

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: Path, filters: Mapping[str, Callable[..., Any]], autoescape: bool, **values: Any
) -> str:
    """The text of a template.

    Args:
        template: its file. What it includes may lie beside it or in `TEMPLATES`.
        filters: by the names that the template calls them.
        autoescape: for HTML: values become text, whatever they hold.
        values: by the names in the template; one that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(template.name).render(**values)


def css(*more: Path) -> Markup:
    """Style of every page, and files that add to it."""
    files = (TEMPLATES / "report.css", *more)
    return Markup(theme.css() + "".join(file.read_text(encoding="utf-8") for file in files))
