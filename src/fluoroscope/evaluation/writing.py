"""Write the files of an evaluation."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fluoroscope.config.export import CARD
from fluoroscope.console import make_console
from fluoroscope.errors import InputError
from fluoroscope.escaping import csv_table
from fluoroscope.evaluation import page
from fluoroscope.evaluation.card import make_card
from fluoroscope.evaluation.contents import (
    Evaluation,
    LabelScores,
    Macro,
    as_json,
    estimates,
)
from fluoroscope.run import run_folder
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.loading import Trained

JSON, CSV = "evaluation.json", "evaluation.csv"
MACRO = "macro"  # in the column `label`
Row = tuple[object, ...]
COLUMNS = ("label", "judged", "images", "positives", "point", "score", "value", "low", "high")


def write(evaluation: Evaluation, predictions: pd.DataFrame, folder: Path, named: bool) -> None:
    """Write `evaluation.json`, `evaluation.csv` and the page.

    Args:
        predictions: of the scored images.
        named: show images and paths on the page.
    """
    content = as_json(evaluation)
    run_folder.write_json(folder / JSON, content)
    run_folder.write_text(folder / CSV, csv_table(score_table(evaluation)).to_csv(index=False))
    page.write(content, predictions, folder, named)


def write_card(
    trained: Trained, calibration: Calibration | None, evaluation: Evaluation, folder: Path
) -> None:
    """Write `model_card.md`; if a file of an earlier run lacks an entry, only say so."""
    try:
        text = make_card(trained, calibration, as_json(evaluation))
    except InputError as error:
        make_console().print(f"note: {error}")
        return
    run_folder.write_text(folder / CARD, text)


def score_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row per number: label (or macro), operating point (or empty), score and interval."""
    rows = [row for name, own in evaluation.labels.items() for row in _of_label(name, own)]
    macro = evaluation.macro
    rows += [(MACRO, bool(macro.labels), "", "", *row) for row in _numbers(macro)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_label(name: str, own: LabelScores) -> Iterator[Row]:
    facts = name, own.judged, own.images, own.positives
    yield from ((*facts, *row) for row in _numbers(own))
    if own.before is not None and own.after is not None:
        for score in ("brier", "ece", "log_loss"):
            yield (*facts, "", f"{score}_before", *getattr(own.before, score))


def _numbers(scores: LabelScores | Macro) -> Iterator[Row]:
    """Operating point, score, value and interval."""
    for place, estimate in estimates(scores):
        part, _, rest = place.partition(".")
        if part not in ("before", "after"):
            point, _, score = rest.partition(".") if part == "points" else ("", "", place)
            yield (point, score.replace("at_prevalence.", "at_prevalence_"), *estimate)
