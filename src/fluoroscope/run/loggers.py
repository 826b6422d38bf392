"""Where numbers go: `metrics.csv` always, Weights & Biases by default, patients' data nowhere."""

import csv
import logging
import netrc
import os
import shlex
import shutil
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from fluoroscope.atomic_write import write_atomically
from fluoroscope.errors import InputError, check_choice, first_sentence
from fluoroscope.run.disk_errors import LastingRun

SHARE = ("paths", "host")
# W&B's modes and what they are here.
MODES = {"online": "online", "run": "online", "shared": "online"} | {
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
# Configuration values that say where things lie: file and folder names often name patients.
PATH_KEYS = ("data.root", "data.csv", "backbone.file", "run.dir", "run.resume")
# In W&B's configuration of a run that goes on: the optimizer step from which on it logs again.
RESUMED_AT = "resumed_at_step"
ANSWER_TIMEOUT_S = 3.0
# Of a run that `auto` put online, until it is offline; the client may take 10 s more to give up.
START_TIMEOUT_S = 10.0
# Of the upload after the last step; what is left lies in the run folder.
FINISH_TIMEOUT_S = 20.0


class MetricsCsv(Logger):
    """`metrics.csv`: a row a call, a column a key. A resumed run goes on in the same file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """The configuration is in `config.yaml` already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        if not self._columns and self.path.exists():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        # Lightning's own order depends on whether it tried the validation before the first epoch.
        new = [key for key in ("step", *sorted(metrics)) if key not in self._columns]
        if new:
            self._widen(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _widen(self, new: list[str]) -> None:
        """Row by row: the file of a long run is large."""
        columns = [*self._columns, *new]
        with write_atomically(self.path) as part, part.open("w", newline="") as wider:
            writer = csv.writer(wider, lineterminator="\n")
            writer.writerow(columns)
            if self.path.exists():
                with self.path.open(newline="") as file:
                    rows = csv.reader(file)
                    next(rows, None)
                    writer.writerows([*row, *[""] * len(new)] for row in rows)
        self._columns = columns


def choose_mode(mode: str) -> tuple[str, str]:
    """`online`, `offline` or `off`, and a line that says why, so that no run waits for a server.

    `auto` follows WANDB_MODE and what `wandb offline` or `wandb disabled` stored; where neither
    says anything, it is `online` with a key and a server that answers, else `offline`.

    Raises:
        InputError: WANDB_MODE is none of W&B's modes.
    """
    if mode != "auto":
        return mode, f"W&B {mode}, as asked"
    settings = _client().setup().settings
    asked = MODES[os.environ.get("WANDB_MODE", settings.mode)]
    if "WANDB_MODE" in os.environ:
        return asked, f"W&B {asked}: WANDB_MODE"
    if asked != "online":
        return asked, f"W&B {asked}: `wandb {settings.mode}` was run before"
    if not (settings.api_key or settings.identity_token_file or _netrc_key(settings.base_url)):
        return "offline", "W&B offline: no key is set (`wandb login` sets one)"
    if not answers(settings.base_url, ANSWER_TIMEOUT_S):
        return "offline", f"W&B offline: no answer within {ANSWER_TIMEOUT_S:.0f} s from the server"
    return "online", "W&B online"


def new_run_id() -> str:
    """Of a new run; a W&B sweep's agent, which waits for a run of its own, has chosen one."""
    of_agent = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return of_agent or uuid.uuid4().hex[:8]


def _client() -> Any:
    """The wandb package, told to keep quiet: our own lines say where the run is."""
    check_choice("WANDB_MODE", os.environ.get("WANDB_MODE", "online"), MODES)
    # Read once, when the package first needs its settings.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # tracebacks, with their paths
    import wandb

    return wandb


def _netrc_key(url: str) -> str | None:
    """The key that `wandb login` stored for a server."""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entry = netrc.netrc(path).authenticators(urllib.parse.urlsplit(url).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None


def answers(url: str, timeout_s: float) -> bool:
    """Whether a server answers at all, with whatever HTTP status."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=timeout_s).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answered.set()

    # A thread, since looking up a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answered.is_set()


def make_loggers(
    folder: Path,
    config: Mapping[str, Any],
    mode: str,
    run_id: str,
    name: str,
    project: str,
    entity: str | None,
    group: str | None,
    tags: Sequence[str],
    share: Sequence[str],
) -> list[Logger]:
    """`MetricsCsv` and, unless mode is `off`, a W&B run that carries the configuration.

    No console output, host name, command line, code or path goes to W&B, but for what `share`
    names: `paths` (of the configuration), `host` (its name, hardware and load), and with both the
    command line. Where the configuration asks for the mode `auto`, a server that refuses the run or
    stalls turns it offline, with a line that says so.

    Raises:
        InputError: an unknown item of `share`, or W&B refuses a run whose mode was asked for.
    """
    for item in share:
        check_choice("logger.share", item, SHARE)
    loggers: list[Logger] = [MetricsCsv(folder)]
    if mode == "off":
        return loggers
    run = None
    if getattr(rank_zero_only, "rank", 0) == 0:  # the others get a stand-in that does nothing
        identity = {"id": run_id, "name": name, "group": group, "tags": list(tags)}
        place = {"dir": folder, "project": project, "entity": entity}
        arguments = {**place, **identity, "config": shared_config(config, share)}
        auto = config.get("logger", {}).get("mode") == "auto"
        run = _start_run(arguments, mode, share, auto)
        _define_metrics(run)
        run = LastingRun(run)
    return [*loggers, WandbLogger(experiment=run, save_dir=folder, project=project, id=run_id)]


def _start_run(arguments: Mapping[str, Any], mode: str, share: Sequence[str], auto: bool) -> Any:
    wandb = _client()
    settings = _settings(mode, share)
    if auto:
        settings.init_timeout = START_TIMEOUT_S
    before = _copies(arguments["dir"])
    try:
        run = wandb.init(**arguments, resume="allow", settings=settings)
    except (wandb.errors.Error, TimeoutError) as error:
        reason = first_sentence(error)
    else:
        _end_client_log()
        return run
    if not auto or mode == "offline":
        raise InputError(f"W&B: {reason}; logger.mode=offline needs no server")
    print(f"W&B offline: the server refused the run ({reason})", flush=True)
    wandb.teardown()  # its background process would hold the run's id
    for refused in _copies(arguments["dir"]) - before:  # nothing was logged to it
        shutil.rmtree(refused, ignore_errors=True)
    return _start_run(arguments, "offline", share, auto)


def _end_client_log() -> None:
    """On a full disk every line of it would be a traceback here instead."""
    for handler in logging.getLogger("wandb").handlers:
        if isinstance(handler, logging.FileHandler):
            log = handler.setStream(open(os.devnull, "w"))  # noqa: SIM115
            if log is not None:
                log.close()


def _copies(folder: Path) -> set[Path]:
    return set(folder.glob("wandb/run-*"))


def _settings(mode: str, share: Sequence[str]) -> Any:
    return _client().Settings(
        mode=mode,
        console="off",
        save_code=False,
        disable_git=True,
        # What this holds besides the host is the command line and the paths of its parts.
        x_disable_meta=not set(SHARE) <= set(share),
        x_disable_machine_info="host" not in share,
        program=None if "paths" in share else "not-shared",
        host=None if "host" in share else "not-shared",
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )


def _define_metrics(run: Any) -> None:
    """The x-axis, and what a table of runs shows: the best score; dead share and blackout, last
    and worst.
    """
    step = "trainer/global_step"
    run.define_metric(step)
    run.define_metric("*", step_metric=step, step_sync=True)
    run.define_metric("val/auroc", step_metric=step, summary="max")
    for window in ("train", "val"):
        for share in ("dead_frac", "blackout_frac"):
            run.define_metric(f"units/{window}/{share}", step_metric=step, summary="last,max")


def shared_config(config: Mapping[str, Any], share: Sequence[str]) -> dict[str, Any]:
    """The nested configuration without the values that are paths, unless they are shared.

    Every string that holds a path separator counts as one, and so may a pattern.

    >>> shared_config({"data": {"root": "films", "csvs": ["/a/b.csv", "c.csv"], "size": 8}}, [])
    {'data': {'csvs': ['c.csv'], 'size': 8}}
    """
    return dict(config) if "paths" in share else _without_paths(config)


def _without_paths(node: Any, prefix: str = "") -> Any:
    if isinstance(node, Mapping):
        return {
            key: _without_paths(value, f"{prefix}{key}.")
            for key, value in node.items()
            if f"{prefix}{key}" not in PATH_KEYS and not _is_path(value)
        }
    if isinstance(node, list | tuple):
        return [_without_paths(value, prefix) for value in node if not _is_path(value)]
    return node


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) or (
        isinstance(value, str) and ("/" in value or "\\" in value)
    )


def record(result: Mapping[str, Any]) -> None:
    """Put what `result.json` holds into the W&B run's summary, for reports on an online project."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        with suppress(ConnectionError):
            wandb.run.summary.update({"result": dict(result)})


def finish(exit_code: int, preempted: bool = False) -> None:
    """Close the W&B run, as failed unless the exit code is 0, or as one that will go on.

    It waits for the upload for `FINISH_TIMEOUT_S` at most, then says how to do the rest later, as
    it does where W&B's own process is gone.
    """
    wandb = sys.modules.get("wandb")  # nothing to close where nothing imported it
    if wandb is None or wandb.run is None:
        return
    copy = shlex.quote(wandb.run.settings.sync_dir)
    try:
        if preempted:
            wandb.run.mark_preempting()
        wandb.finish(exit_code=exit_code)
        if preempted:  # its own process would hear the signal that ends the job, and complain
            wandb.teardown()
        return
    except TimeoutError:
        told = f"not all of the run was uploaded within {FINISH_TIMEOUT_S:.0f} s"
    except ConnectionError:
        told = "its own process ended before the run"
        with suppress(ConnectionError):
            wandb.teardown()  # or the next run would wait for it
    print(f"W&B: {told}; `wandb sync --include-online {copy}` uploads the rest", flush=True)
