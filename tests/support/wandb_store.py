"""What the stand-in for the W&B server keeps of runs and views, and how the client asks for it.

The answers have the fields that the client asks for and nothing more; the history of a run comes
as its live rows, never as the Parquet files that the real server makes of them later.
"""

import json
from collections.abc import Callable
from typing import Any

ACCOUNT = "local"
INTERNAL_ID = "UHJvamVjdEludGVybmFsSWQ6MQ=="
WHEN = "2026-01-01T00:00:00"
Answer = dict[str, Any]


class Store:
    """Runs, and saved views, which are workspaces and reports.

    Attributes:
        runs: by id: `entity`, `project`, `displayName`, `config` (JSON), `state`, and `files`, the
            lines that were streamed, by name.
        views: in the order they were made.
        user: whose key asks.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.user = ACCOUNT
        self._answers: dict[str, Callable[[Answer], Answer]] = {
            "GetProjects": self._projects,
            "RunCount": self._count,
            "ProjectInternalId": lambda _: {"id": "p1", "internalId": INTERNAL_ID},
            "OwnViews": self._own_views,
            "Runs": self._runs,
            "RunHistoryKeys": lambda sent: {"historyKeys": {"lastStep": len(self._rows(sent)) - 1}},
            "RunParquetHistory": self._live,
            "HistoryPage": self._page,
            "UpsertView2": self._keep,
            "upsertView": self._keep,
        }

    def start(self, sent: Answer) -> None:
        """A run that is made, or made known better."""
        run = self.runs.setdefault(sent["name"], {"state": "running", "files": {}})
        told = {key: sent[key] for key in ("project", "displayName", "config") if sent.get(key)}
        run.update({"entity": sent.get("entity") or ACCOUNT} | told)

    def stream(self, run_id: str, sent: Answer) -> None:
        """Lines are written over those that were sent before with the same numbers."""
        run = self.runs[run_id]
        for name, part in (sent.get("files") or {}).items():
            lines, at = run["files"].setdefault(name, []), part.get("offset", 0)
            lines[at : at + len(part["content"])] = part["content"]
        if sent.get("complete"):
            run["state"] = "failed" if sent.get("exitcode") else "finished"

    def resumed(self, sent: Answer) -> Answer | None:
        """What the client goes on from, if there is such a run."""
        run = self._of(sent | {"entity": sent.get("entity") or ACCOUNT}).get(sent["name"])
        if run is None:
            return None
        rows = run["files"].get("wandb-history.jsonl", [])
        texts = {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "notes": None}
        return texts | {
            "id": f"id-{sent['name']}",
            "name": sent["name"],
            "displayName": run.get("displayName"),
            "historyLineCount": len(rows),
            "historyTail": json.dumps(rows[-1:]),
            "summaryMetrics": run["files"].get("wandb-summary.json", ["{}"])[-1],
            "config": run.get("config", "{}"),
            "tags": [],
            "wandbConfig": json.dumps({"t": {}}),
        }

    def knows(self, operation: str) -> bool:
        return operation in self._answers

    def answer(self, operation: str, sent: Answer) -> Answer:
        """The data of a GraphQL answer; a project that is not there is null."""
        answer = self._answers[operation]
        if answer in (self._keep, self._projects):
            return answer(sent)
        there = self._of(sent) or operation == "GetProjects"
        if there and any(key in sent for key in ("name", "runName", "run")):
            return {"project": {"run": answer(sent)}}
        return {"project": answer(sent) if there else None, "viewer": {"username": self.user}}

    def _of(self, sent: Answer) -> dict[str, dict[str, Any]]:
        """The runs of the project that is asked for."""
        name = sent.get("project") or sent.get("projectName")
        entity = sent.get("entity") or sent.get("entityName")
        return {
            run_id: run
            for run_id, run in self.runs.items()
            if (run["entity"], run["project"]) == (entity, name)
        }

    def _projects(self, sent: Answer) -> Answer:
        names = sorted({run["project"] for run in self.runs.values()})
        page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        edges = [{"node": _project(sent["entity"], name)} for name in names]
        return {"models": {"edges": edges, "pageInfo": page}}

    def _count(self, sent: Answer) -> Answer:
        asked = json.loads(sent["filters"]).get("name", {}).get("$in")
        found = [run_id for run_id in self._of(sent) if asked is None or run_id in asked]
        return {"id": "p1", "runCount": len(found)}

    def _own_views(self, sent: Answer) -> Answer:
        place = (sent["entity"], sent["project"], sent["viewType"])
        kept = [v for v in self.views if (v["entity"], v["in"], v["type"]) == place]
        return {"allViews": {"edges": [{"node": view} for view in kept]}}

    def _keep(self, sent: Answer) -> Answer:
        """A view that is made, or changed where its id is sent."""
        view = next((view for view in self.views if view["id"] == sent.get("id")), None)
        if new := view is None:
            view = {"id": f"view{len(self.views)}", "user": {"username": self.user}}
            self.views.append(view)
        view |= {key: sent[key] for key in ("name", "displayName", "type", "spec", "description")}
        view |= {"entity": sent["entityName"], "in": sent["projectName"]}
        project = _project(sent["entityName"], sent["projectName"])
        told = view | {"project": project, "createdAt": WHEN, "updatedAt": WHEN}
        return {"upsertView": {"view": told, "inserted": new}}

    def _runs(self, sent: Answer) -> Answer:
        """A page of them: those after the cursor."""
        found = list(self._of(sent).items())
        start = 1 + [run_id for run_id, _ in found].index(sent["cursor"]) if sent["cursor"] else 0
        stop = start + sent["perPage"]
        edges = [{"node": _node(*run), "cursor": run[0]} for run in found[start:stop]]
        page = {"endCursor": None, "hasNextPage": stop < len(found)}
        counts = {"internalId": INTERNAL_ID, "runCount": len(found), "readOnly": False}
        return {**counts, "runs": {"edges": edges, "pageInfo": page}}

    def _rows(self, sent: Answer) -> list[str]:
        run_id = sent.get("name") or sent.get("runName") or sent["run"]
        return self.runs[run_id]["files"].get("wandb-history.jsonl", [])

    def _live(self, sent: Answer) -> Answer:
        rows = [{"_step": step} for step in range(len(self._rows(sent)))]
        return {"parquetHistory": {"parquetUrls": [], "liveData": rows}}

    def _page(self, sent: Answer) -> Answer:
        return {"history": self._rows(sent)[sent["minStep"] : sent["maxStep"]]}


def _project(entity: str, name: str) -> Answer:
    told = {"id": "p1", "name": name, "entityName": entity, "createdAt": WHEN}
    return told | {"isBenchmark": False, "user": None, "__typename": "Project"}


def _node(run_id: str, run: Answer) -> Answer:
    """As the client's full fragment of a run asks for it."""
    texts = dict.fromkeys(("sweepName", "group", "jobType", "commit", "description", "notes"))
    summary = run["files"].get("wandb-summary.json", ["{}"])[-1]
    return texts | {
        "id": f"id-{run_id}",
        "projectId": 1,
        "name": run_id,
        "displayName": run["displayName"],
        "state": run["state"],
        "config": run["config"],
        "summaryMetrics": summary,
        "systemMetrics": "{}",
        "historyLineCount": len(run["files"].get("wandb-history.jsonl", [])),
        "historyKeys": None,
        "tags": [],
        "readOnly": False,
        "createdAt": WHEN,
        "heartbeatAt": WHEN,
        "user": {"name": ACCOUNT, "username": ACCOUNT},
    }


def rows_of(run: Answer) -> list[dict[str, Any]]:
    """The history of a run as it was streamed."""
    return [json.loads(line) for line in run["files"].get("wandb-history.jsonl", [])]
