"""What machines do to a run: it stops in one sentence, goes on, and ends as an unbroken one."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fluoroscope import build
from fluoroscope.data import loader
from fluoroscope.errors import InputError
from fluoroscope.launch import refusals, run_status
from fluoroscope.run import run_folder, wandb_logger
from fluoroscope.run.preemption import Preempted
from fluoroscope.train import train
from tests.run.test_resume import assert_equal, weights
from tests.support import commands
from tests.support.films import tiny_config, write_films
from tests.support.forking import Forked

# Ten training batches an epoch and three of validation.
LONG = ["trainer.max_epochs=3", "trainer.log_every_n_steps=1", "diagnostics.every_n_steps=3"]
SHAKY = ["head.dropout=0.3", "optimizer.lr=1e-2", "optimizer.ema_decay=0.9"]
WORKERS = ["data.num_workers=2"]
KILLED = (
    "a loader process was killed (SIGKILL), usually for lack of memory or by a scheduler's memory "
    "limit; lower data.num_workers (now 2), or request more memory"
)


class At(pl.Callback):
    """Does something amid the step of a batch."""

    def __init__(self, epoch, batch, happen):
        self.place, self.happen = (epoch, batch), happen

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._batch = batch_idx

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if (trainer.current_epoch, self._batch) == self.place:
            self.happen(trainer)


def train_with(patch, cfg, folder, *happening):
    fitting = build._fitting
    patch.setattr(build, "_fitting", lambda *args: [*fitting(*args), At(*happening)])
    return train(cfg, folder, [])


def broken(cfg, folder, *happening):
    """The sentence of a run to which something happens; it goes on where there is one."""
    cfg = cfg.copy()
    cfg.run.resume = "auto"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError) as stopped:
        train_with(patch, cfg, folder, *(happening or (-1, -1, None)))
    failed = run_status.failure(folder)
    if failed is not None:  # there may be no room for it
        assert failed["exit_code"] == run_status.BAD_INPUT
        assert not re.search(r"/|\.png", failed["error"].replace("data/loader.py", ""))
    return refusals.sentence(stopped.value)


def ended(cfg, folder):
    """The run's folder once it has gone on to its end."""
    cfg = cfg.copy()
    cfg.run.resume = str(folder)
    train(cfg, folder, [])
    return folder


def place(folder):
    """Optimizer steps, finished epochs and batches of the next one in `step.ckpt`."""
    step = weights(folder, "step")
    return step["global_step"], step["epochs"], step["batches"]


def furthest(folder):
    """Optimizer steps that are kept; between two epochs `last.ckpt` has them all."""
    kept = [name for name in ("last", "step") if run_folder.checkpoint(folder, name).exists()]
    return max(weights(folder, name)["global_step"] for name in kept)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Films of this file alone, for some will vanish."""
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    """An unbroken run, without loader processes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_config(films, *LONG, *SHAKY), folder, [])
    return folder


def children(pid, name):
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(pid)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if name in line]


# Loader processes and images --------------------------------------------------------------------


def kill_one_of(name, signum=signal.SIGKILL):
    def happen(trainer):
        worker = getattr(trainer, name)._iterator._workers[1]
        os.kill(worker.pid, signum)
        worker.join(20)
        time.sleep(0.1)  # PyTorch's own handler would raise here

    return happen


def vanish(split):
    """An image that is not there any more when the last batch of the epoch asks for it."""

    def happen(trainer):
        data = trainer.datamodule
        draws = data.train_sampler()
        draws.set_epoch(trainer.current_epoch)
        last = list(draws)[-1][0] if split == "train" else -1
        path = Path(str(data._dataset(split).paths[last]))
        path.rename(path.with_suffix(".gone"))

    return happen


