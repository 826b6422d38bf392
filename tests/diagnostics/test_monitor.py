import csv
import math
from contextlib import ExitStack

import pytest
import pytorch_lightning as pl
import torch

from benchmarks.syncs import counting
from fluoroscope import build
from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.diagnostics.gradients import FeatureGradient, StarvedRows, l2
from fluoroscope.diagnostics.keys import METRICS
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer


def fit(films, folder, *overrides, probe=()):
    """A tiny run by hand: model, monitor and what `metrics.csv` holds."""
    cfg = tiny_config(films, *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    monitor = build.build_monitor(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [*([monitor] if monitor else []), *probe]
    trainer = bare_trainer(cfg, callbacks, logger=MetricsCsv(folder))
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data)
    with (folder / "metrics.csv").open(newline="") as file:
        return model, monitor, list(csv.DictReader(file))


def logged(rows, key):
    return [float(row[key]) for row in rows if row.get(key)]


class Recorder(pl.Callback):
    """The independent route: keeps every z, dL/df and gradient, and computes at the end."""

    def on_fit_start(self, trainer, pl_module):
        self.z, self.feature_grads, self.dense_grads, self.norms = [], [], [], []
        self.window = []
        pl_module.head.dense.register_forward_hook(self.keep_z)
        pl_module.head.register_forward_pre_hook(self.keep_features)

    def keep_z(self, dense, inputs, z):
        if dense.training:
            self.z.append(z.detach().clone())

    def keep_features(self, head, inputs):
        if head.training:
            inputs[0].register_hook(lambda g: self.feature_grads.append(g.detach().clone()))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        grads = {n: p.grad.clone() for n, p in named if p.grad is not None}
        self.dense_grads.append(grads["head.dense.weight"])
        part = lambda prefix: torch.cat(  # noqa: E731
            [g.flatten() for n, g in grads.items() if n.startswith(prefix)]
        ).norm()
        self.norms.append({p: part(p).item() for p in ("", "backbone", "head", "head.dense")})


@pytest.fixture(scope="module")
def recorded(films, tmp_path_factory):
    recorder = Recorder()
    keys = ["trainer.max_epochs=1", "diagnostics.every_n_steps=1", "data.augment=[]"]
    result = fit(films, tmp_path_factory.mktemp("recorded"), *keys, probe=[recorder])
    return *result, recorder


def test_the_table_of_metrics_is_what_is_logged(recorded):
    _, _, rows, _ = recorded
    ours = {key for key in rows[0] if key.startswith(("units/", "grad/"))}
    assert ours == {metric.key(window) for metric in METRICS for window in metric.windows}


def test_the_census_at_the_start_is_of_the_weights_before_any_step(films, tmp_path):
    """Also of the last validation images, which Lightning's own trial would leave out."""
    _, monitor, rows = fit(films, tmp_path, "trainer.max_epochs=1")
    cfg = tiny_config(films)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data).eval()
    with torch.no_grad():
        z = model.head.dense(torch.cat([model.backbone(b["image"]) for b in data.val_dataloader()]))
    closed = (z <= 0).double()
    expected = {
        "dead_frac": closed.all(0).double().mean(),
        "gate_open_frac": 1 - closed.mean(),
        "dead_bound_frac": 1 - 0.05 ** (1 / len(z)),
        "blackout_expected_frac": closed.mean(0).prod(),
    }
    for name, share in expected.items():
        value = float(share)
        assert logged(rows, f"units/start/{name}") == pytest.approx([value], rel=1e-6), name
        assert monitor.history.last[f"units/start/{name}"] == pytest.approx(value, rel=1e-6)
    start = next(row for row in rows if row["units/start/dead_frac"])
    assert (start["step"], float(start["epoch"])) == ("0", 0)
    assert not any(start[key] for key in start if key.startswith(("units/val", "units/train")))


