"""`head.norm_momentum=auto`: batch norm forgets its initial statistics within the run."""

import warnings

import pytest
import torch
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope.ablation.ablate import ablate
from fluoroscope.command.composition import composed
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.run.training_check import check_training, momentum_for, settle_momentum
from fluoroscope.train import train
from tests.ablation.test_ablate import ablation
from tests.support.films import config, tiny_config

AUTO = "head.norm_momentum=auto"


def left(momentum, batches):
    """Share of the initial mean that batch norm itself still has after so many batches of zeros."""
    norm = torch.nn.BatchNorm1d(1, momentum=momentum, dtype=torch.float64)
    norm.running_mean.fill_(1)
    for _ in range(batches):
        norm(torch.zeros(2, 1, dtype=torch.float64))
    return norm.running_mean.item()


@pytest.mark.parametrize("batches", [7, 8, 29, 44, 100, 229, 458, 459])
def test_it_is_the_smallest_that_forgets_the_start(batches):
    momentum = momentum_for(batches)
    assert left(momentum, batches) <= 0.01
    assert left(momentum - 0.01, batches) > 0.01 or momentum == 0.01
    assert momentum == round(momentum, 2)


def test_it_has_two_bounds():
    assert [momentum_for(batches) for batches in (1, 6, 10_000, 10**9)] == [0.5, 0.5, 0.01, 0.01]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["trainer.max_epochs=1"], marks=pytest.mark.whole),
        ["trainer.limit_train_batches=0.5", "trainer.accumulate_grad_batches=2"],
        pytest.param(["trainer.limit_train_batches=4"], marks=pytest.mark.whole),
        pytest.param(["data.sampler=balanced", "data.batch_size=16"], marks=pytest.mark.whole),
    ],
)
def test_a_run_stores_the_number_that_fits_the_batches_it_saw(films, tmp_path, keys):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="batch norm needs")
        result = train(tiny_config(films, AUTO, *keys), tmp_path, [])
    last = torch.load(run_folder.checkpoint(tmp_path, "last"), weights_only=True)
    expected = momentum_for(int(last["state_dict"]["head.norm.num_batches_tracked"]))
    stored = OmegaConf.load(tmp_path / run_folder.CONFIG).head.norm_momentum
    assert stored == result["head"]["norm_momentum"] == expected
    assert last["config"]["head"]["norm_momentum"] == expected


def test_every_resume_keeps_it(films, tmp_path):
    train(tiny_config(films, AUTO, "trainer.max_epochs=1"), tmp_path, [])
    before = OmegaConf.load(tmp_path / run_folder.CONFIG).head.norm_momentum
    again = [AUTO, "trainer.max_epochs=2", f"run.dir={tmp_path}", "run.resume=auto"]
    (tmp_path / run_folder.RESULT).unlink()
    train(tiny_config(films, *again), tmp_path, [])
    (tmp_path / run_folder.RESULT).unlink()
    longer = [f"run.resume={tmp_path}", "trainer.max_epochs=3"]
    train(check_train(composed("train", longer), longer), tmp_path, [])
    last = torch.load(run_folder.checkpoint(tmp_path, "last"), weights_only=True)
    assert last["epochs"] == 3
    assert OmegaConf.load(tmp_path / run_folder.CONFIG).head.norm_momentum == before
    assert last["config"]["head"]["norm_momentum"] == before
    assert before != momentum_for(int(last["state_dict"]["head.norm.num_batches_tracked"]))


@pytest.mark.whole
def test_heads_of_an_ablation_take_it_too_and_a_grid_names_numbers(films, tmp_path):
    grid = "++grid.head.norm_momentum=[0.02,auto]"
    asked = ablation(films, AUTO, "activations=[relu,identity]", grid, "trainer.max_epochs=1")
    with pytest.warns(
        UserWarning, match=r"head.norm_momentum=0.02, .* set head.norm_momentum=auto"
    ):
        ablate(asked, tmp_path)
    found = {
        name: run_folder.read_json(tmp_path / f"heads/{name}/result.json")["head"]["norm_momentum"]
        for name in asked.heads
    }
    assert {value for name, value in found.items() if "0.02" in name} == {0.02}
    assert {value for name, value in found.items() if "auto" in name} == {momentum_for(10)}


@pytest.mark.parametrize("value", ["fast", "true", "0", "-0.1", "1.5", "null", "[0.1]", "nan"])
def test_another_value_is_refused(films, value):
    with pytest.raises(InputError, match=r"head.norm_momentum must be .*\(0, 1\]"):
        tiny_config(films, f"head.norm_momentum={value}")


@pytest.mark.parametrize("films_of", [7, 10, 64])
def test_a_default_run_on_a_few_films_is_sound(films, films_of, recwarn):
    """The default keys: 15 epochs in batches of 64 or less."""
    cfg = config("data=folder", f"data.root={films}", f"data.batch_size={films_of}")
    data = build.build_data(cfg, build.build_studies(cfg))
    settle_momentum([cfg], data, 1)
    check_training(cfg, data, 1)
    assert not [w for w in recwarn if "batch norm" in str(w.message)]


def test_a_run_of_six_batches_is_told_to_train_longer(films):
    cfg = tiny_config(films, AUTO, "trainer.max_epochs=2", "trainer.limit_train_batches=3")
    data = build.build_data(cfg, build.build_studies(cfg))
    settle_momentum([cfg], data, 1)
    with pytest.warns(UserWarning, match="stale statistics; train longer$"):
        check_training(cfg, data, 1)
