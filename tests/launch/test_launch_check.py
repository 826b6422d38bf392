"""What a process knows of its start, and what is refused of it; with SLURM itself: test_slurm."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from datetime import datetime
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities import rank_zero_only

from fluoroscope.errors import InputError
from fluoroscope.launch import run_id as identities
from fluoroscope.launch.launch_check import OneMachine, check_launch, starts_processes
from fluoroscope.launch.run_id import IDENTITY, fix_identity, identity, job_id

ROOT = Path(__file__).parents[2]
DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


def job(nodes=1, per_node=1, **other):
    """What SLURM 22.05 sets in the script of a batch job with --nodes and --ntasks-per-node."""
    tasks = nodes * per_node
    environ = {
        "SLURM_JOB_ID": "127",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(per_node),
        "SLURM_TASKS_PER_NODE": f"{per_node}(x{nodes})" if nodes > 1 else str(per_node),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NODELIST": "n[1-2]" if nodes > 1 else "n1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "ENVIRONMENT": "BATCH",
    }
    return without(environ | other, [key for key, value in other.items() if value is None])


def task(nodes=1, per_node=1, **other):
    """Of a task that srun starts in such a job."""
    return job(nodes, per_node, **{"SLURM_STEP_ID": "0", **other})


def without(environ, keys):
    return {key: value for key, value in environ.items() if key not in keys}


def alone(**other):
    """Of a task of srun that no batch job holds."""
    return task(**{"ENVIRONMENT": None, **other})


def torchrun(world=2, local=2, run_id="none"):
    environ = {"TORCHELASTIC_RUN_ID": run_id, "WORLD_SIZE": str(world)}
    return environ | {"LOCAL_WORLD_SIZE": str(local), "RANK": "0", "LOCAL_RANK": "0"}


ARRAY = {"SLURM_ARRAY_JOB_ID": "120", "SLURM_ARRAY_TASK_ID": "7"}
SALLOC = without(job(1, 2, SLURM_JOB_NAME="interactive"), ["ENVIRONMENT", "SLURM_PROCID"])


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (job(), "slurm-127"),
        (job(2, 4), "slurm-127"),
        (task(2, 4, SLURM_PROCID="7"), "slurm-127"),
        (task(SLURM_RESTART_COUNT="2"), "slurm-127"),
        (task(SLURM_STEP_ID="1"), "slurm-127.1"),
        (job(**ARRAY), "slurm-120_7"),
        (task(**ARRAY), "slurm-120_7"),
        (alone(SLURM_JOB_NAME="python"), "slurm-127"),
        # The environment that the job was submitted from comes with it.
        (task(**{IDENTITY: "2026-01-01_00-00-00"}), "slurm-127"),
        (task() | torchrun(4, 2), "slurm-127"),
        (torchrun(4, 2, "trial/3"), "torchrun-trial-3"),
        (torchrun(2, 2, "trial"), "torchrun-trial"),
        ({IDENTITY: "2026-01-01_00-00-00"}, "2026-01-01_00-00-00"),
    ],
)
def test_the_processes_of_a_run_have_one_name(environ, name):
    assert identity(environ) == name


def test_a_job_is_named_as_scontrol_wants_it():
    assert job_id(task(**ARRAY)) == "120_7"
    assert job_id(job()) == "127"
    assert job_id({}) is None


@pytest.mark.parametrize(
    ("environ", "terminal"),
    [
        ({}, False),
        (SALLOC, True),
        (SALLOC | {"SLURM_JOB_NAME": "mine"}, False),
        (alone(SLURM_STEP_ID="4294967290", SLURM_PTY_PORT="4000"), False),
        (alone(SLURM_JOB_NAME="bash", SLURM_PTY_PORT="4000"), True),
    ],
)
def test_a_shell_is_no_job(environ, terminal, monkeypatch):
    monkeypatch.setattr(identities, "_has_terminal", lambda: terminal)
    assert DATED.fullmatch(identity(environ))
    assert job_id(environ) is None


def test_what_srun_starts_from_a_shell_is_one(monkeypatch):
    monkeypatch.setattr(identities, "_has_terminal", lambda: False)
    assert identity(alone(SLURM_STEP_ID="3", SLURM_PTY_PORT="4000")) == "slurm-127.3"


def test_the_processes_that_it_starts_keep_the_name(monkeypatch):
    monkeypatch.delenv(IDENTITY, raising=False)
    monkeypatch.setattr(time, "strftime", mock.Mock(side_effect=["first", "second"]))
    assert [fix_identity(), fix_identity(), os.environ[IDENTITY]] == ["first"] * 3


AGENT = """
import os, subprocess, sys, time
for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
    os.environ[key] = "2"
