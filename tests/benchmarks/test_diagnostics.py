"""The arms differ as they should, and the numbers arrive; no test depends on time."""

import json
import re

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger

from benchmarks.diagnostics import compare, conclude, judge, measure
from benchmarks.fits import Block, Training
from benchmarks.watchers import ExtraPass, callbacks
from fluoroscope.errors import InputError
from tests.benchmarks.jobs import job

ARMS = ["off", "monitor", "watch_gradients", "watch_all", "extra_pass"]


class Probe(pl.Callback):
    """Counts the hooks that an arm adds to the model, and the forward passes of the head."""

    def __init__(self):
        self.forwards, self.modes, self.logs = 0, [], []

    def on_train_start(self, trainer, pl_module):
        head, run = pl_module.head, self.run(trainer)
        self.tapped = len(head._forward_pre_hooks) + len(head.activation._forward_pre_hooks)
        self.watched = len(run._torch._hook_handles)
        self.parameters = len(list(pl_module.parameters()))
        self.handle = head.dense.register_forward_hook(self.count)

    def run(self, trainer):
        return next(x for x in trainer.loggers if isinstance(x, WandbLogger)).experiment

    def count(self, dense, inputs, z):
        self.forwards += 1
        self.modes.append((dense.training, torch.is_grad_enabled(), len(z)))

    def on_train_end(self, trainer, pl_module):
        self.steps = trainer.global_step
        self.handle.remove()

    def on_fit_end(self, trainer, pl_module):
        self.left = len(self.run(trainer)._torch._hook_handles)
        self.left += len(pl_module.head.activation._forward_pre_hooks)


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A probe of a fit of each arm, one after the other with the same model."""
    probes = {}
    with Training(job(), tmp_path_factory.mktemp("arms")) as training:
        for arm in ARMS:
            probes[arm] = Probe()
            training.fit(7, [*callbacks(arm, training), probes[arm]])
    return probes


def test_only_the_monitor_taps_the_head(probed):
    tapped = {arm: probe.tapped for arm, probe in probed.items()}
    assert tapped.pop("monitor") >= 2
    assert set(tapped.values()) == {0}


def test_only_watching_hooks_the_parameters(probed):
    every = probed["off"].parameters
    watched = {arm: probe.watched for arm, probe in probed.items()}
    gradients, both = watched.pop("watch_gradients"), watched.pop("watch_all")
    assert (gradients, both) == (every, every + 1)  # one hook logs all parameters
    assert set(watched.values()) == {0}


def test_the_extra_pass_is_one_more_forward_of_each_batch(probed):
    forwards = {arm: probe.forwards for arm, probe in probed.items()}
    assert forwards.pop("extra_pass") == 14
    assert set(forwards.values()) == {7}
    assert {probe.steps for probe in probed.values()} == {7}
    assert probed["extra_pass"].modes == [(False, False, 5), (True, True, 5)] * 7


def test_nothing_of_an_arm_is_left_after_its_fit(probed):
    assert [probe.left for probe in probed.values()] == [0] * 5


def test_the_extra_pass_counts_units_that_are_zero_on_all_images(tmp_path):
    counter = ExtraPass()
    with Training(job(), tmp_path) as training:
        with torch.no_grad():  # 9 of 31 units can never open
            training.model.head.dense.bias[:9] = -1e6
            training.model.head.dense.bias[9:] = 1e6
        training.fit(3, [counter])
    assert counter.dead_frac == pytest.approx(9 / 31)


def test_a_unit_counts_as_dead_if_no_batch_opens_it():
    counter = ExtraPass()
    counter.on_train_start(None, None)
    for a in ([[0.0, 0, 0, 2], [0, 1, 0, 0]], [[0.0, 0, 3, 0], [0, 0, 0, 0]]):
        counter._count(None, (), torch.tensor(a))
    counter.on_train_epoch_end(None, None)
    assert counter.dead_frac == 1 / 4


@pytest.fixture(scope="module")
def measured():
    return measure(job())


@pytest.mark.whole
def test_the_monitor_waits_once_a_logged_step_and_never_between(measured):
    logged, between = (
        {arm: numbers[key] for arm, numbers in measured["arms"].items()}
        for key in ("syncs_logged", "syncs_between")
    )
    assert logged["off"] == logged["extra_pass"] == between["off"] == between["extra_pass"] == 0
    assert between["monitor"] == 0
    assert 0 < logged["monitor"] < logged["watch_gradients"] < logged["watch_all"]


def test_the_result_is_written_and_has_one_row_per_arm(measured, tmp_path, capsys):
    conclude(job(f"out={tmp_path}/r.json"), measured)
    result = json.loads((tmp_path / "r.json").read_text())
    out = capsys.readouterr().out
    assert list(result["arms"]) == ARMS
    for arm, numbers in result["arms"].items():
        assert len(numbers["steps_ms"]) == len(numbers["ends_ms"]) == result["rounds"] == 2
        assert min(numbers["steps_ms"]) > 0
        ratio = numbers["step_ratio"]["median"]
        assert re.search(rf"^ *{arm} .* {ratio:.3f} ", out, re.MULTILINE), out
    [target] = result["targets"]
    assert (target["at_most"], type(target["met"])) == (1.02, bool)


def test_an_arm_is_compared_with_off_of_its_round():
    blocks = {"off": [Block(2.0, 1.0, 4.0), Block(1.0, 1.0, 4.0)]}
    blocks["monitor"] = [Block(3.0, 1.5, 5.0)] * 2
    syncs = {"off": [4, 1, 4], "monitor": [4, 9, 5]}
    numbers = compare("monitor", blocks, syncs, epoch_steps=100)
    assert numbers["step_ratio"] == {"median": 2.25, "low": 1.875, "high": 2.625}
    assert numbers["step_cpu_ratio"]["median"] == 1.25
    assert numbers["extra_end_ms"]["median"] == 500
    by_hand = [(100 * 3 + 1.5) / 201, (100 * 3 + 1.5) / 101]
    assert numbers["epoch_ratio"]["median"] == pytest.approx(sum(by_hand) / 2)
    assert (numbers["syncs_logged"], numbers["syncs_between"]) == (8, 1)


def test_a_cadence_of_one_step_has_none_between():
    numbers = compare("off", {"off": [Block(1.0, 1.0, 1.0)]}, {"off": [3]}, 100)
    assert (numbers["syncs_logged"], numbers["syncs_between"]) == (0, None)


@pytest.mark.parametrize(
    ("device", "ratio", "expected"),
    [("cpu", 1.02, True), ("cpu", 1.03, False), ("cuda", 1.02, False), ("cuda", 1.01, True)],
)
def test_the_target_depends_on_the_device(device, ratio, expected):
    [target] = judge({"monitor": {"step_ratio": {"median": ratio}}}, device)
    assert (target["value"], target["met"]) == (ratio, expected)


def test_there_is_no_verdict_without_monitor_or_target():
    assert judge({"off": {}}, "cpu") == judge({"monitor": {}}, "mps") == []


def test_several_processes_are_refused(tmp_path):
    with pytest.raises(InputError, match="a benchmark runs in one process"):
        Training(job("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"), tmp_path)
