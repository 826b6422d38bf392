"""UnitMonitor in LightningModules of other projects."""

import csv

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fluoroscope.errors import InputError
from fluoroscope.instrument.lightning import UnitMonitor


class Foreign(pl.LightningModule):
    """Tuple batches, targets `[B]`, no head; `training_step` calls the layers by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(4, 7), nn.ReLU(inplace=True))
        self.out = nn.Linear(7, 3)
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch, index):
        x, y = batch
        return self.loss(self.out(self.body(x)), y)

    def validation_step(self, batch, index):
        self.log("val_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class ByForward(Foreign):
    def forward(self, x):
        return self.out(functional.gelu(self.body(x)))

    def training_step(self, batch, index):
        return functional.cross_entropy(self(batch[0]), batch[1])


class Manual(ByForward):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        if self.trainer.training:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def configure_optimizers(self):
        parts = self.body.parameters(), self.out.parameters()
        return [torch.optim.SGD(part, 0.1) for part in parts]


def loaders():
    torch.manual_seed(5)
    data = TensorDataset(torch.randn(22, 4), torch.randint(0, 3, (22,)))
    return DataLoader(data, 6), DataLoader(TensorDataset(*data[:10]), 6)


def fit(model, folder, *monitors, **keys):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 2}
    logger = CSVLogger(folder, version=0, flush_logs_every_n_steps=1)
    trainer = pl.Trainer(**quiet | keys, logger=logger, callbacks=list(monitors))
    trainer.fit(model, *loaders())
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return model, {key: float(v) for row in rows for key, v in row.items() if v}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("cls", "layers"),
    [(Foreign, ["body.1"]), (ByForward, ["body.1", "forward/gelu"]), (Manual, ["body.1"])],
)
def test_a_foreign_module_is_counted_and_trains_as_without(cls, layers, tmp_path):
    monitor = UnitMonitor(every_n_steps=3)
    model, logged = fit(cls(), tmp_path / "a", monitor)
    plain, _ = fit(cls(), tmp_path / "b")
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for layer in layers:
        for window in ("train", "val"):
            shares = [logged[f"units/{window}/{layer}/{kind}_frac"] for kind in KINDS]
            assert sum(shares) == pytest.approx(1)
    (_, val) = loaders()
    with torch.no_grad():
        z = torch.cat([model.body[0](x) for x, _ in val])
    opened = float((z > 0).double().mean())
    assert logged[f"units/val/{layers[0]}/gate_open_frac"] == pytest.approx(opened, rel=1e-6)
    assert np.isfinite(logged["units/train/grad_l2"])


KINDS = ("dead", "linear", "nonlinear")


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_steps_that_are_counted_are_those_of_the_key(tmp_path):
    counted = []

    class Recording(UnitMonitor):
        def _log(self, window, key, pl_module):
            frame = self.units.frame(window) if window == "train" else None
            counted.extend([] if frame is None else frame["images"].tolist())
            super()._log(window, key, pl_module)

    fit(Foreign(), tmp_path, Recording(every_n_steps=3))  # 4 steps per epoch, the last with 4
    assert counted == [6 + 4, 6]  # steps 0 and 3; step 6
    counted.clear()
    fit(Foreign(), tmp_path, Recording(every_n_steps=2), accumulate_grad_batches=2)
    assert counted == [12, 12]  # of two steps per epoch the first


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_module_without_activations_warns_once_and_trains(tmp_path, recwarn):
    class Linear(Foreign):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 7)

    fit(Linear(), tmp_path, UnitMonitor())
    said = [str(w.message) for w in recwarn if "UnitMonitor" in str(w.message)]
    assert len(set(said)) == 1
    assert "no activation was seen in Linear" in said[0]


def test_bad_keys_are_refused(tmp_path):
    with pytest.raises(InputError, match="every_n_steps must be a whole number of at least 1"):
        UnitMonitor(every_n_steps=0)
    with pytest.raises(InputError, match="layers must be a name of layers or a list of names"):
        UnitMonitor(layers=None)
    with pytest.raises(InputError, match="'head' matches no activation of Foreign"):
        fit(Foreign(), tmp_path, UnitMonitor("head"))


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_two_processes_log_what_one_does(tmp_path):
    """No weight changes, so that the numbers of the validation are the same."""

    class Still(ByForward):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    keys = {"max_epochs": 1, "num_sanity_val_steps": 0}
    _, one = fit(Still(), tmp_path / "one", UnitMonitor(every_n_steps=1), **keys)
    together = {"strategy": "ddp_fork", "devices": 2}
    _, two = fit(Still(), tmp_path / "two", UnitMonitor(every_n_steps=1), **keys, **together)
    assert {key for key in two if "units/" in key} == {key for key in one if "units/" in key}
    for window in ("train", "val"):
        for layer in ("body.1", "forward/gelu"):
            for name in ("dead_frac", "gate_open_frac", "blackout_frac"):
                key = f"units/{window}/{layer}/{name}"
                assert two[key] == pytest.approx(one[key], abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_gradient_is_the_one_that_the_counted_steps_used(clip, tmp_path):
    used = []

    class Recording(torch.optim.SGD):
        """Sees the gradient where Lightning's closure has ended."""

        def step(self, closure):
            def kept():
                loss = closure()
                grads = [p.grad for group in self.param_groups for p in group["params"]]
                used.append(sum(float(g.double().square().sum()) for g in grads))
                return loss

            return super().step(kept)

    class Model(ByForward):
        def configure_optimizers(self):
            return Recording(self.parameters(), 0.1)

    keys = {"gradient_clip_val": clip, "max_epochs": 1}
    _, logged = fit(Model(), tmp_path, UnitMonitor(every_n_steps=3), **keys)
    assert len(used) == 4
    wanted = np.sqrt((used[0] + used[3]) / 2)
    assert logged["units/train/grad_l2"] == pytest.approx(wanted, rel=1e-5)
    assert wanted == pytest.approx(0.01, rel=1e-3) if clip else wanted > 0.1


