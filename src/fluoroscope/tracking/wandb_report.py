"""Publish a comparison as a W&B Report: verdict, tables and the curves of its runs."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

from fluoroscope.config.dashboard import check_project
from fluoroscope.config.shareable import is_shareable, without_paths
from fluoroscope.errors import InputError
from fluoroscope.reporting import tables
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import Run
from fluoroscope.reporting.comparison import Comparison, SettingTable
from fluoroscope.reporting.figures import verdict_pngs
from fluoroscope.reporting.page import reading
from fluoroscope.reporting.rows import key_of, plural_of
from fluoroscope.reporting.verdict import Verdict
from fluoroscope.run.run_folder import PROVENANCE, read_json, write_json
from fluoroscope.tracking.panels import SECTIONS
from fluoroscope.tracking.wandb_project import Project, open_project, refusals

PUBLISHED = "wandb_report.json"
NO_CURVES = "There are no curves because none of these runs is in this project."


def publish(
    comparison: Comparison, verdict: Verdict, folder: Path, *, project: str, entity: str | None
) -> str:
    """Save the report on the server; a second report from the same folder replaces the first.

    No path of this machine is sent: runs that were left out are counted, not named.

    Args:
        comparison: to be reported.
        verdict: on this comparison.
        folder: of the page; keeps the report's id.
        project: of W&B.
        entity: owner of the project; None is the account.

    Returns:
        The report's address.

    Raises:
        InputError: the runs differ in text that is not sent; see also `wandb_project.open_project`.
    """
    check_project(project, entity)
    rows = [{key_of(comparison.by): run.row} for s in comparison.settings for run in s.runs]
    for values in (*(setting.setting for setting in comparison.settings), *rows):
        for key, value in values.items():
            if not is_shareable(key, value):
                raise InputError(
                    f"the runs differ in {key}, text that may name people or places and is not "
                    "sent to W&B; leave out wandb.project, or compare runs that do not differ in it"
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
        published = {"project": place.place, "id": report.id, "url": report.url}
    write_json(folder / PUBLISHED, published)
    return report.url


def _published(folder: Path, place: Project) -> str:
    """Id of the report that was published from this folder before; empty if none was."""
    file = folder / PUBLISHED
    before = read_json(file) if file.exists() else {}
    return before["id"] if before.get("project") == place.place else ""


def blocks(comparison: Comparison, verdict: Verdict, place: Project) -> list[Any]:
    """The blocks of the report, from top to bottom."""
    parts: list[Any] = [wr.H1("Verdict"), wr.P(verdict.headline), *_figure(comparison)]
    parts += [wr.MarkdownBlock(tables.markdown(basis(comparison)))]
    if verdict.advice:
        parts += [wr.H2("Next steps"), *_list(verdict.advice)]
    parts += [wr.H1("Scores, units and gradients")]
    for setting in comparison.settings:
        parts += _table(setting, comparison.reference)
    parts += _list([f"Limit: {line}." for line in comparison.limits])
    runsets = _runsets(comparison, place)
    parts += [] if runsets else [wr.P(NO_CURVES)]
    for title, panels in SECTIONS.items() if runsets else ():
        drawn = [panel.draw(key_of(comparison.by)) for panel in panels]  # three in a row
        parts += [wr.H1(title), wr.PanelGrid(runsets=runsets, panels=drawn)]
    return [*parts, wr.H1("What was compared"), *_list(_facts(comparison))]


def _figure(comparison: Comparison) -> list[Any]:
    """The figure of the verdict, inside the report itself: W&B takes files only within runs."""
    images = []
    for title, file in verdict_pngs(comparison):
        address = f"data:image/png;base64,{b64encode(file).decode()}"
        images.append(wr.Image(url=address, caption=title))
    return [*images, wr.P(reading(comparison))]


def _list(lines: list[str]) -> list[Any]:
    return [wr.UnorderedList(items=list(lines))] if lines else []


def _table(setting: SettingTable, reference: str) -> list[Any]:
    heading = [wr.H2(setting.label)] if setting.label else []
    found = [tables.table(setting, part, reference) for part in (tables.MAIN, tables.MORE)]
    return [*heading, *(wr.MarkdownBlock(tables.markdown(table)) for table in found)]


def _facts(comparison: Comparison) -> list[str]:
    facts = without_paths(comparison.common).items()
    lines = [f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in facts]
    left_out = len(comparison.left_out)
    return [*lines, f"left out: {left_out}; the page lists them"] if left_out else lines


def _runsets(comparison: Comparison, place: Project) -> list[wr.Runset]:
    """The runs of each setting, grouped; settings without a run in the project are left out."""
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
    """The run's id at W&B; None for a head of an ablation."""
    if run.folder is None:
        return run.result.get("run_id")
    if not (run.folder / PROVENANCE).exists():
        return None
    return read_json(run.folder / PROVENANCE).get("run_id")
