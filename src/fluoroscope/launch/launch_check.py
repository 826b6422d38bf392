"""Check that the started processes are those that the run needs, before any heavy import."""

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fluoroscope.commands import called, sbatch_file
from fluoroscope.errors import InputError, NotHereError, changes
from fluoroscope.launch.run_id import Environ, by_srun, by_torchrun

# Names for which Lightning takes a job for a person's shell and leaves SLURM alone.
SHELL_NAMES = ("bash", "interactive")


class Processes(Protocol):
    """The keys of `trainer` that say how many processes a run has."""

    devices: Any
    num_nodes: int
    strategy: str


@dataclass
class OneMachine:
    """The keys for a command that runs on one machine and chooses the strategy itself."""

    devices: Any
    num_nodes: int = 1
    strategy: str = "ddp"


def check_gpu(trainer: Any) -> None:
    """Refuse a GPU on a machine without the driver of one; light, unlike asking PyTorch.

    Raises:
        InputError: `trainer.accelerator` asks for one, and neither CUDA's driver nor ROCm's is
            there.
    """
    if trainer.accelerator not in ("gpu", "cuda") or sys.platform == "darwin":
        return
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        if not any(Path("/dev", name).exists() for name in ("kfd", "nvidiactl")):
            raise no_gpu(trainer) from None


def no_gpu(trainer: Any) -> InputError:
    there = f"trainer.accelerator={trainer.accelerator}: there is no GPU here"
    return NotHereError(f"{there}{one_device(trainer)}")


def one_device(trainer: Any) -> str:
    """`; trainer.devices=1 uses one device of those there are`, "" if the keys are so already."""
    keys = changes({"trainer.accelerator": "auto", "trainer.devices": 1}, trainer)
    return keys and f"; {keys} uses one device of those there are"


def starts_processes(trainer: Processes, environ: Environ) -> bool:
    """Whether Lightning would start further processes, which repeat the command line."""
    by_others = by_torchrun(environ) or _lightning_sees_slurm(environ)
    return not by_others and _count(trainer.devices) != 1


def check_launch(trainer: Processes, environ: Environ, multirun: bool = False) -> None:
    """Refuse a start that would hang, fail late, or train several runs into one folder.

    Call it in each process of the run, just before the run starts.

    Args:
        trainer: section of the configuration.
        environ: environment of the process.
        multirun: whether the process trains several runs.

    Raises:
        InputError: if the started processes are not those that `trainer` requires, or if each of
            several processes would train all runs.
    """
    if by_torchrun(environ):
        started = _check_torchrun(trainer, environ)
    elif _lightning_sees_slurm(environ) or by_srun(environ):
        started = _check_slurm(trainer, environ)
    else:
        started = _check_alone(trainer)
    if multirun and started > 1:
        raise InputError(
            f"-m in {started} processes would train all runs in each of them; start one job per "
            "run, with -m hydra/launcher=slurm or sbatch --array"
        )


def _check_alone(trainer: Processes) -> int:
    nodes = trainer.num_nodes
    if nodes > 1:
        shape = _shape(trainer)
        raise InputError(
            f"trainer.num_nodes={nodes}, but nothing has started processes on other nodes; use "
            f"sbatch {shape} {sbatch_file()}, srun {shape} {called('train')} ..., or torchrun"
        )
    return 1


def _check_torchrun(trainer: Processes, environ: Environ) -> int:
    tasks, per_node = int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
    if tasks % per_node:
        raise InputError(
            f"torchrun runs {tasks} processes, {per_node} of them on this node; start equally many "
            "on each node with --nproc-per-node"
        )
    devices = _count(trainer.devices) or "DEVICES"
    fix = f"torchrun --nnodes={trainer.num_nodes} --nproc-per-node={devices}"
    _check_counts(trainer, "torchrun", tasks // per_node, per_node, fix)
    return tasks


def _check_slurm(trainer: Processes, environ: Environ) -> int:
    tasks, nodes = int(environ["SLURM_NTASKS"]), int(environ["SLURM_NNODES"])
    if not by_srun(environ):
        _check_without_srun(trainer, tasks)
        return tasks
    name = environ.get("SLURM_JOB_NAME")
    if name in SHELL_NAMES and tasks == 1:
        return _check_alone(trainer)
    if name in SHELL_NAMES:
        raise InputError(
            f"this job is named {name!r}, so Lightning would treat each of its {tasks} tasks as a "
            "separate run; give it another name: srun --job-name=train ..."
        )
    _check_tasks_per_node(trainer, environ, tasks, nodes)
    _check_counts(trainer, "srun", nodes, tasks // nodes, f"srun {_shape(trainer)}")
    return tasks


def _check_without_srun(trainer: Processes, tasks: int) -> None:
    if tasks > 1:
        raise InputError(
            f"SLURM has {tasks} tasks for this job, but python was started without srun and would "
            "train alone or wait for the others forever; use srun python ..."
        )
    if trainer.num_nodes > 1 or _count(trainer.devices) not in (None, 1):
        raise InputError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}, but SLURM "
            f"has one task for this job; use srun {_shape(trainer)} python ..."
        )


def _check_tasks_per_node(trainer: Processes, environ: Environ, tasks: int, nodes: int) -> None:
    """Check the option from which Lightning reads this number, which it needs for several tasks."""
    per_node = environ.get("SLURM_NTASKS_PER_NODE")
    if tasks == 1 and (per_node is None or trainer.strategy == "auto"):
        return  # the option may belong to the job, of which this is a smaller step
    if tasks % nodes or per_node != str(tasks // nodes):
        raise InputError(
            f"srun runs {tasks} task(s) on {nodes} node(s), and SLURM_NTASKS_PER_NODE is "
            f"{per_node or 'not set'}; use --nodes={nodes} "
            f"--ntasks-per-node={-(-tasks // nodes)}, not --ntasks"
        )


def _check_counts(trainer: Processes, who: str, nodes: int, per_node: int, fix: str) -> None:
    """Compare what was started with what Lightning will expect."""
    devices = _count(trainer.devices)
    # If Lightning finds one device, `auto` lets each process train separately.
    alone = devices is None and trainer.strategy == "auto" and nodes * per_node > 1
    if trainer.num_nodes != nodes or devices not in (None, per_node) or alone:
        wanted = {"strategy": "ddp", "devices": per_node, "num_nodes": nodes}
        if isinstance(trainer, OneMachine):
            wanted = {"devices": per_node} if nodes == 1 else {}
        keys = changes({f"trainer.{key}": value for key, value in wanted.items()}, trainer)
        raise InputError(
            f"{who} runs {per_node} process(es) on each of {nodes} node(s), but trainer.devices="
            f"{trainer.devices} trainer.num_nodes={trainer.num_nodes}; use "
            f"{keys and f'{keys}, or '}{fix}"
        )


def _shape(trainer: Processes) -> str:
    """SLURM's options for the processes that `trainer` asks for."""
    devices = _count(trainer.devices) or "DEVICES"
    return f"--nodes={trainer.num_nodes} --ntasks-per-node={devices}"


def _count(devices: Any) -> int | None:
    """Processes on each node; None if Lightning counts the devices."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if devices is None:
        return None
    if isinstance(devices, int | str):
        return int(devices) if re.fullmatch(r"\d+", str(devices).strip()) else None
    return len(devices)


def _lightning_sees_slurm(environ: Environ) -> bool:
    """Lightning's own rule, `SLURMEnvironment.detect`."""
    return "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in SHELL_NAMES
