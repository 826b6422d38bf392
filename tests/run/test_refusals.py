"""A refused resume leaves the folder of the run as it was, byte for byte."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fluoroscope import build, sources
from fluoroscope.config import CONF
from fluoroscope.config.run_checks import PIXELS
from fluoroscope.config.train import check_train
from fluoroscope.data import datamodule
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from fluoroscope.run.opening import Opening
from fluoroscope.train import train
from tests.run.test_resume import Stop, train_with
from tests.support.films import tiny_config, write_films

KEYS = ["trainer.max_epochs=3", "optimizer.ema_decay=0.9", "run.save_every_n_steps=2"]
# Refused at every resume, whatever the run has done: keys, and words of the sentence.
EVERYWHERE = {
    "trainer.max_epochs=1": r"max_epochs=1, but the run has finished \d epochs",
    "trainer.limit_train_batches=0.01": "limit_train_batches=0.01 leaves none",
    "trainer.limit_val_batches=0.01": "limit_val_batches=0.01 leaves none",
    "trainer.limit_test_batches=0.01": "limit_test_batches=0.01 leaves none",
    "trainer.accumulate_grad_batches=99": "more than an epoch has batches",
    "data.batch_size=500": "batch",
    "data.val_frac=0.3": "images, labels or splits are not those",
    "data.labels=[BLOB,Edema]": "Edema",
    "data.root=/nowhere": "nowhere",
    "logger.mode=online": "needs a key",
    "trainer.accelerator=cuda": "GPU",
    "trainer.accelerator=tpu": "trainer: ",
    "trainer.devices=0": "trainer: ",
}
WITHIN = {
    "trainer.max_epochs=2": "max_epochs=2, but .* finished 2 epochs and a part of the next",
    "data.batch_size=4": "within an epoch with data.batch_size=8",
    "data.sampler=balanced": "within an epoch with data.sampler=shuffle",
    "trainer.limit_train_batches=0.5": "within an epoch with trainer.limit_train_batches",
    "trainer.accumulate_grad_batches=5": "within an epoch with trainer.accumulate_grad_batches=1",
    "data.order_seed=5": "within an epoch with data.order_seed",
}
SHAPES = {"cut": '{"run_id": "ab', "list": "[]", "empty": "", "none": "null", "bytes": "\udc80"}


@pytest.fixture(scope="module")
def runs(films, tmp_path_factory):
    """A run that was stopped within its third epoch, and the same one finished."""
    place = tmp_path_factory.mktemp("runs")
    cfg = tiny_config(films, *KEYS)
    train(cfg, place / "finished", [])
    with pytest.MonkeyPatch.context() as patch:
        train_with(patch, cfg.copy(), place / "within", Stop(2, 5))
    return cfg, place


def content(folder):
    """Everything below a folder: names, kinds, content, and where links point."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = os.readlink(path) if path.is_symlink() else path.is_dir()
        found[str(path.relative_to(folder))] = kind, path.read_bytes() if path.is_file() else b""
    return found


def resuming(cfg, folder, *overrides):
    changed = cfg.copy()
    changed.run.resume = str(folder)
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(changed, key, OmegaConf.create(f"x: {value}").x)
    return changed


def refused(cfg, folder, sentence):
    """The folder is the same after the refusal."""
    before = content(folder)
    with pytest.raises(InputError, match=sentence) as refusal:
        train(cfg, folder, [])
    assert "\n" not in str(refusal.value)
    assert content(folder) == before


@pytest.mark.parametrize("state", ["finished", pytest.param("within", marks=pytest.mark.whole)])
def test_a_refused_resume_changes_nothing(runs, state):
    cfg, place = runs
    for override, sentence in (EVERYWHERE | (WITHIN if state == "within" else {})).items():
        refused(resuming(cfg, place / state, override), place / state, sentence)


def test_two_processes_within_an_epoch_are_refused(runs):
    cfg, place = runs
    ways = resuming(cfg, place / "within", "trainer.devices=2", "trainer.strategy=ddp")
    refused(ways, place / "within", "within an epoch by 1 process")


