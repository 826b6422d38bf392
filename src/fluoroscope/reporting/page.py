"""Write a report: HTML in one file that loads nothing else, Markdown, a table and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_table
from fluoroscope.reporting import tables
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.comparison import Comparison
from fluoroscope.reporting.figures import (
    FOLDER,
    Figures,
    Picture,
    Tick,
    draw_setting,
    draw_verdict,
    looks_of,
)
from fluoroscope.reporting.out_of_fold import write_folds
from fluoroscope.reporting.rendering import TEMPLATES, css, render
from fluoroscope.reporting.rows import ACTIVATION, heading, plural_of
from fluoroscope.reporting.sentences import display_name, patients_phrase
from fluoroscope.reporting.verdict import Verdict

HTML, MARKDOWN, CSV = "report.html", "report.md", "table.csv"
FILTERS: dict[str, Callable[..., Any]] = {
    "drawing": Markup,
    "table": lambda table: Markup(tables.markdown(table)),
}
ANSWERS = {True: "destructive here", False: "not destructive here", None: "undecided"}
RULE = (
    "{name} counts as destructive here in two cases only. First, it blacks out images for long: "
    "more than {blackout} of the images, and more than 2^-width of them, close every unit in most "
    "epochs or in the last validation (mean over seeds). This is the only event in which the "
    "backbone receives no gradient; shorter or rarer blackouts are an alarm. Second, its share of "
    "dead units grows from before the first step to the end at a tuned learning rate, and another "
    "activation scores better at the same order, initial spread and learning rate. Dead units "
    "alone do no damage: they shrink the head, and the backbone still receives gradient from every "
    "image. A linear head (identity) is always compared: if it scores no worse, no nonlinearity "
    "was needed."
)
RULE_OF_OTHERS = "Each is compared with {name} over the same seeds and patients. "
FINDING = (
    "The intervals of all comparisons hold together with a probability of 95 %, for other patients "
    "and seeds. Equivalent: the interval lies within the margin of {margin}. Better or worse: it "
    "lies above or below zero. Else nothing is decided. A finding needs {patients} test patients "
    "with and without each label, and {seeds} seeds."
)
READING = (
    "Lines are the intervals of the differences over patients and seeds; all lines hold together "
    "with a probability of 95 %. The band is the margin of ±{margin:g}. Bars are the units of the "
    "last validation; the number is the dead share."
)
NOTE = (
    "All numbers are means over seeds. Shares of units and gates are of the last validation, "
    "shares of gradients of the last training epoch, norms and ratios of the last logged step. "
    "Gradient norms do not decide: behind batch norm no activation lowers the gradient of the "
    "backbone at the start."
)


def write(comparison: Comparison, verdict: Verdict, folder: Path, tick: Tick) -> None:
    """Write page, Markdown, tables and figures; the same comparison gives the same bytes.

    Args:
        comparison: to be reported.
        verdict: on this comparison.
        folder: created if it does not exist.
        tick: called with the name of each figure after it was drawn.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        looks = looks_of(comparison)
        shown = draw_verdict(comparison, folder, tick)
        numbers = range(1, len(comparison.settings) + 1)
        figures = [draw_setting(comparison, n, looks, folder, tick) for n in numbers]
        values = _values(comparison, verdict, shown, figures)
        (folder / HTML).write_text(_html(values), encoding="utf-8")
        (folder / MARKDOWN).write_text(_markdown(values), encoding="utf-8")
        csv_table(tables.frame(comparison)).to_csv(folder / CSV, index=False)
        write_folds(comparison, folder)
    except OSError as error:
        raise InputError(
            f"out: cannot write the report to {folder} ({error.strerror}); give another folder "
            "with out=DIR"
        ) from None


def reading(comparison: Comparison) -> str:
    """How to read the figure of the verdict."""
    return READING.format(margin=comparison.rule.margin)


def _html(values: dict[str, Any]) -> str:
    return render(TEMPLATES / "report.html", FILTERS, autoescape=True, css=css(), **values)


