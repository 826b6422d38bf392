"""What scripts/slurm/train.sbatch starts, without SLURM: srun prints its arguments."""

import os
import subprocess
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "scripts/slurm/train.sbatch"
ONE = {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1", "SLURM_NTASKS": "1"}
TWO = {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "3", "SLURM_NTASKS": "6"}


@pytest.fixture
def place(tmp_path):
    """A working folder, and programs of ours in front of those of the machine."""
    (tmp_path / "bin").mkdir()
    write(tmp_path / "bin/srun", 'printf "%s\\n" "$@"')
    write(tmp_path / "bin/python3", "exit 1")  # without fluoroscope
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(path, line):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def sbatch(place, *arguments, **env):
    """Exit code, the words that srun gets, and standard error."""
    path = {"PATH": f"{place.parent}/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(FILE), *arguments],
        cwd=place,
        env=path | ONE | env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_a_clone_is_trained_by_its_own_python(place):
    write(place / ".venv/bin/python", "exit 1")
    write(place / "scripts/train.py", "")
    code, words, err = sbatch(place, "data=nih14", "run.name='a b'")
    assert (code, err) == (0, "")
    started = [".venv/bin/python", "scripts/train.py"]
    processes = ["trainer.devices=1", "trainer.num_nodes=1"]
    assert words[-6:] == [*started, *processes, "data=nih14", "run.name='a b'"]
    (place / ".venv/bin/python").unlink()
    assert sbatch(place)[1][-4:-2] == ["python3", "scripts/train.py"]
    assert sbatch(place, PYTHON="mine")[1][-4:-2] == ["mine", "scripts/train.py"]


def test_a_project_beside_the_clone_is_trained_by_the_installed_program(place):
    write(place.parent / "bin/python3", "exit 0")
    code, words, _ = sbatch(place, "--config-dir", "conf", SLURM_CPUS_PER_TASK="8")
    assert code == 0
    assert words[0] == "--cpus-per-task=8"
    started = ["python3", "-m", "fluoroscope", "train"]
    processes = ["trainer.devices=1", "trainer.num_nodes=1"]
    assert words[-8:] == [*started, *processes, "--config-dir", "conf"]


def test_without_either_the_job_is_refused(place):
    code, words, err = sbatch(place, "data=nih14")
    assert (code, words) == (2, [])
    assert err.startswith(f"fluoroscope: no scripts/train.py in {place}, and python3 has no ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        ([], ["trainer.strategy=ddp", "trainer=gpu"]),
        (["trainer=ddp"], ["trainer.strategy=ddp"]),
        (["run.resume=outputs/RUN"], ["trainer.strategy=ddp"]),
        (["run.resume=auto"], ["trainer.strategy=ddp", "trainer=gpu"]),
    ],
)
def test_processes_and_gpus_are_those_of_the_job(place, arguments, added):
    write(place / "scripts/train.py", "")
    code, words, _ = sbatch(place, *arguments, **TWO, SLURM_GPUS_ON_NODE="2")
    assert code == 0
    first = words.index("trainer.devices=2")
    assert words[first:] == ["trainer.devices=2", "trainer.num_nodes=3", *added, *arguments]
