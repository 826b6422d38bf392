"""Runs on a real SLURM of two nodes: started, refused, preempted, requeued, cancelled."""

import re
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from fluoroscope.run import run_folder
from tests.support import commands
from tests.support.commands import tiny_arguments, together
from tests.support.forking import run_script
from tests.support.metrics import metric_rows
from tests.support.slurm import LACKING, cluster, needs_slurm
from tests.support.wandb_log import blobs, parse, unpack

pytestmark = needs_slurm
ROOT = Path(__file__).parents[2]
SBATCH = "scripts/slurm/train.sbatch"
# The nodes are small, and the networks smaller.
SMALL = ["--gpus-per-node=0", "--cpus-per-task=1", "--time=10"]
TWO = ["--nodes=2", "--ntasks-per-node=1"]
LONG = [
    "logger=wandb",
    "logger.mode=offline",
    "trainer.max_epochs=12",
    "trainer.log_every_n_steps=1",
]
LIMIT_S = 150


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    assert LACKING is None
    with cluster(tmp_path_factory.mktemp("slurm")) as lab:
        lab.environ |= {"PYTHON": sys.executable, "OMP_WAIT_POLICY": "PASSIVE"}
        lab.environ.pop("WANDB_SILENT", None)
        yield lab


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which the project's commands are at hand, and outputs do not meet others."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


def submit(lab, project, *words):
    """The id of a job that has been submitted; its log is `ID.log`."""
    out = f"--output={project}/%j.log"
    return lab.ask("sbatch", "--parsable", out, *words, cwd=project)


SHAPES = {
    "one process": [],
    "two nodes": ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"],
    "an array": ["--array=1-12%2"],
    "no GPU": ["--gpus-per-node=0"],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_slurm_takes_the_script(lab, project, shape):
    words = ["--test-only", "--cpus-per-task=1", *SHAPES[shape], SBATCH, "data=nih14"]
    done = lab.run("sbatch", *words, cwd=project)
    assert "to start at" in done.stderr
    assert done.returncode == 0


def test_slurm_sees_what_does_not_fit(lab, project):
    done = lab.run("sbatch", "--test-only", "--gpus-per-node=3", SBATCH, cwd=project)
    assert done.returncode == 1
    assert "not available" in done.stderr


ASK = "import os; from fluoroscope.launch.run_id import identity; print(identity(os.environ))"
NAMES = """#!/bin/sh
ask() {{ "$@" {python} -S -c 'import sys; sys.path.insert(0, "{source}"); {ask}'; }}
ask env; ask srun; ask srun
"""


def test_every_process_of_a_job_knows_its_name(lab, project):
    text = NAMES.format(python=sys.executable, source=ROOT / "src", ask=ASK)
    (project / "names.sh").write_text(text)
    words = ["--array=3-4", "--nodes=2", "--ntasks-per-node=1", "names.sh"]
    out = [
        f"--output={project}/%A_%a.names",
        "--error=/dev/null",
    ]  # srun may have to wait, and says so
    job = submit(lab, project, *out, *words)
    lab.finish(job)
    for task in (3, 4):
        names = (project / f"{job}_{task}.names").read_text().split()
        name = f"slurm-{job}_{task}"
        # The script itself, two tasks of its first step, two of the second.
        assert names == [name] * 3 + [f"{name}.1"] * 2


def test_a_shell_in_an_allocation_is_no_job(lab):
    ask = [sys.executable, "-c", ASK]
    dated = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
    assert re.fullmatch(dated, lab.ask("salloc", "--quiet", "--ntasks=2", *ask))
    shell = f'srun --quiet --pty {sys.executable} -c "{ASK}"'
    told = lab.ask("script", "--quiet", "--return", "--command", shell, "/dev/null")
    assert re.search(dated, told), told
    assert "slurm" not in told


TRAIN = [sys.executable, "scripts/train.py", "trainer.accelerator=cpu"]
BATCH = "#!/bin/sh\n" + " ".join(TRAIN)
REFUSED = {
    "srun python, one process asked for": (
        ["srun", "--nodes=2", "--ntasks-per-node=1", *TRAIN],
        "use trainer.strategy=ddp trainer.num_nodes=2",
    ),
    "srun --ntasks": (
        ["srun", "--ntasks=2", *TRAIN, "trainer=ddp"],
        "use --nodes=1 --ntasks-per-node=2, not --ntasks",
    ),
    "named bash": (
        ["srun", "--ntasks-per-node=2", "bash", "-c", " ".join([*TRAIN, "trainer=ddp"])],
        "srun --job-name=train",
    ),
    "several runs": (
        ["srun", "--ntasks-per-node=2", *TRAIN, "-m", "trainer=ddp", "seed=1,2"],
        "sbatch --array",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_start_that_cannot_work_is_refused_at_once(lab, project, case):
    command, fix = REFUSED[case]
    before = time.monotonic()
    done = lab.run(*command, cwd=project)
    assert done.returncode == 2, done.stderr
    assert fix in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - before < 60  # it does not wait for others
    assert not (project / "outputs").exists()


def test_a_refused_job_does_not_come_back(lab, project, tmp_path):
    (project / "alone.sh").write_text(BATCH)
    jobs = {
        submit(lab, project, "--requeue", "--ntasks-per-node=2", "alone.sh"): "use srun python",
        submit(lab, project, *SMALL, SBATCH, "lr=1"): "there is no key lr",
    }
    # Of a project beside the clone, by `python -m fluoroscope train`.
    beside = [f"--output={project}/%j.log", *SMALL, ROOT / SBATCH, "lr=2"]
    installed = {"PYTHONPATH": f"{ROOT}/src"}
    job = lab.ask("sbatch", "--parsable", *beside, cwd=tmp_path, **installed)
    jobs[job] = "there is no key lr"
    for job, fix in jobs.items():
        told = lab.finish(job)
        assert (told["JobState"], told["ExitCode"], told["Restarts"]) == ("FAILED", "2:0", "0")
        assert fix in (project / f"{job}.log").read_text()


ECHO = '#!/bin/sh\nshift\nprintf "%s\\n" "$@"\n'


@pytest.mark.parametrize("listed", [False, True])
def test_an_array_has_a_run_for_each_index(lab, project, listed):
    (project / "echo").write_text(ECHO)
    (project / "echo").chmod(0o755)
    (project / "runs.txt").write_text("seed=4\n\"run.name='a b'\" 'data.labels=[A]'\n")
    words = [f"--output={project}/{listed}-%a", "--array=2,9", *SMALL, SBATCH]
    words += ["@runs.txt"] if listed else []
    words = ["--parsable", *words, "seed=7"]
    lab.finish(lab.ask("sbatch", *words, cwd=project, PYTHON=str(project / "echo")))
    told = [(project / f"{listed}-{index}").read_text().splitlines() for index in (2, 9)]
    processes = ["trainer.devices=1", "trainer.num_nodes=1"]
    if listed:
        assert told[0] == [*processes, "run.name='a b'", "data.labels=[A]", "seed=7"]
        assert "there is no run 9" in told[1][0]
    else:
        assert told[0] == [*processes, "head.activation=relu", "seed=2", "seed=7"]
        assert told[1] == [*processes, "head.activation=elu", "seed=3", "seed=7"]


class Job:
    """A training in the queue."""

    def __init__(self, lab, project, films, options, *overrides):
        arguments = tiny_arguments(films, *LONG, *overrides)
        self.lab = lab
        self.id = submit(lab, project, *SMALL, *options, SBATCH, *arguments)
        self.folder = project / f"outputs/slurm-{self.id}-relu-s1"
        self.log = project / f"{self.id}.log"

    def reach_an_epoch(self):
        until = time.monotonic() + LIMIT_S
        while not (self.folder / "checkpoints/last.ckpt").exists():
            told = self.lab.job(self.id)
            assert told["JobState"] in ("PENDING", "RUNNING"), self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)
        return self


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.whole)])
def trained(request, lab, project, films, tmp_path_factory):
    """A job on as many nodes that was preempted, and the same that was not."""
    nodes = request.param
    job = Job(lab, project, films, TWO if nodes == 2 else []).reach_an_epoch()
    lab.ask("scancel", "--signal=USR1", job.id)
    several = ["trainer.strategy=ddp", "trainer.devices=2"] if nodes == 2 else []
    whole = tmp_path_factory.mktemp("whole")
    arguments = tiny_arguments(films, *LONG, *several)
    together(partial(run_script, commands.TRAIN, arguments), whole, nodes)
    lab.finish(job.id)
    return job, whole


