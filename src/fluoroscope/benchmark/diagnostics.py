"""What watching a training costs: this project's diagnostics and other ways, in one run.

An arm is a way to watch; `off` watches nothing. A block is a fit of one arm, by Lightning's own
trainer, of the same model on the same images, which lie on the device already: no loader is in the
measurement. Every arm has the same loggers, `metrics.csv` and an offline W&B run, and logs its loss
as often as the others log what they watch, every `diagnostics.every_n_steps`.

In each round every arm has one block, in an order that is drawn anew, so that no arm always follows
the same one. The step's time is taken from the end of the warm-up to the end of the last batch; the
block is a multiple of `diagnostics.every_n_steps` long, so that logged steps have their share. The
ratio to `off` is taken within a round, where the machine is in the same state, and the rounds give
its median and quartiles. The same ratio of this process's processor time stands beside it: others
on the machine disturb it less, but of a GPU and of W&B's own process it says nothing. What an arm
does at the end of an epoch (the census is computed there) is timed apart, and spread over
`benchmark.epoch_steps`.

Syncs are counted in fits of their own, before the rounds, which also warm the process up. Of the
steps of one cadence, one is logged: the table shows by how many syncs the worst step exceeds the
same step of `off`, and by how many the worst of the others. A CPU has nothing to wait for; there
it is what a GPU run would wait for, see `syncs.counting`.
"""

import tempfile
from pathlib import Path

from fluoroscope.benchmark.arms import MONITOR, OFF, AsOnGpu, callbacks
from fluoroscope.benchmark.rounds import (
    Result,
    alternate,
    at_most,
    conclude,
    console,
    described,
    place,
    table,
)
from fluoroscope.benchmark.settings import Job
from fluoroscope.benchmark.syncs import SyncsByStep, counting
from fluoroscope.benchmark.timing import (
    Block,
    Clock,
    epoch_ratio,
    extra_end_ms,
    spread,
    step_cpu_ratio,
    step_ratio,
)
from fluoroscope.benchmark.training import Training
from fluoroscope.run import loggers
from fluoroscope.train import hush

TARGETS = {"cuda": 1.01, "cpu": 1.02}  # monitor / off, a training step


def main(job: Job) -> None:
    """Entry of `scripts/benchmark.py diagnostics`."""
    hush()
    result = measure(job)
    conclude(job, result, print_result)


def measure(job: Job) -> Result:
    """Run all arms.

    Returns:
        What the JSON file holds; `arms` has the numbers.
    """
    arms = list(dict.fromkeys([OFF, *job.benchmark.arms]))
    with tempfile.TemporaryDirectory() as folder:
        training = Training(job, Path(folder))
        try:
            syncs = {arm: count_syncs(training, arm, job) for arm in arms}
            blocks = time_rounds(training, arms, job)
        finally:
            loggers.finish(0)
    numbers = {arm: compare(arm, blocks, syncs, job) for arm in arms}
    targets = judge(numbers, training.device.type)
    return describe(job, training) | {"targets": targets, "arms": numbers}


def judge(numbers: Result, device: str) -> list[Result]:
    """The target of the monitor's step on this kind of device; none without one, or no monitor."""
    if device not in TARGETS or MONITOR not in numbers:
        return []
    ratio = numbers[MONITOR]["step_ratio"]["median"]
    return [at_most(f"{MONITOR} / {OFF}, time of a step", ratio, TARGETS[device])]


def describe(job: Job, training: Training) -> Result:
    """What was measured, on what."""
    return described("diagnostics", job, training.device) | {
        "every_n_steps": job.train.diagnostics.every_n_steps,
        "layers": list(job.train.diagnostics.layers),
        "steps": job.benchmark.steps,
        "epoch_steps": job.benchmark.epoch_steps,
    }


def count_syncs(training: Training, arm: str, job: Job) -> list[int]:
    """Of each optimizer step of one cadence, after the warm-up and before an epoch's last step."""
    warmup, every = job.benchmark.warmup, job.train.diagnostics.every_n_steps
    added = [*callbacks(arm, training), AsOnGpu()]
    with counting(training.device) as syncs:
        steps = SyncsByStep(syncs)
        training.fit(warmup + every + 1, [*added, steps])
    return steps.per_step[warmup : warmup + every]


def time_rounds(training: Training, arms: list[str], job: Job) -> dict[str, list[Block]]:
    """A block of every arm in every round."""
    return alternate(
        arms,
        job.benchmark.rounds,
        job.train.seed,
        lambda arm: time_block(training, arm, job),
        lambda block: f"{1e3 * block.step_s:.1f} ms",
    )


def time_block(training: Training, arm: str, job: Job) -> Block:
    training.restart()
    clock = Clock(job.benchmark.warmup)
    steps = job.benchmark.warmup + job.benchmark.steps
    training.fit(steps, [*callbacks(arm, training), clock])
    return clock.block


def compare(
    arm: str, blocks: dict[str, list[Block]], syncs: dict[str, list[int]], job: Job
) -> Result:
    """An arm against `off`."""
    mine, off = blocks[arm], blocks[OFF]
    steps_ms = [1e3 * block.step_s for block in mine]
    extra = sorted(a - b for a, b in zip(syncs[arm], syncs[OFF], strict=True))
    return {
        "step_ms": spread(steps_ms)._asdict(),
        "step_ratio": step_ratio(mine, off)._asdict(),
        "step_cpu_ratio": step_cpu_ratio(mine, off)._asdict(),
        "extra_end_ms": extra_end_ms(mine, off)._asdict(),
        "epoch_ratio": epoch_ratio(mine, off, job.benchmark.epoch_steps)._asdict(),
        "extra_syncs": {"logged": extra[-1], "between": extra[-2] if extra[1:] else None},
        "steps_ms": steps_ms,
        "steps_cpu_ms": [1e3 * block.step_cpu_s for block in mine],
        "ends_ms": [1e3 * block.end_s for block in mine],
    }


def print_result(result: Result) -> None:
    """The numbers as a table, and whether the target is met."""
    out = console()
    out.print(
        f"{result['backbone']}, {result['image_px']} px, batch {result['batch_size']}, "
        f"{result['precision']}, {place(result)}; {result['rounds']} rounds of "
        f"{result['steps']} steps"
    )
    heads = ["arm", "ms/step", "/ off", "quartiles", "CPU", "end, ms", "epoch", "syncs"]
    out.print(table(heads, {arm: _cells(n) for arm, n in result["arms"].items()}))
    out.print(
        f"CPU: processor time / {OFF}; end: more than {OFF} after the last batch\n"
        f"epoch: {result['epoch_steps']} steps and the end / {OFF}; syncs: more than {OFF} at the "
        "logged step, and between"
    )


def _cells(numbers: Result) -> list[str]:
    ratio, syncs = numbers["step_ratio"], numbers["extra_syncs"]
    return [
        f"{numbers['step_ms']['median']:.1f}",
        f"{ratio['median']:.3f}",
        f"{ratio['low']:.3f}-{ratio['high']:.3f}",
        f"{numbers['step_cpu_ratio']['median']:.3f}",
        f"{numbers['extra_end_ms']['median']:+.1f}",
        f"{numbers['epoch_ratio']['median']:.3f}",
        f"{syncs['logged']}, {'-' if syncs['between'] is None else syncs['between']}",
    ]
