"""The truths of this project on a CUDA device: `pytest -m gpu tests/gpu`, and their rehearsal by
the same code on a CPU: `pytest -m gpu --device=cpu tests/gpu`.
"""

import os

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from tests.support.fits import fuse_adamw

# cuBLAS reads it once, when CUDA starts, and deterministic algorithms ask for it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
FP16 = "16-mixed"


@pytest.fixture(autouse=True, scope="session")
def device(request):
    """What `--device` names; without it there is nothing to test."""
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; rehearse with --device=cpu")
    return device


@pytest.fixture(autouse=True)
def _exact():
    """Convolutions multiply in float32, which TF32 rounds to 11 bits; Lightning leaves the flags
    of an earlier trainer behind.
    """
    tf32, benchmark = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, benchmark


@pytest.fixture(scope="session")
def keys(device):
    """Overrides of a run on the device whose kernels give the same bits each time."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    return [f"trainer.accelerator={accelerator}", "trainer.deterministic=true"]


@pytest.fixture(scope="session")
def precise(device):
    """Arguments of Lightning's trainer for a precision, with the loss scaler on a CPU too."""

    def arguments(precision):
        if (precision, device.type) == (FP16, "cpu"):
            # Lightning itself would take bfloat16.
            return {"precision": None, "plugins": [MixedPrecision(FP16, "cpu")]}
        return {"precision": precision}

    return arguments


@pytest.fixture
def fused(monkeypatch, device):
    """The AdamW of a GPU."""
    if device.type == "cpu":
        fuse_adamw(monkeypatch)


@pytest.fixture(autouse=True)
def _same_seed():
    pl.seed_everything(7, verbose=False)
