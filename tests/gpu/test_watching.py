"""What it costs to watch a run on the device: no bit of a weight, no wait between the logged steps,
and a bounded amount of memory.
"""

import gc
import weakref
from contextlib import contextmanager

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.syncs import SyncsByStep, counting
from benchmarks.watchers import AsOnGpu
from fluoroscope import build
from fluoroscope.data.prefetch import DevicePrefetch
from fluoroscope.train import train
from tests.diagnostics.test_exactness import LEARNING
from tests.support.films import tiny_config
from tests.support.fits import fit

pytestmark = pytest.mark.gpu
LAYERS = "diagnostics.layers=[head.activation,'backbone.*']"
OFF = "diagnostics.enabled=false"
WAYS = {
    "float32, every layer": ("32-true", [LAYERS]),
    "bfloat16, clipped": ("bf16-mixed", ["trainer.gradient_clip_val=0.1"]),
    "float16, accumulated": ("16-mixed", ["trainer.accumulate_grad_batches=2"]),
}


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("way", WAYS)
def test_watching_changes_no_bit_of_the_weights(uneven, keys, precise, way):
    precision, more = WAYS[way]
    keys = [*LEARNING, *keys, *more]
    watched = fit(uneven, keys, **precise(precision))
    unwatched = fit(uneven, [*keys, OFF], **precise(precision))
    assert watched["digest"] == unwatched["digest"]
    assert (len(watched["last"]) > 40, unwatched["last"]) == (True, {})


EVERY = 5  # optimizer steps between two logs, of which an epoch has ten


def is_between(step):
    """Whether nothing is logged: the census at a multiple of `EVERY`, the loss just before it."""
    return step % EVERY not in (0, EVERY - 1)


class Guard(pl.Callback):
    """Makes it an error to wait for a CUDA device from the end of one step to that of the next, if
    that is one between the logged ones. Must be the last callback.
    """

    def __init__(self, device):
        self.device, self.steps, self.made = device, 0, None

    def on_train_start(self, trainer, pl_module):
        self.made = trainer.train_dataloader, trainer.optimizers[0].defaults["fused"]

    def on_train_batch_end(self, trainer, pl_module, *args):
        between = is_between(trainer.global_step)
        self.steps += between
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if between else "default")

    def on_exception(self, trainer, pl_module, error):
        if self.device.type == "cuda":  # Lightning cleans up, and waits
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def _debug_mode_ends(device):
    yield
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("fused", "_debug_mode_ends")
def test_a_run_waits_for_the_device_at_logged_steps_alone(
    films, tmp_path, keys, device, monkeypatch
):
    """A whole run, with all that `scripts/train.py` adds to it. On a CPU, where nothing waits: as
    often as without diagnostics.
    """
    keys = [keys[0], "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0", LAYERS]
    keys += [f"trainer.log_every_n_steps={EVERY}", f"diagnostics.every_n_steps={EVERY}"]
    fitting = build._fitting

    def run(name, more, *probes):
        with monkeypatch.context() as patch:
            patch.setattr(build, "_fitting", lambda *args: [*fitting(*args), *probes])
            train(tiny_config(films, *keys, "head.dropout=0.3", *more), tmp_path / name, [])

    guard = Guard(device)
    if device.type == "cuda":
        run("on", [], guard)
        assert isinstance(guard.made[0], DevicePrefetch)
    else:
        counts = {}
        for name, more in {"on": [], "off": [OFF]}.items():
            with counting(device) as syncs:
                steps = SyncsByStep(syncs)
                run(name, more, AsOnGpu(), *([guard] if name == "on" else []), steps)
            counts[name] = steps.per_step
        extra = [on - off for on, off in zip(counts["on"], counts["off"], strict=True)]
        assert [n for step, n in enumerate(extra) if is_between(step)] == [0] * 12
        assert min(extra[::EVERY]) > 0
    assert guard.made[1]
    assert guard.steps == 12


class LiveBytes(TorchDispatchMode):
    """Peak bytes of the tensors made inside the `with` block, as CUDA's allocator counts them."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive[key] = weakref.ref(storage, lambda _: self.remove(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def remove(self, key, size):
        del self.alive[key]
        self.now -= size

    def restart(self):
        self.peak = self.now


class OnCuda:
    """The same number by CUDA's allocator."""

    def __init__(self):
        self.before = torch.cuda.memory_allocated()

    def restart(self):
        torch.cuda.reset_peak_memory_stats()

    @property
    def peak(self):
        return torch.cuda.max_memory_allocated() - self.before


@contextmanager
def tracking(device):
    gc.collect()  # trainers are cycles, and hold what earlier fits have counted
    if device.type == "cuda":
        yield OnCuda()
    else:
        with LiveBytes() as memory:
            yield memory


class Peak(pl.Callback):
    """Of the training steps of an epoch after its first, in bytes; and what a bound depends on."""

    def __init__(self, memory):
        self.memory, self.batch = memory, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = sum(part.nbytes for part in batch.values())
        if batch_idx == 1:
            self.memory.restart()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            self.features = pl_module.head.dense.in_features
            self.buffers = sum(buffer.nbytes for buffer in pl_module.buffers())
        self.bytes = self.memory.peak


BATCH, WIDTH = 28, 70  # three steps an epoch


def peak(uneven, keys, device, *more):
    keys = [*keys, f"data.batch_size={BATCH}", "data.image_px=96", f"head.width={WIDTH}", *more]
    with tracking(device) as memory:
        probe = Peak(memory)
        fit(uneven, [*LEARNING[:2], *keys, "trainer.max_epochs=1"], [probe])
    return probe


def test_watching_takes_little_memory(uneven, keys, device):
    """Peaks of training steps, whose activations are the most that lives at once. Watching adds at
    most, each counted in full though they do not all live at that moment:

    - the batches since the last look of `NonFinite`, and its copy of the buffers;
    - in float64 the census: sums `[D, D]` of two windows, and their initial values;
    - three copies of the head's kernel `[D, F]`: of its birth, before the step, and a difference;
    - a batch's pre-activations, `[B, D]` in float64: the six moments, before and after they are
      stacked, and about as many more in the gates and their effect on the gradient.

    None of them grows with the backbone's activations, which the images of 96 px make large.
    """
    peak(uneven, keys, device, OFF)  # the workspaces of libraries, which stay
    off = peak(uneven, keys, device, OFF)
    on = peak(uneven, keys, device, "diagnostics.every_n_steps=3")
    bound = 3 * on.batch + on.buffers
    bound += 8 * (4 * WIDTH**2 + 3 * WIDTH * on.features + 24 * BATCH * WIDTH)
    blocks = 512 * 1024  # each tensor takes a multiple of 512 bytes
    assert 0 < on.bytes - off.bytes < bound + blocks
    assert bound + blocks < 0.1 * off.bytes
