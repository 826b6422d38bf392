import csv
import json
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb

from fluoroscope import build
from fluoroscope.diagnostics.death_causes import describe
from fluoroscope.diagnostics.postmortem import OF_STEP, PostMortem
from fluoroscope.train import train
from tests.diagnostics.test_monitor import CountedSteps
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer
from tests.support.wandb_log import OfflineRun

# At this learning rate about half of the units die within an epoch or two.
DEADLY = ["optimizer.lr=0.03", "trainer.max_epochs=3"]
ORDERS = ["activation-norm", "norm-activation"]


class Witness(pl.Callback):
    """The independent route: keeps what went through the head, and concludes at the end."""

    def on_fit_start(self, trainer, pl_module):
        self.trainer, head = trainer, pl_module.head
        self.open, self.z, self.f = [], [], []  # (step, bool [D]); of the current validation
        self.first_f = []  # of the first optimizer step
        self.label_counts, self.rates, self.grads = {}, {}, {}
        self.validations = []
        self.born = {k: v.clone() for k, v in head.state_dict().items()}
        head.register_forward_pre_hook(lambda head, inputs: self.see("f", inputs[0]))
        head.activation.register_forward_pre_hook(lambda phi, inputs: self.see("z", inputs[0]))

    def see(self, name, value):
        if self.trainer.validating:
            getattr(self, name).append(value.detach().clone())
        elif self.trainer.training and name == "f" and self.trainer.global_step == 0:
            self.first_f.append(value.detach().clone())
        elif self.trainer.training and name == "z":
            self.open.append((self.trainer.global_step, (value > 0).any(dim=0)))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (group,) = (g for g in optimizer.param_groups if g["name"] == "head/decay")
        self.rates[trainer.global_step] = group["lr"]
        self.grads[trainer.global_step] = pl_module.head.dense.weight.grad.norm(dim=1)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        known = batch["target"][~batch["target"].isnan()].tolist()
        positives, labels = self.label_counts.get(trainer.global_step, (0, 0))
        self.label_counts[trainer.global_step] = positives + sum(known), labels + len(known)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            state = {k: v.clone() for k, v in pl_module.head.state_dict().items()}
            steps = trainer.global_step
            self.validations.append((torch.cat(self.z), torch.cat(self.f), state, steps))
        self.z, self.f = [], []

    def deaths(self):
        """Epoch and unit, in the order in which validations find them."""
        before = torch.zeros(31, dtype=torch.bool)
        for epoch, (z, *_) in enumerate(self.validations, start=1):
            dead = (z <= 0).all(dim=0)
            yield from ((epoch, unit) for unit in (dead & ~before).nonzero().flatten().tolist())
            before = dead

    def last_steps(self, epoch, unit):
        """Optimizer steps before the last of the validations in a row that find the unit dead."""
        steps = 0
        for z, _, _, done in self.validations[epoch - 1 :]:
            if (z[:, unit] > 0).any():
                break
            steps = done
        return steps

    def last_open(self, epoch, unit):
        steps = self.last_steps(epoch, unit)
        return max((s for s, opened in self.open if opened[unit] and s < steps), default=-1)

    def last_grad(self, epoch, unit):
        steps = self.last_steps(epoch, unit)
        norms = [grad[unit].item() for step, grad in self.grads.items() if step < steps]
        return [norm for norm in norms if norm > 0][-1]


def fit(films, *overrides, probe=(), watched=True):
    """A tiny fit by hand: the post-mortem and the model."""
    cfg = tiny_config(films, *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    monitor = build.build_monitor(cfg)
    post_mortem = PostMortem()
    trainer = bare_trainer(cfg, [monitor, *([post_mortem] if watched else []), *probe])
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data)
    return post_mortem, model


@pytest.fixture(scope="module", params=ORDERS)
def autopsy(request, films):
    """Rows and witness of a deadly fit in float64; two batches make a step."""
    witness = Witness()
    keys = [f"head.order={request.param}", "trainer.precision=64-true", "data.batch_size=4"]
    keys += ["trainer.accumulate_grad_batches=2"]
    post_mortem, _ = fit(films, *DEADLY, *keys, probe=[witness])
    return request.param, post_mortem.rows, witness


def test_every_death_has_its_row(autopsy):
    _, rows, witness = autopsy
    deaths = list(witness.deaths())
    assert [(row["epoch"], row["unit"]) for row in rows] == deaths
    assert len(deaths) >= 8


