"""`model_card.md`: what is known about a trained model, and what its authors have to add."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from fluoroscope import __version__
from fluoroscope.commands import called
from fluoroscope.config.export import CARD
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.evaluation import page_tables
from fluoroscope.evaluation.card_facts import facts
from fluoroscope.evaluation.card_sources import Sources, sources_of
from fluoroscope.evaluation.checklists import CLAIM, TRIPOD, Item
from fluoroscope.evaluation.wording import Values, estimate, known, number, point_name
from fluoroscope.reporting import tables
from fluoroscope.reporting.columns import UNKNOWN
from fluoroscope.reporting.rendering import render
from fluoroscope.reporting.tables import Table
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.loading import Trained

TEMPLATES = Path(__file__).parent / "templates"
NOT_KNOWN = "not known"
COUNTED = ("split", "images", "patients")
CHARACTERS = 600  # of a cell
# The facts of each section, with their names.
SECTIONS = {
    "Model": {
        "model": "Network",
        "input": "Input",
        "output": "Output",
        "preprocessing": "Preprocessing",
    },
    "Data and split": {
        "source": "Collection",
        "subset": "Images",
        "eligibility": "Read with",
        "counts": "Splits",
        "partition": "Assignment to splits",
        "disjoint": "Splits share no",
        "missing": "Missing labels",
    },
    "Training": {
        "initial": "Start",
        "training": "Training",
        "selection": "Selected epoch",
        "imbalance": "Class imbalance",
        "ensemble": "Ensemble",
    },
    "Scores": {
        "performance": "Main score",
        "internal": "Evaluated on",
        "external": "Evaluated on another collection",
        "prevalence": "Prevalence there",
        "uncertainty": "Intervals",
    },
    "Calibration": {
        "calibration": "Calibration",
        "calibration_gain": "Change",
        "updating": "Updated",
    },
    "Subgroups": {"subgroups": "Findings"},
    "Shortcut probes": {"probes": "Findings"},
    "Census of the head": {"census": "Units", "gradient": "Gradient"},
    "Environment": {
        "software": "Software",
        "code": "Code",
        "hardware": "Hardware and time",
        "started": "Started",
    },
    "Energy": {"energy": "Energy of the training"},
}
TO_FILL_IN = {
    "Intended use": "which decision the model supports, for which patients, and who uses it",
    "Uses that are out of scope": "films, patients and decisions that it must not be used for",
    "Clinical limits": "what is known to go wrong, and what has not been looked at",
    "Ethics, funding, contact": "approval, funders, and whom to ask",
}


class Section(NamedTuple):
    """A part of the card: facts and their names, and tables with their captions."""

    title: str
    facts: list[tuple[str, str]]
    tables: list[tuple[str, Table]]


def make_card(trained: Trained, calibration: Calibration | None, evaluation: Values | None) -> str:
    """The card of a trained model.

    Args:
        calibration: None if there is none.
        evaluation: content of `evaluation.json`; None: the scores are those of the run's own test.

    Raises:
        InputError: the evaluation, or a file of the run, lacks an entry.
    """
    sources = sources_of(trained, calibration, evaluation)
    try:
        return card(sources)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        whose = "evaluation.json" if evaluation else "result.json or provenance.json of the run"
        raise InputError(
            f"cannot write the model card: {whose} lacks an entry ({first_sentence(error)}); run "
            f"{called('evaluate')} again"
        ) from error


def card(sources: Sources) -> str:
    """The text of the card; see `make_card`."""
    known_facts = facts(sources)
    filters = {
        "table": lambda table: Markup(tables.markdown(table)),
        "words": lambda table: Markup(tables.markdown(table, right=False)),
    }
    return render(
        TEMPLATES / CARD,
        filters,
        autoescape=False,
        labels=", ".join(sources.labels),
        version=__version__,
        to_fill_in=TO_FILL_IN,
        limits=known_facts.get("limits", NOT_KNOWN),
        sections=[_section(title, known_facts, sources) for title in SECTIONS],
        checklists=[
            ("CLAIM 2024", _checklist(CLAIM, known_facts), _filled(CLAIM, known_facts)),
            ("TRIPOD+AI", _checklist(TRIPOD, known_facts), _filled(TRIPOD, known_facts)),
        ],
    )


def _section(title: str, known_facts: dict[str, str], sources: Sources) -> Section:
    names = SECTIONS[title]
    shown = [(name, known_facts[key]) for key, name in names.items() if key in known_facts]
    if not shown:
        shown = [(next(iter(names.values())), NOT_KNOWN)]
    evaluation = sources.evaluation
    found = [] if evaluation is None else _tables(title, evaluation)
    if title == "Data and split" and sources.run.get("splits"):
        found = [("Images, patients, and images with each label", _splits(sources.run["splits"]))]
    return Section(title, shown, found)


def _splits(rows: Sequence[Values]) -> Table:
    """The counts of `result.json`; patients that are unknown are `n/a`."""
    titles = [str(name) for name in rows[0]]
    cells = [[_count(row.get(name)) for name in titles] for row in rows]
    return Table.of([title.capitalize() if title in COUNTED else title for title in titles], cells)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else UNKNOWN


def _tables(title: str, evaluation: Values) -> list[tuple[str, Table]]:
    if title == "Scores":
        points = _points(evaluation)
        return [
            (
                "Scores of each label, with 95 % intervals over patients",
                page_tables.scores(evaluation),
            ),
            *([("Decisions at the operating points", points)] if points.rows else []),
        ]
    if title == "Calibration":
        judged = {n: label for n, label in evaluation["labels"].items() if label["after"]}
        return [
            (f"Quality of {name}", page_tables.quality(label)) for name, label in judged.items()
        ]
    if title == "Subgroups" and evaluation["subgroups"]:
        rows = evaluation["subgroups"]["groups"]
        first = [group for group in rows if group["label"] == rows[0]["label"]]
        return [("Groups of images", page_tables.groups(first))] if first else []
    return []


def _points(evaluation: Values) -> Table:
    """One row per label and operating point."""
    titles = ["Label", "Operating point", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV"]
    rows = [
        [
            label,
            point_name(name),
            number(known(point["threshold"]), ".3g"),
            *(estimate(point[key]) for key in ("sensitivity", "specificity", "ppv", "npv")),
        ]
        for label, own in evaluation["labels"].items()
        for name, point in own["points"].items()
    ]
    return Table.of(titles, rows)


def _checklist(items: Sequence[Item], known_facts: dict[str, str]) -> Table:
    rows = [[i.number, i.words, known_facts.get(i.fact, NOT_KNOWN)] for i in items]
    return Table.of(["Item", "Asks for", "From the files"], rows, CHARACTERS)


def _filled(items: Sequence[Item], known_facts: dict[str, str]) -> str:
    filled = sum(item.fact in known_facts for item in items)
    return f"{filled} of {len(items)} items are filled from the files"
