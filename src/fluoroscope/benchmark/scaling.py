"""Weak scaling: images a second over processes, each with the same batch of its own.

Each point is a training of that many processes, started anew: one as a plain process, several by
`torch.distributed.run`, DDP over gloo on CPUs and NCCL on GPUs, all diagnostics on. The images are
random and lie on the device. In each round every point is measured once, in an order that is drawn
anew. The efficiency is the speed over that of one process of the same round times the processes.

On a CPU every process has the same number of threads at every point, the cores over the largest
number of processes: so one process does not have the whole machine to itself, and what is measured
is the cost of going together. Processes of one machine still share its memory bandwidth.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fluoroscope.benchmark import member
from fluoroscope.benchmark.rounds import (
    Result,
    alternate,
    conclude,
    console,
    described,
    place,
    shown,
    table,
)
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.timing import Block, spread
from fluoroscope.errors import InputError
from fluoroscope.launch.process_setup import cores

# A scheduler's or launcher's view of this process, which is not that of those it starts.
FOREIGN = (
    "SLURM_",
    "LOCAL_",
    "RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_",
    "MASTER_",
    "TORCHELASTIC",
)


class Sample(NamedTuple):
    """One training of a point, by its first process."""

    block: Block
    threads: int


def main(job: Job) -> None:
    """Entry of `scripts/benchmark.py scaling`."""
    conclude(job, measure(job), print_result)


def measure(job: Job) -> Result:
    """Run all points.

    Returns:
        What the JSON file holds; `arms` has the numbers, by processes.
    """
    device = _device(job)
    points = [1, *sorted(set(job.benchmark.processes or _powers_of_two(_limit(device))) - {1})]
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
    facts = described("scaling", job, device) | {"steps": job.benchmark.steps, "targets": []}
    facts["machine"]["threads"] = samples["1"][0].threads
    return facts | {"arms": {arm: compare(arm, samples, images) for arm in samples}}


def _device(job: Job) -> torch.device:
    on_gpu = job.train.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _limit(device: torch.device) -> int:
    return torch.cuda.device_count() if device.type == "cuda" else cores()


def _powers_of_two(limit: int) -> list[int]:
    return [2**n for n in range(limit.bit_length())]


def train(job: Job, processes: int, threads: int, folder: Path) -> Sample:
    """A training of so many processes on this machine.

    Raises:
        InputError: it fails; with what it said.
    """
    cfg = copy.deepcopy(job.train)
    cfg.trainer.devices, cfg.trainer.num_nodes = processes, 1
    cfg.trainer.strategy = "auto" if processes == 1 else "ddp"
    file, out = folder / "job.yaml", folder / "block.json"
    member.write(job._replace(train=cfg), file)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    module = ["-m", member.__name__, str(file), str(processes), str(out)]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *module],
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


def reason(stderr: str) -> str:
    """Why a process failed: the project's own sentence, or else the last line."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("fluoroscope: ")]
    return (own or lines[-1:] or ["it said nothing"])[0]


def compare(arm: str, samples: Mapping[str, Sequence[Sample]], images: int) -> Result:
    """A point against one process.

    Args:
        images: of an optimizer step of one process.
    """
    processes = int(arm)
    steps_s = [sample.block.step_s for sample in samples[arm]]
    alone_s = [sample.block.step_s for sample in samples["1"]]
    return {
        "images_s": spread([processes * images / second for second in steps_s])._asdict(),
        "step_ms": spread([1e3 * second for second in steps_s])._asdict(),
        # Weak scaling: each process has as many images as the one alone.
        "efficiency": spread([a / s for a, s in zip(alone_s, steps_s, strict=True)])._asdict(),
        "steps_ms": [1e3 * second for second in steps_s],
    }


def print_result(result: Result) -> None:
    """The numbers as a table."""
    out = console()
    out.print(
        f"{result['backbone']}, {result['image_px']} px, batch {result['batch_size']} a process, "
        f"{result['precision']}, {place(result)} a process; {result['rounds']} rounds of "
        f"{result['steps']} steps"
    )
    rows = {
        arm: [
            shown(numbers["images_s"], ".1f"),
            shown(numbers["step_ms"], ".1f"),
            shown(numbers["efficiency"]),
        ]
        for arm, numbers in result["arms"].items()
    }
    out.print(table(["processes", "images/s", "ms/step", "efficiency"], rows))
