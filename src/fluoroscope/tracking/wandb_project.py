"""Open a W&B project within seconds, or raise an error of one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb_workspaces._graphql import execute_graphql

from fluoroscope.errors import InputError, first_sentence
from fluoroscope.run.wandb_mode import check_online

# For one query; the client sends it a second time.
TIMEOUT_S = 10
REASON = 120  # characters: a proxy may answer with a page of HTML
COUNT = """
query RunCount($entity: String!, $project: String!, $filters: JSONString) {
  project(name: $project, entityName: $entity) { id runCount(filters: $filters) }
}
"""


class Project(NamedTuple):
    """A project that exists.

    Attributes:
        api: the client's.
        entity: the user or team that owns it.
        name: of the project.
    """

    api: Any
    entity: str
    name: str

    @property
    def place(self) -> str:
        return f"{self.entity}/{self.name}"

    def ask(self, query: str, **variables: Any) -> Any:
        """Send a GraphQL query with the variables `entity`, `project` and more."""
        names = {"entity": self.entity, "project": self.name}
        return execute_graphql(self.api, query, names | variables)

    def count_runs(self, run_ids: list[str] | None = None) -> int | None:
        """Number of runs, of all or of these ids; None if there is no such project."""
        filters = {} if run_ids is None else {"name": {"$in": run_ids}}
        found = self.ask(COUNT, filters=json.dumps(filters))["project"]
        return None if found is None else int(found["runCount"])


def open_project(name: str, entity: str | None = None, empty: bool = False) -> Project:
    """Open a project with the key and server that runs are logged with.

    Args:
        name: name of the project.
        entity: owner of the project; None for the account's default.
        empty: accept a project without runs.

    Raises:
        InputError: if W&B is offline, the server refuses or does not answer, this account sees no
            such project, or the project has no runs.
    """
    check_online("this needs the W&B server")
    # By default the client retries for many minutes, and its parts connect separately.
    settings = wandb.setup().settings
    settings.x_graphql_retry_max, settings.x_graphql_timeout_seconds = 1, TIMEOUT_S
    with refusals():
        api = wandb.Api(timeout=2 * TIMEOUT_S)
        project = Project(api, entity or api.default_entity or "", name)
        runs = project.count_runs()
    if runs is None:
        raise InputError(
            f"this account sees no W&B project {project.place}; a run's is "
            "logger.entity/logger.project"
        )
    if not runs and not empty:
        raise InputError(f"the W&B project {project.place} has no runs yet")
    return project


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the client's errors into one sentence; only calls of the client belong inside.

    Raises:
        InputError: the server refused, did not answer, or answered what the client cannot read.
    """
    try:
        yield
    except (wandb.errors.Error, WandbApiFailedError, TimeoutError, ValueError) as error:
        server = wandb.setup().settings.base_url
        reason = first_sentence(error)[:REASON]
        raise InputError(
            f"the W&B server {server} refused, or did not answer ({reason}); `wandb login` sets "
            "another key, WANDB_BASE_URL another server"
        ) from None
