"""Measure what the project costs, as ratios within one run.

Measurements:
  step          the training step against a bare PyTorch loop and timm's own; memory, FLOP/s
  loader        decoding and augmentation a core, raw against prepared files; headroom over the step
  startup       time to --help, to a refusal, to the first training step, and where it goes
  scaling       images/s over processes, each with its own batch
  diagnostics   what watching costs: this project's monitor, wandb.watch, an extra forward pass

Examples:
  python scripts/benchmark.py step                                           # the default run
  python scripts/benchmark.py step experiment=question out=gpu.json          # EfficientNet-B4, GPU
  python scripts/benchmark.py loader data=nih14 data.root=DIR benchmark.images=512
  python scripts/benchmark.py scaling trainer.accelerator=cpu 'benchmark.processes=[1,2]'
  python scripts/benchmark.py diagnostics 'benchmark.arms=[monitor]' benchmark.rounds=20
"""

from fluoroscope.command.entry import command

NAMES = ("step", "loader", "startup", "scaling", "diagnostics")
MEASUREMENTS = {name: f"fluoroscope.benchmark.{name}:main" for name in NAMES}

if __name__ == "__main__":
    check = "fluoroscope.benchmark.settings:check_benchmark"
    command(__doc__, "benchmark", MEASUREMENTS, check)