def test_when_a_unit_died_and_what_was_going_on(autopsy):
    order, rows, witness = autopsy
    for row in rows:
        step = witness.last_open(row["epoch"], row["unit"])
        assert row["step"] == step
        assert row["lr"] == witness.rates[step]
        positives, labels = witness.label_counts[step]
        assert row["positives_frac"] == positives / labels
        gradient = witness.last_grad(row["epoch"], row["unit"])
        assert row["grad_row_l2"] == pytest.approx(gradient, rel=1e-12)
    if order == "activation-norm":  # behind batch norm each training batch opens nearly all units
        assert len({row["step"] for row in rows}) > 3
        assert len({row["epoch"] for row in rows}) > 1


class Replay(pl.Callback):
    """Keeps the inputs and the weights of the head, and computes nothing during the fit."""

    def on_fit_start(self, trainer, pl_module):
        self.trainer, self.head = trainer, pl_module.head
        self.train, self.val = [], []  # (step, epoch, features, state)
        pl_module.head.register_forward_pre_hook(lambda head, inputs: self.keep(inputs[0]))

    def keep(self, features):
        if not self.trainer.sanity_checking:
            kept = self.train if self.trainer.training else self.val
            state = {k: v.detach().clone() for k, v in self.head.state_dict().items()}
            place = self.trainer.global_step, self.trainer.current_epoch + 1
            kept.append((*place, features.detach().clone(), state))

    def opened(self, kept, training):
        """Units that an image of the batch opens, `[D]`, by a plain forward pass."""
        _, _, features, state = kept
        z = features @ state["dense.weight"].T + state["dense.bias"]
        if self.head.order == "norm-activation":
            means = state["norm.running_mean"].clone(), state["norm.running_var"].clone()
            weights = state["norm.weight"], state["norm.bias"]
            z = torch.nn.functional.batch_norm(z, *means, *weights, training, eps=1e-3)
        return (z > 0).any(dim=0)


REPLAYED = {
    "one batch a step": ["optimizer.lr=0.01"],
    "two batches a step": ["optimizer.lr=0.01", "trainer.accumulate_grad_batches=2"],
    "norm first": ["head.order=norm-activation", "optimizer.lr=0.03"],
    "a later start": ["optimizer.lr=0.02", "head.bias_init=-0.2", "seed=3"],
}


@pytest.mark.parametrize(
    "case",
    [
        "two batches a step",
        *(
            pytest.param(case, marks=pytest.mark.whole)
            for case in ("one batch a step", "norm first", "a later start")
        ),
    ],
)
def test_a_replay_finds_every_unit_closed_after_its_step(films, case):
    """Until the last validation of those, one after the other, that find the unit dead."""
    replay = Replay()
    keys = ["trainer.max_epochs=6", "trainer.precision=64-true", "data.batch_size=4"]
    post_mortem, _ = fit(films, *keys, *REPLAYED[case], probe=[replay])
    train = [(step, replay.opened(kept, True)) for kept in replay.train for step in kept[:1]]
    dead = {epoch: torch.ones(31, dtype=torch.bool) for epoch in range(1, 7)}
    for kept in replay.val:
        dead[kept[1]] &= ~replay.opened(kept, False)
    ends = {epoch: max(k[0] for k in replay.train if k[1] == epoch) for epoch in dead}
    renewed = 0
    for row in post_mortem.rows:
        unit, first = row["unit"], row["epoch"]
        last = next((e for e in range(first, 7) if not dead[e][unit]), 7) - 1
        assert first <= last
        steps = [step for step, opened in train if opened[unit] and step <= ends[last]]
        assert row["step"] == max(steps, default=-1)
        renewed += row["step"] > ends[first]
    assert post_mortem.rows
    if case.endswith("a step"):  # training images opened some units that stayed dead
        assert renewed


def test_the_parts_add_up_to_the_largest_pre_activation(autopsy):
    _, rows, witness = autopsy
    for row in rows:
        z = witness.validations[row["epoch"] - 1][0][:, row["unit"]]
        parts = ("bias", "wf_birth", "wf_moved", "wf_pushed", "wf_rest_max")
        # The census keeps the largest z in float32.
        assert sum(row[part] for part in parts) == pytest.approx(z.max().item(), rel=1e-6)
        assert row["bias"] + row["wf_mean"] == pytest.approx(z.mean().item(), rel=1e-12)


