"""The W&B run of a training run: open it, record its result, finish it."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from fluoroscope.config.shareable import for_upload
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.run.wandb_mode import client

SHARE = ("paths", "host")
# Sections and keys that name the run in W&B: their text is meant for it.
OWN_NAMES = ("logger", "run.name", "run.experiment")
X_AXIS = "trainer/global_step"
# For opening a run in the mode `auto`; the client may take 10 s more to give up.
START_TIMEOUT_S = 10.0
# For the upload after the last step; what is left stays in the run folder.
FINISH_TIMEOUT_S = 20.0


def make_wandb_logger(
    folder: Path, config: Mapping[str, Any], mode: str, run_id: str
) -> WandbLogger:
    """Open a W&B run that carries the configuration; processes other than the first get a stand-in.

    No console output, host name, command line, code or path goes to W&B, except what `logger.share`
    names: `paths` (of the configuration), `host` (its name, hardware and load), and with both the
    command line. If `logger.mode` is `auto` and the server refuses the run or does not answer, the
    run goes offline, and a line says so.

    Args:
        config: nested configuration of the run, with the sections `logger` and `run`.
        mode: `online` or `offline`.

    Raises:
        InputError: if W&B refuses the run and `logger.mode` is not `auto`.
    """
    run: Any = None
    if getattr(rank_zero_only, "rank", 0) == 0:
        run = KeptRun(_open(folder, config, mode, run_id))
    project = config["logger"]["project"]
    return WandbLogger(experiment=run, save_dir=folder, project=project, id=run_id)


def _open(folder: Path, config: Mapping[str, Any], mode: str, run_id: str) -> Any:
    wandb, keys = client(), config["logger"]
    auto = keys["mode"] == "auto"
    settings = private_settings(mode, keys["share"])
    if auto:
        settings.init_timeout = START_TIMEOUT_S
    before = _client_files(folder)
    try:
        run = start_run(folder, config, run_id, settings)
    except (wandb.errors.Error, TimeoutError) as error:
        reason = first_sentence(error)
    else:
        _end_client_log()
        return run
    _discard(folder, before)  # nothing was logged to it
    if not auto or mode == "offline":
        further = (
            "logger=csv needs no W&B"
            if mode == "offline"
            else "logger.mode=offline needs no server"
        )
        raise InputError(f"W&B: {reason}; {further}")
    print(f"W&B offline: the server refused the run ({reason})", flush=True)
    return _open(folder, config, "offline", run_id)


def _client_files(folder: Path) -> dict[Path, str | None]:
    """Files and folders of the client, and where its links point."""
    found = folder.glob("wandb/*")
    return {path: os.readlink(path) if path.is_symlink() else None for path in found}


def _discard(folder: Path, before: Mapping[Path, str | None]) -> None:
    """Remove what the client wrote for a run that the server refused."""
    client().teardown()  # its background process would hold the run's id
    for path, link in _client_files(folder).items():
        if link != before.get(path):
            path.unlink()
            path.symlink_to(before[path] or "") if path in before else None
        elif path not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not before:
        shutil.rmtree(folder / "wandb", ignore_errors=True)


def start_run(folder: Path, config: Mapping[str, Any], run_id: str, settings: Any) -> Any:
    """Start W&B's run of this id, or continue it, with its names, configuration and x-axis.

    Args:
        folder: in which the client keeps its copy.
    """
    keys = config["logger"]
    run = client().init(
        dir=folder,
        id=run_id,
        name=config["run"]["name"],
        project=keys["project"],
        entity=keys["entity"],
        group=keys["group"],
        tags=list(keys["tags"]),
        config=shared_config(config, keys["share"]),
        resume="allow",
        settings=settings,
    )
    _define_metrics(run)
    return run


def private_settings(mode: str, share: Sequence[str]) -> Any:
    """Client settings that send nothing beyond the configuration but what `share` names."""
    return client().Settings(
        mode=mode,
        console="off",
        save_code=False,
        disable_git=True,
        # Besides the host, this metadata holds the command line with its paths.
        x_disable_meta=not set(SHARE) <= set(share),
        x_disable_machine_info="host" not in share,
        program=None if "paths" in share else "not-shared",
        host=None if "host" in share else "not-shared",
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )


def _end_client_log() -> None:
    """Redirect the client's log: on a full disk each line would print a traceback."""
    for handler in logging.getLogger("wandb").handlers:
        if isinstance(handler, logging.FileHandler):
            log = handler.setStream(open(os.devnull, "w"))  # noqa: SIM115
            if log is not None:
                log.close()


def _define_metrics(run: Any) -> None:
    """Set the x-axis, and which values a table of runs shows: the best score, and the last and the
    highest share of dead units and of blackouts.
    """
    run.define_metric(X_AXIS)
    run.define_metric("*", step_metric=X_AXIS, step_sync=True)
    run.define_metric("val/auroc", step_metric=X_AXIS, summary="max")
    for window in ("train", "val"):
        for share in ("dead_frac", "blackout_frac"):
            run.define_metric(f"units/{window}/{share}", step_metric=X_AXIS, summary="last,max")


def shared_config(config: Mapping[str, Any], share: Sequence[str]) -> dict[str, Any]:
    """The nested configuration without text that may name people or places, except what the user
    names for W&B; with `paths` in `share` all of it.

    >>> shared_config({"data": {"root": "films", "csv": "a.csv", "batch_size": 8}}, [])
    {'data': {'batch_size': 8}}
    """
    return dict(config) if "paths" in share else for_upload(config, OWN_NAMES)


class KeptRun:
    """A W&B run that ignores further calls once W&B's own process has ended; training continues.

    Args:
        run: the client's; all its attributes can be used here.
    """

    def __init__(self, run: Any) -> None:
        self._run, self._lost = run, False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._run, name)
        return partial(self._attempt, value) if callable(value) else value

    def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._lost:
            return None
        try:
            return call(*args, **kwargs)
        except ConnectionError:
            self._lost = True
            print("W&B: its own process ended; training continues without it", flush=True)
            return None


def record(result: Mapping[str, Any]) -> None:
    """Put the content of `result.json` into the W&B run's summary, for reports on a project."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        with suppress(ConnectionError):
            wandb.run.summary.update({"result": dict(result)})


def finish(exit_code: int, preempted: bool = False) -> None:
    """Close the W&B run: as failed unless the exit code is 0, or as one that will be resumed.

    This waits for the upload for `FINISH_TIMEOUT_S` at most. If some of the run is not uploaded, or
    W&B's own process has ended, a line says how to upload the rest.
    """
    wandb = sys.modules.get("wandb")  # None if nothing has imported it
    if wandb is None or wandb.run is None:
        return
    copy = shlex.quote(wandb.run.settings.sync_dir)
    try:
        if preempted:
            wandb.run.mark_preempting()
        wandb.finish(exit_code=exit_code)
        if preempted:  # the signal that ends the job would make W&B's process print an error
            wandb.teardown()
        return
    except TimeoutError:
        problem = f"not all of the run was uploaded within {FINISH_TIMEOUT_S:.0f} s"
    except ConnectionError:
        problem = "its own process ended before the run"
        with suppress(ConnectionError):
            wandb.teardown()  # or the next run would wait for it
    print(f"W&B: {problem}; `wandb sync --include-online {copy}` uploads the rest", flush=True)
