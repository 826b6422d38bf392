"""The arithmetic of a training step, and what a chip could do of it."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# Dense 16-bit tensor operations a second with 32-bit accumulation, without sparsity, by what is in
# the device's name; the first that is in it counts. Source: NVIDIA's data sheets.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(device: str, precision: str) -> float | None:
    """Of a chip by its name; None where it, or the precision, is not in the table."""
    if precision not in ("bf16-mixed", "16-mixed"):
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)


def step_flops(backbone: nn.Module, head: nn.Module, image: Tensor, frozen: bool) -> int:
    """Floating-point operations of a training step of one image `[1, 1, H, W]`.

    Matrix products and convolutions, a multiplication and an addition each: once forward, twice
    that backward, but for a frozen backbone. What checkpointing computes again does not count.
    torch's own count of the backward pass is not used: it takes the weights' gradient of a
    depthwise convolution for that of a full one.
    """
    modes = {part: part.training for top in (backbone, head) for part in top.modules()}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        try:
            forward, features = _count(backbone.eval(), image)
            tail, _ = _count(head.eval(), features)
        finally:
            for part, mode in modes.items():
                part.training = mode
    return (1 if frozen else 3) * forward + 3 * tail


def _count(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    with FlopCounterMode(display=False) as counter:
        y = module(x)
    return counter.get_total_flops(), y
