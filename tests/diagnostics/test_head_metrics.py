"""The numbers of a head from tensors alone: against numpy, and against both adapters."""

import ast
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.ablation.record import HeadRecord, SharedFeatures
from fluoroscope.diagnostics import head_metrics
from fluoroscope.diagnostics.census import gate
from fluoroscope.diagnostics.head_metrics import HeadMetrics
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.window_state import head_state, restore_head
from fluoroscope.model.head import Head

B, F, D, K, STEPS, LR = 23, 7, 13, 3, 2, 0.05
DEAD, DARK = 4, 2  # units that no image opens, images that open no unit


def batches():
    """Images of zeros open no unit; the last image has no label."""
    found = []
    for seed in range(STEPS):
        draws = np.random.default_rng(seed)
        f, y = draws.standard_normal((B, F)), draws.integers(0, 2, (B, K)).astype(float)
        f[:DARK], y[-1] = 0, np.nan
        found.append((torch.tensor(f), torch.tensor(y)))
    return found


def loss_of(logits, target):
    known = ~target.isnan()
    return binary_cross_entropy_with_logits(logits[known], target[known])


class Foreign:
    """A network in bare tensors: `relu(f W^T + b) V^T`, trained by hand."""

    def __init__(self):
        draws = np.random.default_rng(9)
        bias = np.full(D, -0.01)
        bias[:DEAD] = -100
        arrays = draws.standard_normal((D, F)), bias, draws.standard_normal((K, D))
        self.w, self.b, self.v = (nn.Parameter(torch.tensor(array)) for array in arrays)

    def pre_activation(self, f):
        return f @ self.w.T + self.b


@pytest.fixture(scope="module")
def foreign():
    """The numbers of two steps and the window, and those that numpy finds."""
    net = Foreign()
    parts = {"total": [net.w, net.b, net.v], "dense": [net.w]}
    metrics = HeadMetrics(nn.ReLU(), net.w, net.pre_activation, parts=parts)
    steps, expected, kept = [], [], []
    for f, y in batches():
        f.requires_grad_()
        z = net.pre_activation(f)
        a = z.relu()
        metrics.update("train", z, f)
        logits = a @ net.v.T
        df, da = torch.autograd.grad(loss_of(logits, y), (f, a), retain_graph=True)
        loss_of(logits, y).backward()
        metrics.add_activation_gradient(f, gate(nn.ReLU(), z)[1], da)
        metrics.add_feature_gradient(df, ~y.isnan().all(dim=1))
        metrics.add_weight_gradient(net.w.grad)
        metrics.begin_step()
        metrics.forget_accumulated()
        kept.append([x.detach().numpy().copy() for x in (f, z, df, net.w.grad)])
        expected.append(by_numpy(net, f, y))
        with torch.no_grad():
            for p in parts["total"]:
                p.sub_(LR * p.grad)
        steps.append(metrics.end_step())
        for p in parts["total"]:
            p.grad = None
    return steps, expected, metrics.close("train"), metrics.close_gradients(), kept


def by_numpy(net, f, y):
    """The numbers of a step by the chain rule."""
    f, y = f.detach().numpy(), y.numpy()
    w, b, v = (p.detach().numpy().copy() for p in (net.w, net.b, net.v))
    z = f @ w.T + b
    a, g = np.maximum(z, 0), (z > 0).astype(float)
    known = ~np.isnan(y)
    d_logits = np.where(known, 1 / (1 + np.exp(-a @ v.T)) - np.nan_to_num(y), 0) / known.sum()
    da = d_logits @ v
    dw, db, dv = (da * g).T @ f, (da * g).sum(0), d_logits.T @ a
    often = g.sum(0) >= 8
    through, straight = (da * g * often) @ w, (da * often) @ w
    norm = np.linalg.norm
    return {
        "grad/l2/total": np.sqrt(sum((x**2).sum() for x in (dw, db, dv))),
        "grad/l2/total_clipped": np.sqrt(sum((x**2).sum() for x in (dw, db, dv))),
        "grad/l2/dense": norm(dw),
        "grad/features_l2": norm((da * g) @ w),
        "grad/gate_transmission": norm(through) / norm(straight),
        "grad/gate_cosine": (through * straight).sum() / norm(through) / norm(straight),
        "grad/update_ratio": LR * norm(dw) / norm(w),
    }


def test_the_numbers_of_a_step_are_those_of_numpy(foreign):
    steps, expected, *_ = foreign
    for step, numbers in zip(steps, expected, strict=True):
        assert step == pytest.approx(numbers, rel=1e-9)


def test_the_numbers_of_a_window_are_those_of_numpy(foreign):
    *_, closed, shares, kept = foreign
    f, z, df, _ = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    opened = z > 0
    spread = np.linalg.norm(f.mean(0)) / np.sqrt(f.var(0).sum())
    expected = {
        "dead_frac": (~opened).all(0).mean(),
        "blackout_frac": (~opened).all(1).mean(),
        "gate_open_frac": opened.mean(),
        "feature_gamma": spread,
    }
    assert expected["dead_frac"] == DEAD / D
    assert expected["blackout_frac"] == DARK / B
    for name, value in expected.items():
        assert closed.values[f"units/train/{name}"] == pytest.approx(value, rel=1e-9), name
    np.testing.assert_allclose(closed.gate_open_share, opened.mean(0))
    np.testing.assert_allclose(closed.mean_features, f.mean(0))
    labelled = np.tile(np.arange(B) < B - 1, STEPS)
    assert shares["grad/features_zero_frac"] == (df == 0).all(1)[labelled].mean()
    fed = np.any([dw != 0 for *_, dw in kept], axis=(0, 2))
    assert shares["grad/starved_frac"] == pytest.approx(1 - fed.mean())
    assert shares["units/train/grad_dormant_frac"] == pytest.approx(DEAD / D)