asks = "import os; from fluoroscope.launch.run_id import identity; print(identity(os.environ))"
worker = {**os.environ, "TORCHELASTIC_RUN_ID": sys.argv[1]}
for command in ([sys.executable, "-c", asks], ["sh", "-c", f"'{sys.executable}' -c '{asks}'; :"]):
    subprocess.run(command, env=worker, check=True)
    time.sleep(1.1)
"""


@pytest.mark.parametrize("run_id", ["none", "0b0d5a0c-7d0c-4b52-a9a5-0a3a3a3f9f0e"])
def test_without_a_name_the_processes_of_torchrun_have_the_time_of_its_start(run_id):
    before = time.time()
    command = [sys.executable, "-c", AGENT, run_id]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert names[0] == names[1]
    told = datetime.strptime(names[0], identities.DATE).timestamp()
    assert before - 2 < told <= time.time()


def test_torchrun_on_several_nodes_needs_a_name():
    with pytest.raises(InputError, match="--rdzv-id=NAME"):
        identity(torchrun(4, 2))


# Every start of the lab that a person could make, and how many processes it has.
STARTS = {
    "python": ({}, 1),
    "one task": (task(), 1),
    "one task, no option": (task(SLURM_NTASKS_PER_NODE=None), 1),
    "two tasks": (task(1, 2), 2),
    "two nodes": (task(2, 1), 2),
    "two by two": (task(2, 2), 4),
    "srun -n2": (task(1, 2, SLURM_NTASKS_PER_NODE=None), 2),
    "srun -N2": (task(2, 1, SLURM_NTASKS_PER_NODE=None), 2),
    "uneven": (task(2, 2, SLURM_NTASKS="3"), 3),
    "named bash": (alone(per_node=2, SLURM_JOB_NAME="bash"), 2),
    "one named bash": (alone(SLURM_JOB_NAME="bash"), 1),
    "one step of many": (task(1, 1, SLURM_NTASKS_PER_NODE="2"), 1),
    "no srun, two tasks": (job(1, 2), 1),
    "no srun, one task": (job(), 1),
    "no srun, two nodes": (job(2, 1), 1),
    "no srun, no option": (without(job(), ["SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"]), 1),
    "salloc": (SALLOC, 1),
    "torchrun": (torchrun(), 2),
    "torchrun, two nodes": (torchrun(4, 2, "a"), 4),
    "torchrun in a job": (torchrun() | job(), 2),
}
TRAINERS = [
    SimpleNamespace(devices=devices, num_nodes=nodes, strategy=strategy)
    for devices in (1, 2)
    for nodes in (1, 2)
    for strategy in ("auto", "ddp")
]


# Lightning would train in one process, and leave the others that were asked for unused.
WASTEFUL = ("no srun, two tasks", "no srun, two nodes")


def lightning_trains(trainer, start):
    """Whether what Lightning makes of this start is one training by all the processes."""
    environ, processes = STARTS[start]
    with mock.patch.dict(os.environ, environ, clear=True):
        try:
            made = pl.Trainer(
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                barebones=False,
                **vars(trainer),
            )
            if isinstance(made.strategy, SingleDeviceStrategy):
                return processes == 1 and start not in WASTEFUL
            cluster = made.strategy.cluster_environment
            cluster.validate_settings(trainer.devices, trainer.num_nodes)
            wanted = trainer.devices * trainer.num_nodes
            if not cluster.creates_processes_externally:  # Lightning starts them, on this node
                return processes == trainer.num_nodes == 1
            # With fewer devices than processes on a node, these would look for a GPU in vain.
            fits = int(environ.get("LOCAL_WORLD_SIZE", trainer.devices)) == trainer.devices
            return fits and cluster.world_size() == processes == wanted
        except (ValueError, RuntimeError, KeyError):
            return False


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_what_passes_here_lightning_trains_and_nothing_else():
    """Over all starts and trainers, against Lightning's own classes."""
    rank, told = rank_zero_only.rank, Counter()
    try:
        for start, trainer in product(STARTS, TRAINERS):
            passes = lightning_trains(trainer, start)
            with nullcontext() if passes else pytest.raises(InputError):
                check_launch(trainer, STARTS[start][0])
            told[passes] += 1
    finally:
        rank_zero_only.rank = rank
    assert told.total() == len(STARTS) * len(TRAINERS)
    assert told[True] > 20


