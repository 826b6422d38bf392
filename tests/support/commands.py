"""`scripts/train.py` as a person runs it: in processes of its own, and within a time limit."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.films import TINY
from tests.support.forking import Forked, run_script

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAIN = SCRIPTS / "train.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
LIMIT_S = 180


def tiny_arguments(films: Path, *overrides: str) -> list[str]:
    """The command line of a tiny run on the films."""
    return [*TINY, f"data.root={films}", r"data.patient_pattern='(p\d+)_'", *overrides]


def start(
    arguments: list[str],
    cwd: Path,
    launcher: list[str] | None = None,
    script: str = "train",
    cold: bool = False,
    **env: str,
):
    """The running command, in a session of its own.

    Args:
        launcher: of several processes, such as `TORCHRUN`; None is plain Python.
        cold: in a new interpreter, as with a launcher, and not forked from one that has imported
            everything; for what is about the start itself.
        env: added to this process's environment, in which tests leave W&B its voice.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    variables.pop("WANDB_SILENT", None)
    # Of a run in this process, which Lightning would take for the place of the new one.
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        variables.pop(name, None)
    path = SCRIPTS / f"{script}.py"
    if not (cold or launcher):
        return Forked(partial(run_script, path, arguments), cwd, variables)
    return subprocess.Popen(
        [sys.executable, *(launcher or []), str(path), *arguments],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,  # noqa: PLW1509
    )


def hear_signals() -> None:
    """In a new process: a job in the background passes on that it ignores Ctrl-C."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def together(
    call: Callable[[], Any], cwd: Path, processes: int = 2, **env: str
) -> list[tuple[str, str]]:
    """The call in forked processes with the environment that torchrun gives them; all succeed.

    Returns:
        Of each rank, standard output and standard error.
    """
    started = start_together(call, cwd, processes, **env)
    until = time.monotonic() + LIMIT_S
    codes = [None]
    while None in codes and not any(codes) and time.monotonic() < until:  # one may wait for another
        time.sleep(0.05)
        codes = [process.poll() for process in started]
    for process in started:
        process.kill()
    ends = [end(process) for process in started]
    assert codes == [0] * processes, ends
    return [(out, err) for _, out, err in ends]


def start_together(
    call: Callable[[], Any], cwd: Path, processes: int = 2, **env: str
) -> list[Forked]:
    """The call in forked processes with the environment that torchrun gives them, by rank."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    env |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes)) | {"GROUP_RANK": "0"}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [Forked(call, cwd, {**os.environ, **env, **place}) for place in places]


def wait_for(path: Path, process, limit_s: float = LIMIT_S) -> None:
    """Until the running command has written a file."""
    until = time.monotonic() + limit_s
    while not path.exists():
        assert process.poll() is None, process.communicate()
        if time.monotonic() > until:
            end(process, 0)
        time.sleep(0.1)


def end(process, limit_s: float = LIMIT_S) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, once it ends by itself."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"not done after {limit_s} s\n{out}\n{err}") from None
    return process.returncode, out, err


def run(arguments: list[str], cwd: Path, launcher: list[str] | None = None, **start_args: str):
    """`start` and `end`; the command must succeed."""
    code, out, err = end(start(arguments, cwd, launcher, **start_args))
    assert code == 0, f"{out}\n{err}"
    return out, err