def test_the_gradient_score_is_of_every_image_of_the_epoch(films, tmp_path):
    """Against dL/dz that autograd keeps; most steps are not logged."""

    class Gradients(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            self.dz = []
            pl_module.head.dense.register_forward_hook(self.keep)

        def keep(self, dense, inputs, z):
            if z.requires_grad:
                z.register_hook(lambda dz: self.dz.append(dz.clone()))

    probe = Gradients()
    keys = ["trainer.max_epochs=1", "diagnostics.every_n_steps=4", "head.bias_init=-0.3"]
    _, monitor, rows = fit(films, tmp_path, *keys, probe=[probe])
    dz = torch.cat(probe.dz).double().abs().mean(0)
    assert len(torch.cat(probe.dz)) == 80
    torch.testing.assert_close(monitor.metrics.grad_score, dz / dz.mean(), rtol=1e-5, atol=1e-9)
    share = (dz <= 0.01 * dz.mean()).double().mean().item()
    assert 0 < share < 1
    assert logged(rows, "units/train/grad_dormant_frac") == pytest.approx([share])


def test_train_census_is_of_every_image_of_the_epoch(recorded):
    _, _, rows, recorder = recorded
    z = torch.cat(recorder.z)
    assert len(z) == 80  # ten batches of eight
    closed = z <= 0
    expected = {
        "dead_frac": closed.all(0),
        "zero_frac": closed,
        "blackout_frac": closed.all(1),
    }
    for key, share in expected.items():
        value = share.double().mean().item()
        assert logged(rows, f"units/train/{key}") == pytest.approx([value], rel=1e-6)


def test_gradient_norms_are_those_of_the_parameters(recorded):
    _, _, rows, recorder = recorded
    names = {"": "total", "backbone": "backbone", "head": "head", "head.dense": "head_dense"}
    for prefix, name in names.items():
        expected = [norms[prefix] for norms in recorder.norms]
        assert logged(rows, f"grad/l2/{name}") == pytest.approx(expected, rel=1e-5)
    features = [g.norm().item() for g in recorder.feature_grads]
    assert logged(rows, "grad/features_l2") == pytest.approx(features, rel=1e-5)
    # Nothing is clipped in this run.
    assert logged(rows, "grad/l2/total_clipped") == logged(rows, "grad/l2/total")


def test_shares_without_gradient_are_counted_over_the_window(recorded):
    _, _, rows, recorder = recorded
    grads = torch.stack(recorder.dense_grads)
    starved = (grads == 0).all(2).all(0).double().mean().item()
    assert logged(rows, "grad/starved_frac") == pytest.approx([starved])
    zero = (torch.cat(recorder.feature_grads) == 0).all(1).double().mean().item()
    assert logged(rows, "grad/features_zero_frac") == pytest.approx([zero])


def test_a_head_that_is_shut_blacks_out_and_starves_the_backbone(films, tmp_path):
    keys = ["head.bias_init=-1000", "optimizer.lr=1e-9", "backbone.frozen=true"]
    _, monitor, rows = fit(films, tmp_path, *keys)
    last = monitor.history.last
    assert last["units/train/dead_frac"] == last["units/val/dead_frac"] == 1
    assert last["units/val/blackout_frac"] == last["grad/features_zero_frac"] == 1
    assert last["grad/starved_frac"] == 1
    assert logged(rows, "grad/features_l2") == [0.0] * 10
    assert all(math.isnan(norm) for norm in logged(rows, "grad/l2/backbone"))  # frozen


def test_the_validation_window_is_the_whole_split_with_the_weights_at_rest(films, tmp_path):
    model, monitor, _ = fit(films, tmp_path, "trainer.max_epochs=1", "trainer.num_nodes=1")
    cfg = tiny_config(films)
    data = build.build_data(cfg, build.build_studies(cfg))
    census = UnitCensus(model.head.activation, 31)
    model.eval()
    model.head.activation.register_forward_pre_hook(lambda m, inputs: census.update(inputs[0]))
    with torch.no_grad():
        for batch in data.val_dataloader():
            model(batch["image"])
    for key in ("dead_frac", "linear_frac", "gate_open_frac"):
        assert census.compute()[key] == monitor.history.last[f"units/val/{key}"], key


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_watching_does_not_change_one_bit_of_the_weights(films, tmp_path, frozen):
    watched, _, _ = fit(films, tmp_path / "on", f"backbone.frozen={frozen}")
    plain, _, _ = fit(
        films, tmp_path / "off", f"backbone.frozen={frozen}", "diagnostics.enabled=false"
    )
    for (name, a), b in zip(watched.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_accumulated_and_clipped_gradients(films, tmp_path):
    keys = ["data.augment=[]", "head.norm=none", "backbone.frozen=true", "trainer.max_epochs=1"]
    keys += ["diagnostics.every_n_steps=1"]
    _, _, whole = fit(films, tmp_path / "whole", *keys, "data.batch_size=16")
    accumulate = ["data.batch_size=8", "trainer.accumulate_grad_batches=2"]
    _, _, parts = fit(
        films, tmp_path / "parts", *keys, *accumulate, "trainer.gradient_clip_val=0.01"
    )
    for key in ("grad/l2/head", "grad/features_l2", "grad/l2/head_dense"):
        assert logged(parts, key)[0] == pytest.approx(logged(whole, key)[0], rel=1e-4)
    assert logged(parts, "grad/l2/total_clipped") == pytest.approx([0.01] * 5, rel=1e-3)
    assert min(logged(parts, "grad/l2/total")) > 0.01


def test_a_monitor_that_saw_nothing_says_so(films, tmp_path):
    class Unhooked(Monitor):
        def on_fit_start(self, trainer, pl_module):
            super().on_fit_start(trainer, pl_module)
            for handle in self._handles[1:]:  # those of `head.activation`
                handle.remove()

    cfg = tiny_config(films, "trainer.max_epochs=1", "diagnostics.enabled=false")
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Unhooked()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.warns(UserWarning, match="saw no pre-activation in this train window"):
        trainer.fit(model, datamodule=data)


def test_meters_by_hand():
    meter = FeatureGradient()
    gradient = torch.tensor([[3.0, 4], [0, 0], [0, 12]])
    meter.count(gradient)
    meter.measure(gradient)
    assert meter.squares.sqrt() == 13
    assert meter.counts.tolist() == [1, 3]
    starved = StarvedRows()
    starved.update(torch.tensor([[0.0, 0], [0, 1], [0, 0]]))
    starved.update(torch.tensor([[0.0, 0], [0, 0], [2, 0]]))
    assert starved.frac().item() == pytest.approx(1 / 3)
    assert l2([torch.nn.Parameter(torch.ones(2))]).isnan()


class CountedSteps(pl.Callback):
    """Syncs from the start of a batch to its end, by batch; the last callback sees all of them."""

    def __init__(self):
        self.per_step = []

    def on_train_batch_start(self, *args):
        self.stack = ExitStack()
        self.syncs = self.stack.enter_context(counting(torch.device("cpu")))

    def on_train_batch_end(self, *args):
        self.stack.close()
        self.per_step.append(self.syncs.count)


def test_nothing_waits_for_the_device_between_logged_steps(films, tmp_path):
    keys = ["trainer.max_epochs=1", "trainer.log_every_n_steps=100", "data.augment=[]"]
    counts = {}
    for name, switch in {"on": "every_n_steps=5", "off": "enabled=false"}.items():
        counter = CountedSteps()
        fit(films, tmp_path / name, *keys, f"diagnostics.{switch}", probe=[counter])
        counts[name] = counter.per_step
    extra = [on - off for on, off in zip(counts["on"], counts["off"], strict=True)]
    logged_steps = [0, 5]
    assert len(extra) == 10
    assert [extra[i] for i in range(10) if i not in logged_steps] == [0] * 8
    assert min(extra[i] for i in logged_steps) > 0


def test_no_hook_outlives_an_exception(films, tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            self.model = pl_module
            raise RuntimeError("stopped")

    stop = Stop()
    with pytest.raises(RuntimeError, match="stopped"):
        fit(films, tmp_path, probe=[stop])
    head = stop.model.head
    for module in (head, head.activation):
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
