"""The report as one HTML file: no script, no font, no image from anywhere else; and as Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from fluoroscope.reporting import tables
from fluoroscope.reporting.comparison import EFFECT, Comparison
from fluoroscope.reporting.facts import RULE, RULE_OF_OTHERS, facts
from fluoroscope.reporting.pictures import FOLDER, Picture, Pictures, looks_of
from fluoroscope.reporting.rendering import TEMPLATES, css, render
from fluoroscope.reporting.rows import ACTIVATION, heading
from fluoroscope.reporting.verdict import Verdict

FILTERS: dict[str, Callable[..., Any]] = {"drawing": Markup, "table": tables.markdown}


def html(
    comparison: Comparison,
    verdict: Verdict,
    overview: Sequence[Picture],
    pictures: Sequence[Pictures],
) -> str:
    """The page.

    Args:
        comparison: what is reported.
        verdict: on it.
        overview: of `pictures.draw_overview`.
        pictures: of `pictures.draw_setting`, one a setting.
    """
    values = _values(comparison, verdict, overview, pictures)
    return render(TEMPLATES / "report.html", FILTERS, autoescape=True, css=css(), **values)


def markdown(
    comparison: Comparison,
    verdict: Verdict,
    overview: Sequence[Picture],
    pictures: Sequence[Pictures],
) -> str:
    """The same in Markdown, with the figures' PNG files beside it."""
    values = _values(comparison, verdict, overview, pictures)
    return render(TEMPLATES / "report.md", FILTERS, autoescape=False, **values)


def _values(
    comparison: Comparison,
    verdict: Verdict,
    overview: Sequence[Picture],
    pictures: Sequence[Pictures],
) -> dict[str, Any]:
    reference = comparison.reference
    name = "ReLU" if reference == "relu" else reference
    sections = [
        {
            "number": n,
            "label": setting.label,
            "main": tables.table(setting, tables.MAIN, reference),
            "more": tables.table(setting, tables.MORE, reference),
            "pictures": drawn,
        }
        for n, (setting, drawn) in enumerate(zip(comparison.settings, pictures, strict=True), 1)
    ]
    glossary = {
        column.title.format(reference=reference): column.meaning
        for column in (*tables.MAIN, *tables.MORE)
    }
    activations = comparison.by == ACTIVATION
    if not activations:
        del glossary[tables.MAIN[0].title]
    return {
        "reference": reference,
        "verdict": verdict,
        "answer": _answer(comparison, verdict, name),
        "heading": heading(comparison.by),
        "facts": facts(comparison),
        "left_out": comparison.left_out,
        "sections": sections,
        "summary": tables.summary(comparison) if len(sections) > 1 else None,
        "overview": overview,
        "glossary": glossary,
        "rule": (RULE if activations else RULE_OF_OTHERS).format(name=name),
        "effect": EFFECT,
        "figures": FOLDER,
        "highlighted": _highlighted(comparison),
    }


def _highlighted(comparison: Comparison) -> list[str]:
    """Activations drawn in colour; empty where all are."""
    looks = looks_of(comparison)
    names = [name for name, look in looks.items() if look.highlighted]
    return names if len(names) < len(looks) else []


def _answer(comparison: Comparison, verdict: Verdict, name: str) -> str:
    if comparison.by != ACTIVATION:
        return f"Compared with {name}"
    told = {True: "destructive here", False: "not destructive here", None: "undecided"}
    return f"{name}: {told[verdict.destructive]}"
