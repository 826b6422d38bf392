"""What `fluoroscope.watch` and its peers say about a layer whose dead units are known.

A layer of 1,000 units is made so that the truth is known: z of a unit is a standard normal number,
times its scale, plus its bias. On 20,000 rows

  200 units are dead: their gate is closed on every row;
  100 are rare: open on few rows, but not on none;
  100 are small: they learn, but their scale keeps every abs z below 0.001;
  200 are linear: their gate is open on every row;
  400 are none of these.

The peers' definitions are those of their documentation:
  traintools: a unit is dead if max abs a < 0.001 on one batch of 1,024 rows;
  fastai, ActivationStats: the share of values with a <= 0.05 ("near zero"), of the last batch;
  wandb.watch: a histogram with 64 bins of each gradient; shown is the share of the bias's gradient
  in the bin that holds zero, in the last batch.
The cost is measured by `python -m benchmarks.diagnostics 'benchmark.arms=[units,watch_all]'`.

Examples:
  python -m benchmarks.watch
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import fluoroscope
from benchmarks.rounds import Column, table
from fluoroscope.console import make_console
from fluoroscope.instrument import Units

ROWS, BATCH = 20_000, 1_024
DEAD, RARE, SMALL, LINEAR, PLAIN = 200, 100, 100, 200, 400
UNITS = DEAD + RARE + SMALL + LINEAR + PLAIN
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
# Bias of dead, rare and linear units. A normal number exceeds 3.3 on one of 2,000 rows. The gate
# of GELU is closed below -5.4; tanh is closed at both ends, and linear where its scale is small.
BIASES = {"relu": (-20.0, -3.3, 20.0), "gelu": (-20.0, -8.4, 20.0), "tanh": (20.0, 11.0, 0.0)}


class Layer(nn.Module):
    """Units whose pre-activations are `scale * x + bias`, for x `[B, 1000]` standard normal."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        dead, rare, linear = BIASES[activation]
        counts, biases = [DEAD, RARE, SMALL, LINEAR, PLAIN], [dead, rare, 0.0, linear, 0.0]
        scales = [1.0, 1.0, 2e-4, 0.05 if activation == "tanh" else 1.0, 1.0]
        self.bias = nn.Parameter(torch.tensor(np.repeat(biases, counts), dtype=torch.float32))
        self.scale = nn.Parameter(torch.tensor(np.repeat(scales, counts), dtype=torch.float32))
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        a: Tensor = self.act(self.scale * x + self.bias)
        return a


class Said(NamedTuple):
    """Shares, by who says so."""

    truth: float
    watch: float
    traintools: float
    fastai: float
    wandb: float


def say(activation: str, seed: int = 1) -> tuple[Said, Units]:
    """The truth, and what each instrument says about one pass over the rows."""
    generator = torch.Generator().manual_seed(seed)
    model = Layer(activation)
    with fluoroscope.watch(model) as units:
        for start in range(0, ROWS, BATCH):
            x = torch.randn(min(BATCH, ROWS - start), UNITS, generator=generator)
            model.zero_grad()
            a = model(x)
            a.square().sum().backward()
            if start == 0:
                traintools = float((a.abs().amax(dim=0) < 1e-3).double().mean())
    found = units.values()["units/train/act/dead_frac"]
    near_zero = float((a <= 0.05).double().mean())
    assert model.bias.grad is not None
    return Said(DEAD / UNITS, found, traintools, near_zero, bin_of_zero(model.bias.grad)), units


def bin_of_zero(gradient: Tensor) -> float:
    """Share of the values in the bin of a histogram with 64 bins that holds zero."""
    counts, edges = np.histogram(gradient.numpy(), bins=64)
    place = np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1)
    return float(counts[place] / counts.sum())


def main() -> None:
    """Print one row per activation."""
    rows = {name: say(name)[0]._asdict() for name in ACTIVATIONS}
    heads = {
        "truth": "dead units",
        "watch": "watch: dead",
        "traintools": "traintools: dead",
        "fastai": "fastai: near zero",
        "wandb": "wandb.watch: bin of zero",
    }
    columns = [Column(head, key, ".1%") for key, head in heads.items()]
    make_console().print(table("activation", columns, rows))


if __name__ == "__main__":
    main()
