import copy
import csv
import random
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint

from fluoroscope import build
from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.diagnostics.head_metrics import ClosedWindow, HeadMetrics
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.revive import Revive, forget
from fluoroscope.model.centering import CenteredBias
from fluoroscope.model.head import Head
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer

SHUT = [3, 4, 9, 17, 30]  # of 31 units
KEYS = ["trainer.max_epochs=2", "data.augment=[]", "head.bias_init=0.05", "optimizer.lr=1e-4"]


SILENT = SimpleNamespace(log=lambda *args, **keys: None)  # a module that logs nothing


class Shut(pl.Callback):
    """Closes some units for good before the first step."""

    def on_fit_start(self, trainer, pl_module):
        if trainer.ckpt_path is None:
            pl_module.head.dense.bias.data[SHUT] = -1000


class Look(pl.Callback):
    """Copies at the starts of epochs: of the model, the optimizer's state, and random states."""

    def __init__(self):
        self.models, self.moments, self.random = [], [], []

    def on_train_epoch_start(self, trainer, pl_module):
        head = pl_module.head
        trained = {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "out.weight"}
        self.models.append(copy.deepcopy(torch.nn.ModuleList([pl_module.backbone, head])))
        states = trainer.optimizers[0].state
        named = {n: states.get(p, {}) for n, p in head.named_parameters() if n in trained}
        self.moments.append(copy.deepcopy(named))
        numpy_state = np.random.get_state()[1].tolist()
        self.random.append((torch.get_rng_state().tolist(), numpy_state, random.getstate()))


