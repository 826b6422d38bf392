"""Measurements of a tiny network on tiny images."""

from benchmarks.options import read_job
from tests.support.films import TINY

# Two optimizer steps between logs, four timed ones after one.
SMALL = [key for key in TINY if key not in ("data=folder", "data.batch_size=8")]
SMALL += ["data.batch_size=5", "benchmark.steps=4", "benchmark.rounds=2"]
SMALL += ["benchmark.warmup=1"]


def job(*overrides):
    """The checked job of `python -m benchmarks.NAME` with these overrides."""
    return read_job([*SMALL, *overrides])
