"""What an evaluation prints: calibration, operating points, and what is not judged."""

from collections.abc import Sequence

from rich.table import Table

from fluoroscope.console import fitting_tables, make_console
from fluoroscope.evaluation.contents import Evaluation, LabelScores, Macro
from fluoroscope.run.closing import SECTION, Sections
from fluoroscope.run.score_limits import score

RATES = ("sensitivity", "specificity", "ppv", "npv")


def sections(evaluation: Evaluation, kept: str = "", said: Sequence[str] = ()) -> Sections:
    """Sections of the closing summary.

    Args:
        kept: where the calibration lies; empty if it was not written.
        said: limits that the summary names already.
    """
    found: Sections = {}
    if evaluation.macro.labels:
        found["Calibration"] = [*_quality_lines(evaluation), *([f"kept in {kept}"] if kept else [])]
        found["Decisions"] = _point_tables(evaluation)
        found["Own"] = [f"{name} {own}" for name, own in evaluation.macro.own.items()]
    if (probes := evaluation.probes) is not None:
        found["Probes"] = [probes.summary, *probes.called_out]
    not_judged = [
        f"{name}: {own.why_not}" for name, own in evaluation.labels.items() if own.why_not
    ]
    found["Not judged"] = not_judged
    for title, part in {
        "Groups": evaluation.subgroups,
        "Against": evaluation.against,
        "Collection": evaluation.collection,
    }.items():
        found[title] = [] if part is None else part.sentences
    found["Limits"] = [note for note in evaluation.notes if note not in said]
    return {name: parts for name, parts in found.items() if parts}


def _quality_lines(evaluation: Evaluation) -> list[str]:
    macro = evaluation.macro
    if not evaluation.calibrated:
        return [f"none; calibration error {macro.ece}, Brier score {macro.brier}"]
    return [
        evaluation.calibrated,
        f"calibration error {macro.ece_before} before, {macro.ece} after",
        f"Brier score {macro.brier_before} before, {macro.brier} after",
    ]


def _point_tables(evaluation: Evaluation) -> Sequence[Table]:
    """One row per operating point: of the only label, or means over the labels."""
    judged = [own for own in evaluation.labels.values() if own.judged]
    one = judged[0] if len(judged) == 1 else None
    source: LabelScores | Macro = one or evaluation.macro
    titles = ["", *(["probability >="] if one else []), "sensitivity", "specificity", "PPV", "NPV"]
    rows = [
        [
            name,
            *([score(one.points[name].threshold)] if one else []),
            *(str(getattr(point, rate)) for rate in RATES),
        ]
        for name, point in source.points.items()
    ]
    return list(fitting_tables(titles, rows, make_console().width - SECTION)) if rows else []