def test_other_films_of_the_same_names_but_one_are_refused(runs, tmp_path):
    cfg, place = runs
    other = write_films(tmp_path / "other", seed=1)
    (other / "BLOB/p001_0.png").rename(other / "NORMAL/p001_0.png")
    refused(resuming(cfg, place / "finished", f"data.root={other}"), place / "finished", "labels")


def test_a_folder_that_is_being_written_or_read_only_is_refused(runs, monkeypatch):
    cfg, place = runs
    folder = place / "finished"
    monkeypatch.setattr(os, "access", lambda *args: False)
    refused(resuming(cfg, folder), folder, "cannot be written")


class Refusal(pl.Callback):
    """Lightning's own refusal, at a place within the fit."""

    def __init__(self, hook):
        setattr(self, hook, self._refuse)

    def _refuse(self, *args, **keys):
        raise MisconfigurationException("This cannot be. Choose another key.")


@pytest.mark.parametrize(
    ("state", "hook"),
    [("finished", "on_fit_start"), ("within", "setup"), ("new", "on_sanity_check_start")],
)
def test_a_refusal_of_lightning_within_the_fit_changes_nothing(
    runs, tmp_path, monkeypatch, state, hook
):
    cfg, place = runs
    folder = tmp_path / "run" if state == "new" else place / state
    fitting = build._fitting
    monkeypatch.setattr(build, "_fitting", lambda *args: [*fitting(*args), Refusal(hook)])
    before = content(folder)
    with pytest.raises(InputError, match=r"^trainer: This cannot be$"):
        train(cfg.copy() if state == "new" else resuming(cfg, folder), folder, [])
    assert content(folder) == before


@pytest.mark.parametrize("shape", SHAPES)
def test_a_damaged_provenance_or_result_is_refused_with_advice(runs, tmp_path, shape):
    cfg, place = runs
    folder = copied(place / "finished", tmp_path)
    for name, resume in (("provenance.json", str(folder)), ("result.json", "auto")):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(SHAPES[shape].encode(errors="surrogateescape"))
        changed = cfg.copy()
        changed.run.resume = resume
        refused(changed, folder, rf"{name}.*; remove it")
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["provenance.json", "result.json"])
@pytest.mark.parametrize("values", [{}, {"run_id": 5, "val": []}, {"run_id": "", "val": {}}])
def test_missing_entries_are_damage(runs, tmp_path, name, values):
    cfg, place = runs
    folder = copied(place / "finished", tmp_path)
    (folder / name).write_text(json.dumps(values))
    changed = cfg.copy()
    changed.run.resume = "auto" if name == "result.json" else str(folder)
    refused(changed, folder, rf"{name} has no \w+; remove it")


