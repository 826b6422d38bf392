"""Measure what the project costs, as ratios within one run.

Measurements:
  diagnostics   what watching costs: this project's monitor, wandb.watch, an extra forward pass

Examples:
  python scripts/benchmark.py diagnostics                                    # the default run
  python scripts/benchmark.py diagnostics experiment=question out=gpu.json   # EfficientNet-B4, GPU
  python scripts/benchmark.py diagnostics 'benchmark.arms=[monitor]' benchmark.rounds=20
"""

from fluoroscope.cli import command

MEASUREMENTS = {"diagnostics": "fluoroscope.benchmark.diagnostics:main"}

if __name__ == "__main__":
    check = "fluoroscope.benchmark.settings:check_benchmark"
    command(__doc__, "benchmark", MEASUREMENTS, check)
