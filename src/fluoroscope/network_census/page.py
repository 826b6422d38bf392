"""Write `census.html`: one file that loads nothing else, for light, dark and paper."""

from pathlib import Path

import matplotlib
import pandas as pd
from markupsafe import Markup

from fluoroscope.errors import plural
from fluoroscope.instrument.shares import share
from fluoroscope.network_census import wording
from fluoroscope.network_census.chart import by_depth
from fluoroscope.network_census.counting import Counted
from fluoroscope.network_census.films import FOLDER, Films
from fluoroscope.network_census.subject import Subject
from fluoroscope.reporting import theme
from fluoroscope.reporting.drawings import picture
from fluoroscope.reporting.rendering import css, render
from fluoroscope.reporting.tables import Table

TEMPLATE = Path(__file__).parent / "templates/census.html"
CSS = Path(__file__).parent / "templates/census.css"
TITLES = (
    *("Layer", "Depth", "Activation", "Units", "Dead", "Linear", "Nonlinear"),
    *("Gates open", "Images all closed"),
)
UNSEEN = ("Activation", "Why it was not counted")
GLOSSARY = {
    "Unit": "A channel of an activation: every position of every image is a sample of it.",
    "Gate": "The derivative of the activation at the unit's input. It is closed if it is at most "
    "1e-6 in size; then neither the image nor a gradient passes.",
    "Dead": "Its gate was closed at every position of every image: the unit is a constant here.",
    "Linear": "Not dead, and its output is a straight line of its input (squared correlation above "
    "0.99): the activation does nothing for it.",
    "Nonlinear": "All other units.",
    "Images all closed": "Share of images on which every unit of the layer was closed at every "
    "position: nothing but a constant passes the layer.",
}


def make_page(subject: Subject, films: Films, counted: Counted) -> str:
    """The page as HTML."""
    with matplotlib.rc_context(theme.RC):
        drawn = picture("depth", "All layers by depth", by_depth(counted))
    unseen = Table.of(UNSEEN, [[name, why] for name, why in counted.unseen.items()])
    return render(
        TEMPLATE,
        {"drawing": Markup, "sentence": _sentence, "unbroken": _unbroken},
        autoescape=True,
        css=css(CSS),
        headline=wording.headline(counted),
        warnings=wording.warnings(counted),
        findings=wording.findings(counted),
        worst=wording.worst(counted),
        facts=facts(subject, films, counted),
        picture=drawn,
        layers=layer_table(counted.layers),
        unseen=unseen if counted.unseen else None,
        bound=share(counted.bound),
        glossary=GLOSSARY,
    )


def facts(subject: Subject, films: Films, counted: Counted) -> list[tuple[str, str]]:
    """What was counted, on what; no place and no name of a person."""
    source = "" if films.source == FOLDER else f" of {films.source}"
    drawn = f", drawn at random from {films.found:,}" if films.found > len(films.paths) else ""
    return [
        ("Network", subject.name),
        ("Weights", f"{subject.weights}, fingerprint {subject.fingerprint}"),
        ("Parameters", f"{subject.parameters:,}"),
        ("Images", f"{counted.images:,}{source}{drawn}"),
        ("Image size", f"{subject.image_px} px"),
        ("Layers", f"{len(counted.layers)}, {plural(int(counted.layers['units'].sum()), 'unit')}"),
    ]


def layer_table(layers: pd.DataFrame) -> Table:
    """One row per layer, in the order of depth."""
    shares = ("dead_frac", "linear_frac", "nonlinear_frac", "gate_open_frac", "blackout_frac")
    rows = [
        [row["layer"], str(row["depth"]), row["activation"], f"{row['units']:,}"]
        + [share(row[name]) for name in shares]
        for _, row in layers.iterrows()
    ]
    return Table.of(TITLES, rows)


def _sentence(text: str) -> str:
    return _unbroken(f"{text[:1].upper()}{text[1:]}.")


def _unbroken(text: str) -> str:
    """No line ends between a number and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
