"""Named sets of overrides, of which a run takes one."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope.command import sweep
from fluoroscope.config import CONF
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError

SWEEP = ["experiment=remedies"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*SWEEP, *overrides])


def checked(*overrides):
    return check_train(composed(*overrides))


def without_name(cfg):
    cfg.run.remedy = cfg.run.name = ""
    return cfg


def test_every_remedy_of_the_file_is_a_valid_run_that_differs_from_none():
    names = list(composed().remedies)
    assert names[0] == "none"
    runs = {name: checked(f"run.remedy={name}", "seed=3") for name in names}
    for name, cfg in runs.items():
        assert (cfg.run.remedy, cfg.run.name) == (name, f"{name}-s3")
    plain = {name: str(without_name(cfg)) for name, cfg in runs.items()}
    assert len(set(plain.values())) == len(names)


def test_a_sweep_without_values_trains_every_remedy_with_every_seed():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        _, jobs = sweep.plan("train", [*SWEEP, "+remedies.mine=['head.width=3']"])
        _, named = sweep.plan("train", [*SWEEP, "run.remedy=none,revive", "seed=7"])
    words = {word for job in jobs for word in job}
    assert {f"run.remedy={name}" for name in [*composed().remedies, "mine"]} <= words
    assert {f"seed={seed}" for seed in (1, 2, 3, 4, 5)} <= words
    assert [job[-2:] for job in named][:2] == [
        ["run.remedy=none", "seed=7"],
        ["run.remedy=revive", "seed=7"],
    ]


def test_the_overrides_of_a_remedy_win_over_the_command_line():
    cfg = checked("run.remedy=head_lr_1e-4", "optimizer.lr=0.5", "head.width=7")
    assert (cfg.optimizer.lr, cfg.head.width) == (1e-4, 7)


def test_a_name_without_remedies_is_a_label():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert check_train(compose("train", ["run.remedy=mine"])).run.remedy == "mine"


@pytest.mark.parametrize(
    ("remedy", "sentence"),
    [
        ("3", "remedies.mine must be a list of KEY=VALUE; got 3"),
        ("[width]", "remedies.mine must be a list of KEY=VALUE; got"),
        ("['head.widht=3']", "there is no key head.widht"),
        ("['optimizer.lr=-1']", "optimizer.lr must be at least 0"),
        ("['backbone.frozen=false']", "data.features=cached needs backbone.frozen=true"),
    ],
)
def test_a_remedy_that_cannot_be_trained_is_refused(remedy, sentence):
    with pytest.raises(InputError, match=sentence):
        checked(f"+remedies.mine={remedy}", "run.remedy=mine")


def test_an_unknown_remedy_is_refused():
    with pytest.raises(InputError, match=r"run.remedy must be one of .*; got 'nothing'"):
        checked("run.remedy=nothing")


def test_a_resumed_run_keeps_its_remedy(tmp_path):
    OmegaConf.save(checked("run.remedy=gelu"), tmp_path / "config.yaml")
    resumed = [f"run.resume={tmp_path}", "trainer.max_epochs=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = check_train(compose("train", resumed), resumed)
        assert (cfg.run.remedy, cfg.head.activation) == ("gelu", "gelu")
        words = [*resumed, "run.remedy=elu"]
        with pytest.raises(InputError, match=r"run.remedy is 'gelu', and 'elu' needs a new run"):
            check_train(compose("train", words), words)
