"""A thousand steps and more: memory stays what it was, and logs grow by what is logged."""

import ctypes
import gc
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from rich.cells import cached_cell_len

from fluoroscope import build
from fluoroscope.launch import process_setup
from fluoroscope.run import wandb_logger
from fluoroscope.train import train
from tests.support.commands import end
from tests.support.films import tiny_config, write_films
from tests.support.forking import Forked
from tests.support.wandb_log import OfflineRun, end_wandb

EPOCHS = (20, 40)
pytestmark = pytest.mark.whole
BATCHES, EVERY = 51, 20  # 102 films, two a step
# A network of one block that sees 32 px as one patch: some milliseconds a step.
SMALL = [
    "data.batch_size=2",
    "data.image_px=32",
    "data.augment=[]",
    "data.val_frac=0.075",
    "data.test_frac=0.075",
    "backbone.name=test_vit",
    "++backbone.args.depth=1",
    "++backbone.args.img_size=32",
    "++backbone.args.patch_size=32",
    "head.width=8",
    f"trainer.log_every_n_steps={EVERY}",
    f"diagnostics.every_n_steps={EVERY}",
    "diagnostics.layers=[head.activation,backbone.*]",
    "diagnostics.revive_every_n_epochs=3",
    "run.save_every_n_steps=100",
    "logger=wandb",
    "logger.mode=offline",
]


class Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def bytes_in_use():
    """What was asked of malloc and not given back; Python's small objects are not among it."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    info = mallinfo2()
    return info.uordblks + info.hblkhd


class Memory(pl.Callback):
    """At two steps the memory in use, by who gives it; every 100 what the process has taken."""

    def __init__(self, epochs):
        # After the first of these steps everything was once what it will be.
        self.settled, self.last = 10 * epochs, 50 * epochs
        self.measured = {"taken_kib": [], "bytes": [], "blocks": [], "objects": []}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        step = trainer.global_step
        if step % 100 or step > self.last:
            return
        gc.collect()  # what it has not come to yet is no leak
        cached_cell_len.cache_clear()  # nor is rich's memory of the last 4,096 texts
        if step == self.settled // 2:
            gc.freeze()  # a look at everything there is takes long
        if step in (self.settled, self.last):
            self.measured["bytes"].append(bytes_in_use())
            self.measured["blocks"].append(sys.getallocatedblocks())
            self.measured["objects"].append(len(gc.get_objects()))
        if step >= self.settled:
            status = Path("/proc/self/status").read_text()
            taken = re.search(r"RssAnon:\s+(\d+) kB", status)[1]
            self.measured["taken_kib"].append(int(taken))


def run(films, folder, epochs):
    process_setup.prepare()  # it tells the allocator to keep what was freed
    memory, fitting = Memory(epochs), build._fitting
    build._fitting = lambda *args: [*fitting(*args), memory]
    train(
        tiny_config(films, *SMALL, f"trainer.max_epochs={epochs}", f"run.dir={folder}"), folder, []
    )
    wandb_logger.finish(0)
    end_wandb()
    (folder / "memory.json").write_text(json.dumps(memory.measured))


@pytest.fixture(scope="module", params=EPOCHS)
def epochs(request):
    return request.param


@pytest.fixture(scope="module")
def long(epochs, tmp_path_factory):
    """The run folder, and what was printed."""
    films, folder = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("long") / "run"
    process = Forked(partial(run, write_films(films), folder, epochs), folder.parent)
    code, out, err = end(process, 500)
    assert code == 0, err
    return folder, out


@pytest.fixture(scope="module")
def folder(long):
    return long[0]


def test_memory_is_flat(folder, epochs):
    memory = json.loads((folder / "memory.json").read_text())
    grown = {what: values[-1] - values[0] for what, values in memory.items()}
    assert grown["bytes"] < 128 * 1024, memory  # 80 a step
    assert grown["blocks"] < 0.8 * 40 * epochs, memory  # less than a small object a step
    assert grown["objects"] < 10 * epochs, memory  # a map of gates, and rows of units that died
    # Blunt: this grows where nothing is lost, and not where what is lost fills a gap.
    assert grown["taken_kib"] < 16 * 1024, memory


def test_logs_grow_by_what_is_logged(folder, epochs):
    """Steps by the monitor and by Lightning, both windows of each epoch, the test."""
    rows = BATCHES * epochs // EVERY * 2 + epochs * 2 + 1
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    assert len(lines) == rows
    columns, values = header.count(",") + 1, [len(re.findall("[^,]+", line)) for line in lines]
    assert all(len(line) < columns + 24 * n for line, n in zip(lines, values, strict=True))

    sent = OfflineRun(folder)
    assert len(sent.history) == rows + epochs * 2 + 2  # histograms, gate map, post-mortem
    keys = sum(map(len, sent.history))
    histograms = epochs * 4
    assert sent.file.stat().st_size < 60 * keys + 3_500 * histograms + 40_000
    client = list(sent.folder.glob("logs/*.log"))
    assert sum(path.stat().st_size for path in client if not path.is_symlink()) < 10_000


def test_the_console_gets_a_line_an_epoch(long, epochs):
    lines = long[1].splitlines()
    told = [line for line in lines if re.match(rf"epoch +\d+/{epochs} ", line)]
    anew = [line for line in lines if line.endswith("anew")]
    assert len(told) == epochs
    assert len(anew) <= epochs // 3
    assert len(lines) - len(told) - len(anew) < 40  # the beginning, the end, alerts
