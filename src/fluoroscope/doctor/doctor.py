"""Check a machine before a long run, and describe it for a bug report."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.text import Text

from fluoroscope.config.doctor import Job
from fluoroscope.console import make_console
from fluoroscope.doctor import gpu, machine, packages, services
from fluoroscope.doctor.check import BAD, NOTE, OK, Check, Found, run_check
from fluoroscope.doctor.collection import collection
from fluoroscope.errors import plural
from fluoroscope.launch.run_status import CRASH

SOON_S = 20.0  # for what needs no server; the first GPU's start takes seconds
IMPORT_S = 120.0  # PyTorch, from a slow disk
COLOURS = {OK: "green", NOTE: "yellow", BAD: "red"}


def main(job: Job) -> None:
    """Entry of `scripts/doctor.py`; ends with exit code 1 if there is a problem."""
    found = []
    for check in checks(job):
        found.append((check.part, run_check(check)))
        if not job.json:
            _print_line(*found[-1])
    problems = sum(line.state == BAD for _, line in found)
    if job.json:
        print(json.dumps([{"part": part, **line._asdict()} for part, line in found], indent=2))
    else:
        print(_end(problems))
    if problems:
        sys.exit(CRASH)


def checks(job: Job) -> Iterator[Check]:
    """All checks in the order of their lines; later ones need what earlier ones import."""
    cfg, trainer = job.train, job.train.trainer
    server_s = job.wait_s + 2  # the client needs some time itself
    devices = trainer.devices if isinstance(trainer.devices, int) else 1
    yield Check("fluoroscope", packages.program, SOON_S)
    yield Check("Python", machine.python, SOON_S)
    yield Check("Packages", packages.packages, SOON_S)
    yield Check("PyTorch", gpu.pytorch, IMPORT_S)
    yield Check("GPU", partial(gpu.gpu, trainer), SOON_S)
    yield Check("Cores", machine.processor, SOON_S)
    yield Check("Memory", machine.memory, SOON_S)
    yield Check("Shared memory", partial(machine.shared_memory, cfg, devices), SOON_S)
    yield Check("Disk", partial(machine.disk, Path(cfg.run.dir)), SOON_S)
    yield Check("Processes", partial(services.processes, cfg), SOON_S)
    yield Check("SLURM", partial(services.slurm, job.wait_s), 3 * job.wait_s)
    yield Check("W&B", partial(services.wandb, cfg.logger.mode, job.wait_s), SOON_S + server_s)
    yield Check("Weights", partial(services.hub, cfg), SOON_S + server_s)
    yield Check("Collection", partial(collection, cfg), job.look_s)


def _print_line(part: str, line: Found) -> None:
    told = f"{line.text}; {line.advice}" if line.advice else line.text
    text = Text.assemble((f"{line.state:8}", COLOURS[line.state]), f" {part:14} {told}")
    make_console().print(text, soft_wrap=True)


def _end(problems: int) -> str:
    if not problems:
        return "a run with these keys can start here"
    return f"{plural(problems, 'problem')}: a run with these keys would not start, or fail later"