@pytest.fixture
def hasty(monkeypatch):
    """PyTorch's loader looks after its workers every five seconds."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


@pytest.mark.whole
def test_a_loader_that_fails_loses_no_step(films, whole, tmp_path, hasty):
    """One run to which four things happen: to a worker and an image of either loader."""
    cfg, folder = tiny_config(films, *LONG, *SHAKY, *WORKERS), tmp_path / "run"
    go_on = f"continue with run.resume={folder}"

    told = broken(cfg, folder, 0, 2, kill_one_of("train_dataloader"))
    assert told == f"{KILLED}, then {go_on}"
    steps, epochs, batches = place(folder)
    assert (3 <= steps < 10, epochs, batches) == (True, 0, steps)

    for split, batch, saved in (("train", 2, (19, 1, 9)), ("val", 9, (20, 1, 10))):
        told = broken(cfg, folder, 1, batch, vanish(split))
        (gone,) = films.glob("*/*.gone")
        gone.rename(path := gone.with_suffix(".png"))
        reason = f"cannot read image {path}: no such file or directory; correct this"
        assert told == f"{reason}, then {go_on}"
        assert place(folder) == saved

    told = broken(cfg, folder, 2, 4, kill_one_of("val_dataloaders"))  # validation will notice
    assert told == f"{KILLED}, then {go_on}"
    assert place(folder) == (30, 2, 10)
    assert_equal(whole, ended(cfg, folder))


@pytest.mark.parametrize(
    ("signum", "told"),
    [(signal.SIGSEGV, "ended by SIGSEGV; set data.num_workers=0"), (signal.SIGBUS, "/dev/shm")],
)
def test_other_ends_of_a_worker_are_told(films, tmp_path, hasty, signum, told):
    cfg = tiny_config(films, *LONG, *WORKERS)
    assert told in broken(cfg, tmp_path / "run", 0, 1, kill_one_of("train_dataloader", signum))


def die_slowly():
    """As the kernel ends a process: first what it has open, a while later itself."""
    os.closerange(3, 256)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_ending_is_waited_for():
    fork = multiprocessing.get_context("fork")
    dying, well = fork.Process(target=die_slowly), fork.Process(target=time.sleep, args=(60,))
    dying.start()
    well.start()
    try:
        assert loader._sentence(ConnectionResetError("reset by peer"), [dying, well]) == KILLED
        assert loader._sentence(ConnectionResetError("reset by peer"), [well]) == ""
    finally:
        well.kill()


def test_a_signal_that_takes_a_worker_along_is_still_obeyed(films, tmp_path, monkeypatch, hasty):
    def also_here(*args):
        signal.raise_signal(signal.SIGTERM)
        return sentence(*args)

    sentence = loader._sentence
    monkeypatch.setattr(loader, "_sentence", also_here)
    cfg, folder = tiny_config(films, *LONG, *WORKERS), tmp_path / "run"
    with pytest.raises(Preempted):
        train_with(monkeypatch, cfg, folder, 1, 2, kill_one_of("train_dataloader"))
    assert place(folder)[1:] > (1, 2)


def test_the_command_says_one_sentence(films, tmp_path):
    keys = ["trainer.max_epochs=10000", "trainer.log_every_n_steps=1", "head.norm=layer"]
    keys += ["run.dir=run", *WORKERS]
    process = commands.start(commands.tiny_arguments(films, *keys), tmp_path)
    commands.wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    logged = re.findall(r"^\d+", (tmp_path / "run/metrics.csv").read_text(), re.MULTILINE)
    os.kill(children(process.pid, "pt_data_worker")[0], signal.SIGKILL)
    code, out, err = commands.end(process)
    assert err == f"fluoroscope: {KILLED}, then continue with run.resume={tmp_path / 'run'}\n"
    assert code == run_status.BAD_INPUT
    assert "stopped" not in out
    assert furthest(tmp_path / "run") >= max(map(int, logged)) >= 9


def be_signalled(films, folder):
    """A run whose whole process group gets a signal, as from a terminal."""
    with pytest.MonkeyPatch.context() as patch:
        cfg = tiny_config(films, *LONG, *WORKERS, f"run.dir={folder}")
        train_with(patch, cfg, folder, 1, 4, lambda trainer: os.killpg(0, signal.SIGTERM))


def test_a_signal_to_the_process_group_leaves_the_loader_to_the_run(films, tmp_path):
    process = Forked(partial(be_signalled, films, tmp_path / "run"), tmp_path)
    assert process.wait(commands.LIMIT_S) == 128 + signal.SIGTERM
    assert place(tmp_path / "run") == (15, 1, 5)


# A full disk ------------------------------------------------------------------------------------


def no_room_for(file, trainer=None):
    """From now on a file, or what is written aside of it, can get no byte."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.rename(file.with_name("kept"))
    file.symlink_to("/dev/full")


