"""Render templates: Markdown, and HTML pages that load nothing from elsewhere."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fluoroscope.escaping import markdown_text, one_line
from fluoroscope.reporting import theme

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: Path, filters: Mapping[str, Callable[..., Any]], autoescape: bool, **values: Any
) -> str:
    """The text of a template.

    Args:
        template: its file. Included files may lie beside it or in `TEMPLATES`.
        filters: by their names in the template.
        autoescape: for HTML: escape the markup in values; otherwise they are escaped for Markdown.
        values: by their names in the template; a missing one is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=partial(_clean, one_line if autoescape else markdown_text),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(template.name).render(**values)


def _clean(escape: Callable[[str], str], value: Any) -> Any:
    """The value of an expression; text that a template has not made itself is escaped."""
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def css(*more: Path) -> Markup:
    """The style of every page, followed by further files."""
    files = (TEMPLATES / "report.css", *more)
    return Markup(theme.css() + "".join(file.read_text(encoding="utf-8") for file in files))
