"""Write `evaluation.html`: one file that loads nothing else, for light, dark and paper."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup

from fluoroscope.console import show_progress
from fluoroscope.evaluation import forests, label_charts, page_sections, page_tables
from fluoroscope.evaluation.wording import (
    Values,
    estimate,
    images_and_patients,
    is_known,
    not_judged,
    sentence,
)
from fluoroscope.evaluation.worst_errors import WorstError, worst_errors
from fluoroscope.files.thumbnails import thumbnail
from fluoroscope.reporting import theme
from fluoroscope.reporting.drawings import Picture, picture
from fluoroscope.reporting.rendering import css, render
from fluoroscope.run.run_folder import write_text
from fluoroscope.trained.calibration import logit, sigmoid

HTML = "evaluation.html"
TEMPLATES = Path(__file__).parent / "templates"
FILTERS: dict[str, Callable[..., Any]] = {
    "drawing": Markup,
    "sentence": sentence,
    "estimate": estimate,
}
SIDE_PX = 220  # of an image among the worst errors
SPLITS = {"val": "validation split", "test": "test split", "all": "all images"}
GLOSSARY = {
    "AUROC": "The chance that an image with the finding gets a higher score than one without it. "
    "0.5 is guessing, 1 is perfect. It does not depend on a threshold.",
    "AUPRC": "Mean precision over all sensitivities. Guessing gives the share of positive images.",
    "Brier": "Mean squared distance of the probability from the truth, 0 is perfect.",
    "ECE": "Expected calibration error: mean distance of predicted and observed share, over bins.",
    "Log loss": "Mean −log of the probability given to the truth, in nats. 0 is perfect.",
    "PPV, NPV": "Share of the positive (negative) decisions that are right. They change with the "
    "prevalence; sensitivity and specificity do not.",
    "LR+, LR−": "How much a positive (negative) decision multiplies the odds of the finding.",
    "Net benefit": "True positives per image, minus false positives weighed by the odds of the "
    "threshold. The model helps if it lies above both “all positive” and “none positive” (0).",
    "Operating point": "A threshold that was fixed on the validation split: the largest sum of "
    "sensitivity and specificity (Youden), or the one that just reaches the stated value there.",
}


def write(content: Values, predictions: pd.DataFrame, folder: Path, named: bool = False) -> Path:
    """Write the page.

    Args:
        content: of `evaluation.json`.
        predictions: the scored images, as `run_folder.prediction_table` makes them; they are
            calibrated here, as the content says.
        folder: which exists.
        named: show the worst errors as images with their paths, which identifies patients; the
            predictions have the column `path` then.

    Returns:
        The file.
    """
    page = render(
        TEMPLATES / HTML,
        FILTERS,
        autoescape=True,
        css=css(TEMPLATES / "evaluation.css"),
        **_values(content, predictions, named),
    )
    write_text(folder / HTML, page)
    return folder / HTML


def _values(content: Values, predictions: pd.DataFrame, named: bool) -> dict[str, Any]:
    labels, macro = content["labels"], content["macro"]
    predictions = judged_probabilities(content, predictions)
    judged = [name for name, label in labels.items() if label["judged"]]
    errors = worst_errors(predictions, judged)
    with matplotlib.rc_context(theme.RC):
        sections = [
            _label_section(n, name, content, predictions)
            for n, name in enumerate(show_progress(labels, "drawing labels", len(labels)), start=1)
        ]
        first = _first(content, sections)
        more = list(page_sections.sections(content))
    return {
        "content": content,
        "headline": headline(content),
        "not_judged": not_judged(labels),
        "facts": page_tables.facts(content, _data(content)),
        "scores": page_tables.scores(content),
        "first": first,
        "means": page_tables.mean_decisions(macro["points"])
        if macro["points"] and len(labels) > 1
        else None,
        "sections": sections,
        "more": more,
        "errors": page_tables.errors(errors) if errors else None,
        "pictures": _images(errors, predictions) if named else [],
        "predictions": f"predictions/{content['split']}.csv",
        "glossary": GLOSSARY,
    }


def judged_probabilities(content: Values, predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the calibrated probabilities, of the labels that have a calibration."""
    fitted = {name: label["calibration"] for name, label in content["labels"].items()}
    columns = {
        f"{name}_probability": own["temperature"]["value"] for name, own in fitted.items() if own
    }
    return predictions.assign(
        **{name: sigmoid(logit(predictions[name]) / value) for name, value in columns.items()}
    )


