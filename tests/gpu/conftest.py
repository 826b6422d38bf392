"""The truths of this project on a CUDA device: `pytest -m gpu tests/gpu`, and their rehearsal by
the same code on a CPU: `pytest -m gpu --device=cpu tests/gpu`.
"""

import os

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from tests.support.fits import fuse_adamw

# cuBLAS reads it once, when CUDA starts, and deterministic algorithms ask for it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
FP16 = "16-mixed"


@pytest.fixture(autouse=True, scope="session")
def device(request):
    """What `--device` names; without it there is nothing to test. Convolutions multiply float32 as
    such, which TF32 would round to 11 bits.
    """
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; rehearse with --device=cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield device


@pytest.fixture(autouse=True)
def _any_algorithms():
    """Lightning leaves the flag of an earlier trainer behind."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(False)


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