def make_head():
    torch.manual_seed(1)
    head = Head(F, K, width=D, norm_momentum=0.3).double()
    with torch.no_grad():
        head.dense.bias.fill_(-0.01)
        head.dense.bias[:DEAD] = -100
    return head


def by_hand():
    """Tensors that hooks collect from a head, fed to the plain class."""
    head, numbers, seen = make_head(), [], {}
    head.activation.register_forward_hook(lambda phi, inputs, a: seen.update(z=inputs[0], a=a))
    head_parts = {"head": list(head.parameters())}
    metrics = HeadMetrics(
        head.activation, head.dense.weight, head.pre_activation, head.norm, head_parts
    )
    optimizer = torch.optim.SGD(head.parameters(), lr=LR)
    for f, y in batches():
        f.requires_grad_()
        loss = loss_of(head(f), y)
        metrics.update("train", seen["z"].detach(), f)
        df, da = torch.autograd.grad(loss, (f, seen["a"]), retain_graph=True)
        loss.backward()
        metrics.add_activation_gradient(f, gate(nn.ReLU(), seen["z"])[1], da)
        metrics.add_feature_gradient(df, ~y.isnan().all(dim=1))
        metrics.add_weight_gradient(head.dense.weight.grad)
        metrics.begin_step()
        metrics.forget_accumulated()
        optimizer.step()
        numbers.append(metrics.end_step())
        optimizer.zero_grad()
    return numbers, metrics.close("train").values | metrics.close_gradients()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Identity(), make_head()

    def training_step(self, batch, batch_idx):
        return loss_of(self.head(batch["image"]), batch["target"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)


def by_callback():
    monitor, steps = Monitor(every_n_steps=1), []
    monitor_step = monitor.on_train_batch_end

    def keep(*args, **kwargs):
        monitor_step(*args, **kwargs)
        steps.append(dict(monitor.history.last))

    monitor.on_train_batch_end = keep
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[monitor],
        enable_model_summary=False,
        precision="64-true",
        **quiet,
    )
    data = [{"image": f, "target": y} for f, y in batches()]
    trainer.fit(Model(), DataLoader(data, batch_size=None, shuffle=False))
    return steps, monitor.history.last


def by_bank():
    """The head as the second of two in a bank."""
    other = Head(F, K, width=D, activation="tanh", norm_momentum=0.3).double()
    bank, shared = HeadBank([other, make_head()]), SharedFeatures(F, torch.device("cpu"))
    record, numbers = HeadRecord(bank, 1, every_n_steps=1, tolerance=1e-6), []
    optimizer = torch.optim.SGD(bank.parameters(), lr=LR)
    for step, (f, y) in enumerate(batches()):
        record.begin_step(f, step)
        shared.update("train", f)
        z = bank.preactivations(f)
        z.retain_grad()
        logits = bank.logits(z)
        sum(loss_of(logits[:, m], y) for m in range(2)).backward()
        bank.tie_gradients()
        record.before_update(z.grad, ~y.isnan().all(dim=1))
        optimizer.step()
        numbers.append(record.after_update())
        optimizer.zero_grad()
    record.close()
    return numbers, record.end_epoch(shared.end_epoch())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", [by_callback, by_bank])
def test_the_adapters_get_the_numbers_that_tensors_alone_give(adapter):
    (steps, window), (expected_steps, expected) = adapter(), by_hand()
    for step, numbers in zip(steps, expected_steps, strict=True):
        for key, value in numbers.items():
            if not key.startswith("grad/l2/total"):  # that of the whole model
                assert step[key] == pytest.approx(value, rel=1e-9), key
    missing = {"units/train/effective_rank"} if adapter is by_bank else set()
    assert not expected.keys() - window.keys() - missing
    for key in expected.keys() - missing:
        assert window[key] == pytest.approx(expected[key], rel=1e-7, nan_ok=True), key
    assert expected["grad/starved_frac"] == pytest.approx(DEAD / D)


def test_the_plain_class_knows_neither_lightning_nor_the_classifier():
    tree = ast.parse(Path(head_metrics.__file__).read_text())
    names = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any(name.startswith(("pytorch_lightning", "fluoroscope.model")) for name in names)
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not attributes & {"backbone", "head", "dense", "out"}


def test_an_accumulated_gradient_and_a_window_that_continues():
    net = Foreign()
    whole, first, second = (HeadMetrics(nn.ReLU(), net.w, net.pre_activation) for _ in range(3))
    for metrics, (f, y) in zip((first, second), batches(), strict=True):
        if metrics is second:
            restore_head(second, head_state(first))
        for target in (whole, metrics):
            target.update("train", net.pre_activation(f).detach(), f)
            target.add_feature_gradient(f * 2, ~y.isnan().all(dim=1))
            target.add_weight_gradient(torch.ones(D, F))
    squares = sum((2 * f).square().sum() for f, _ in batches())
    torch.testing.assert_close(whole.feature_gradient.squares, squares)
    assert second.close("train").values == pytest.approx(whole.close("train").values, nan_ok=True)
    assert second.close_gradients() == whole.close_gradients()