def headline(content: Values) -> tuple[str, str]:
    """The main score, and on what: two parts of a sentence."""
    labels, macro = content["labels"], content["macro"]
    on = f"on {images_and_patients(content)}"
    if not macro["labels"]:
        return "No label can be judged", on
    score = macro["auroc"]
    if not is_known(score):
        return "The AUROC is not known", on
    lead = f"AUROC {estimate(score)}"
    of = next(iter(labels)) if len(labels) == 1 else f"mean of {macro['labels']} labels"
    return f"{lead}, {of}", f"{on}, with the 95 % interval over patients in brackets"


def _data(content: Values) -> str:
    split = SPLITS.get(content["split"], content["split"])
    return f"{content['source']}, {split}: {images_and_patients(content)}"


def _first(content: Values, sections: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """The figures below the main table: those of the only label, or the AUROC of all labels."""
    if len(sections) == 1:
        return list(sections[0]["pictures"])
    if not content["macro"]["labels"]:
        return []
    return [picture("labels", "AUROC of each label", forests.label_forest(content))]


def _label_section(
    number: int, name: str, content: Values, predictions: pd.DataFrame
) -> dict[str, Any]:
    """The tables and figures of one label; none if it is not judged."""
    label = content["labels"][name]
    section = {"name": name, "id": f"label-{number}", "label": label, "pictures": []}
    if not label["judged"]:
        return section
    drawn = _charts(f"label-{number}", name, content, predictions)
    return section | {
        "pictures": drawn,
        "decisions": page_tables.decisions(label["points"]),
        "quality": page_tables.quality(label),
        "bins": page_tables.bins(label["after"] or label["before"]),
        "calibration": label["calibration"],
        "summary": f"{name}: AUROC {estimate(label['auroc'])}",
    }


def _charts(prefix: str, name: str, content: Values, predictions: pd.DataFrame) -> list[Picture]:
    label = content["labels"][name]
    rows = predictions[predictions[name].isin([0, 1])]
    score = rows[f"{name}_probability"].to_numpy(dtype=float)
    truth = rows[name].to_numpy(dtype=float)
    drawn = {
        "ROC curve": label_charts.roc(score, truth, label),
        "Precision and recall": label_charts.precision_recall(score, truth, label),
        "Reliability": label_charts.reliability(label),
        "Probabilities": label_charts.scores(score, truth, label),
    }
    if label["decision_curve"]:
        given = content["prevalence"]
        title = "Decision curve" if given is None else f"Decision curve at prevalence {given:g}"
        drawn[title] = label_charts.decision_curve(label, given)
    return [
        picture(f"{prefix}-{n}", f"{title}, {name}", chart)
        for n, (title, chart) in enumerate(drawn.items(), start=1)
    ]


def _images(errors: Sequence[WorstError], predictions: pd.DataFrame) -> list[dict[str, str]]:
    """The worst errors as small images with their paths."""
    paths = [str(predictions["path"].iloc[error.place]) for error in errors]
    return [
        {
            "row": str(error.row),
            "path": path,
            "image": thumbnail(path, SIDE_PX),
            "text": f"{error.label}: {'missed finding' if error.present else 'false alarm'}, "
            f"probability {error.probability:.3f}",
        }
        for error, path in zip(errors, paths, strict=True)
    ]
