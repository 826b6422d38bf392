"""How long a command takes to answer, to refuse, and to reach its first training step.

| arm | is |
| --- | --- |
| `help` | `scripts/train.py --help` |
| `refused_key` | a misspelt key, refused before anything heavy is imported |
| `refused_value` | an activation that does not exist, refused by the model |
| `first_step` | from the command to the end of the first optimizer step |
| `first_step_new_data` | the same where the images were never checked before |

Each is a process of its own, from its start to its end (`first_step`: to that instant). One run
of each comes first, untimed, so that files and bytecode are in the caches. In each round every arm
runs once, in an order that is drawn anew. The stages of `first_step` follow each other without a
gap.
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
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig

from fluoroscope.benchmark.rounds import (
    Result,
    alternate,
    at_most,
    conclude,
    console,
    described,
    place,
    shown,
    table,
)
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.stages import STAGES
from fluoroscope.benchmark.timing import spread
from fluoroscope.command.entry import CONF
from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import BAD_INPUT

SCRIPT = CONF.parent / "scripts/train.py"
OWN = ("benchmark.", "out=", "run.dir=")  # overrides that scripts/train.py does not know or share
HELP, FIRST_STEP, NEW_DATA = "help", "first_step", "first_step_new_data"
REFUSED = {"refused_key": "head.activatoin=relu", "refused_value": "head.activation=rleu"}
HELP_S = 0.5


class Sample(NamedTuple):
    """One run of a command, in seconds."""

    total_s: float
    stages_s: dict[str, float]  # of those that train


def main(job: Job) -> None:
    """Entry of `scripts/benchmark.py startup`."""
    conclude(job, measure(job, list(HydraConfig.get().overrides.task)), print_result)


def measure(job: Job, overrides: Sequence[str]) -> Result:
    """Run all arms.

    Args:
        overrides: of the command line; the training runs with those that are its own.

    Returns:
        What the JSON file holds; `arms` has the numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(Path(folder), [o for o in overrides if not o.startswith(OWN)])
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
    facts = described("startup", job, torch.device("cpu"))
    return facts | {"targets": targets, "arms": numbers}


class Commands:
    """The runs of each arm, in folders and caches of their own.

    Args:
        overrides: of the training.
    """

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides
        if not any(o.startswith("logger") for o in overrides):
            self.overrides = [*overrides, "logger.mode=offline"]
        self.numbers = count()

    def sample(self, arm: str) -> Sample:
        if arm == HELP:
            return Sample(self._run([str(SCRIPT), "--help"], 0), {})
        if arm in REFUSED:
            command = [str(SCRIPT), *self._training(), REFUSED[arm]]
            return Sample(self._run(command, BAD_INPUT), {})
        cache = self.folder / (f"cache-{next(self.numbers)}" if arm == NEW_DATA else "cache")
        return self._train(cache)

    def _training(self) -> list[str]:
        return [*self.overrides, f"run.dir={self.folder / f'run-{next(self.numbers)}'}"]

    def _train(self, cache: Path) -> Sample:
        file = self.folder / f"instants-{next(self.numbers)}.json"
        module = ["-m", "fluoroscope.benchmark.stages", str(file), str(SCRIPT)]
        started = time.time()
        self._run([*module, *self._training()], 0, XDG_CACHE_HOME=str(cache))
        return stages(started, json.loads(file.read_text()))

    def _run(self, command: list[str], code: int, **env: str) -> float:
        """Seconds that it takes.

        Raises:
            InputError: it ends otherwise than with this exit code; with the last line it said.
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
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise InputError(f"{' '.join(command)} failed: {' '.join(said)}")
        return seconds


def stages(started: float, at_s: Mapping[str, float]) -> Sample:
    """Lengths out of the instants at which the stages end; a stage begins where another ends."""
    lengths, before = {}, started
    for stage in STAGES:
        lengths[stage] = at_s[stage] - before
        before = at_s[stage]
    return Sample(before - started, lengths)


def compare(samples: Sequence[Sample]) -> Result:
    """Spread of an arm's total and of each stage."""
    names = samples[0].stages_s
    return {
        "seconds": spread([sample.total_s for sample in samples])._asdict(),
        "stages_s": {n: spread([s.stages_s[n] for s in samples])._asdict() for n in names},
    }


def print_result(result: Result) -> None:
    """Two tables: the arms, and where the time to the first step goes."""
    out = console()
    out.print(
        f"scripts/train.py, {result['backbone']}, {result['image_px']} px, batch "
        f"{result['batch_size']}, {place(result)}; {result['rounds']} rounds"
    )
    arms: dict[str, Any] = result["arms"]
    rows = {arm: [shown(numbers["seconds"], ".2f")] for arm, numbers in arms.items()}
    out.print(table(["arm", "seconds"], rows))
    found = [arms[arm]["stages_s"] for arm in (FIRST_STEP, NEW_DATA)]
    parts = {stage: [shown(each[stage], ".2f") for each in found] for stage in STAGES}
    out.print(table(["stage", FIRST_STEP, NEW_DATA], parts))
