"""Seconds until a command answers, refuses, and ends its first training step.

| arm | command |
| --- | --- |
| `help` | `scripts/train.py --help` |
| `refused_key` | a misspelt key |
| `refused_value` | an activation that does not exist |
| `first_step` | from the command to the end of the first optimizer step |
| `first_step_new_data` | the same, with images that were never checked before |

Each is a process, timed from its start to its end (`first_step`: to that instant). One untimed run
of each comes first, so that files and bytecode are in the caches. Every arm runs once per round, in
an order that is drawn anew. The stages of `first_step` follow each other without a gap, see
`first_step.py`.

Examples:
  python -m benchmarks.startup data=nih14 data.root=DIR benchmark.rounds=3
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.first_step import STAGES
from benchmarks.options import Job, Result, run
from benchmarks.rounds import (
    Column,
    alternate,
    at_most,
    describe_job,
    spread,
    table,
    write_and_print,
)
from fluoroscope.config import CONF
from fluoroscope.console import make_console
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import BAD_INPUT

SCRIPT = CONF.parent / "scripts/train.py"
HELP, FIRST_STEP, NEW_DATA = "help", "first_step", "first_step_new_data"
REFUSED = {"refused_key": "head.activatoin=relu", "refused_value": "head.activation=rleu"}
HELP_S = 0.5
COLUMNS = (Column("seconds", "seconds", ".2f"),)


class Sample(NamedTuple):
    """One run of a command, in seconds."""

    total_s: float
    stages_s: dict[str, float]  # empty for an arm that does not train


def measure(job: Job) -> Result:
    """Run all arms; `arms` of the result holds their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(Path(folder), job.overrides)
        arms = [HELP, *REFUSED, FIRST_STEP, NEW_DATA]
        for arm in arms[:-1]:
            commands.sample(arm)
        samples = alternate(
            arms,
            job.benchmark.rounds,
            job.train.seed,
            commands.sample,
            lambda sample: f"{sample.total_s:.2f} s",
        )
    numbers = {arm: compare(runs) for arm, runs in samples.items()}
    targets = [at_most("--help, seconds", numbers[HELP]["seconds"]["median"], HELP_S)]
    facts = describe_job("startup", job, torch.device("cpu")) | {"steps": 1}
    return facts | {"targets": targets, "arms": numbers}


class Commands:
    """The runs of each arm, in new folders and caches.

    Args:
        overrides: of the training.
    """

    def __init__(self, folder: Path, overrides: Sequence[str]) -> None:
        self.folder = folder
        self.overrides = [o for o in overrides if not o.startswith("run.dir=")]
        if not any(o.startswith("logger") for o in overrides):
            self.overrides.append("logger.mode=offline")
        self.numbers = count()

    def sample(self, arm: str) -> Sample:
        if arm == HELP:
            return Sample(self._run([str(SCRIPT), "--help"], 0), {})
        if arm in REFUSED:
            command = [str(SCRIPT), *self._training(), REFUSED[arm]]
            return Sample(self._run(command, BAD_INPUT), {})
        return self._train(f"cache-{next(self.numbers)}" if arm == NEW_DATA else "cache")

    def _training(self) -> list[str]:
        return [*self.overrides, f"run.dir={self.folder / f'run-{next(self.numbers)}'}"]

    def _train(self, cache: str) -> Sample:
        file = self.folder / f"instants-{next(self.numbers)}.json"
        module = ["-m", "benchmarks.first_step", str(file), str(SCRIPT)]
        started = time.time()
        self._run([*module, *self._training()], 0, XDG_CACHE_HOME=str(self.folder / cache))
        return stages(started, json.loads(file.read_text()))

    def _run(self, command: list[str], code: int, **env: str) -> float:
        """Seconds that the command takes.

        Raises:
            InputError: it ends with another exit code; with the last line that it printed.
        """
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode != code:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise InputError(f"{' '.join(command)} failed: {' '.join(last)}")
        return seconds


def stages(started: float, at_s: Mapping[str, float]) -> Sample:
    """Length of each stage, out of the instants at which the stages end."""
    lengths, before = {}, started
    for stage in STAGES:
        lengths[stage] = at_s[stage] - before
        before = at_s[stage]
    return Sample(before - started, lengths)


def compare(samples: Sequence[Sample]) -> Result:
    """Spread of an arm's total and of each stage."""
    names = samples[0].stages_s
    return {
        "seconds": spread([sample.total_s for sample in samples]),
        "stages_s": {n: spread([sample.stages_s[n] for sample in samples]) for n in names},
    }


def conclude(job: Job, result: Result) -> None:
    """Write the result, print it, and print the time of each stage."""
    write_and_print(job, result, COLUMNS)
    arms = [FIRST_STEP, NEW_DATA]
    rows = {s: {arm: result["arms"][arm]["stages_s"][s] for arm in arms} for s in STAGES}
    make_console().print(table("stage, seconds", [Column(arm, arm, ".2f") for arm in arms], rows))


if __name__ == "__main__":
    run(__doc__ or "", measure, conclude)
