"""The comparison as a W&B Report: verdict, table and the curves of its runs."""

from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

from fluoroscope.config.dashboard import check_project
from fluoroscope.errors import InputError
from fluoroscope.reporting import tables
from fluoroscope.reporting.collect import Run
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.rows import key_of, plural_of
from fluoroscope.reporting.verdict import Verdict
from fluoroscope.run.run_folder import PROVENANCE, read_json, write_json
from fluoroscope.run.wandb_logger import shared_config
from fluoroscope.tracking.panels import SECTIONS
from fluoroscope.tracking.wandb_project import Project, open_project, refusals

PUBLISHED = "wandb_report.json"
NO_CURVES = "None of these runs is in this project, and so there are no curves here."


def publish(
    comparison: Comparison, verdict: Verdict, folder: Path, *, project: str, entity: str | None
) -> str:
    """Put the report on the server; once more from the same folder, in the place of the former.

    No path of this machine goes there: what was left out is counted, not named.

    Args:
        comparison: what is reported.
        verdict: on it.
        folder: of the page, which keeps the report's id.
        project: where it goes.
        entity: whose project; None is the account's own.

    Returns:
        Its address.

    Raises:
        InputError: settings that differ in a path; see also `wandb_project.open_project`.
    """
    check_project(project, entity)
    for setting in comparison.settings:
        if paths := setting.setting.keys() - shared_config(setting.setting, []):
            raise InputError(
                f"the settings differ in {min(paths)}, a path, and those stay on this machine; "
                "leave out wandb.project, or compare runs that share it"
            )
    place = open_project(project, entity, empty=True)
    labels = ", ".join(comparison.common["labels"])
    report = wr.Report(
        project=project,
        entity=place.entity,
        title=f"{plural_of(comparison.by)} compared: {labels}"[:128],
        description=verdict.headline,
        blocks=blocks(comparison, verdict, place),
        width="fluid",
    )
    report.id = _published(folder, place)
    with refusals():
        report.save()
        told = {"project": place.place, "id": report.id, "url": report.url}
    write_json(folder / PUBLISHED, told)
    return report.url


def _published(folder: Path, place: Project) -> str:
    """Id of the report that this folder was published as before."""
    file = folder / PUBLISHED
    before = read_json(file) if file.exists() else {}
    return before["id"] if before.get("project") == place.place else ""


def blocks(comparison: Comparison, verdict: Verdict, place: Project) -> list[Any]:
    """The report from top to bottom."""
    told: list[Any] = [wr.H1("Verdict"), wr.P(verdict.headline), *_list(verdict.because)]
    told += [wr.H1("Scores, units and gradients")]
    for setting in comparison.settings:
        told += _table(setting, comparison.reference)
    if verdict.advice:
        told += [wr.H1("What next"), *_list(verdict.advice)]
    runsets = _runsets(comparison, place)
    told += [] if runsets else [wr.P(NO_CURVES)]
    for title, panels in SECTIONS.items() if runsets else ():
        drawn = [panel.draw(key_of(comparison.by)) for panel in panels]  # three in a row
        told += [wr.H1(title), wr.PanelGrid(runsets=runsets, panels=drawn)]
    return [*told, wr.H1("What was compared"), *_list(_facts(comparison))]


def _list(lines: list[str]) -> list[Any]:
    return [wr.UnorderedList(items=list(lines))] if lines else []


def _table(setting: SettingTable, reference: str) -> list[Any]:
    heading = [wr.H2(setting.label)] if setting.label else []
    parts = (tables.MAIN, tables.MORE)
    shown = (tables.markdown(tables.table(setting, part, reference)) for part in parts)
    return [*heading, *(wr.MarkdownBlock(text) for text in shown)]


def _facts(comparison: Comparison) -> list[str]:
    facts = shared_config(comparison.common, []).items()
    lines = [f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in facts]
    left_out = len(comparison.left_out)
    return [*lines, f"left out: {left_out}; the page says what"] if left_out else lines


def _runsets(comparison: Comparison, place: Project) -> list[wr.Runset]:
    """The runs of each setting in groups, of those settings of which any run is online."""
    found = []
    for n, setting in enumerate(comparison.settings, 1):
        ids = [run_id for run in setting.runs if (run_id := _run_id(run))]
        with refusals():
            online = bool(ids) and place.count_runs(ids)
        if online:
            found.append(
                wr.Runset(
                    entity=place.entity,
                    project=place.name,
                    name=setting.label or f"setting {n}",
                    filters=[expr.Metric("ID").isin(ids)],
                    groupby=[f"config.{key_of(comparison.by)}"],
                )
            )
    return found


def _run_id(run: Run) -> str | None:
    """Of W&B; a head of an ablation has none."""
    if run.folder is None:
        return run.result.get("run_id")
    if not (run.folder / PROVENANCE).exists():
        return None
    return read_json(run.folder / PROVENANCE).get("run_id")
