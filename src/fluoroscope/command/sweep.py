"""Several runs of one command: plan them, start them, and report how they ended."""

import copy
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString
from omegaconf import OmegaConf

from fluoroscope.command import run_one
from fluoroscope.command.resumed_sweep import MULTIRUN, RESUME, resumed_folder, without_resume
from fluoroscope.commands import SCRIPTS, called
from fluoroscope.config.loaded import value_at
from fluoroscope.config.stored_yaml import read_yaml
from fluoroscope.errors import InputError, plural
from fluoroscope.launch.process_setup import quiet_lightning
from fluoroscope.launch.run_id import is_restarted
from fluoroscope.launch.run_status import AUTO, BAD_INPUT, CONFIG, CRASH, FAILED, RESULT, failure
from fluoroscope.launch.stopping import ENDING, Stopped, hear

# Exit codes of a run that a signal has stopped.
STOPPED = [128 + signum for signum in (*ENDING, signal.SIGUSR1, signal.SIGUSR2)]
PLACE = "hydra.sweep.dir"
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def plan(config_name: str, overrides: list[str]) -> tuple[Path, list[list[str]]]:
    """The sweep's folder, and the overrides of sample runs that contain each value at least once.

    A sweeper that searches, such as Optuna's, also accepts intervals, of which both ends are
    sampled. Its own search space, in `hydra.sweeper.params`, is included.

    Raises:
        InputError: if an interval is given where a list is needed, if a search would minimise the
            AUROC, or if the folder holds runs, unless SLURM has restarted the job to resume them or
            `run.resume` names the folder and the command is the one that started the sweep.
    """
    parsed = _parse(overrides)
    parsed, resume = without_resume(parsed)
    hydra = compose(config_name, _row(parsed, 0), return_hydra_config=True).hydra
    sweeper = hydra.sweeper
    params = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.get("params") else {}
    assert isinstance(params, dict)
    searched = _parse(["=".join(map(str, item)) for item in params.items()])
    for override in parsed if sweeper._target_ == BASIC else []:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise InputError(
                f"{override.input_line}: a sweep lists its values, {override.key_or_group}=a,b,c"
            )
    if sweeper.get("direction") is not None and "minimize" in str(sweeper.direction):
        raise InputError(
            "the objective is the validation AUROC, which hydra/sweeper=optuna would minimise; use "
            "hydra/sweeper=tune, or add hydra.sweeper.direction=maximize"
        )
    folder = Path(hydra.sweep.dir)
    if resume is not None:
        folder = resumed_folder(resume, folder, parsed, sweeper)
        parsed += _parse([f"{RESUME}={AUTO}"])
    elif _runs(folder) and not is_restarted(os.environ):
        raise InputError(
            f"hydra.sweep.dir: {folder} already holds runs; continue them with "
            f"run.resume={folder}, or give another folder"
        )
    every = [*searched, *parsed]
    count = max((len(_values(override)) for override in every), default=1)
    return folder, [_row(every, index) for index in range(count)]


def check_models(runs: Iterable[Any]) -> None:
    """Refuse a model, transform or device that cannot be built, before the first run.

    Only this imports PyTorch in the process that starts a sweep, once for all its runs.

    Raises:
        InputError: as `build.check_model`.
    """
    settle_device = run_one.imported("fluoroscope.run.device:settle_device")
    check_model = run_one.imported("fluoroscope.build:check_model")
    quiet_lightning()
    for cfg in map(copy.deepcopy, runs):
        settle_device(cfg)
        check_model(cfg)


def quiet_optuna() -> None:
    """Silence Optuna's messages on a failed trial, since the run has printed a clearer one."""
    for name in ("hydra_plugins.hydra_optuna_sweeper._impl", "optuna.storages"):
        logging.getLogger(name).setLevel(logging.ERROR)


def broken(error: Exception) -> int:
    """Print the error that ended a sweep early, and return the exit code."""
    if "No trials are completed" in str(error):
        return 0  # in Optuna's search every trial failed, and each has printed its error
    run_one.print_error(error)
    return CRASH


def placed(arguments: list[str], folder: Path) -> list[str]:
    """The arguments with the sweep's folder, whose default depends on the time, and with
    `run.resume=auto` in place of a folder, so that each run starts, resumes or is left as it is.
    """
    kept = _started_with(arguments)
    resumed = [f"{RESUME}={AUTO}"] if any(_names(RESUME, a) for a in arguments) else []
    return [*kept, *resumed, f"{PLACE}={_quoted(folder)}"]


def print_stopped(folder: Path) -> None:
    """Print the command that continues a sweep which a signal has stopped."""
    if not (folder / MULTIRUN).exists():
        return  # it had not started, or it is a search
    finished = sum((run / RESULT).exists() for run in _runs(folder))
    name = str(folder) if re.fullmatch(r"[\w./ -]+", str(folder), re.ASCII) else _quoted(folder)
    arguments = [*_started_with(sys.argv[1:]), f"{RESUME}={name}"]
    command = called(Path(sys.argv[0]).stem)
    hear()  # Ctrl-C may have ended the reader of a pipe
    print(
        f"sweep    stopped, {plural(finished, 'run')} finished; continue with: {command} "
        f"{shlex.join(arguments)}",
        flush=True,
    )


def _started_with(arguments: list[str]) -> list[str]:
    return [a for a in arguments if not (_names(RESUME, a) or _names(PLACE, a))]


def _names(key: str, argument: str) -> bool:
    return argument.lstrip("+").startswith(f"{key}=") and not argument.endswith("=null")


