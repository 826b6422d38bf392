"""Two processes against one: the same images, numbers and files."""

import os
import signal
from functools import partial

import pandas as pd
import pytest
import torch

from fluoroscope import build
from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.run.resume import load_checkpoint
from fluoroscope.run.training_check import check_training, settle_momentum
from fluoroscope.train import train
from tests.run.test_resume import assert_equal
from tests.support.commands import (
    SCRIPTS,
    TORCHRUN,
    TRAIN,
    end,
    run,
    start,
    tiny_arguments,
    together,
    wait_for,
)
from tests.support.films import UNEVEN, tiny_config
from tests.support.forking import run_script
from tests.support.metrics import metric_rows

# 84, 21 and 14 images: val divides neither by two processes nor by a batch, train and test leave
# incomplete batches, and test gives each process 7 images in batches of 4 and 3.
SPLITS = UNEVEN
# Nothing in this run mixes the images of a batch but the mean of the loss, so that two processes
# do the arithmetic of one. The bias leaves about half of the units dead and blacks out a third of
# the images: shares that an error would move.
APART = ["head.norm=layer", "backbone.frozen=true", "head.bias_init=-0.0025", "optimizer.lr=3e-4"]
# Long enough that some units are open on the images of one process alone.
MIXED = ["seed=2", "trainer.max_epochs=3", "optimizer.backbone_lr=1e-3"]
# Of units open on eight images of a process's batch of four.
OWN = {"grad/gate_transmission", "grad/gate_cosine"}
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def one(uneven, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder.parent))
        train(tiny_config(uneven, *SPLITS, *APART, "data.batch_size=8"), folder, [])
    return folder


@pytest.fixture(scope="module")
def two(uneven, tmp_path_factory):
    """The same, half of each batch to each of two processes."""
    cwd = tmp_path_factory.mktemp("two")
    arguments = tiny_arguments(uneven, *SPLITS, *APART, *TWO, "data.batch_size=4", "run.dir=run")
    return cwd, train_together(arguments, cwd)


@pytest.fixture(scope="module")
def normed(uneven, tmp_path_factory):
    """Batch norm and a backbone that learns."""
    cwd = tmp_path_factory.mktemp("normed")
    train_together(mixed(uneven), cwd)
    return cwd / "run"


def train_together(arguments, cwd):
    return together(partial(run_script, TRAIN, arguments), cwd, XDG_CACHE_HOME=str(cwd / "cache"))


def mixed(uneven):
    keys = [*SPLITS, *TWO, *MIXED, "data.batch_size=4", "run.dir=run", "run.resume=auto"]
    keys += ["trainer.log_every_n_steps=1", "diagnostics.every_n_steps=1"]
    return tiny_arguments(uneven, *keys)


def rows(folder):
    """What `metrics.csv` holds: of each row, the cells that are filled."""
    filled = [{k: v for k, v in row.items() if v} for row in metric_rows(folder)]
    return [{key: float(value) for key, value in row.items()} for row in filled]


def test_the_splits_are_uneven(one):
    counts = [split["images"] for split in run_folder.read_json(one / run_folder.RESULT)["splits"]]
    assert counts == [84, 21, 14]


def test_every_logged_number_is_that_of_one_process(one, two):
    expected, logged = rows(one), rows(two[0] / "run")
    assert [sorted(row) for row in logged] == [sorted(row) for row in expected]
    keys = {key for row in expected for key in row}
    assert {"units/train/dead_frac", "grad/starved_frac", "val/auroc", "test/brier"} <= keys
    for before, after in zip(expected, logged, strict=True):
        for key in set(before) - OWN:
            # Counts over counts are equal to the last bit. A float32 gradient that is summed in
            # another order is off by some 1e-7 of its largest terms (1e-6 seen, in head_norm), and
            # so are then the weights (1e-7 seen, in the effective rank).
            counted = key.endswith(("_frac", "_frac_0025", "_frac_01")) and "expected" not in key
            rel = 0 if counted else 1e-5
            assert after[key] == pytest.approx(before[key], rel=rel, abs=0, nan_ok=True), key


def test_the_shares_that_were_compared_are_neither_none_nor_all(one):
    last = {key: value for row in rows(one) for key, value in row.items()}
    for key in ("val/dead_frac", "val/blackout_frac", "train/dead_frac", "train/revived_frac"):
        assert 0 < last[f"units/{key}"] < 1, key
    assert 0 < last["grad/starved_frac"] < 1
    assert 0 < last["grad/features_zero_frac"] < 1