def _markdown(values: dict[str, Any]) -> str:
    return render(TEMPLATES / "report.md", FILTERS, autoescape=False, **values)


def _values(
    comparison: Comparison,
    verdict: Verdict,
    shown: Sequence[Picture],
    figures: Sequence[Figures],
) -> dict[str, Any]:
    """The values of both templates."""
    reference, name = comparison.reference, display_name(comparison.reference)
    sections = [
        {
            "number": n,
            "label": setting.label,
            "main": tables.table(setting, tables.MAIN, reference),
            "more": tables.table(setting, tables.MORE, reference),
            "folds": tables.folds(setting),
            "pictures": drawn,
        }
        for n, (setting, drawn) in enumerate(zip(comparison.settings, figures, strict=True), 1)
    ]
    activations, rule = comparison.by == ACTIVATION, comparison.rule
    glossary = tables.glossary(reference)
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
        "shown": shown,
        "reading": reading(comparison),
        "basis": basis(comparison),
        "glossary": glossary,
        "limits": comparison.limits,
        "note": NOTE,
        "rule": (RULE if activations else RULE_OF_OTHERS).format(
            name=name, blackout=f"{rule.blackout_share:.2g}"
        ),
        "finding": FINDING.format(
            margin=rule.margin, patients=rule.min_patients, seeds=rule.min_seeds
        ),
        "figures": FOLDER,
        "highlighted": _highlighted(comparison),
    }


def _highlighted(comparison: Comparison) -> list[str]:
    """Activations drawn in colour; empty if all are."""
    looks = looks_of(comparison)
    names = [name for name, look in looks.items() if look.highlighted]
    return names if len(names) < len(looks) else []


def _answer(comparison: Comparison, verdict: Verdict, name: str) -> str:
    if comparison.by != ACTIVATION:
        return f"Compared with {name}"
    return f"{name}: {ANSWERS[verdict.destructive]}"


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Terms and their texts: data, images, patients, backbone, seeds, epochs, runs."""
    common = dict(comparison.common)
    runs = sum(len(setting.runs) for setting in comparison.settings)
    names = dict.fromkeys(run.row for s in comparison.settings for run in s.runs)
    labels = common.pop("labels", [])
    terms = {
        "Data": f"{common.pop('source', 'unknown')}: {_text(labels)}",
        **_splits(common),
        "Image side": f"{common.pop('image_px', '?')} px",
        "Backbone": _backbone(common),
        "Head": f"{common.pop('width', 'various')} hidden units",
        "Epochs": _text(common.pop("epochs", "various")),
        "Seeds": _text(common.pop("seeds", [])),
        plural_of(comparison.by): f"{len(names)}: {', '.join(names)}",
        "Runs": f"{runs} in {len(comparison.settings)} setting"
        + ("s" if len(comparison.settings) > 1 else ""),
    }
    common.pop("runs", None)
    rest = {str(key).replace("_", " ").capitalize(): _text(v) for key, v in common.items()}
    return [*terms.items(), *rest.items()]


def _splits(common: dict[str, Any]) -> dict[str, str]:
    """Takes `<split> images` and `<split> patients` out, and makes one term of each split."""
    terms, known = {}, common.pop("patients_known", "all")
    for split in ("train", "val", "test"):
        images, patients = (common.pop(f"{split} {what}", None) for what in ("images", "patients"))
        if images is not None:
            name = {"train": "Training", "val": "Validation", "test": "Test"}[split]
            terms[name] = f"{images} images{patients_phrase(patients, known)}"
    return terms


def _backbone(common: dict[str, Any]) -> str:
    name, weights = common.pop("backbone", "unknown"), common.pop("weights", None)
    training = {True: "frozen", False: "trained with the head"}.get(common.pop("frozen", None), "")
    source = {
        "package": "ImageNet weights from the package",
        "hub": "weights from the hub",
        "file": "weights from a file",
        "none": "no pretrained weights",
    }.get(str(weights), "")
    return ", ".join(part for part in (str(name), source, training) if part)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
