import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from benchmarks import syncs
from benchmarks.fits import Repeated
from benchmarks.syncs import SyncsByStep, counting

CPU = torch.device("cpu")
X = torch.arange(6.0)
WAIT = {
    "item": X[2].item,
    "bool": lambda: bool(X[1] > 0),
    "float": lambda: float(X[0]),
    "int": lambda: int(X[0]),
    "index": lambda: [7, 8, 9][X[2].long()],
    "if": lambda: 1 if torch.isfinite(X).all() else 0,
    "tolist": X.tolist,
    "cpu": X.cpu,
    "numpy": X.numpy,
    "asarray": lambda: np.asarray(X),
    "nonzero": X.nonzero,
    "where": lambda: torch.where(X > 1),
    "mask": lambda: X[X > 2],
    "masked_select": lambda: X.masked_select(X > 2),
    "unique": X.unique,
    "equal": lambda: torch.equal(X, X),
    "repeat": lambda: torch.repeat_interleave(X, torch.tensor([1, 2, 1, 1, 1, 1])),
}
NO_WAIT = {
    "arithmetic": (X + 1).sum,
    "positions": lambda: X[torch.tensor([1, 2])],
    "choice": lambda: torch.where(X > 1, X, 0),
    "forward mode": lambda: torch.func.jvp(torch.tanh, (X,), (torch.ones(6),)),
    "norm": lambda: torch.nn.utils.get_total_norm([X, X]),
}


@pytest.mark.parametrize("name", WAIT)
def test_each_way_to_wait_counts_once(name):
    with counting(CPU) as count:
        WAIT[name]()
    assert count.count == 1


@pytest.mark.parametrize("name", NO_WAIT)
def test_work_that_stays_on_the_device_does_not_count(name):
    with counting(CPU) as count:
        NO_WAIT[name]()
    assert count.count == 0


def test_hooks_of_the_backward_pass_are_seen():
    x = X.clone().requires_grad_()
    x.register_hook(lambda grad: grad.sum().item() and None)
    with counting(CPU) as count:
        (x * 2).sum().backward()
    assert count.count == 1


def test_calls_after_the_block_do_not_count():
    with counting(CPU) as count:
        X[0].item()
    X.tolist()
    X[0].item()
    assert count.count == 1


def test_on_cuda_the_warnings_of_the_driver_are_counted(monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    with warnings.catch_warnings(record=True) as others, counting(torch.device("cuda")) as count:
        for _ in range(3):  # from one line, which Python would show once
            warnings.warn(f"{syncs.CUDA_WARNING} (Triggered internally)", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert count.count == 3
    assert modes == ["default", "warn", "default"]
    assert [str(other.message) for other in others] == ["something else"]


class Waiting(pl.LightningModule):
    """Waits as often as its batch has columns."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        for _ in range(batch.shape[1]):
            batch.sum().item()
        return self.layer(batch.mean().view(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("accumulate", "expected"), [(1, [3, 0, 2, 5]), (2, [3, 7])])
def test_syncs_of_each_optimizer_step(accumulate, expected, tmp_path):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    batches = [torch.ones(2, n) for n in (3, 0, 2, 5)]

    def fit(extra):
        batches_of = [torch.ones(2, b.shape[1] * extra) for b in batches]
        with counting(CPU) as count:
            steps = SyncsByStep(count)
            trainer = pl.Trainer(
                **dict.fromkeys(quiet, False),
                accelerator="cpu",
                max_epochs=1,
                accumulate_grad_batches=accumulate,
                default_root_dir=tmp_path,
                callbacks=[steps],
            )
            trainer.fit(Waiting(), train_dataloaders=Repeated(batches_of, 4))
        return steps.per_step

    extra = [on - off for on, off in zip(fit(1), fit(0), strict=True)]
    assert extra == expected
