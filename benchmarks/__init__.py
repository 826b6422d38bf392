"""Measurements of the project's cost, for its maintainers; `fluoroscope` does not need them.

Run one from the root of the repository, with the keys of a training and those of `options.py`:

| command | measures |
| --- | --- |
| `python -m benchmarks.step` | the training step against a bare PyTorch loop and timm's own step |
| `python -m benchmarks.loader` | decoding and augmentation on one core; the loader over the step |
| `python -m benchmarks.startup` | seconds to `--help`, to a refusal, to the first training step |
| `python -m benchmarks.scaling` | images/s over processes, each with its own batch |
| `python -m benchmarks.diagnostics` | the cost of the monitor and of other ways to watch |
| `python -m benchmarks.gpu` | truth and speed on a GPU, in eight minutes: `make gpu` |
| `python -m benchmarks.memory ROWS WORKERS` | memory of a large study table |
| `python -m benchmarks.near_duplicates DIR` | how often the audit finds an altered copy of a film |
"""

import sys

WITH_KEYS = ("step", "loader", "startup", "scaling", "diagnostics")

if sys.argv[0] == "-m":  # `python -m benchmarks.NAME`: before NAME imports torch
    from fluoroscope.launch import process_setup

    process_setup.prepare()
    if sys.orig_argv[sys.orig_argv.index("-m") + 1].rpartition(".")[2] in WITH_KEYS:
        from benchmarks.options import check_first

        check_first(sys.argv[1:])