def test_a_preempted_job_comes_back_and_finishes(lab, trained):
    job, _ = trained
    told, log = lab.job(job.id), job.log.read_text()
    assert (told["Restarts"], told["ExitCode"]) == ("1", "0:0"), log
    assert log.count("SIGUSR1: stopped") == 1, log
    assert f"job {job.id} is requeued" in log
    assert "Traceback" not in log
    assert (job.folder / run_folder.RESULT).exists()
    assert not (job.folder / "checkpoints/step.ckpt").exists()


def test_it_leaves_one_folder_and_one_wandb_run(project, trained):
    job, _ = trained
    assert list((project / "outputs").glob(f"*{job.id}*")) == [job.folder]
    segments = sorted(job.folder.glob("wandb/offline-run-*"))
    assert len(segments) == 2
    assert len({path.name.rpartition("-")[2] for path in segments}) == 1
    steps = [row["trainer/global_step"] for path in segments for row in history(path)]
    assert steps == sorted(steps)


def history(segment):
    """The rows that were logged into it."""
    (file,) = segment.glob("*.wandb")
    records = map(parse, blobs(file.read_bytes()))
    return [unpack(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]


def test_its_result_is_that_of_an_unbroken_run(trained):
    job, whole = trained
    (unbroken,) = (whole / "outputs").iterdir()
    assert re.match(r"\d{4}-", unbroken.name)
    one, other = (metric_rows(folder) for folder in (unbroken, job.folder))
    assert one == other
    for name in ("last", "best"):
        states = [
            torch.load(run_folder.checkpoint(folder, name), weights_only=True)["state_dict"]
            for folder in (unbroken, job.folder)
        ]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for split in ("val", "test"):
        tables = [pd.read_csv(f / f"predictions/{split}.csv") for f in (unbroken, job.folder)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.whole
def test_a_cancelled_job_does_not_come_back(lab, project, films):
    job = Job(lab, project, films, [], "trainer.max_epochs=1000").reach_an_epoch()
    lab.ask("scancel", job.id)
    lab.finish(job.id)
    told, log = lab.job(job.id), job.log.read_text()
    assert (told["JobState"], told["Restarts"]) == ("CANCELLED", "0"), log
    assert "SIGTERM: stopped; continue with" in log
    assert not (job.folder / run_folder.RESULT).exists()
    assert torch.load(run_folder.checkpoint(job.folder, "last"), weights_only=True)["epochs"] > 0
