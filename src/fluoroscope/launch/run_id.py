"""Find out which run this process belongs to, and what started it.

The processes of one run are started by Lightning itself (from plain Python), by torchrun or by
SLURM's srun. Environment variables show which; nothing heavy is imported here.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from fluoroscope.errors import InputError

IDENTITY = "FLUOROSCOPE_IDENTITY"
DATE = "%Y-%m-%d_%H-%M-%S"
# Step numbers from here on belong to SLURM, such as the shell of an interactive allocation.
FIRST_OWN_STEP = 0xFFFFFFF0

Environ = Mapping[str, str]


def fix_identity() -> str:
    """The `identity` of this process, which the processes that it starts inherit."""
    os.environ[IDENTITY] = identity(os.environ)
    return os.environ[IDENTITY]


def identity(environ: Environ) -> str:
    """The name of a run: the same in all its processes, without communication between them.

    | started by | identity |
    | --- | --- |
    | a SLURM job | `slurm-JOB` or `slurm-ARRAYJOB_TASK`; from its second srun on with `.1`, `.2` |
    | torchrun | `torchrun-ID` with the ID of `--rdzv-id`; without it the start time of torchrun |
    | Lightning | the identity of the first process, which the user started |
    | the user, also in the shell of a SLURM allocation | the start time |

    A SLURM job keeps its identity when it is requeued.

    Raises:
        InputError: if torchrun runs on several machines without `--rdzv-id`.
    """
    job = job_id(environ)
    # First, since a job also inherits the environment that it was submitted from.
    if job is not None:
        step = environ.get("SLURM_STEP_ID", "0")
        return f"slurm-{job}" if step == "0" else f"slurm-{job}.{step}"
    if by_torchrun(environ):
        return _torchrun_identity(environ)
    return environ.get(IDENTITY) or time.strftime(DATE)


def job_id(environ: Environ) -> str | None:
    """Id of the SLURM job whose script or task this process is, in scontrol's form.

    None outside a job, and in the shell of an interactive allocation, where a user may start many
    runs.
    """
    if "SLURM_JOB_ID" not in environ or _in_shell(environ):
        return None
    if "SLURM_ARRAY_JOB_ID" in environ:  # SLURM_JOB_ID differs between the tasks of an array
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def is_restarted(environ: Environ) -> bool:
    """Whether SLURM has started this job again."""
    return int(environ.get("SLURM_RESTART_COUNT", 0)) > 0


def by_torchrun(environ: Environ) -> bool:
    return "TORCHELASTIC_RUN_ID" in environ


def by_srun(environ: Environ) -> bool:
    """Whether srun started this process: a job's script has SLURM_PROCID too, but no step."""
    return "SLURM_STEP_ID" in environ and not _in_shell(environ)


def _in_shell(environ: Environ) -> bool:
    """Whether this process runs in a user's shell, of salloc or srun --pty."""
    step = environ.get("SLURM_STEP_ID")
    if step is None:
        return environ.get("ENVIRONMENT") != "BATCH"  # SLURM sets this for the script of sbatch
    if int(step) >= FIRST_OWN_STEP:
        return True
    # A process that such a shell starts by srun inherits the variable, but has no terminal.
    return "SLURM_PTY_PORT" in environ and _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


def _torchrun_identity(environ: Environ) -> str:
    run_id = environ["TORCHELASTIC_RUN_ID"]
    if environ["WORLD_SIZE"] != environ["LOCAL_WORLD_SIZE"]:
        if run_id in ("", "none"):
            raise InputError(
                "torchrun on several nodes needs a name for the run; start it with torchrun "
                "--rdzv-id=NAME ..., the same name on each node, and another name for each run"
            )
    elif run_id in ("", "none") or _is_uuid(run_id):  # torchrun's own choices on one machine
        return time.strftime(DATE, time.localtime(_started(_torchrun_pid())))
    return f"torchrun-{re.sub(r'[^A-Za-z0-9._-]', '-', run_id)}"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _torchrun_pid() -> int:
    """The nearest ancestor that torchrun did not start: torchrun itself."""
    pid = os.getppid()
    while b"TORCHELASTIC_RUN_ID=" in _proc(pid, "environ"):  # a script around python
        pid = int(_stat(pid)[1])
    return pid


def _started(pid: int) -> float:
    """Start time of a process, in seconds since 1970."""
    ticks = int(_stat(pid)[19])
    boot = re.search(rb"^btime (\d+)$", _proc("stat"), re.MULTILINE)
    assert boot
    return int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[bytes]:
    """The fields from the state on; the name before them may hold any character."""
    return _proc(pid, "stat").rpartition(b") ")[2].split()


def _proc(*parts: object) -> bytes:
    try:
        return Path("/proc", *map(str, parts)).read_bytes()
    except OSError:
        raise InputError(
            "torchrun needs a name for the run on this system; start it with torchrun "
            "--rdzv-backend=c10d --rdzv-endpoint=localhost:0 --rdzv-id=NAME ..."
        ) from None