def refusal(environ, multirun=False, **trainer):
    keys = {"devices": 1, "num_nodes": 1, "strategy": "auto"} | trainer
    with pytest.raises(InputError) as refused:
        check_launch(OmegaConf.create(keys), environ, multirun)
    return str(refused.value)


@pytest.mark.parametrize(
    ("environ", "trainer", "fix"),
    [
        ({}, {"num_nodes": 2, "devices": 4}, "sbatch --nodes=2 --ntasks-per-node=4"),
        (task(2, 4), {}, "trainer.strategy=ddp trainer.devices=4 trainer.num_nodes=2"),
        (task(), {"devices": [0, 1]}, "srun --nodes=1 --ntasks-per-node=2"),
        (task(1, 2), {"devices": "auto"}, "trainer.strategy=ddp trainer.devices=2"),
        (job(1, 2), {"devices": 2}, "use srun python"),
        (job(), {"devices": 2}, "srun --nodes=1 --ntasks-per-node=2 python"),
        (STARTS["srun -N2"][0], {"num_nodes": 2}, "--nodes=2 --ntasks-per-node=1"),
        (STARTS["named bash"][0], {"devices": 2}, "srun --job-name=train"),
        (torchrun(), {"devices": 3}, "torchrun --nnodes=1 --nproc-per-node=3"),
    ],
)
def test_a_refusal_says_what_to_type(environ, trainer, fix):
    assert fix in refusal(environ, **trainer)


@pytest.mark.parametrize(
    ("environ", "devices", "fix"),
    [
        (torchrun(), 1, "use trainer.devices=2, or torchrun --nnodes=1 --nproc-per-node=1"),
        (task(2, 1), 1, "; use srun --nodes=1 --ntasks-per-node=1"),
        (job(), 2, "use srun --nodes=1 --ntasks-per-node=2 python"),
    ],
)
def test_a_command_of_one_machine_is_told_what_it_has_keys_for(environ, devices, fix):
    with pytest.raises(InputError) as refused:
        check_launch(OneMachine(devices), environ)
    assert fix in str(refused.value)
    check_launch(OneMachine(2), torchrun())


@pytest.mark.parametrize(
    ("words", "on_gpus"),
    [
        (["data=nih14"], True),
        (["run.resume=auto"], True),
        (["trainer=ddp"], False),
        (["run.resume=outputs/a"], False),
    ],
)
def test_the_job_script_leaves_a_resumed_run_its_settings(words, on_gpus, tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environ = {**job(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_GPUS_ON_NODE": "1"}
    script = ["bash", str(ROOT / "scripts/slurm/train.sbatch"), *words]
    told = subprocess.run(script, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert ("trainer=gpu" in told.stdout.split()) == on_gpus
    assert told.stdout.split()[-1] == words[-1]


def test_several_runs_in_several_processes_are_refused():
    two = OmegaConf.create({"devices": 2, "num_nodes": 1, "strategy": "ddp"})
    for environ in (task(1, 2), torchrun()):
        assert "hydra/launcher=slurm" in refusal(environ, True, devices=2)
        check_launch(two, environ)
    check_launch(two, {}, True)


@pytest.mark.parametrize("devices", ["auto", -1, "-1"])
@pytest.mark.parametrize("environ", [{}, task(), job(), task(2, 2), torchrun()])
def test_devices_that_lightning_counts_are_not_compared(devices, environ):
    keys = {"num_nodes": 2 if environ == task(2, 2) else 1, "strategy": "ddp"}
    check_launch(OmegaConf.create({**keys, "devices": devices}), environ)
    if environ:  # a number is compared
        assert "trainer.devices=9" in refusal(environ, **keys, devices=9)


def test_lightning_starts_processes_where_nothing_else_did():
    def starts(devices, environ):
        keys = {"devices": devices, "num_nodes": 1, "strategy": "auto"}
        return starts_processes(OmegaConf.create(keys), environ)

    assert [starts(d, {}) for d in (1, [3], "0,", 2, [0, 1], "0,1", "2", "auto")] == (
        [False] * 3 + [True] * 5
    )
    assert starts(2, SALLOC)
    assert not starts(2, task(1, 2))
    assert not starts(2, torchrun())