class Shared(Foreign):
    """`training_step` calls one activation for two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 7), nn.Linear(7, 7), nn.ReLU()

    def training_step(self, batch, index):
        z = self.act(self.second(self.act(self.first(batch[0]))))
        return self.loss(self.out(z), batch[1])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_shared_activation_is_two_layers_in_a_step_too(tmp_path):
    model, logged = fit(Shared(), tmp_path, UnitMonitor(every_n_steps=2))
    x = loaders()[1].dataset.tensors[0]
    with torch.no_grad():
        first = model.first(x)
        zs = [first, model.second(first.relu())]
    for name, z in zip(("act", "act#2"), zs, strict=True):
        opened = float((z > 0).double().mean())
        assert logged[f"units/val/{name}/gate_open_frac"] == pytest.approx(opened, rel=1e-6)
        assert f"units/train/{name}/grad_l2" in logged


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_validation_without_a_fit_is_counted(tmp_path):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        **quiet, logger=False, callbacks=[UnitMonitor()], default_root_dir=tmp_path
    )
    model, (_, val) = Foreign(), loaders()
    for _ in range(2):
        (found,) = trainer.validate(model, val, verbose=False)
        with torch.no_grad():
            opened = float((model.body[0](val.dataset.tensors[0]) > 0).double().mean())
        assert found["units/val/body.1/gate_open_frac"] == pytest.approx(opened, rel=1e-6)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("cls", [pytest.param(ByForward, marks=pytest.mark.whole), Foreign])
def test_a_compiled_module_has_the_numbers_of_itself(cls, tmp_path):
    part = cls()
    part.body = torch.compile(part.body, backend="eager")
    found = []
    for model in (cls(), torch.compile(cls(), backend="eager"), part):
        _, logged = fit(model, tmp_path / f"{len(found)}", UnitMonitor(every_n_steps=2))
        found.append({key: value for key, value in logged.items() if key.startswith("units/")})
        assert torch._dynamo.eval_frame._stance.stance == "default"
    assert len(found[0]) > 10
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)
