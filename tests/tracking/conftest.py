"""A run that really was trained, online, at the stand-in for the W&B server."""

import json
from types import SimpleNamespace

import pytest
import wandb

from fluoroscope import train as training
from fluoroscope.run import wandb_logger
from tests.support.films import tiny_config
from tests.support.wandb_server import WandbServer

KEY = "0" * 40


@pytest.fixture(scope="session")
def online(tmp_path_factory, films):
    """`server`, `store` (its), `folder` of the run, and `run`, what the store keeps of it."""
    folder = tmp_path_factory.mktemp("online")
    with WandbServer() as server:
        with pytest.MonkeyPatch.context() as patch:  # other tests keep their own place and account
            settle(patch, server, folder)
            (folder / "run").mkdir()
            # A frozen backbone has no gradient: there is a NaN in every step's row.
            keys = ["logger=wandb", "logger.mode=online", "head.norm=layer", "backbone.frozen=true"]
            training.train(tiny_config(films, *keys), folder / "run", [])
            wandb_logger.finish(0)
            wandb.teardown()
        (run,) = server.store.runs.values()
        yield SimpleNamespace(server=server, store=server.store, folder=folder / "run", run=run)


def settle(patch, server, folder):
    """The client's account is on this server, and no setting of a person's is seen."""
    patch.chdir(folder)  # some of them lie in the working directory
    patch.setenv("WANDB_CONFIG_DIR", str(folder / "wandb-settings"))
    patch.setenv("WANDB_BASE_URL", server.url)
    patch.setenv("WANDB_API_KEY", KEY)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """One that keeps nothing yet, with the client's account on it."""
    with WandbServer() as server:
        settle(monkeypatch, server, tmp_path)
        yield server
        server.trouble = None


@pytest.fixture
def account(online, tmp_path, monkeypatch):
    """The client's account is where the run is; views that a test saves go again."""
    settle(monkeypatch, online.server, tmp_path)
    online.store.views.clear()
    return online


@pytest.fixture
def add():
    """A run into a store, as if it had been logged."""

    least = {"data": {"source": "phantom"}, "backbone": {"name": "tiny", "weights": "none"}}

    def added(store, name, state="finished", result=None, rows=(), project="p", **keys):
        config = least | keys
        summary = {"result": result} if result else {"a": 1}
        files = {"wandb-history.jsonl": [json.dumps(row) for row in rows]}
        store.runs[f"id-{name}"] = {
            **{"entity": "local", "project": project, "displayName": name, "state": state},
            "config": json.dumps({key: {"value": value} for key, value in config.items()}),
            "files": {"wandb-summary.json": [json.dumps(summary)], **files},
        }

    return added