def room_for(file):
    file.unlink(missing_ok=True)
    if file.with_name("kept").exists():
        file.with_name("kept").rename(file)


@pytest.mark.whole
def test_a_file_without_room_stops_the_run_until_there_is_some(films, whole, tmp_path):
    """One run to which it happens in every epoch, and again and again when it ends."""
    cfg, folder = tiny_config(films, *LONG, *SHAKY), tmp_path / "run"
    place, go_on = f"cannot write the run in {folder}", f"continue with run.resume={folder}"
    checkpoint = f"cannot write {folder}/checkpoints"
    whole_before = "the previous one is intact; "
    for epoch, (name, start, middle) in enumerate(
        [
            ("checkpoints/.best.ckpt.part", f"{checkpoint}/best.ckpt (", ""),
            ("checkpoints/.last.ckpt.part", f"{checkpoint}/last.ckpt (", whole_before),
            ("metrics.csv", f"{place} (No space left on device); ", ""),
        ]
    ):
        told = broken(cfg, folder, epoch, 7, partial(no_room_for, folder / name))
        assert told.startswith(start)
        assert told.endswith(f"); {middle}free disk space and {go_on}")
        assert told.count("/run") == 2
        room_for(folder / name)
        assert weights(folder)["epochs"] == [1, 1, 2][epoch]
        assert not list(folder.glob("checkpoints/.*"))
    for name in ("gate_open.npy", "gate_open.png", "predictions/.test.csv.part"):
        no_room_for(folder / name)
        assert (
            broken(cfg, folder) == f"{place} (No space left on device); free disk space and {go_on}"
        )
        room_for(folder / name)
        assert weights(folder)["epochs"] == 3
    assert_equal(whole, ended(cfg, folder))


@contextmanager
def disk(folder, kib):
    """A file system of its own; it needs root, and a system that lets root mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file, trainer=None):
    """Until the disk has not one block left."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def test_a_run_on_a_full_disk_stops_until_there_is_room(films, whole, tmp_path):
    with disk(tmp_path / "disk", 16_384) as place:
        cfg = tiny_config(films, *LONG, *SHAKY, "logger=wandb", "logger.mode=offline")
        folder, ballast = place / "run", place / "ballast"
        told = broken(cfg, folder, 1, 4, partial(fill, ballast))
        wandb_logger.finish(1)
        assert told.startswith("cannot write ")
        assert re.search(
            r"(No space left on device|no more)\); .*free disk space and continue", told
        )
        for checkpoint in ("last", "best"):
            assert weights(folder, checkpoint)["epochs"] == 1
        ballast.unlink()
        ended(cfg, folder)
        wandb_logger.finish(0)
        shutil.rmtree(folder / "wandb")
        assert_equal(whole, folder)


# W&B's own process ------------------------------------------------------------------------------


def kill_wandb(trainer=None):
    (pid,) = children(os.getpid(), "wandb-core")
    os.kill(pid, signal.SIGKILL)


def test_a_run_goes_on_without_the_process_of_w_and_b(films, whole, tmp_path, capfd):
    cfg, folder = tiny_config(films, *LONG, *SHAKY, "logger=wandb"), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        train_with(patch, cfg, folder, 1, 4, kill_wandb)
    wandb_logger.finish(0)
    out, err = capfd.readouterr()
    lines = [line for line in out.splitlines() if "its own process" in line]
    (copy,) = folder.glob("wandb/offline-run-*")
    assert lines == [
        "W&B: its own process ended; training continues without it",
        "W&B: its own process ended before the run; "
        f"`wandb sync --include-online {copy}` uploads the rest",
    ]
    assert "Traceback" not in err
    shutil.rmtree(folder / "wandb")
    assert_equal(whole, folder)
