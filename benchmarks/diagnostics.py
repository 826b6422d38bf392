"""The cost of watching a training: this project's diagnostics and other ways, in one run.

An arm is a way to watch; `off` watches nothing. A block is a fit of one arm, by Lightning's own
trainer, of the same model on the same images, which lie on the device already: no loader is
measured. Every arm has the same loggers, `metrics.csv` and an offline W&B run, and logs its loss
every `diagnostics.every_n_steps`, as often as the others log what they watch.

Every arm has one block per round, in an order that is drawn anew. A block is a multiple of
`diagnostics.every_n_steps` long, so that it has its share of logged steps. The ratio to `off` is
taken within a round. The same ratio of this process's processor time stands beside it: other users
of the machine disturb it less, but it does not include the GPU or W&B's own process. The end of an
epoch, where the census is computed, is timed separately and shared by `benchmark.epoch_steps`.

Syncs are counted in fits before the rounds, which also warm up the process. One step of each
cadence is logged: the table shows by how many syncs the worst step exceeds the same step of `off`,
and by how many the worst of the others does. A CPU has no device to wait for; the count there is
that of a GPU run, see `syncs.counting`.

Examples:
  python -m benchmarks.diagnostics 'benchmark.arms=[monitor]' benchmark.rounds=20
"""

import tempfile
from pathlib import Path

from benchmarks.fits import Block, Training
from benchmarks.options import Job, Result, run
from benchmarks.rounds import (
    Column,
    alternate,
    at_most,
    describe_job,
    ratio,
    spread,
    write_and_print,
)
from benchmarks.syncs import SyncsByStep, counting
from benchmarks.watchers import MONITOR, OFF, AsOnGpu, callbacks

TARGETS = {"cuda": 1.01, "cpu": 1.02}  # monitor / off, a training step
COLUMNS = (
    Column("ms/step", "step_ms", ".1f"),
    Column("/ off", "step_ratio"),
    Column("CPU", "step_cpu_ratio"),
    Column("end, ms", "extra_end_ms", "+.1f"),
    Column("epoch", "epoch_ratio"),
    Column("syncs logged", "syncs_logged", "d"),
    Column("between", "syncs_between", "d"),
)


def measure(job: Job) -> Result:
    """Run all arms; `arms` of the result holds their numbers."""
    arms = list(dict.fromkeys([OFF, *job.benchmark.arms]))
    with tempfile.TemporaryDirectory() as folder, Training(job, Path(folder)) as training:

        def time_block(arm: str) -> Block:
            training.restart()
            return training.time(callbacks(arm, training))

        syncs = {arm: count_syncs(training, arm) for arm in arms}
        blocks = alternate(
            arms,
            job.benchmark.rounds,
            job.train.seed,
            time_block,
            lambda block: f"{1e3 * block.step_s:.1f} ms",
        )
        facts = describe_job("diagnostics", job, training.device) | {
            "every_n_steps": job.train.diagnostics.every_n_steps,
            "layers": list(job.train.diagnostics.layers),
            "epoch_steps": job.benchmark.epoch_steps,
        }
        numbers = {arm: compare(arm, blocks, syncs, job.benchmark.epoch_steps) for arm in arms}
        return facts | {"targets": judge(numbers, training.device.type), "arms": numbers}


def judge(numbers: Result, device: str) -> list[Result]:
    """The target of the monitor's step; none if the device has no target or the arm is missing."""
    if device not in TARGETS or MONITOR not in numbers:
        return []
    step_ratio = numbers[MONITOR]["step_ratio"]["median"]
    return [at_most(f"{MONITOR} / {OFF}, time of a step", step_ratio, TARGETS[device])]


def count_syncs(training: Training, arm: str) -> list[int]:
    """Syncs of each optimizer step of one cadence, after the warm-up, without the epoch's last."""
    warmup, every = training.options.warmup, training.cfg.diagnostics.every_n_steps
    with counting(training.device) as syncs:
        steps = SyncsByStep(syncs)
        training.fit(warmup + every + 1, [*callbacks(arm, training), AsOnGpu(), steps])
    return steps.per_step[warmup : warmup + every]


def compare(
    arm: str, blocks: dict[str, list[Block]], syncs: dict[str, list[int]], epoch_steps: int
) -> Result:
    """An arm against `off` of the same round."""
    steps_s, off_s = ([block.step_s for block in blocks[name]] for name in (arm, OFF))
    cpu_s, off_cpu_s = ([block.step_cpu_s for block in blocks[name]] for name in (arm, OFF))
    ends_s, off_ends_s = ([block.end_s for block in blocks[name]] for name in (arm, OFF))
    epochs_s = [epoch_steps * step + end for step, end in zip(steps_s, ends_s, strict=True)]
    off_epochs_s = [epoch_steps * step + end for step, end in zip(off_s, off_ends_s, strict=True)]
    extra = sorted(a - b for a, b in zip(syncs[arm], syncs[OFF], strict=True))
    return {
        "step_ms": spread([1e3 * second for second in steps_s]),
        "step_ratio": ratio(steps_s, off_s),
        "step_cpu_ratio": ratio(cpu_s, off_cpu_s),
        "extra_end_ms": spread([1e3 * (a - b) for a, b in zip(ends_s, off_ends_s, strict=True)]),
        "epoch_ratio": ratio(epochs_s, off_epochs_s),
        "syncs_logged": extra[-1],
        "syncs_between": extra[-2] if extra[1:] else None,
        "steps_ms": [1e3 * second for second in steps_s],
        "steps_cpu_ms": [1e3 * second for second in cpu_s],
        "ends_ms": [1e3 * second for second in ends_s],
    }


def conclude(job: Job, result: Result) -> None:
    """Write and print the result."""
    note = (
        f"CPU: processor time / {OFF}; end: milliseconds more than {OFF} after the last batch; "
        f"epoch: {result['epoch_steps']} steps and the end / {OFF}; syncs: more than {OFF}"
    )
    write_and_print(job, result, COLUMNS, note)


if __name__ == "__main__":
    run(__doc__ or "", measure, conclude)