def _quoted(folder: Path) -> str:
    return QuotedString(str(folder), Quote.single).with_quotes()


def run_apart(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Start one run of a sweep in a separate process, because the run itself starts several: these
    repeat the command line of their parent, which would otherwise be the whole sweep.

    Returns:
        The content of its `result.json`.

    Raises:
        InputError: if the run was refused; with the run's sentence.
        RuntimeError: if the run failed otherwise and printed its error.
    """
    if (folder / RESULT).exists():  # of a sweep that is resumed
        print(f"this run is already finished: {folder}")
        return json.loads((folder / RESULT).read_text())
    sources = HydraConfig.get().runtime.config_sources
    own = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    command = [
        sys.executable,
        str(SCRIPTS / "train.py"),
        *own,
        *overrides,
        f"run.dir={_quoted(folder)}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            message = _relay(process.stderr)
        except BaseException:
            process.terminate()  # the run saves a checkpoint
            _relay(process.stderr)
            raise
    if process.returncode in STOPPED:
        raise Stopped(process.returncode - 128, told=True)  # ends the sweep too
    if process.returncode == BAD_INPUT:
        raise InputError(message)
    if process.returncode:
        raise RuntimeError(f"the run ended with exit code {process.returncode}; see above")
    return json.loads((folder / RESULT).read_text())


def _relay(lines: Iterable[str]) -> str:
    """Forward a run's standard error, but return its final error sentence instead."""
    message = ""
    for line in lines:
        if line.startswith("fluoroscope: ") and not line.startswith("fluoroscope: warning"):
            message = line.removeprefix("fluoroscope: ").strip()
        else:
            sys.stderr.write(line)
    return message


def _parse(overrides: list[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


def _row(overrides: Iterable[Override], index: int) -> list[str]:
    """Each override with its value of this index, or its last one."""
    columns = [_values(override) for override in overrides]
    return [values[min(index, len(values) - 1)] for values in columns]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_discrete_sweep():
        values: Iterable[Any] = override.sweep_string_iterator()
    else:
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        values = [interval.start, interval.end]
    return [f"{override.get_key_element()}={value}" for value in values]


def _runs(folder: Path) -> list[Path]:
    """The run folders of a sweep in the order of their numbers."""
    found = {path.parent for name in (CONFIG, RESULT, FAILED) for path in folder.glob(f"*/{name}")}
    return sorted(found, key=lambda run: (len(run.name.partition("-")[0]), run.name))


def conclude(folder: Path, report: bool, printed: Sequence[str]) -> int:
    """Print how the runs of a sweep ended, and return the exit code.

    If every run was refused before it wrote anything, the folder of the sweep is removed.

    Args:
        report: whether the report can compare these runs.
        printed: errors that this process has printed; other processes print their own.
    """
    runs = _runs(folder)
    ended = {run: _ended(run) for run in runs}
    failed = {run: message for run, message in ended.items() if message is not None}
    if not any(_started(run) for run in runs):
        for sentence in {} if printed else dict.fromkeys(message for message, _ in failed.values()):
            print(f"fluoroscope: {sentence}", file=sys.stderr)
        _remove(folder, runs)
    else:
        _print_end(folder, len(runs), failed, report)
    codes = {code for _, code in failed.values()}
    return CRASH if CRASH in codes else max(codes, default=0)


def _ended(run: Path) -> tuple[str, int] | None:
    """The sentence and the exit code of a run that did not finish."""
    if message := failure(run):
        return message["error"], message["exit_code"]
    if (run / RESULT).exists():
        return None
    return f"was stopped before its end; continue with run.resume={run}", CRASH


def _started(run: Path) -> bool:
    """Whether the run did more than refuse its input."""
    message = failure(run)
    own = {path.name for path in run.iterdir()} - {CONFIG, FAILED}
    return bool(own) or message is None or message["exit_code"] != BAD_INPUT


def drop_empty(folder: Path) -> None:
    """Remove the folder that Hydra made for a run that was then refused."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    sweep = folder.parent / MULTIRUN
    if sweep.is_file() and list(folder.parent.iterdir()) == [sweep]:
        sweep.unlink()
        folder.parent.rmdir()


def _remove(folder: Path, runs: list[Path]) -> None:
    for run in runs:
        for name in (CONFIG, FAILED):
            (run / name).unlink(missing_ok=True)
        run.rmdir()
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {MULTIRUN}:
        (folder / MULTIRUN).unlink(missing_ok=True)
        folder.rmdir()


def _print_end(folder: Path, runs: int, failed: dict[Path, tuple[str, int]], report: bool) -> None:
    print(f"sweep    {runs - len(failed)} of {plural(runs, 'run')} finished, in {folder}")
    for run, (message, _) in failed.items():
        print(f"failed   {run.name}: {message}")
    for line in _found(folder):
        print(line)
    if report and len(failed) < runs:
        by = " by=remedy" if any(_remedy(run) for run in _runs(folder)) else ""
        print(f"compare  {called('report')} runs={folder}{by}")


def _remedy(run: Path) -> str | None:
    with suppress(InputError):  # a damaged file is told by the report
        return value_at(read_yaml(run / CONFIG), "run.remedy")
    return None


def _found(folder: Path) -> Iterator[str]:
    """The best values that a search found; nothing for a plain sweep."""
    file = folder / "optimization_results.yaml"
    if file.exists():
        found = read_yaml(file)
        if "best_params" in found:
            best = " ".join(f"{key}={value}" for key, value in found["best_params"].items())
            yield f"best     {found['best_value']:.3f} with {best}"
