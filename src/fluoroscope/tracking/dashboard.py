"""The W&B workspace of a project, as code."""

import json
import sys
from typing import Any

import wandb_workspaces.workspaces as ws

from fluoroscope.config.dashboard import Dashboard
from fluoroscope.diagnostics.keys import BLACKOUT, DEAD
from fluoroscope.tracking.panels import MAX_GROUPS, SECTIONS, Panel

COLUMNS = 3
# Columns beside the name of each run or group.
TABLE = [
    "summary:test/auroc",
    "summary:val/auroc.max",
    f"summary:{DEAD.key()}.last",
    f"summary:{BLACKOUT.key()}.max",
    "config:seed.value",
]
# Saved views of a project, and the account. A view's `name` is the end of its address.
VIEWS = """
query OwnViews($entity: String!, $project: String!, $viewType: String!) {
  viewer { username }
  project(name: $project, entityName: $entity) {
    allViews(viewType: $viewType) {
      edges { node { id name displayName user { username } } }
    }
  }
}
"""


def main(cfg: Dashboard) -> None:
    """Entry of `scripts/dashboard.py`."""
    if cfg.dry_run:
        view = workspace(cfg.name, cfg.project, cfg.entity or "", cfg.group_by)
        print(outline(cfg), file=sys.stderr)
        print(json.dumps(spec(view), indent=2))
        return
    replaced, url = save(cfg)
    print(f"workspace {'replaced' if replaced else 'saved'}: {url}")


def workspace(name: str, project: str, entity: str, group_by: str) -> ws.Workspace:
    """The workspace: all sections, with runs grouped by a key of their configuration."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_section(title, panels, group_by) for title, panels in SECTIONS.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MAX_GROUPS),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(group_by)],
            order=[ws.Ordering(ws.Config("seed"), ascending=True)],
            pinned_columns=list(TABLE),
        ),
    )


def _section(title: str, panels: list[Panel], group_by: str) -> ws.Section:
    rows = -(-len(panels) // COLUMNS)
    return ws.Section(
        name=title,
        panels=[panel.draw(group_by) for panel in panels],
        is_open=True,
        layout_settings=ws.SectionLayoutSettings(columns=COLUMNS, rows=rows),
        panel_settings=ws.SectionPanelSettings(x_axis="epoch"),
    )


def spec(view: ws.Workspace) -> dict[str, Any]:
    """The JSON that is sent to the server."""
    text = view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return json.loads(text)


def outline(cfg: Dashboard) -> str:
    """Sections and panels as readable text."""
    lines = [f"{cfg.name}: mean and range over the runs of each {cfg.group_by}"]
    for title, panels in SECTIONS.items():
        lines += [title, *(f"  {panel.title}: {', '.join(panel.keys)}" for panel in panels)]
    return "\n".join(lines)


def save(cfg: Dashboard) -> tuple[bool, str]:
    """Save the workspace on the server; it replaces the account's own view of that name.

    Returns:
        Whether one was replaced, and the address.

    Raises:
        InputError: see `wandb_project.open_project`.
    """
    from fluoroscope.tracking.wandb_project import open_project, refusals

    project = open_project(cfg.project, cfg.entity)
    view = workspace(cfg.name, cfg.project, project.entity, cfg.group_by)
    with refusals():
        answer = project.ask(VIEWS, viewType="project-view")
        before = _own(answer, cfg.name)
        if before is not None:
            view._internal_id, view._internal_name = before["id"], before["name"]
        view.save()
        return before is not None, view.url


def _own(answer: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The account's own view of a name; views of other accounts are not touched."""
    views = [edge["node"] for edge in answer["project"]["allViews"]["edges"]]
    me = answer["viewer"]["username"]
    own = [v for v in views if v["displayName"] == name and v["user"]["username"] == me]
    return own[0] if own else None
