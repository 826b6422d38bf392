"""Every number of images that is printed or reported is the number that was counted."""

import re

import pandas as pd
import pytest

from fluoroscope import build, estimate
from fluoroscope.estimate import Measured
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.run import run_folder
from fluoroscope.train import train
from tests.support.films import tiny_config

CACHED = ["backbone.frozen=true", "data.features=cached", "data.augment=[]"]


def counted(folder, split):
    """Images and patients in the predictions."""
    rows = pd.read_csv(folder / f"predictions/{split}.csv")
    return len(rows), rows["group"].nunique()


@pytest.mark.parametrize(
    "limits",
    [
        {"val": 2, "test": 1},
        pytest.param({"val": 1}, marks=pytest.mark.whole),
        pytest.param({"test": 0.5}, marks=pytest.mark.whole),
        pytest.param({"val": 0.34, "cached": True}, marks=pytest.mark.whole),
        pytest.param({}, marks=pytest.mark.whole),
    ],
)
def test_a_run_names_the_images_it_saw(films, tmp_path, capsys, limits):
    keys = [f"trainer.limit_{k}_batches={v}" for k, v in limits.items() if k != "cached"]
    keys += CACHED if "cached" in limits else []
    result = train(tiny_config(films, "trainer.max_epochs=1", *keys), tmp_path / "run", [])
    told = " ".join(capsys.readouterr().out.split())
    val, test = (counted(tmp_path / "run", split) for split in ("val", "test"))
    assert f"units on {val[0]} validation images" in told
    assert f"on {test[0]} x-rays of {test[1]} patients" in told
    # The census counts by itself: the share that it cannot tell from 0 depends on its images.
    assert 1 - 0.05 ** (1 / val[0]) == pytest.approx(result["units"]["val/dead_bound_frac"])
    facts = compare(collect([tmp_path])).common
    for split, (images, patients) in {"val": val, "test": test}.items():
        assert (facts[f"{split} images"], facts[f"{split} patients"]) == (images, patients)
    whole = {row["split"]: row["images"] for row in result["splits"]}
    assert ("validated" in result) == (val[0] < whole["val"])
    assert (val[0] < whole["val"], test[0] < whole["test"]) == ("val" in limits, "test" in limits)


def test_an_estimate_is_of_the_batches_that_limits_leave(films):
    measured = Measured(batch_s=1, network_s=1, val_batch_s=10, epoch_end_s=100)

    def times(*keys):
        cfg = tiny_config(films, "trainer.max_epochs=3", *keys)
        return estimate._times(cfg, build.build_data(cfg, build.build_studies(cfg)), measured, 1000)

    # 80 films in 10 batches, 20 in 3 and 20 in 3.
    assert times() == (10 + 30 + 100, 30, 1000 + 3 * 140 + 30 + 30)
    limits = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=0.4"]
    assert times(*limits) == (4 + 10 + 100, 10, 1000 + 3 * 114 + 10 + 30)
    assert times("trainer.limit_test_batches=1").run_s == 1000 + 3 * 140 + 30 + 10
    assert times("data.sampler=balanced", "data.batch_size=40").epoch_s == 2 + 10 + 100


@pytest.mark.whole
def test_the_time_of_a_resumed_run_is_told_to_be_that_since_the_resume(films, tmp_path, capsys):
    cfg = tiny_config(films, "trainer.max_epochs=1", *CACHED)
    train(cfg, tmp_path, [])
    assert re.search(r"\d+ s in total", capsys.readouterr().out)
    (tmp_path / run_folder.RESULT).unlink()
    cfg.run.resume, cfg.trainer.max_epochs = str(tmp_path), 2
    train(cfg, tmp_path, [])
    told = capsys.readouterr().out
    assert re.search(r"2 epochs, \d+ steps, .* s since it was resumed", " ".join(told.split()))
