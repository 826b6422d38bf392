"""SIGKILL at many moments: what is resumed each time ends as what was never stopped."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from fluoroscope.run import run_folder
from fluoroscope.run.preemption import SIGNALS
from fluoroscope.train import train
from tests.run.test_resume import assert_equal
from tests.support.films import tiny_config
from tests.support.forking import Forked

EPOCH_STEPS = 10
# Kills, and epochs to spread them over.
TRIALS = [(2, 2), pytest.param(20, 5, marks=pytest.mark.whole)]
SEED, LIMIT_S = 5, 120
KEYS = [
    "trainer.log_every_n_steps=1",
    "diagnostics.every_n_steps=3",
    "run.save_every_n_steps=2",
    "head.dropout=0.3",
    "optimizer.lr=1e-2",
    "diagnostics.revive_every_n_epochs=2",
]


def run(films: Path, folder: Path, writes_until_stuck: int | None, keys: list[str]) -> None:
    """The run from wherever it is.

    Args:
        writes_until_stuck: the checkpoint of this number is never written to its end.
    """
    save, written = torch.save, []

    def stuck(checkpoint, part):
        written.append(part)
        save(checkpoint, part)
        if len(written) == writes_until_stuck:
            os.truncate(part, part.stat().st_size // 2)
            (folder / "stuck").touch()
            time.sleep(LIMIT_S)

    torch.save = stuck
    cfg = tiny_config(films, *KEYS, *keys, f"run.dir={folder}", "run.resume=auto")
    train(cfg, folder, [])


def start(films, folder, epochs, writes_until_stuck=None, keys=()):
    keys = [f"trainer.max_epochs={epochs}", *keys]
    return Forked(partial(run, films, folder, writes_until_stuck, keys), folder.parent)


def wait_until(happened, process):
    until = time.monotonic() + LIMIT_S
    while not happened() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)


def kill_while_writing(films, folder, draw, epochs):
    """Half of a checkpoint is on the disk."""
    process = start(films, folder, epochs, draw.randint(1, 3))
    wait_until((folder / "stuck").exists, process)
    assert process.poll() is None, "the run ended before a checkpoint was written"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (folder / "stuck").unlink()


def kill_soon(films, folder, draw, epochs):
    """Some steps later, anywhere in a batch, a validation or a write."""
    goal = min(last_step(folder) + draw.randint(1, 4), epochs * EPOCH_STEPS - 1)
    process = start(films, folder, epochs)
    wait_until(lambda: last_step(folder) >= goal, process)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def last_step(folder):
    """The last one in `metrics.csv`; -1 before the first."""
    file = folder / run_folder.METRICS
    rows = file.read_text().splitlines()[1:] if file.exists() else []
    return int(rows[-1].partition(",")[0]) if rows and "," in rows[-1] else -1


def assert_sound(folder):
    """No file that has its name is half of itself."""
    for path in folder.glob("checkpoints/*.ckpt"):
        torch.load(path, weights_only=True)
    for name in (run_folder.PROVENANCE, run_folder.RESULT):
        if (folder / name).exists():
            run_folder.read_json(folder / name)


@pytest.mark.parametrize(("kills", "epochs"), TRIALS)
def test_kills_change_nothing(films, tmp_path, kills, epochs):
    (tmp_path / "whole").mkdir()
    whole = start(films, tmp_path / "whole/run", epochs)
    whole.wait()
    assert whole.returncode == 0
    draw, folder = random.Random(SEED), tmp_path / "killed/run"
    folder.mkdir(parents=True)
    reached = []
    for number in range(kills):
        kill = kill_while_writing if number % 4 == 0 else kill_soon
        kill(films, folder, draw, epochs)
        assert_sound(folder)
        found = [torch.load(path, weights_only=True) for path in folder.glob("checkpoints/*.ckpt")]
        reached.append(max((c["global_step"] for c in found), default=0))
    print(f"steps on the disk after each of {kills} kills: {reached}")
    last = start(films, folder, epochs)
    last.wait()
    assert last.returncode == 0
    assert_equal(tmp_path / "whole/run", folder)


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGINT,
        *(pytest.param(s, marks=pytest.mark.whole) for s in SIGNALS if s != signal.SIGINT),
    ],
)
def test_a_signal_to_every_process_of_a_run_spares_its_workers(films, tmp_path, signum):
    """As a scheduler sends it."""
    folder = tmp_path / "signalled/run"
    folder.mkdir(parents=True)
    process = start(films, folder, 500, keys=["data.num_workers=2"])
    wait_until(lambda: last_step(folder) >= 12, process)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    try:
        assert len(workers) >= 2
        for pid in [*map(int, workers), process.pid]:
            os.kill(pid, signum)
        process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signum
    assert run_folder.checkpoint(folder, "step").exists()
    assert not (folder / "failed.json").exists()
