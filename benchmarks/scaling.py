"""Weak scaling: images/s over processes, each with the same batch size.

Each point is a training of that many processes, started anew: one as a plain process, several by
`torch.distributed.run`, with DDP over gloo on CPUs and NCCL on GPUs, all diagnostics on. The images
are random and lie on the device. Every point is measured once per round, in an order that is drawn
anew. The efficiency is the speed over that of one process of the same round times the processes.

On a CPU every process has the same number of threads at every point, the cores over the largest
number of processes: one process alone does not get the whole machine, so the measured cost is that
of working together. Processes of one machine still share its memory bandwidth.

Examples:
  python -m benchmarks.scaling trainer.accelerator=cpu 'benchmark.processes=[1,2]'
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.fits import Block, Training
from benchmarks.options import Job, Result, read_job, run
from benchmarks.rounds import Column, alternate, describe_job, ratio, spread, write_and_print
from benchmarks.watchers import MONITOR, callbacks, of_every_run
from fluoroscope.command import run_one
from fluoroscope.errors import InputError
from fluoroscope.launch.process_setup import cores
from fluoroscope.launch.run_status import BAD_INPUT

MEMBER = "--member"  # marks a process of a point: `... --member PROCESSES OUT.json KEY=VALUE ...`
# A scheduler's or launcher's variables describe this process, not those that it starts.
FOREIGN = ("SLURM_", "LOCAL_", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_", "MASTER_", "TORCH")
COLUMNS = (
    Column("images/s", "images_s", ".1f"),
    Column("ms/step", "step_ms", ".1f"),
    Column("efficiency", "efficiency"),
)


class Sample(NamedTuple):
    """One training of a point, timed by its first process."""

    block: Block
    threads: int


def measure(job: Job) -> Result:
    """Run all points; `arms` of the result holds their numbers, by processes."""
    on_gpu = job.train.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    limit = torch.cuda.device_count() if on_gpu else cores()
    points = [1, *sorted(set(job.benchmark.processes or powers_of_two(limit)) - {1})]
    threads = max(1, cores() // max(points))
    with tempfile.TemporaryDirectory() as folder:
        samples = alternate(
            [str(point) for point in points],
            job.benchmark.rounds,
            job.train.seed,
            lambda arm: train(job, int(arm), threads, Path(folder)),
            lambda sample: f"{1e3 * sample.block.step_s:.1f} ms",
        )
    images = job.train.data.batch_size * job.train.trainer.accumulate_grad_batches
    facts = describe_job("scaling", job, device) | {"targets": []}
    facts["machine"]["threads"] = samples["1"][0].threads
    return facts | {"arms": {arm: compare(arm, samples, images) for arm in samples}}


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to the limit."""
    return [2**n for n in range(limit.bit_length())]


def train(job: Job, processes: int, threads: int, folder: Path) -> Sample:
    """Run a training of this many processes on this machine.

    Raises:
        InputError: it fails; with the reason that the process printed.
    """
    out = folder / "block.json"
    options = [f"benchmark.{key}={getattr(job.benchmark, key)}" for key in ("steps", "warmup")]
    strategy = "auto" if processes == 1 else "ddp"
    layout = [f"trainer.devices={processes}", "trainer.num_nodes=1", f"trainer.strategy={strategy}"]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    module = ["-m", "benchmarks.scaling", MEMBER, str(processes), str(out)]
    done = subprocess.run(
        [
            *(sys.executable, *(launcher if processes > 1 else []), *module),
            *(*job.overrides, *layout, *options),
        ],
        env={k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InputError(f"a training of {processes} processes failed: {reason(done.stderr)}")
    values = json.loads(out.read_text())
    return Sample(Block(**{k: values[k] for k in Block._fields}), values["threads"])


def run_member(processes: str, out: str, *overrides: str) -> None:
    """One process of a point; the first of them writes its `Block` and its threads to `out`."""
    try:
        job = read_job(overrides)
        with (
            tempfile.TemporaryDirectory() as folder,
            Training(job, Path(folder), int(processes)) as training,
        ):
            block = training.time([*callbacks(MONITOR, training), *of_every_run(training)])
    except InputError as error:
        run_one.print_error(error)
        sys.exit(BAD_INPUT)
    if os.environ.get("RANK", "0") == "0":
        values = {**block._asdict(), "threads": torch.get_num_threads()}
        Path(out).write_text(json.dumps(values))


def reason(stderr: str) -> str:
    """Why a process failed: the project's own sentence, else the last line."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("fluoroscope: ")]
    return (own or lines[-1:] or ["it printed nothing"])[0]


def compare(arm: str, samples: Mapping[str, Sequence[Sample]], images: int) -> Result:
    """A point against one process.

    Args:
        images: of an optimizer step of one process.
    """
    steps_s, alone_s = ([sample.block.step_s for sample in samples[name]] for name in (arm, "1"))
    return {
        "images_s": spread([int(arm) * images / second for second in steps_s]),
        "step_ms": spread([1e3 * second for second in steps_s]),
        # Weak scaling: each process has as many images as the one alone.
        "efficiency": ratio(alone_s, steps_s),
        "steps_ms": [1e3 * second for second in steps_s],
    }


def conclude(job: Job, result: Result) -> None:
    """Write and print the result."""
    write_and_print(job, result, COLUMNS, "batch and threads: of each process", arm="processes")


if __name__ == "__main__":
    if sys.argv[1:2] == [MEMBER]:
        run_member(*sys.argv[2:])
    else:
        run(__doc__ or "", measure, conclude)