def test_each_part_is_what_its_name_says(autopsy):
    order, rows, witness = autopsy
    for row in rows:
        z, f, state, _ = witness.validations[row["epoch"] - 1]
        unit, mean_f, first_f = row["unit"], f.mean(dim=0), torch.cat(witness.first_f).mean(dim=0)
        w, w0 = state["dense.weight"][unit], witness.born["dense.weight"][unit]
        last = "norm.bias" if order == "norm-activation" else "dense.bias"
        expected = {
            "bias": state[last][unit],
            "wf_birth": w0 @ first_f,
            "wf_moved": w0 @ (mean_f - first_f),
            "wf_pushed": (w - w0) @ mean_f,
            "wf_rest_max": ((f - mean_f) @ w).max(),
        }
        if order == "norm-activation":  # the norm stands between: only its own bias stands apart
            rest = z[:, unit] - z[:, unit].mean()
            pushed = z[:, unit].mean() - state[last][unit]
            expected |= {"wf_birth": 0 * pushed, "wf_moved": 0 * pushed}
            expected |= {"wf_pushed": pushed, "wf_rest_max": rest.max()}
        for name, value in expected.items():
            assert row[name] == pytest.approx(value.item(), rel=1e-5, abs=1e-8), name
        fell = witness.born[last][unit] - state[last][unit]
        assert row["cause"] == cause(fell, -expected["wf_pushed"], -expected["wf_moved"])


def cause(bias, common_direction, features):
    fell = {"bias": bias, "common_direction": common_direction, "features": features, "other": 0}
    return sorted(fell, key=fell.get)[-1]


def test_a_unit_that_the_moving_features_shut_is_told_so(films):
    keys = ["optimizer.backbone_lr=3e-2", "optimizer.lr=1e-4", "trainer.max_epochs=3"]
    post_mortem, _ = fit(films, *keys)
    causes = {row["cause"] for row in post_mortem.rows}
    assert "features" in causes
    for row in post_mortem.rows:
        if row["cause"] == "features":
            assert row["wf_moved"] < min(0, row["wf_pushed"])


def test_units_that_no_training_image_opened(films):
    post_mortem, _ = fit(films, "trainer.max_epochs=1", "head.bias_init=-1000")
    assert [row["unit"] for row in post_mortem.rows] == list(range(31))
    for row in post_mortem.rows:
        assert (row["step"], row["cause"], row["grad_row_l2"]) == (-1, "never_open", 0)
        assert math.isnan(row["lr"])
        assert math.isnan(row["positives_frac"])
    assert post_mortem.summary() == "31 of 31 units never opened on a training image"


class Switch(pl.Callback):
    """Unit 7 is dead, alive and dead again."""

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.head.dense.bias.data[7] = 1000 if trainer.current_epoch == 1 else -1000


def test_a_unit_that_dies_twice_has_two_rows(films):
    keys = ["trainer.max_epochs=3", "optimizer.lr=1e-9", "backbone.frozen=true"]
    post_mortem, _ = fit(films, *keys, probe=[Switch()])
    rows = [row for row in post_mortem.rows if row["unit"] == 7]
    # Ten steps an epoch; the second is trained with the unit dead.
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 9), (3, 29)]


def test_it_changes_not_one_bit_of_the_weights_and_nothing_waits_for_the_device(films):
    keys = [*DEADLY, "diagnostics.every_n_steps=5", "trainer.log_every_n_steps=100"]
    counts, states = [], []
    for watched in (True, False):
        counter = CountedSteps()
        _, model = fit(films, *keys, "data.augment=[]", probe=[counter], watched=watched)
        counts.append(counter.per_step)
        states.append(model.state_dict())
    assert counts[0] == counts[1]
    assert len(counts[0]) == 30
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class Kill(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 3):
            raise RuntimeError("killed")