def start(films, folder, *overrides, n=1, first=(), before=(), after=(), ckpt_path=None, **keys):
    """A tiny run whose head is partly shut: trainer, model, monitor, rows of `metrics.csv`."""
    cfg = tiny_config(films, *KEYS, *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    data.first = (keys.pop("first_epoch", 0), 0)
    monitor = Monitor(every_n_steps=2)
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [*first, Shut(), monitor, *before, Revive(n), *after]
    own = {"logger": MetricsCsv(folder), "default_root_dir": folder}
    trainer = bare_trainer(cfg, callbacks, **own | keys)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, model, monitor


def logged(folder, key):
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.fixture(scope="module")
def revived(films, tmp_path_factory):
    """Looks just before and just after the units start anew, and the run's folder."""
    before, after = Look(), Look()
    folder = tmp_path_factory.mktemp("revived")
    start(films, folder, before=[before], after=[after])
    return before, after, folder


def test_dead_units_come_back_to_life(revived):
    folder = revived[-1]
    assert logged(folder, "units/train/dead_frac") == pytest.approx([5 / 31, 0])
    assert logged(folder, "units/train/revived_frac")[1] == pytest.approx(5 / 31)
    assert logged(folder, "revive/units") == [0, 5]


def test_the_logits_of_training_batches_stay_as_they_are(films, revived):
    before, after, _ = revived
    cfg = tiny_config(films, *KEYS)
    data = build.build_data(cfg, build.build_studies(cfg))
    assert not torch.equal(before.models[1][1].dense.weight, after.models[1][1].dense.weight)
    for batch in data.train_dataloader():
        logits = [
            head(backbone(batch["image"])) for backbone, head in (before.models[1], after.models[1])
        ]
        torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
        assert logits[0].std() > 1e-2


def test_the_optimizer_forgets_these_units_and_no_others(revived):
    before, after = (look.moments[1] for look in revived[:2])
    assert not revived[0].moments[0]["dense.weight"]  # there are no moments before the first step
    shut = torch.zeros(31, dtype=torch.bool)
    shut[SHUT] = True
    for name, state in after.items():
        assert state["step"] == before[name]["step"] == 10
        for moment in ("exp_avg", "exp_avg_sq"):
            old, new = before[name][moment], state[moment]
            if name == "out.weight":
                old, new = old.T, new.T
            assert new[shut].abs().sum() == 0, name
            assert torch.equal(new[~shut], old[~shut]), name
            assert (new[~shut] != 0).any(), name
    # Behind batch norm a dead unit's bias is a bias of the output, and learns.
    assert (before["norm.bias"]["exp_avg"][shut] != 0).all()


def test_moments_of_every_kind_are_forgotten():
    head = Head(13, 3, width=17, norm="none")
    optimizer = torch.optim.AdamW(head.parameters(), amsgrad=True)
    units = torch.arange(17) < 4
    forget(optimizer, head, units)  # before the first step there is nothing to forget
    assert not optimizer.state
    head(torch.randn(6, 13)).square().sum().backward()
    optimizer.step()
    forget(optimizer, head, units)
    for moment in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        for parameter in (head.dense.weight, head.dense.bias, head.out.weight.T):
            owner = head.out.weight if parameter.ndim == 2 and len(parameter.T) == 3 else parameter
            value = optimizer.state[owner][moment]
            value = value.T if owner is head.out.weight else value
            assert value[:4].abs().sum() == 0
            assert value[4:].abs().sum() > 0
        assert optimizer.state[head.out.bias][moment].abs().min() > 0


def test_random_states_do_not_move(revived):
    before, after, _ = revived
    assert before.random == after.random


def test_it_happens_after_every_nth_epoch_but_not_after_the_last(films, tmp_path, capsys):
    start(films, tmp_path, "trainer.max_epochs=4", n=2)
    assert logged(tmp_path, "revive/units") == [0, 0, 5, 0]
    assert capsys.readouterr().out == "epoch 3: 5 dead units re-initialised\n"
    assert logged(tmp_path, "units/train/dead_frac") == pytest.approx([5 / 31, 5 / 31, 0, 0])


def test_it_is_off_by_default(films):
    assert tiny_config(films).diagnostics.revive_every_n_epochs is None


@pytest.mark.whole
def test_new_weights_differ_by_run_and_epoch(films, tmp_path):
    class Again(Shut):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.head.dense.bias.data[SHUT] = -1000

    def rows(seed):
        look = Look()
        keys = ["trainer.max_epochs=3", f"seed={seed}"]
        start(films, tmp_path / str(seed), *keys, after=[look, Again()])
        assert logged(tmp_path / str(seed), "revive/units") == [0, 5, 5]
        return [model[1].dense.weight[SHUT] for model in look.models[1:]]

    first, second = rows(1), rows(2)
    assert not torch.equal(*first)
    assert not torch.equal(first[0], second[0])


def test_a_resumed_run_ends_where_an_unbroken_one_does(films, tmp_path):
    keep = ModelCheckpoint(
        tmp_path, filename="epoch{epoch}", save_top_k=-1, auto_insert_metric_name=False
    )
    keys = {"enable_checkpointing": True}
    _, unbroken, _ = start(films, tmp_path / "a", after=[keep], **keys)
    path = tmp_path / "epoch0.ckpt"
    _, resumed, _ = start(films, tmp_path / "b", ckpt_path=path, first_epoch=1)
    assert logged(tmp_path / "b", "revive/units") == [5]
    states = unbroken.state_dict(), resumed.state_dict()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_an_average_of_the_weights_is_left_alone(films, tmp_path):
    class Averaged(pl.Callback):
        def __init__(self):
            self.weights = []

        def on_train_epoch_start(self, trainer, pl_module):
            average = next(c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging))
            self.weights.append(average._average_model.module.head.dense.weight.detach().clone())

    before, after = Averaged(), Averaged()
    average = EMAWeightAveraging(decay=0.9)
    start(films, tmp_path, before=[before], after=[average, after])
    assert torch.equal(before.weights[1], after.weights[1])
    assert not torch.equal(before.weights[0], before.weights[1])
    assert logged(tmp_path, "revive/units") == [0, 5]


def test_a_window_without_images_revives_nothing():
    nan = torch.full((4,), float("nan"))
    yes = torch.ones(4).bool()
    revive = Revive(1)
    closed = ClosedWindow("train", {}, yes, yes, nan, nan, nan, nan)
    revive.on_head_window(SimpleNamespace(current_epoch=0), None, closed)
    assert revive.state_dict()["due"]["dead"].sum() == 0


class Write(pl.Callback):
    """Each process's head, at the start of the fit and at the end of each epoch."""

    def __init__(self, folder):
        self.folder = folder

    def _write(self, trainer, pl_module, name):
        torch.save(pl_module.head.state_dict(), self.folder / f"{name}-{trainer.global_rank}.pt")

    def on_fit_start(self, trainer, pl_module):
        self._write(trainer, pl_module, "start")

    def on_train_epoch_end(self, trainer, pl_module):
        self._write(trainer, pl_module, f"epoch{trainer.current_epoch}")