def test_the_weights_end_where_those_of_one_process_do(one, two):
    for name in ("best", "last"):
        states = [load_checkpoint(f / f"checkpoints/{name}.ckpt") for f in (one, two[0] / "run")]
        assert states[0]["global_step"] == states[1]["global_step"] > 0
        assert torch.equal(states[0]["thresholds"], states[1]["thresholds"])
        for key, value in states[0]["state_dict"].items():
            # Adam divides a gradient by its own size: rounding can turn into a part of a step of
            # 3e-4. 2e-8 seen, one unit in the last place of a weight.
            torch.testing.assert_close(states[1]["state_dict"][key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("split", "images"), [("val", 21), ("test", 14)])
def test_every_image_is_scored_once(one, two, normed, split, images):
    expected = pd.read_csv(one / f"predictions/{split}.csv")
    scored = pd.read_csv(two[0] / f"run/predictions/{split}.csv")
    assert scored["row"].nunique() == len(scored) == images
    pd.testing.assert_frame_equal(scored, expected, rtol=1e-5)
    again = pd.read_csv(normed / f"predictions/{split}.csv")
    assert list(again["row"]) == list(expected["row"])
    assert list(again["BLOB"]) == list(expected["BLOB"])


def test_the_results_agree(one, two):
    expected = run_folder.read_json(one / run_folder.RESULT)
    result = run_folder.read_json(two[0] / "run" / run_folder.RESULT)
    assert result.keys() == expected.keys()
    for part in ("val", "test", "units"):
        for key, value in expected[part].items():  # null where there is nothing to measure
            wanted = value if value is None else pytest.approx(value, rel=1e-5)
            assert result[part][key] == wanted, key
    for key in ("best_epoch", "epochs", "steps", "split_fingerprint", "splits"):
        assert result[key] == expected[key], key


def test_there_is_one_run_folder_and_one_voice(one, two):
    cwd, ((out, err), other) = two
    files = lambda folder: {  # noqa: E731
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
    }
    assert files(cwd / "run") == files(one)
    assert {p.name for p in cwd.iterdir()} == {"run", "cache"}
    for line in ("train  val  test", "W&B off", "epoch   1/2", "epoch   2/2", "Test  "):
        assert out.count(line) == 1, line
    assert (err, other) == ("", ("", ""))


@pytest.mark.whole
def test_torchrun_starts_the_same_run(uneven, normed, tmp_path):
    run(mixed(uneven), tmp_path, TORCHRUN, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert_equal(normed, tmp_path / "run")


def census(model, z):
    meter = UnitCensus(model.head.activation, z.shape[1])
    meter.update(z)
    return meter.compute()


def test_the_census_is_merged_over_processes_not_averaged(uneven, normed):
    """With batch norm in training the weights are their own, so these are given to one process."""
    cfg = tiny_config(uneven, *SPLITS, *MIXED)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    last = load_checkpoint(normed / "checkpoints/last.ckpt")
    model.load_state_dict(last["state_dict"])
    model.eval()
    with torch.no_grad():
        images = torch.cat([batch["image"] for batch in data.val_dataloader()])
        z = model.head.dense(model.backbone(images))
    # A split is dealt out to the processes like cards.
    whole, *parts = (census(model, part) for part in (z, z[0::2], z[1::2]))
    logged = [row for row in rows(normed) if "units/val/dead_frac" in row][-1]
    for key in set(whole) - {"newly_dead_frac", "revived_frac"}:  # these look back
        assert logged[f"units/val/{key}"] == pytest.approx(whole[key], rel=1e-6), key
    mean = sum(part["dead_frac"] for part in parts) / 2
    assert mean > logged["units/val/dead_frac"] + 0.01


def test_a_checkpoint_is_scored_the_same_by_two_processes(one, two):
    cwd = two[0]
    best = f"checkpoint={one}/checkpoints/best.ckpt"
    keys = [best, "trainer.accelerator=cpu", "trainer.devices=2", "run.dir=scored"]
    evaluate = partial(run_script, SCRIPTS / "evaluate.py", keys)
    first, other = together(evaluate, cwd, XDG_CACHE_HOME=str(cwd / "cache"))
    assert (first[0].count("Test  "), first[1], other) == (1, "", ("", ""))
    expected = pd.read_csv(one / "predictions/test.csv")
    scored = pd.read_csv(cwd / "scored/predictions/test.csv")
    pd.testing.assert_frame_equal(scored, expected, rtol=1e-6)
    results = [
        run_folder.read_json(folder / run_folder.RESULT)["test"] for folder in (one, cwd / "scored")
    ]
    for key, value in results[0].items():
        assert results[1][key] == (value if value is None else pytest.approx(value, rel=1e-6)), key


@pytest.mark.parametrize(
    ("signum", "to_all"),
    [
        (signal.SIGTERM, False),
        *(
            pytest.param(signum, to_all, marks=pytest.mark.whole)
            for signum, to_all in [
                *((signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGUSR1, True)),
                *((signal.SIGINT, False), (signal.SIGUSR1, False)),
            ]
        ),
    ],
)
def test_a_kill_is_obeyed_by_both_processes_at_the_same_batch(
    uneven, normed, tmp_path, signum, to_all
):
    """Lightning starts the second. The first alone gets the signal, or both, as from a terminal.

    What they leave goes on as if they had never stopped.
    """
    process = start(mixed(uneven), tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    wait_for(tmp_path / "run/metrics.csv", process)
    (os.killpg if to_all else os.kill)(process.pid, signum)
    code, out, err = end(process, limit_s=60)  # the pipes close with the second process
    assert code == 128 + signum
    assert "Traceback" not in err
    assert out.count(f"{signum.name}: stopped; continue with") == 1
    step = load_checkpoint(tmp_path / "run/checkpoints/step.ckpt")
    assert len(step["windows"]) == 2
    train_together(mixed(uneven), tmp_path)
    assert_equal(normed, tmp_path / "run")


@pytest.mark.whole
def test_a_sweep_of_runs_of_two_processes(uneven, tmp_path):
    """Each in a process of its own: Lightning's would each go through the whole sweep."""
    keys = [*SPLITS, *TWO, "data.batch_size=4", "trainer.max_epochs=1"]
    keys.append("seed=1,2")
    sweep = ["-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}"]
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    out, _ = run(tiny_arguments(uneven, *keys, *sweep), tmp_path, **cache)
    assert "2 of 2 runs finished" in out
    assert {p.name for p in tmp_path.iterdir()} == {"sweep", "cache"}
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {"0", "1", "multirun.yaml"}
    for number, seed in enumerate((1, 2)):
        folder = tmp_path / f"sweep/{number}"
        assert run_folder.read_json(folder / run_folder.RESULT)["seed"] == seed
        steps = pd.read_csv(folder / run_folder.METRICS)["train/loss"].dropna()
        assert len(steps) == 5  # ten steps of two processes, every second logged
        assert out.count(f"folder   sweep/{number}") == 1


def test_few_images_on_each_gpu_are_told_of_synced_batch_norm(uneven, monkeypatch):
    cfg = tiny_config(uneven, *SPLITS, "data.batch_size=4", "head.norm=layer")
    data = build.build_data(cfg, build.build_studies(cfg))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg.trainer.accelerator = "gpu"
    with pytest.warns(
        UserWarning,
        match=r"the images of its process \(4 per batch\).* trainer.sync_batchnorm=true",
    ):
        check_training(cfg, data, 2)


def test_the_batches_of_a_run_are_those_of_all_processes_together(uneven):
    cfg = tiny_config(uneven, *SPLITS, "data.batch_size=4", "trainer.max_epochs=3")
    data = build.build_data(cfg, build.build_studies(cfg))
    with pytest.warns(UserWarning, match="this run has 30"):  # 84 images, 8 in a step
        check_training(cfg, data, 2)
    with pytest.raises(InputError, match=r"batch_size=4 times the number of processes \(22\)"):
        check_training(cfg, data, 22)


def test_the_momentum_that_is_advised_is_enough(uneven, recwarn):
    cfg = tiny_config(uneven, *SPLITS, "data.batch_size=4", "trainer.max_epochs=3")
    data = build.build_data(cfg, build.build_studies(cfg))
    check_training(cfg, data, 2)
    assert str(recwarn.pop(UserWarning).message).endswith("or set head.norm_momentum=auto")
    cfg.head.norm_momentum = 0.14
    check_training(cfg, data, 2)
    assert len(recwarn) == 1
    cfg.head.norm_momentum = "auto"
    settle_momentum([cfg], data, 2)
    check_training(cfg, data, 2)
    assert (len(recwarn), cfg.head.norm_momentum) == (1, 0.15)
