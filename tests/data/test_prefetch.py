"""The order of copies and steps, on a machine without a GPU: CUDA's streams are stand-ins."""

import os

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader

from fluoroscope import build
from fluoroscope.data import prefetch
from fluoroscope.data.prefetch import DevicePrefetch, available_cores, loading, one_ahead
from tests.support.films import tiny_config

CPU = torch.device("cpu")


class Stream:
    """Of the host's thread, which notes what it is told."""

    current = None

    def __init__(self, told, name):
        self.told, self.name = told, name

    def record_event(self):
        event = f"event {sum(e.startswith('record') for e in self.told)}"
        self.told.append(f"record {event} on {self.name}")
        return event

    def wait_event(self, event):
        self.told.append(f"{self.name} waits for {event}")


class Entered:
    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        self.before, Stream.current = Stream.current, self.stream

    def __exit__(self, *error):
        Stream.current = self.before


@pytest.fixture
def told(monkeypatch):
    return replace_streams(monkeypatch)


def replace_streams(monkeypatch):
    """What the streams were told, in order; copies and steps put themselves in."""
    said = []
    Stream.current = main = Stream(said, "main")
    move = torch.Tensor.to

    def to(tensor, *args, non_blocking=False, **kwargs):
        said.append(f"copy on {Stream.current.name}, {'not ' * non_blocking}blocking")
        return move(tensor, *args, **kwargs).clone()

    def record_stream(tensor, stream):
        said.append(f"{stream.name} uses it")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(said, "side"))
    monkeypatch.setattr(torch.cuda, "stream", Entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    return said


def test_the_next_batch_is_copied_before_this_one_is_handed_out(told):
    batches = [{"image": torch.full((2, 3), float(i))} for i in range(3)]
    found = []
    for batch in DevicePrefetch(batches, CPU):
        told.append(f"step {int(batch['image'][0, 0])}")
        found.append(batch["image"])
    copied = ["copy on side, not blocking", "record event {} on side"]
    handed = ["main waits for event {0}", "main uses it", "step {0}"]
    order = [(copied, 0), (copied, 1), (handed, 0), (copied, 2), (handed, 1), (handed, 2)]
    expected = [line.format(i) for part, i in order for line in part]
    assert told == expected
    assert [torch.equal(a, b["image"]) for a, b in zip(found, batches, strict=True)] == [True] * 3


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead_leaves_nothing_out_and_takes_one_more(count):
    taken = []
    items = (taken.append(i) or i for i in range(count))
    found = []
    for item in one_ahead(items):
        found.append(item)
        assert len(taken) == min(item + 2, count)
    assert found == list(range(count))


@pytest.fixture
def data(films):
    cfg = tiny_config(films)
    return build.build_data(cfg, build.build_studies(cfg))


def test_the_rest_of_the_loader_is_visible(data):
    loader = data.train_dataloader()
    wrapped = DevicePrefetch(loader, CPU)
    assert len(wrapped) == len(loader) == 10
    for name in ("sampler", "batch_sampler", "batch_size", "dataset", "num_workers"):
        assert getattr(wrapped, name) is getattr(loader, name)
    _set_sampler_epoch(wrapped, 7)
    assert loader.sampler.epoch == 7
    with pytest.raises(AttributeError, match="epoch"):
        _ = wrapped.epoch


def test_lightning_can_end_its_workers(data):
    data.num_workers = 2
    wrapped = DevicePrefetch(data.train_dataloader(), CPU)
    iter(wrapped.loader)
    assert wrapped._iterator is wrapped.loader._iterator is not None
    wrapped._iterator._shutdown_workers()
    wrapped._iterator = None
    assert wrapped.loader._iterator is None
    assert len(list(wrapped.loader)) == 10  # with new ones


class Witness(pl.LightningModule):
    """Keeps what a trainer feeds it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.trainer.current_epoch, batch))
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.seen.append(("val", batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fed(data, witness=None, accelerator="cpu"):
    witness = witness or Witness()
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(witness, datamodule=data)
    return witness.seen


def test_a_trainer_is_fed_the_same_with_and_without(data, films, told, monkeypatch):
    plain = fed(data)
    made = []
    wrap = lambda self, loader: made.append(DevicePrefetch(loader, CPU)) or made[-1]  # noqa: E731
    monkeypatch.setattr(type(data), "_to_device", wrap)
    ahead = fed(data)
    assert len(made) == 2  # of training and validation
    assert [epoch for epoch, _ in plain] == [epoch for epoch, _ in ahead]
    assert [epoch for epoch, _ in plain].count(1) == 10
    for (_, a), (_, b) in zip(plain, ahead, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("device", "kind"), [("cpu", DataLoader), ("cuda:1", DevicePrefetch)])
def test_only_a_gpu_gets_its_batches_ahead(data, device, kind):
    from types import SimpleNamespace

    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, num_devices=1)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, kind)
    assert kind is DataLoader or loader.device == torch.device("cuda", 1)
    data.trainer = None
    assert isinstance(data.train_dataloader(), DataLoader)


@pytest.mark.parametrize(
    ("cores", "processes", "env", "expected"),
    [
        (12, 1, {}, 8),
        (12, 2, {}, 6),
        (12, 5, {}, 2),
        (2, 4, {}, 1),
        # srun: 4 tasks with 3 cores each, bound to them or not
        (12, 4, {"SLURM_CPUS_PER_TASK": "3", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, 3),
        (3, 4, {"SLURM_CPUS_PER_TASK": "3", "SLURM_NTASKS": "4", "SLURM_NNODES": "1"}, 3),
        # the script of a job, and a shell of one task in which Lightning starts four processes
        (12, 1, {"SLURM_CPUS_PER_TASK": "3", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, 3),
        (8, 4, {"SLURM_CPUS_PER_TASK": "8", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, 2),
        # torchrun as the one task of a job
        (12, 4, {"SLURM_CPUS_PER_TASK": "12", "LOCAL_WORLD_SIZE": "4"}, 3),
    ],
)
def test_the_processes_of_a_machine_share_its_cores(
    cores, processes, env, expected, monkeypatch, data
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert available_cores(processes) == expected
    assert loading(None, processes)["num_workers"] == expected
    assert loading(5, processes)["num_workers"] == 5
    assert loading(0, processes)["persistent_workers"] is False


def test_a_trainers_processes_are_counted(data, monkeypatch):
    from types import SimpleNamespace

    asked = []
    monkeypatch.setattr(prefetch, "available_cores", lambda processes: asked.append(processes) or 0)
    strategy = SimpleNamespace(root_device=CPU)
    data.num_workers = None
    data.train_dataloader()
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=1, world_size=6, num_devices=3)
    data.train_dataloader()
    assert asked == [1, 3]
