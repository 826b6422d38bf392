import math
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from fluoroscope import build
from fluoroscope.diagnostics.alerts import Alert, Alerts, Rules
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.run import wandb_logger
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer
from tests.support.wandb_log import OfflineRun, wandb_config

NAN = math.nan


def dead(name, *shares, rules=None):
    """Whether each window of these dead shares brings an alert."""
    rules = rules or Rules()
    return [bool(rules.window(name, {f"units/{name}/dead_frac": s}, "")) for s in shares]


def blackout(*shares, **switches):
    rules = Rules(**switches)
    return [bool(rules.window("val", {"units/val/blackout_frac": s}, "")) for s in shares]


def vanishing(*norms, **switches):
    rules = Rules(**switches)
    keys = ("grad/l2/head_dense", "grad/l2/head_out")
    return [bool(rules.step(dict(zip(keys, pair, strict=True)), "")) for pair in norms]


def test_a_condition_is_said_when_it_begins_and_again_only_after_it_ceased():
    assert blackout(0.0, 0.01, 0.5, 0.5, 0.0, 0.02) == [False, True, False, False, False, True]
    assert blackout(0.05, 0.06, blackout_frac=0.05) == [False, True]
    ratios = [(1, 1), (0.9, 100), (0.8, 100), (1.1, 100), (0.9, 100)]
    assert vanishing(*ratios) == [False, True, False, False, True]


def test_the_dead_share_is_compared_with_the_window_before_alone():
    assert dead("val", 0.9, 0.95, 1.0) == [False] * 3  # high, but it does not jump
    assert dead("val", 0.1, 0.25, 0.4, 0.4, 0.55) == [False, True, False, False, True]
    assert dead("train", 0.5, 0.3, 0.45) == [False, False, True]  # from 0.3, not from 0.5
    assert dead("val", 0.25, 0.375, rules=Rules(dead_jump_frac=0.125)) == [False, False]


def test_both_windows_that_jump_are_one_alert():
    rules = Rules()
    assert dead("val", 0.0, 0.2, rules=rules) == [False, True]
    assert dead("train", 0.0, 0.2, rules=rules) == [False, False]
    assert dead("val", 0.2, rules=rules) == [False]
    assert dead("train", 0.4, rules=rules) == [False]  # it has held all along
    assert dead("train", 0.4, 0.6, rules=rules) == [False, True]


def test_no_gradient_at_all_is_the_worst_case_and_a_missing_one_is_none():
    assert vanishing((0.0, 1.0), (0.0, 0.0), (0.0, 1.0)) == [True, False, False]  # it lasts
    assert vanishing((0.0, 0.0)) == [False]
    assert vanishing((NAN, 1.0), (NAN, NAN), (1.0, math.inf), (math.inf, 1.0)) == [False] * 4
    assert vanishing((1.0, 0.0), (0.8, 1.0), (2.6, 1.0)) == [False] * 3
    assert Rules().step({}, "") == Rules().window("val", {}, "") == []
    assert blackout(NAN) == [False]
    assert dead("val", 0.1, NAN, 0.3) == [False, False, True]


def test_null_switches_one_rule_off():
    assert blackout(1.0, blackout_frac=None) == [False]
    assert vanishing((0.0, 0.0), vanishing_ratio=None) == [False]
    assert dead("val", 0.0, 1.0, rules=Rules(dead_jump_frac=None)) == [False, False]


def every_alert():
    rules = Rules()
    rules.window("train", {"units/train/dead_frac": 0.125}, "")
    return [
        *rules.window("val", {"units/val/blackout_frac": 0.0347}, "epoch 3, step 59"),
        *rules.window("train", {"units/train/dead_frac": 0.5}, "epoch 4, step 79"),
        *rules.step({"grad/l2/head_dense": 0.0032, "grad/l2/head_out": 1.0}, "epoch 5, step 80"),
    ]


def test_an_alert_says_what_where_and_what_to_do():
    texts = [alert.text for alert in every_alert()]
    facts = ["On 3.47% of the validation images", "from 12.5% to 50.0%", "is 0.0032 times that"]
    for text, fact, place in zip(
        texts, facts, ("3, step 59", "4, step 79", "5, step 80"), strict=True
    ):
        assert fact in text
        assert f"(epoch {place})" in text
        for remedy in ("optimizer.lr", "optimizer.warmup_frac", "head.bias_init=0.1 or centered"):
            assert remedy in text
        assert text.count(". ") == 0  # one sentence
        assert text.endswith(".")
    assert "revive_every_n_epochs" in texts[1]
    assert all(len(alert.title) < 64 for alert in every_alert())  # W&B refuses longer ones
    (zero,) = Rules().step({"grad/l2/head_dense": 0.0, "grad/l2/head_out": 2.0}, "epoch 1, step 0")
    assert "is 0 times that of head.out" in zero.text


