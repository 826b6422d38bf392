"""The heads of a pass, and the objects that they share."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.plugins import Precision
from torch import nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.ablation.record import HeadRecord
from fluoroscope.config.train import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.model.head import Head
from fluoroscope.model.loss import MaskedLoss
from fluoroscope.model.scores import Predictions

Row = dict[str, float]


class Member:
    """One head of a pass: its configuration and, after training, its results.

    Attributes:
        rows: logged numbers, one dict per call of `log`, with `step` and `epoch`.
        scores, predictions: for `val` and `test`, at the epoch with the best validation AUROC.
        thresholds: chosen on the validation set at that epoch, `[K]`.
        best_epoch: counted from 0; -1 before the first validation.
        failed: the error if the head diverged, which also ends its log.
    """

    def __init__(self, cfg: Train, head: Head) -> None:
        self.cfg, self.head = cfg, head
        self.record: HeadRecord
        self.rows: list[Row] = []
        self.scores: dict[str, dict[str, float]] = {}
        self.predictions: dict[str, Predictions] = {}
        self.thresholds = torch.empty(0)
        self.best_epoch, self.best_auroc = -1, -math.inf
        self.epochs = self.steps = 0
        self.failed: InputError | None = None

    def log(self, step: int, epoch: int, values: Row) -> None:
        """Add a row, unless the head has diverged."""
        if self.failed is None:
            self.rows.append({"step": step, "epoch": epoch, **values})


class Lane(NamedTuple):
    """Members that share a bank and an optimizer."""

    members: list[Member]
    bank: HeadBank
    optimizer: torch.optim.Optimizer
    schedule: Any


class Batches(NamedTuple):
    """The frozen backbone, data and loss that all heads of a pass share."""

    backbone: nn.Module
    data: XrayDataModule
    loss: MaskedLoss
    device: torch.device
    precision: Precision
    own_scores: Mapping[str, Callable[..., float]] = MappingProxyType({})  # see `scores.score`


def lanes(members: Sequence[Member]) -> Iterator[list[Member]]:
    """Groups of members that can share a bank and an optimizer."""

    def key(member: Member) -> str:
        head, optimizer = member.cfg.head, member.cfg.optimizer
        rates = (optimizer.lr, optimizer.weight_decay, optimizer.warmup_frac)
        return repr((*rates, head.width, head.norm, head.norm_momentum))

    for _, group in groupby(sorted(members, key=key), key=key):
        yield list(group)


def draws(lane: Lane, place: tuple[int, int]) -> list[int] | None:
    """Dropout seed of each head for one batch, as in `Classifier`; None without dropout.

    Args:
        place: epoch, and number of the batch in it.
    """
    if all(member.head.dropout.p == 0 for member in lane.members):
        return None
    entropy = [(member.cfg.seed, *place, 0) for member in lane.members]
    return [int(np.random.SeedSequence(e).generate_state(1)[0]) for e in entropy]
