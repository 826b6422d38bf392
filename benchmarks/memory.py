"""Memory of a large study table, in a run's process and its loader processes together.

python -m benchmarks.memory 400000 8              # rows, loader processes
python -m benchmarks.memory 400000 8 forkserver   # how Python 3.14 starts processes
"""

import gc
import os
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.data import datamodule, prefetch
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.study_table import study_table

LABELS = [f"finding {k}" for k in range(14)]
BATCH, BATCHES = (
    8,
    40,
)  # every loader process has served some when memory is measured
FEW = 2 * BATCH * BATCHES  # rows of the table that the large one is compared with


def main(rows: str, workers: str, method: str = "fork") -> None:
    """Print the MB that this many rows take beyond those of a small table."""
    peak_mb(FEW, int(workers), method)  # imports and first allocations are not counted
    few = peak_mb(FEW, int(workers), method)
    many = peak_mb(int(rows), int(workers), method)
    difference = f"{many - few:.0f} MB more than {FEW} rows ({many:.0f} against {few:.0f})"
    print(f"{int(rows):,} rows, {workers} loader processes by {method}: {difference}")


def peak_mb(rows: int, workers: int, method: str = "fork") -> float:
    """MB of this process and its children (proportional set size) in the middle of an epoch.

    Args:
        rows: images; their files are not read.
        workers: loader processes.
        method: start method of the loader processes.
    """
    data = XrayDataModule(large_table(rows), LABELS, 32, batch_size=BATCH, num_workers=workers)
    data._loading = lambda: _unread(workers, method)  # type: ignore[method-assign]
    batches = iter(data.train_dataloader())
    for _ in range(BATCHES):
        next(batches)
    time.sleep(1)  # until all loader processes are idle
    gc.collect()
    total = sum(map(pss_mb, family(os.getpid())))
    del batches
    gc.collect()
    return total


def large_table(rows: int) -> pd.DataFrame:
    """A study table like MIMIC-CXR's: paths of 90 characters, 14 labels, 3 rows per patient."""
    patients = [f"p{10_000_000 + row // 3}" for row in range(rows)]
    paths = [
        f"/data/mimic/files/{p[:3]}/{p}/s{row:08}/{sha256(b'%d' % row).hexdigest()[:44]}.jpg"
        for row, p in enumerate(patients)
    ]
    labels = np.random.default_rng(0).integers(0, 2, (rows, len(LABELS)), dtype=np.int8)
    named = pd.DataFrame(labels, columns=LABELS, copy=False)
    return study_table(paths, named, patients, ["train"] * rows, ["PA"] * rows)


def _unread(workers: int, method: str) -> dict[str, Any]:
    settings = prefetch.loading(workers, 1) | {"worker_init_fn": _read_nothing}
    return settings | ({"multiprocessing_context": method} if workers else {})


def _read_nothing(worker: int) -> None:
    datamodule.read_image = lambda path: np.zeros((32, 32), np.uint8)


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def pss_mb(pid: int) -> float:
    """Proportional set size: shared memory is divided among the processes that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
