"""One process of a training that `scaling` starts; the first writes down how fast it was.

python -m fluoroscope.benchmark.member JOB.yaml PROCESSES OUT.json
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from omegaconf import OmegaConf

from fluoroscope.benchmark.settings import Benchmark, Job
from fluoroscope.command import run_one
from fluoroscope.config.schema import check
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError
from fluoroscope.launch import process_setup
from fluoroscope.launch.run_status import BAD_INPUT


def main(file: str, processes: str, out: str) -> None:
    process_setup.prepare()
    try:
        values = _train(read(Path(file)), int(processes))
    except InputError as error:
        run_one.say(error)
        sys.exit(BAD_INPUT)
    if int(os.environ.get("RANK", "0")) == 0:
        Path(out).write_text(json.dumps(values))


def _train(own: Job, processes: int) -> dict[str, float]:
    """The fields of a `Block`, and the threads of this process."""
    import torch

    from fluoroscope.benchmark.arms import MONITOR, callbacks
    from fluoroscope.benchmark.step import fit
    from fluoroscope.benchmark.training import Training
    from fluoroscope.run import loggers
    from fluoroscope.train import hush

    hush()
    warmup = own.benchmark.warmup
    with tempfile.TemporaryDirectory() as folder:
        training = Training(own, Path(folder), processes)
        watching = callbacks(MONITOR, training)
        block = fit(training, warmup + own.benchmark.steps, warmup, watching)
        loggers.finish(0)
    return {**block._asdict(), "threads": torch.get_num_threads()}


def write(own: Job, file: Path) -> None:
    """A job for `read`, in another process."""
    parts = {"train": own.train, "benchmark": own.benchmark}
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(parts)))


def read(file: Path) -> Job:
    parts = OmegaConf.load(file)
    return Job(check_train(parts.train), check(parts.benchmark, Benchmark()), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
