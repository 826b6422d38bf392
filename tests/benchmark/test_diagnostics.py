"""The arms differ as they should, and the numbers arrive; nothing here depends on time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.loggers import WandbLogger

from fluoroscope.benchmark.arms import ExtraPass, callbacks
from fluoroscope.benchmark.diagnostics import compare, judge, measure, print_result
from fluoroscope.benchmark.settings import Benchmark, Own, check_benchmark
from fluoroscope.benchmark.timing import Block
from fluoroscope.benchmark.training import Training
from fluoroscope.command.entry import CONF
from fluoroscope.errors import InputError
from fluoroscope.run import loggers, run_folder
from tests.benchmark.jobs import job

ROOT = Path(__file__).parents[2]
ARMS = ["off", "monitor", "watch_gradients", "watch_all", "extra_pass"]


class Probe(pl.Callback):
    """What an arm put into the model, and how often the head ran."""

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
    training = Training(job(), tmp_path_factory.mktemp("arms"))
    for arm in ARMS:
        probes[arm] = Probe()
        training.fit(7, [*callbacks(arm, training), probes[arm]])
    loggers.finish(0)
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
    counter, training = ExtraPass(), Training(job(), tmp_path)
    with torch.no_grad():  # 9 of 31 units can never open
        training.model.head.dense.bias[:9] = -1e6
        training.model.head.dense.bias[9:] = 1e6
    training.fit(3, [counter])
    loggers.finish(0)
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


def test_the_monitor_waits_once_a_logged_step_and_never_between(measured):
    syncs = {arm: numbers["extra_syncs"] for arm, numbers in measured["arms"].items()}
    assert syncs["off"] == syncs["extra_pass"] == {"logged": 0, "between": 0}
    assert syncs["monitor"]["between"] == 0
    assert 0 < syncs["monitor"]["logged"] < syncs["watch_gradients"]["logged"]
    assert syncs["watch_gradients"]["logged"] < syncs["watch_all"]["logged"]


def test_the_result_says_what_was_measured_on_what(measured, tmp_path):
    run_folder.write_json(tmp_path / "r.json", measured)
    result = json.loads((tmp_path / "r.json").read_text())
    assert list(result["arms"]) == ARMS
    for numbers in result["arms"].values():
        assert len(numbers["steps_ms"]) == len(numbers["ends_ms"]) == result["rounds"] == 2
        assert min(numbers["steps_ms"]) > 0
    assert {"cpu", "cores", "device", "threads", "load"} == set(result["machine"])
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    told = ("backbone", "image_px", "batch_size", "precision", "steps", "every_n_steps")
    assert [result[key] for key in told] == ["test_efficientnet", 48, 5, "32-true", 4, 2]
    [target] = result["targets"]
    assert (target["at_most"], type(target["met"])) == (1.02, bool)


def test_the_table_has_a_row_an_arm(measured, capsys):
    print_result(measured)
    out = capsys.readouterr().out
    for arm, numbers in measured["arms"].items():
        ratio = numbers["step_ratio"]["median"]
        assert re.search(rf"^ *{arm} .* {ratio:.3f} ", out, re.MULTILINE), out
    assert "test_efficientnet, 48 px, batch 5, 32-true" in out


def test_an_arm_is_compared_with_off_of_its_round():
    blocks = {"off": [Block(2.0, 1.0, 4.0), Block(1.0, 1.0, 4.0)]}
    blocks["monitor"] = [Block(3.0, 1.5, 5.0)] * 2
    syncs = {"off": [4, 1, 4], "monitor": [4, 9, 5]}
    numbers = compare("monitor", blocks, syncs, job())
    assert numbers["step_ratio"] == {"median": 2.25, "low": 1.875, "high": 2.625}
    assert numbers["step_cpu_ratio"]["median"] == 1.25
    assert numbers["extra_end_ms"]["median"] == 500
    by_hand = [(100 * 3 + 1.5) / 201, (100 * 3 + 1.5) / 101]
    assert numbers["epoch_ratio"]["median"] == pytest.approx(sum(by_hand) / 2)
    assert numbers["extra_syncs"] == {"logged": 8, "between": 1}


def test_one_step_a_cadence_has_none_between():
    numbers = compare("off", {"off": [Block(1.0, 1.0, 1.0)]}, {"off": [3]}, job())
    assert numbers["extra_syncs"] == {"logged": 0, "between": None}


@pytest.mark.parametrize(
    ("device", "ratio", "expected"),
    [("cpu", 1.02, True), ("cpu", 1.03, False), ("cuda", 1.02, False), ("cuda", 1.01, True)],
)
def test_the_target_depends_on_the_device(device, ratio, expected):
    [target] = judge({"monitor": {"step_ratio": {"median": ratio}}}, device)
    assert (target["value"], target["met"]) == (ratio, expected)


def test_there_is_no_verdict_without_monitor_or_target():
    assert judge({"off": {}}, "cpu") == judge({"monitor": {}}, "mps") == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("benchmark.steps=5", "must be a multiple of diagnostics.every_n_steps=2"),
        ("diagnostics.enabled=false", "leaves nothing to measure"),
        ("run.resume=somewhere", "run.resume: a benchmark has no run to continue"),
        ("out=nowhere/r.json", "out: there is no folder nowhere"),
        ("benchmark.arms=[watch]", "benchmark.arms must be one of extra_pass, monitor, watch_all"),
        ("benchmark.rounds=0", "benchmark.rounds must be at least 1; got 0"),
        ("benchmark.warmup=0", "benchmark.warmup must be at least 1; got 0"),
        ("benchmark.images=0", "benchmark.images must be at least 1; got 0"),
        ("benchmark.processes=[2,0]", "benchmark.processes must be whole numbers of at least 1"),
        ("benchmark.processes=[]", "benchmark.processes must be whole numbers of at least 1"),
        ("data.batch_size=x", "data.batch_size must be a whole number"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(override, told):
    with pytest.raises(InputError) as error:
        job(override)
    assert told in str(error.value)


def test_several_processes_are_refused(tmp_path):
    with pytest.raises(InputError, match="a benchmark is of one process"):
        Training(job("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"), tmp_path)


def test_the_file_and_its_schema_have_the_same_keys():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        more = set(compose("benchmark")) - set(compose("train"))
        written = set(compose("benchmark").benchmark)
    assert more == set(Own.__dataclass_fields__)
    assert written == set(Benchmark.__dataclass_fields__)


def test_the_question_is_measured_as_it_is_asked():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train = check_benchmark(compose("benchmark", ["experiment=question"])).train
    assert train.backbone.name.startswith("tf_efficientnet_b4")
    assert (train.data.image_px, train.data.batch_size) == (380, 64)
    assert (train.trainer.accelerator, train.trainer.precision) == ("gpu", "bf16-mixed")


@pytest.mark.parametrize("word", ["", "diagnostcs"])
def test_an_unknown_measurement_is_refused(word, tmp_path):
    command = [sys.executable, str(ROOT / "scripts/benchmark.py"), *([word] if word else [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    choices = "diagnostics, loader, scaling, startup, step"
    told = f"fluoroscope: the first argument must be one of {choices}; got {word!r}"
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


def test_every_measurement_is_in_the_help(tmp_path):
    import runpy

    script = runpy.run_path(str(ROOT / "scripts/benchmark.py"))
    named = re.findall(r"^  (\w+)   ", script["__doc__"], re.MULTILINE)
    assert named == list(script["MEASUREMENTS"])
