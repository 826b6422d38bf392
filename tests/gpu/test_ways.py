"""Ways of training on the device that change no number, or only by rounding."""

import math
import os
import shutil

import pytest
import torch
from torch import distributed

from tests.diagnostics.test_exactness import LEARNING, counted
from tests.model.test_evaluation_step import assert_inference_changes_nothing
from tests.support.fits import fit, trace_only

pytestmark = pytest.mark.gpu
# Of a fit whose weights hardly move, for AdamW makes whole steps of rounding.
STILL = ["optimizer.lr=1e-9", "optimizer.backbone_lr=1e-9"]
NO_VALIDATION = {"limit_val_batches": 0, "num_sanity_val_steps": 0}


@pytest.fixture(scope="module")
def plain(uneven, keys):
    return fit(uneven, [*LEARNING, *keys])


def assert_same_numbers(told, expected):
    """What is counted exactly, and the rest within rounding."""
    for key, value in counted(expected["last"]).items():
        assert told["last"][key] == pytest.approx(value, rel=0, abs=0, nan_ok=True), key
    for key, value in expected["last"].items():
        assert told["last"][key] == pytest.approx(value, rel=1e-4, nan_ok=True), key
    assert len(expected["last"]) > 40


@pytest.fixture(scope="module")
def still(uneven, keys):
    """The numbers of a fit whose weights stand still."""
    return fit(uneven, [*LEARNING, *keys, *STILL])["last"]


def assert_near(last, expected):
    """Equal within rounding, by which a pre-activation may fall on the other side of zero."""
    for key, value in counted(last).items():
        assert value == pytest.approx(expected[key], rel=0, abs=1e-2, nan_ok=True), key
    for key in ("grad/l2/head", "grad/l2/head_dense", "grad/features_l2", "grad/l2/total"):
        assert last[key] == pytest.approx(expected[key], rel=1e-2), key
    assert len(counted(last)) >= 13


def test_a_checkpointed_backbone_has_the_same_gradients_and_census(uneven, keys, plain):
    told = fit(uneven, [*LEARNING, *keys, "backbone.grad_checkpointing=true"])
    assert_same_numbers(told, plain)


@pytest.fixture
def _compiler(device, monkeypatch):
    """Inductor on a GPU; on a CPU, where it takes a minute, AOTAutograd's graphs run eagerly."""
    if device.type == "cpu":
        trace_only(monkeypatch, "aot_eager")
    elif shutil.which(os.environ.get("CC", "gcc")) is None and shutil.which("cc") is None:
        pytest.skip("triton needs a C compiler")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_compiler")
def test_a_compiled_backbone_is_watched_and_has_the_same_census(uneven, keys, still):
    """One graph, that of training: it takes inductor tens of seconds."""
    keys = [*LEARNING, *keys, *STILL]
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    told = fit(uneven, [*keys, "backbone.compile=true"], **NO_VALIDATION)["last"]
    assert graphs["unique_graphs"] > before
    crossing = {f"units/train/{name}_frac" for name in ("newly_dead", "revived")}
    missing = {key for key, value in told.items() if math.isnan(value)}
    assert missing == crossing
    assert told.keys() == {key for key in still if "/val/" not in key}
    assert_near(told, still)


@pytest.fixture
def _alone(monkeypatch):
    """The process group and the variables of a world of one end with the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Lightning would take all cores, here and later
    before = dict(os.environ)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.mark.usefixtures("_alone")
def test_a_world_of_one_is_no_world(uneven, keys, device, still):
    """NCCL on a GPU, gloo on a CPU, which has no synchronised batch norm within a group."""
    synced = device.type == "cuda"
    world = ["trainer=ddp", "trainer.devices=1", f"trainer.sync_batchnorm={str(synced).lower()}"]
    # The keys of a group come first; Lightning's own conversion takes activations out.
    told = fit(uneven, [*world, *LEARNING, *STILL, *keys], sync_batchnorm=False)
    assert distributed.get_backend() == ("nccl" if synced else "gloo")
    assert distributed.get_world_size() == 1
    assert told["last"].keys() == still.keys()
    assert_near(told["last"], still)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_inference_mode_gives_the_bits_of_no_grad(films, monkeypatch, keys, precision):
    assert_inference_changes_nothing(films, monkeypatch, *keys, f"trainer.precision={precision}")