@pytest.mark.whole
def test_processes_stay_together(films, tmp_path, capfd):
    """Through real Gloo, for `CenteredBias` as well: its bias is that of one process."""
    # What has a GPU in use cannot be forked; spawned processes import everything again.
    many = "ddp_spawn" if torch.cuda.is_initialized() else "ddp_fork"
    keys = ["head.bias_init=centered", "backbone.frozen=true", "trainer.max_epochs=3"]
    for name, batch, more in (("one", 8, {}), ("two", 4, {"devices": 2, "strategy": many})):
        folder = tmp_path / name
        folder.mkdir()
        callbacks = {"first": [CenteredBias(24), Write(folder)]}
        start(films, folder, *keys, f"data.batch_size={batch}", **callbacks, **more)
    read = lambda name: torch.load(tmp_path / name)  # noqa: E731
    expected, got = read("one/start-0.pt")["dense.bias"], read("two/start-0.pt")["dense.bias"]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)
    for name in ("start", "epoch0", "epoch1", "epoch2"):
        first, second = read(f"two/{name}-0.pt"), read(f"two/{name}-1.pt")
        for key in (key for key in first if "running" not in key):
            assert torch.equal(first[key], second[key]), (name, key)
    for name in ("one", "two"):
        assert logged(tmp_path / name, "revive/units") == [0, 5, 0]
    assert capfd.readouterr().out.count("epoch 2: ") == 2  # one voice in each run


def test_a_unit_that_saturates_on_both_sides_is_left_alone():
    """Its gate is closed on every image, and yet it tells them apart."""
    z = torch.tensor([[30.0, 30.0, 0.5], [-30.0, 30.0, -0.5], [30.0, 30.0, 1.0]])
    census = UnitCensus(torch.nn.Tanh(), 3)
    census.update(z)
    census.compute()
    assert census.dead.tolist() == [True, True, False]
    assert census.constant.tolist() == [False, True, False]
    metrics = HeadMetrics(torch.nn.Tanh(), torch.zeros(3, 2), torch.nn.Identity())
    metrics.update("train", z, torch.zeros(3, 2))
    revive = Revive(1)
    revive.on_head_window(SimpleNamespace(current_epoch=0), None, metrics.close("train"))
    assert revive.state_dict()["due"]["dead"].tolist() == [False, True, False]


def test_by_the_gradient_an_open_unit_that_learns_nothing_is_revived_too():
    """Unit 0 is dead; unit 1 is open, but its outgoing weights are zero; units 2 and 3 learn."""
    torch.manual_seed(0)
    head = Head(5, 2, width=4, norm="none")
    with torch.no_grad():
        head.dense.bias[0] = -100
        head.out.weight[:, 1] = 0
    f = torch.randn(23, 5)
    metrics = HeadMetrics(head.activation, head.dense.weight, head.pre_activation)
    z = head.dense(f)
    metrics.update("train", z.detach(), f)
    a = head.activation(z)
    (da,) = torch.autograd.grad(head.out(a).square().sum(), a)
    metrics.add_activation_gradient(f, metrics.gate, da)
    shares = metrics.close_gradients()
    closed = metrics.close("train")._replace(grad_score=metrics.grad_score)
    assert shares["units/train/grad_dormant_frac"] == 2 / 4
    revived = {}
    for by in ("gate", "gradient"):
        revive = Revive(1, by=by)
        revive.on_head_window(SimpleNamespace(current_epoch=0), None, closed)
        revived[by] = revive.state_dict()["due"]["dead"].tolist()
    assert revived == {"gate": [True, False, False, False], "gradient": [True, True, False, False]}


def test_an_epoch_without_any_gradient_revives_no_open_unit():
    """As if no image had a label: that no unit learned tells nothing about the units."""
    nan = torch.full((3,), float("nan"))
    no, half = torch.zeros(3).bool(), torch.full((3,), 0.5)
    closed = ClosedWindow("train", {}, no, no, half, nan, nan, nan, grad_score=nan)
    revive = Revive(1, by="gradient")
    revive.on_head_window(SimpleNamespace(current_epoch=0), None, closed)
    assert not revive.state_dict()["due"]["dead"].any()