@pytest.mark.parametrize("text", [alert.text for alert in every_alert()])
def test_the_remedies_are_keys_that_the_configuration_takes(films, text):
    keys = ["optimizer.lr=1e-4", "optimizer.warmup_frac=0.2", "head.order=norm-activation"]
    keys += ["head.bias_init=centered", "head.activation=leaky_relu"]
    keys += ["diagnostics.revive_every_n_epochs=1"] * ("revive" in text)
    assert all(key.split("=")[0] in text for key in keys)
    tiny_config(films, *keys)


def fit(films, folder, *keys, alerts=None, loggers=()):
    cfg = tiny_config(films, "backbone.frozen=true", *keys)
    data = build.build_data(cfg, build.build_studies(cfg))
    monitor = Monitor(every_n_steps=4)
    alerts = alerts or Alerts()
    trainer = bare_trainer(cfg, [monitor, alerts], logger=list(loggers))
    trainer.fit(build.build_classifier(cfg, data), datamodule=data)
    return trainer, alerts


SHUT = ["head.bias_init=-1000", "optimizer.lr=1e-9"]


def test_a_shut_head_is_told_on_the_console_and_to_wandb(films, tmp_path, capsys):
    logger = wandb_logger.make_wandb_logger(tmp_path, wandb_config(), "offline", "a1b2c3d4")
    try:
        fit(films, tmp_path, *SHUT, loggers=[MetricsCsv(tmp_path), logger])
    finally:
        wandb_logger.finish(0)
    printed = [line for line in capsys.readouterr().out.splitlines() if "alert" in line]
    sent = list(OfflineRun(tmp_path)._of("alert"))
    assert [f"alert: {alert.text}" for alert in sent] == printed
    assert [(a.title, a.level) for a in sent] == [
        ("Gradient vanishes in the head", "WARN"),
        ("Blackout: images that open no unit", "WARN"),
    ]  # once each, though both held in two epochs
    assert "(epoch 1, step 0)" in printed[0]  # the first logged step
    assert "On 100.00% of the validation images" in printed[1]
    assert "(epoch 1, step 9)" in printed[1]
    assert str(films) not in "".join(printed)


def test_a_healthy_run_is_silent(films, tmp_path, capsys):
    fit(films, tmp_path, "trainer.max_epochs=1")
    assert "alert" not in capsys.readouterr().out


def test_units_that_die_within_an_epoch_are_told(films, tmp_path, capsys):
    class Kill(Alerts):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.head.dense.bias.data[:20] = -1000

    fit(films, tmp_path, alerts=Kill())
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "alert" in line]
    assert "in the validation window (epoch 2, step 19)" in told


class Steps(Rules):
    """Which numbers the callback looked at."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def step(self, values, where):
        self.seen.append((where.split("step ")[1], values["grad/l2/head_dense"]))
        return []


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [0, 4, 8, 12, 16]), (3, [0, 4])])
def test_each_logged_step_is_looked_at_once_with_its_own_numbers(
    films, tmp_path, accumulate, steps
):
    alerts = Alerts()
    alerts.rules = Steps()
    keys = [f"trainer.accumulate_grad_batches={accumulate}"]
    fit(films, tmp_path, *keys, alerts=alerts)
    assert [int(step) for step, _ in alerts.rules.seen] == steps
    assert len({value for _, value in alerts.rules.seen}) == len(steps)  # fresh ones


def test_a_resumed_run_does_not_say_it_again(films, tmp_path, capsys):
    keys = [*SHUT, "trainer.max_epochs=1"]
    trainer, _ = fit(films, tmp_path, *keys)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert capsys.readouterr().out.count("alert: ") == 2
    cfg = tiny_config(films, "backbone.frozen=true", *SHUT)
    data = build.build_data(cfg, build.build_studies(cfg))
    monitor = Monitor(every_n_steps=4)
    alerts = Alerts()
    resumed = bare_trainer(cfg, [monitor, alerts])
    model = build.build_classifier(cfg, data)
    resumed.fit(model, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert alerts.rules.active == {"blackout", "vanishing"}
    assert alerts.rules.dead_before == {"val": 1.0, "train": 1.0}
    assert "alert" not in capsys.readouterr().out


def test_an_alert_is_printed_above_a_live_bar(capsys):
    """Of rich, whose redirection takes what is printed, but not another console's writing."""
    console = Console(force_terminal=True, width=300)
    with Progress(console=console, transient=True) as progress:
        progress.add_task("epoch", total=3)
        assert sys.stdout is not sys.__stdout__
        trainer = type("Trainer", (), {"is_global_zero": True, "loggers": []})
        Alerts()._show([Alert("Title", "What is [up] here.")], trainer)
    out = capsys.readouterr().out
    before, _, after = out.partition("alert: What is [up] here.\n")
    assert before.endswith("\x1b[2K")  # the bar's line was wiped
    assert "epoch" in after  # and drawn again below
