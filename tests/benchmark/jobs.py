"""Measurements of a tiny network on tiny images."""

from hydra import compose, initialize_config_dir

from fluoroscope.benchmark.settings import check_benchmark
from fluoroscope.command.entry import CONF
from fluoroscope.command.run_one import register_resolvers
from tests.support.films import TINY

# Two optimizer steps between logs, four timed ones after one.
SMALL = [key for key in TINY if key not in ("data=folder", "data.batch_size=8")]
SMALL += ["data.batch_size=5", "benchmark.steps=4", "benchmark.rounds=2"]
SMALL += ["benchmark.warmup=1"]


def job(*overrides):
    """The checked job of `scripts/benchmark.py` with these overrides."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_benchmark(compose("benchmark", [*SMALL, *overrides]))
