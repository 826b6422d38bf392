"""One optimizer step of a toy classifier under the real monitor."""

import copy
import warnings
from functools import cache

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.model.head import Head
from tests.diagnostics.truth import Truth, cases
from tests.diagnostics.truth.shares import normal
from tests.diagnostics.truth.transmission import KEYS, STRAIGHT, by_autograd

B, C, F, D, K, LR, DECAY = 8, 5, 13, 19, 3, 0.03, 0.2
DEAD, DARK = 4, 2  # units, and images that open none


class Toy(pl.LightningModule):
    """A linear backbone and the head, in float64."""

    def __init__(self, optimizer, norm):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = nn.Linear(C, F), Head(F, K, width=D, norm=norm)
        self.make_optimizer = optimizer
        self.double()

    def training_step(self, batch, batch_idx):
        return self.loss(self.head(self.backbone(batch["image"])), batch["target"])

    def loss(self, logits, target):
        known = ~target.isnan()
        return binary_cross_entropy_with_logits(logits[known], target[known])

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=LR),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY),
}


def step_by_hand(grad, weight):
    """Adam's moments after one step, corrected for their start, are the gradient and its square."""
    return {"sgd": LR * grad, "adamw": LR * (grad / (grad.abs() + 1e-8) + DECAY * weight)}


def make_batch(toy, images):
    """Units dead by their bias; images of zeros, on which every unit is; one without a label."""
    image = normal(images, C, dtype=torch.float64)
    image[:DARK] = 0
    target = (normal(images, K, seed=1) > 0).double()
    target[-1] = float("nan")
    with torch.no_grad():
        toy.backbone.bias.zero_()
        toy.head.dense.bias.fill_(-0.01)
        toy.head.dense.bias[:DEAD] = -100
    return {"image": image, "target": target}


@cache
def one_step(optimizer, norm="none", images=B):
    """The toy before the step, with its gradients; the batch; the monitor's numbers."""
    toy, monitor = Toy(OPTIMIZERS[optimizer], norm), Monitor(every_n_steps=1)
    batch = make_batch(toy, images)
    before = copy.deepcopy(toy)
    before.training_step(batch, 0).backward()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(toy, DataLoader([batch], batch_size=None))
    return before, batch, monitor.history.last


@cases(*OPTIMIZERS)
def update_ratio_of_the_first_step(name):
    before, _, last = one_step(name)
    weight = before.head.dense.weight
    step = step_by_hand(weight.grad, weight.detach())[name]
    formula = {"sgd": "lr norm(g) / norm(w)", "adamw": "lr norm(sign(g) + decay w) / norm(w)"}[name]
    expected = (step.norm() / weight.norm()).item()
    return Truth(formula, expected, last["grad/update_ratio"], 1e-9, "float64")


SHARES = {
    "grad/starved_frac": (DEAD, D),
    "grad/features_zero_frac": (DARK, B - 1),  # of those with a label
    "units/train/dead_frac": (DEAD, D),
    "units/train/blackout_frac": (DARK, B),
}


@cases(*SHARES)
def share_of_dead_units_and_dark_images(key):
    part, whole = SHARES[key]
    return Truth(f"{part} / {whole}", part / whole, one_step("sgd")[2][key], 1e-7, "float32")


@cases(*[(norm, key) for norm in ("batch", "none") for key in KEYS])
def logged_gate_effect(norm, key):
    toy, batch, last = one_step("sgd", norm, images=23)
    f = toy.backbone(batch["image"]).detach()
    logits = toy.head(f)
    cotangent = torch.autograd.grad(toy.loss(logits, batch["target"]), logits)[0]
    expected = by_autograd(toy.head, f, toy.head.dense(f), cotangent)[key]
    return Truth(STRAIGHT, expected, last[f"grad/{key}"], 1e-9, "float64")