def table(folder):
    with (folder / "postmortem.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(films, tmp_path_factory):
    """An unbroken run with W&B's offline log, and one that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    whole, broken = folder / "whole", folder / "broken"
    cfg = tiny_config(films, *DEADLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "wandb-settings"))
        wandb.teardown()
        keys = [*DEADLY, "logger=wandb", "logger.mode=offline"]
        train(tiny_config(films, *keys), whole, [])
        wandb.finish()
        wandb.teardown()
        fitting = build._fitting
        patch.setattr(build, "_fitting", lambda *args: [*fitting(*args), Kill()])
        with pytest.raises(RuntimeError, match="killed"):
            train(cfg, broken, [])
    at_the_kill = table(broken)
    cfg.run.resume = str(broken)
    return whole, broken, at_the_kill, train(cfg, broken, [])


@pytest.mark.whole
def test_a_resumed_run_keeps_its_rows(runs):
    whole, broken, at_the_kill, result = runs
    expected = table(whole)
    assert table(broken) == expected
    assert 0 < len(at_the_kill) < len(expected)
    for row, later in zip(at_the_kill, expected, strict=False):
        assert {**row, **{name: later[name] for name in (*OF_STEP, "cause")}} == later
    dead = np.load(whole / "gate_open.npy")[-1] == 0
    numbers = [{**row, "unit": int(row["unit"]), "step": int(row["step"])} for row in expected]
    numbers = [{**row, "lr": float(row["lr"])} for row in numbers]
    line = describe([row for row in numbers if dead[row["unit"]]], 31)
    again = len({row["unit"] for row in numbers if not dead[row["unit"]]})
    assert result["postmortem"] == f"{line}; {again} of 31 units died and recovered"
    assert again


def test_the_file_and_the_table_in_wandb_hold_the_same_rows(runs):
    whole, *_ = runs
    run = OfflineRun(whole)
    last = [row["postmortem"] for row in run.history if "postmortem" in row][-1]
    logged = json.loads((run.folder / "files" / last["path"]).read_text())
    rows = table(whole)
    assert logged["columns"] == list(rows[0])
    assert [[str(cell) for cell in row] for row in logged["data"]] == [
        list(row.values()) for row in rows
    ]
    assert last["nrows"] == len(rows)


def row(unit, step, cause="common_direction", lr=0.01):
    return {"unit": unit, "step": step, "lr": lr, "cause": cause}


DIRECTION = "the features' common direction"
TOLD = {
    "none": ([], "none of 40 units died"),
    "never": ([row(3, -1, "never_open")], "1 of 40 units never opened on a training image"),
    "bias": (
        [row(3, 9, "bias", 0.5), row(4, 1, "bias")],
        "2 of 40 units died, 90% of them by step 10, at learning rates up to 0.5; main cause: the "
        f"bias, not {DIRECTION}",
    ),
    "features": (
        [row(3, 0, "features")],
        "1 of 40 units died, 90% of them by step 1, at learning rates up to 0.01; main cause: a "
        f"shift of the features, not {DIRECTION}",
    ),
    "two thirds": (
        [row(3, 9), row(4, 9), row(5, 9, "bias")],
        "3 of 40 units died, 90% of them by step 10, at learning rates up to 0.01; main cause: "
        f"{DIRECTION}, not the bias",
    ),
    "split": (
        [row(3, 9), row(4, 9), row(5, 9), row(6, 9, "bias"), row(7, 9, "bias")],
        "5 of 40 units died, 90% of them by step 10, at learning rates up to 0.01; causes: "
        f"{DIRECTION} (3), the bias (2)",
    ),
    "90 %": (
        [row(unit, unit) for unit in range(20)],
        "20 of 40 units died, 90% of them by step 18, at learning rates up to 0.01; main cause: "
        f"{DIRECTION}, not the bias",
    ),
    "twice and never": (
        [row(3, 9, "bias"), row(4, -1, "never_open"), row(3, 99)],
        "1 of 40 units died, 90% of them by step 100, at learning rates up to 0.01; main cause: "
        f"{DIRECTION}, not the bias; 1 of 40 units never opened on a training image",
    ),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_a_person_is_told(what):
    rows, line = TOLD[what]
    assert describe(rows, 40) == line


class Reborn(pl.Callback):
    """Stands last: the weights that revived units were given, and the features of their birth."""

    def __init__(self, monitor):
        self.monitor, self.births = monitor, {}

    def on_train_epoch_start(self, trainer, pl_module):
        head = pl_module.head
        for unit in (head.out.weight == 0).all(dim=0).nonzero().flatten().tolist():
            born = (
                head.dense.weight[unit].detach().double()
                @ self.monitor.metrics.features["train"].mean
            )
            self.births[unit, trainer.current_epoch + 1] = born.item()


def test_a_unit_that_started_anew_is_compared_with_its_new_birth(films, tmp_path):
    keys = ["optimizer.lr=0.1", "trainer.max_epochs=4", "diagnostics.revive_every_n_epochs=1"]
    cfg = tiny_config(films, *keys)
    data = build.build_data(cfg, build.build_studies(cfg))
    watchers = build.build_watchers(cfg, tmp_path)
    monitor, _, _, post_mortem, *_ = watchers
    reborn = Reborn(monitor)
    trainer = build.build_trainer(cfg, tmp_path)
    trainer.callbacks.extend([*watchers, reborn])
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(build.build_classifier(cfg, data), datamodule=data)
    again = [r for r in post_mortem.rows if (r["unit"], r["epoch"]) in reborn.births]
    assert again  # units that died in the epoch before which they had started anew
    for row in again:
        birth = reborn.births[row["unit"], row["epoch"]]
        assert row["wf_birth"] == pytest.approx(birth, rel=1e-9)
