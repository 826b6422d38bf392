"""A loss or gradient that is not finite, on the device: no weight moves before the run stops."""

import pytest

from fluoroscope.diagnostics.nonfinite import NonFinite
from tests.diagnostics.test_nonfinite import BAD_STEP, CASES, Broken, Delayed

pytestmark = pytest.mark.gpu
LOOK = 18  # the first step after it at which the host looks


@pytest.fixture
def watch(device):
    """On a GPU the callback itself waits for a look; on a CPU it has to be told to."""
    return NonFinite if device.type == "cuda" else Delayed


def assert_untouched(run):
    """The weights are those before the bad step, and finite."""
    weights = [name for name, _ in run.model.named_parameters()]
    assert run.weights_equal(run.recorder.states[BAD_STEP], weights)
    assert all(v.isfinite().all() for v in run.model.state_dict().values())


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("how", "precision"), [("features", "32-true"), ("gradient", "bf16-mixed"), ("loss", "32-true")]
)
def test_the_fused_optimizer_skips_until_the_host_looks(
    films, tmp_path, keys, watch, how, precision
):
    keys = [*keys, "trainer.gradient_clip_val=1.0", f"trainer.precision={precision}"]
    run = Broken(films, tmp_path, how, watch=watch, keys=keys)
    assert not run.watch.immediate
    assert len(run.recorder.rows) == LOOK + 1
    assert f"training stopped at optimizer step {BAD_STEP} in epoch 2: {CASES[how]}" in run.error
    assert_untouched(run)
    saved = run.checkpoint()
    (place,) = saved["nonfinite"]["batches"]
    assert place["index"] == run.recorder.rows[BAD_STEP]
    steps = {float(s["step"]) for s in saved["optimizer_states"][0]["state"].values()}
    assert steps == {float(BAD_STEP)}


def test_the_loss_scaler_skips_a_gradient_and_the_loss_stops(films, tmp_path, keys, precise, watch):
    """Both in float16, where the optimizer is not fused."""
    run = Broken(films, tmp_path / "g", "gradient", watch=watch, keys=keys, **precise("16-mixed"))
    assert run.error is None
    assert all(v.isfinite().all() for v in run.model.state_dict().values())
    run = Broken(films, tmp_path / "l", "loss", watch=watch, keys=keys, **precise("16-mixed"))
    assert f"training stopped at optimizer step {BAD_STEP} in epoch 2: the loss" in run.error
    assert len(run.recorder.rows) == LOOK + 1
    assert_untouched(run)
