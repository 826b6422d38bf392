"""Gradient norms and the optimizer's step on the device, recomputed in float64."""

import math

import pytest
import pytorch_lightning as pl
import torch

from fluoroscope.diagnostics.monitor import HeadListener
from tests.support.fits import fit

pytestmark = pytest.mark.gpu
PARTS = {
    "total": "",
    "backbone": "backbone.",
    "head": "head.",
    "head_dense": "head.dense.",
    "head_norm": "head.norm.",
    "head_out": "head.out.",
}
KEYS = ["diagnostics.every_n_steps=1", "trainer.max_epochs=1", "head.bias_init=-0.0025"]
OUT = "grad/l2/head_out"
NO_VALIDATION = {"limit_val_batches": 0, "num_sanity_val_steps": 0}
STILL = ["optimizer.lr=1e-9", "optimizer.backbone_lr=1e-9"]


def norm(tensors):
    """In float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


class Told(HeadListener):
    """The numbers of each logged step."""

    def __init__(self):
        self.steps = []

    def on_head_step(self, trainer, pl_module, values):
        self.steps.append(values)


class Unscaled(pl.Callback):
    """Norms of each step's gradients as the backward pass leaves them, over the loss scale."""

    def __init__(self):
        self.norms = []

    def on_fit_start(self, trainer, pl_module):
        pl_module.head.register_forward_pre_hook(self.watch_features)
        self.scaler = getattr(trainer.precision_plugin, "scaler", None)

    def watch_features(self, head, inputs):
        if head.training:
            inputs[0].register_hook(lambda gradient: setattr(self, "df", gradient.double()))

    def on_after_backward(self, trainer, pl_module):
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        grads = {n: p.grad.double() / scale for n, p in pl_module.named_parameters()}
        of = {
            f"grad/l2/{part}": norm(g for name, g in grads.items() if name.startswith(prefix))
            for part, prefix in PARTS.items()
        }
        self.norms.append(of | {"grad/features_l2": norm([self.df / scale])})


def measure(uneven, keys, arguments):
    told, unscaled = Told(), Unscaled()
    fit(uneven, [*KEYS, *keys], [told, unscaled], **arguments, **NO_VALIDATION)
    return told.steps, unscaled.norms


@pytest.fixture(scope="module")
def in_float32(uneven, keys, precise):
    return measure(uneven, [*keys, *STILL], precise("32-true"))[1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_logged_norms_are_those_of_the_unscaled_gradients(
    uneven, keys, precise, in_float32, precision
):
    """The weights stand still, so that the output layer's are also about those of float32, from
    which a loss scale that is left in, or taken out twice, differs by a power of two.
    """
    steps, norms = measure(uneven, [*keys, *STILL], precise(precision))
    assert len(steps) == len(norms) == len(in_float32) == 10
    finite = 0
    for step, expected, near in zip(steps, norms, in_float32, strict=True):
        for key, value in expected.items():
            # Sums of float32 squares; a norm of one that overflowed is infinite or NaN in both.
            assert step[key] == pytest.approx(value, rel=1e-5, nan_ok=True), key
        if math.isfinite(expected["grad/l2/total"]):
            finite += 1
            assert 2**-0.5 < expected[OUT] / near[OUT] < 2**0.5
    assert finite >= 3  # the loss scaler finds its scale in the first few


class StepByHand(pl.Callback):
    """AdamW in float64 on clipped gradients: how far each step's weights are from it.

    Args:
        clip: largest norm of the gradient.
    """

    BETAS, EPS = (0.9, 0.999), 1e-8

    def __init__(self, clip):
        self.clip, self.steps = clip, 0
        self.moments, self.clipped, self.total, self.apart = {}, [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        assert optimizer.defaults["fused"]
        self.steps += 1
        groups = optimizer.param_groups
        total = norm(p.grad for group in groups for p in group["params"])
        factor = min(1.0, self.clip / total)
        self.total.append(total)
        self.clipped.append(factor * total)
        self.expected = [
            (p, group["lr"], self.step(p, factor * p.grad.double(), group))
            for group in groups
            for p in group["params"]
        ]

    def step(self, p, grad, group):
        zero = torch.zeros_like(grad)
        m, v = self.moments.get(p, (zero, zero))
        b1, b2 = self.BETAS
        m, v = self.moments[p] = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
        m, v = m / (1 - b1**self.steps), v / (1 - b2**self.steps)
        weight = p.detach().double() * (1 - group["lr"] * group["weight_decay"])
        return weight - group["lr"] * m / (v.sqrt() + self.EPS)

    def on_train_batch_end(self, trainer, pl_module, *args):
        """The distance in units of what rounding allows: twice of the weight, and of the step."""
        eps = torch.finfo(torch.float32).eps
        for p, lr, expected in self.expected:
            allowed = 2 * eps * expected.abs() + 5e-4 * lr
            self.apart.append(float(((p.detach() - expected).abs() / allowed).max()))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_fused_step_is_adamw_on_clipped_gradients(uneven, keys, precise, precision):
    told, hand = Told(), StepByHand(clip=0.05)
    keys = [*keys, *KEYS, "trainer.gradient_clip_val=0.05", "optimizer.weight_decay=0.3"]
    fit(uneven, keys, [told, hand], **precise(precision), **NO_VALIDATION)
    assert min(hand.total) > 2 * 0.05
    assert max(hand.apart) < 1
    assert len(hand.apart) > 100
    for values, total, clipped in zip(told.steps, hand.total, hand.clipped, strict=True):
        assert values["grad/l2/total"] == pytest.approx(total, rel=1e-5)
        assert values["grad/l2/total_clipped"] == pytest.approx(clipped, rel=1e-4)
