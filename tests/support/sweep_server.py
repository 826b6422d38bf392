"""A stand-in for the part of the W&B server that keeps sweeps and tells agents what to run."""

import itertools
import json
from typing import Any

import yaml

from tests.support.wandb_server import ENTITY, WandbServer

SWEEP = "s7eep123"


class SweepServer(WandbServer):
    """Keeps one sweep, whose grid it deals out to one agent, a run at a time.

    Attributes:
        sweep: the configuration that `wandb sweep` sent.
        dealt: the parameters of each run by its id, in the order they were dealt.
        limit: how many runs of the grid it deals.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.sweep: dict[str, Any] = {}
        self.dealt: dict[str, dict[str, Any]] = {}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertSweep":
            self.sweep = yaml.safe_load(variables["config"])
            project = {"id": "p1", "name": variables["projectName"], "entity": ENTITY}
            return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}}}
        if operation == "SweepWithRuns":
            config = yaml.safe_dump(self.sweep)
            return {"project": {"sweep": {"name": SWEEP, "config": config, "runs": {"edges": []}}}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "a1"}}}
        if operation == "Heartbeat":
            idle = not json.loads(variables["runState"])
            commands = json.dumps([self._next()] if idle else [])
            return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": commands}}
        return super().answer(operation, variables)

    def _next(self) -> dict[str, Any]:
        if len(self.dealt) == self.limit:
            return {"type": "exit"}
        names = list(self.sweep["parameters"])
        grid = itertools.product(*(self.sweep["parameters"][name]["values"] for name in names))
        values = next(itertools.islice(grid, len(self.dealt), None))
        run_id = f"agent{len(self.dealt)}"
        self.dealt[run_id] = dict(zip(names, values, strict=True))
        args = {name: {"value": value} for name, value in self.dealt[run_id].items()}
        return {"type": "run", "run_id": run_id, "program": self.sweep["program"], "args": args}