def copied(folder, tmp_path):
    for path in folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / "run" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "run"


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "cut":
        del content[len(content) // 2 :]
    elif kind == "flipped":
        content[len(content) // 2] ^= 0x10
    else:
        content[1000:3000] = bytes(2000)
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut", "flipped", "zeroed"])
def test_a_damaged_best_checkpoint_is_refused_at_the_start(runs, tmp_path, kind):
    """No other file has an earlier epoch; once it is removed, the last one takes its place."""
    cfg, place = runs
    folder = copied(place / "within", tmp_path)
    best = run_folder.checkpoint(folder, "best")
    later(folder)
    damage(best, kind)
    with pytest.warns(UserWarning, match="best.ckpt"):
        refused(resuming(cfg, folder), folder, "best.ckpt is damaged, .* or remove it")
    if kind == "flipped":
        best.unlink()
        with pytest.warns(UserWarning, match="best.ckpt .* is missing"):
            result = train(resuming(cfg, folder), folder, [])
        assert result["best_epoch"] >= 2
        assert run_folder.checkpoint(folder, "best").exists()


def later(folder):
    """Let the first epoch be the best one of the checkpoints."""
    import torch

    for name in ("last", "step"):
        path = run_folder.checkpoint(folder, name)
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["callbacks"]["Saving"] |= {"best_score": 0.99, "best_epoch": 1}
        torch.save(checkpoint, path)


def test_the_start_of_a_run_is_written_right_before_its_first_batch(films, tmp_path, monkeypatch):
    """Broken once, this test and its neighbours fail: the files come with the loggers."""
    seen = []
    opened = Opening.on_train_start

    def opening(self, trainer, model):
        seen.append(sorted(path.name for path in self.folder.iterdir()))
        opened(self, trainer, model)
        seen.append(sorted(path.name for path in self.folder.iterdir()))
        raise SystemExit

    monkeypatch.setattr(Opening, "on_train_start", opening)
    with suppress(SystemExit):
        train(tiny_config(films), tmp_path / "run", [])
    assert seen == [[".lock"], [".lock", "config.yaml", "provenance.json"]]


def test_an_unreadable_first_image_leaves_no_run(films, tmp_path, monkeypatch):
    read = datamodule.read_image
    monkeypatch.setattr(datamodule, "read_image", lambda path: read(Path("gone.png")))
    with pytest.raises(InputError, match=r"gone\.png.*, then repeat the command$"):
        train(tiny_config(films), tmp_path / "run", [])
    assert content(tmp_path / "run") == {}


# What each key of a source can change, besides the images (`PIXELS`).
LOADING = {"num_workers", "batch_size", "sampler", "order_seed", "features", "follow_links"}
ROWS = {
    *("source", "root", "labels", "label_map", "views", "splits", "val_frac", "test_frac", "fold"),
    *("on_missing", "on_unreadable", "on_duplicate", "uncertain", "blank", "soft_target", "csv"),
    *("patient_pattern", "dicom_patients", "exclude", "official_test", "flag", "labeler", "votes"),
    *("leave_out", "unchanged", "labelled_by", "patients", "images_per_patient", "prevalence"),
    *("hospital", "path_column", "patient_column", "split_column", "view_column", "positive"),
    *("on_missing_patient", "label_column", "label_separator", "label_csv", "label_key"),
}


def test_the_keys_of_our_sources_change_images_rows_or_loading():
    """A new key of the images must be listed in `PIXELS`, so that a resume cannot change it."""
    found = {key for name in sources.names() for key in sources.keys_of(name).__dataclass_fields__}
    assert found >= {*PIXELS, *LOADING, *ROWS}
    assert not set(PIXELS) & (LOADING | ROWS)


@pytest.mark.parametrize(
    "override",
    ["data.image_px=64", "data.augment=[]", "data.feature_views=2", "diagnostics.enabled=false"],
)
def test_other_images_are_refused_at_a_resume(runs, override):
    cfg, place = runs
    folder, key = place / "within", override.partition("=")[0]
    with pytest.raises(InputError, match=key):
        config(f"run.resume='{folder}'", "data=folder", override, given=[override])
    again = resuming(cfg, folder, override)
    again.run.resume = "auto"
    refused(again, folder, f"has {key}=.*, but this command has {key}=")


def test_the_same_image_size_may_be_repeated(runs):
    cfg, place = runs
    same = f"data.image_px={cfg.data.image_px}"
    again = config(f"run.resume='{place / 'within'}'", "data=folder", same, given=[same])
    assert again.data.image_px == cfg.data.image_px


def config(*overrides, given):
    """The checked configuration of a resume with the overrides that were given."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_train(compose("train", ["backbone=lite0", *overrides]), given)


@pytest.mark.parametrize("state", ["within", "finished"])
def test_after_all_refusals_the_plain_resume_ends_the_run(runs, tmp_path, state):
    cfg, place = runs
    folder = copied(place / state, tmp_path)
    result = train(resuming(cfg, folder), folder, [])
    assert result["epochs"] == 3
    assert result["test"] == run_folder.read_json(place / "finished/result.json")["test"]
