"""What a user can get wrong: one sentence, exit code 2, no traceback, and nothing left or lost."""

import json
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from hydra.core.global_hydra import GlobalHydra

from fluoroscope import sources
from fluoroscope.command.entry import command
from fluoroscope.commands import CONF
from fluoroscope.run import run_folder
from fluoroscope.train import train
from tests.support.films import TINY, tiny_config

SOURCES = ", ".join(sources.names())
CHOICES = ", ".join(sorted(file.stem for file in (CONF / "data").glob("*.yaml")))
CHECKS = {
    "train": "fluoroscope.config.train:check_run",
    "evaluate": "fluoroscope.config.evaluate:check_evaluate",
}
LIBRARY_WORDS = ("Traceback", "Hydra", "hydra", "OmegaConf", "full_key", "Node", "weights_only")
SHORT = ["trainer.max_epochs=1", "logger=csv"]
SPLITS = ["data.val_frac=0.175", "data.test_frac=0.125"]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A command in this process: exit code, standard output, lines of standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HYDRA_FULL_ERROR", "NO_ALBUMENTATIONS_UPDATE", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # set by the command; restored after it
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments, script="train"):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        GlobalHydra.instance().clear()
        code = 0
        try:
            command("Help.", script, f"fluoroscope.{script}:main", CHECKS[script])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    yield run
    signal.signal(signal.SIGTERM, before)
    GlobalHydra.instance().clear()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.fixture
def refuse(call, tmp_path):
    """The sentence by which a command refuses its arguments; it must leave no trace."""

    def refused(*arguments, script="train"):
        before = {**contents(tmp_path), str(tmp_path / "outputs"): b""}
        code, out, lines = call(*arguments, script=script)
        assert (code, out, len(lines)) == (2, "", 1), f"{out}\n{lines}"
        assert lines[0].startswith("fluoroscope: ")
        assert not [word for word in LIBRARY_WORDS if word in lines[0]], lines[0]
        (tmp_path / "outputs").mkdir(exist_ok=True)  # Hydra makes it on the way
        assert contents(tmp_path) == before
        return lines[0].removeprefix("fluoroscope: ")

    return refused


@pytest.fixture
def tiny(films):
    """The command line of a tiny run on the films."""
    return [*TINY, *SHORT, f"data.root={films}", r"data.patient_pattern='(p\d+)_'"]


@pytest.fixture
def own(films, tmp_path):
    """Writes a CSV over the films and gives the command line that reads it."""

    def write(change=lambda table: None, **keys):
        paths = sorted(films.rglob("*.png"))
        columns = {"file": [str(p.relative_to(films)) for p in paths]}
        columns["who"] = [f"secret-{p.name[:4]}" for p in paths]
        columns["BLOB"] = [int(p.parent.name == "BLOB") for p in paths]
        table = pd.DataFrame(columns)
        change(table)
        table.to_csv(tmp_path / "own.csv", index=False)
        keys = {"labels": "[BLOB]", "path_column": "file", "patient_column": "who"} | keys
        given = [f"data.{key}={value}" for key, value in keys.items()]
        place = [f"data.root={films}", f"data.csv={tmp_path}/own.csv"]
        return [*TINY[1:], *SHORT, "data=table", *place, *given]

    return write


@pytest.fixture(scope="module")
def finished(films, tmp_path_factory):
    """The folder of a finished tiny run; nothing may change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        train(tiny_config(films, "trainer.max_epochs=1"), folder, [])
    return folder


@pytest.fixture
def finished_run(finished, tmp_path):
    """A copy of the finished run, in the working directory."""
    return shutil.copytree(finished, tmp_path / "run")


# Overrides


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("head.activatoin=gelu", "no key head.activatoin (did you mean 'head.activation'?)"),
        ("data=table data.path_colum=x", "data.path_colum (did you mean 'data.path_column'?)"),
        ("data.path_column=x", "data.path_column exists only with data=table; remove it"),
        ("++head.foo=1", "there is no key head.foo; --help shows them all"),
        ("data=nih15", f"data must be one of {CHOICES}; got 'nih15' (did you "),
        ("trainer=gpus", "trainer must be one of auto, ddp, gpu; got 'gpus' (did you mean 'gpu'?)"),
        ("experiment=quikstart", ", quickstart, remedies; got 'quikstart' (did you mean 'qui"),
        ("logger=tensorboard", "logger must be one of csv, wandb; got 'tensorboard'"),
        ("data=null", f"data must be one of {CHOICES}; got 'null'"),
        ("data.source=nih15", f"data.source must be one of {SOURCES}; got"),
        ("seed=abc", "seed must be a whole number; got 'abc'"),
        ("head.width=wide", "head.width must be a whole number; got 'wide'"),
        ("backbone.frozen=maybe", "backbone.frozen must be true or false; got 'maybe'"),
        ("data.labels=Pneumonia", "data.labels must be a list, written 'data.labels=[Pneumonia]'"),
        ("data.labels=A,B", "a list is 'data.labels=[A,B]', one run each is -m data.labels=A,B"),
        ("trainer.precision=fp8", "trainer.precision must be one of 16-mixed, 32-true, 64-true, "),
        ("head=keras", "head must be a section with keys such as head.width; got 'keras'"),
        ("logger.project=a/b", "logger.project must be 1 to 128 characters without any of / "),
        ("loss.name=hinge", "loss.name must be one of bce, focal; got 'hinge'"),
        ("optimizer.warmup_frac=2", "optimizer.warmup_frac must be in [0, 1); got 2"),
        ("data.labels=[a", "cannot read 'data.labels=[a': keys are set as KEY=VALUE, lists as"),
        ("data.root=/x(1)", "text with brackets, commas or = as 'KEY=\"TEXT\"'"),
        ("seed 2", "cannot read 'seed': keys are set as KEY=VALUE"),
        ("--seed=2", "there is no option --seed=2; keys are set as KEY=VALUE, e.g. seed=2"),
        ("--epochs 3", "there is no option --epochs; keys are set"),
        ("data=folder", "data.root is not set; add data.root=..."),
        ("data=nih14", "data.root is not set; add data.root=..."),
        ("data=table", "data.csv and data.root are not set; add data.csv=... data.root=..."),
        ("run.name=${nothing}", "run.name=${nothing}: Interpolation key 'nothing' not found"),
        (
            "backbone=lite0 run.dir=/proc/x",
            "run.dir: cannot make the run folder /proc/x (No such file or",
        ),
        ("--cfg job data=nih15", "data must be one of chexpert"),
    ],
)
def test_an_override_that_means_nothing(refuse, arguments, told):
    assert told in refuse(*arguments.split())


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("head.activation=rleu", "softsign, tanh; got 'rleu' (did you mean 'relu'?)"),
        ("head.activation_args.slope=1", "head.activation_args.slope: relu does not take it"),
        ("head.activation=elu head.activation_args.alpha=x", "_args.alpha must be a finite number"),
        ("head.width=0", "head.width must be at least 1; got 0"),
        ("backbone.name=efficientnet_b44", "no model 'efficientnet_b44' (did you mean 'efficien"),
        ("backbone.args.foo=1", "backbone.args do not fit test_efficientnet: EfficientNet"),
        ("backbone.weights=file", "backbone.weights=file needs backbone.file=PATH"),
        ("backbone.weights=file backbone.file=/no.pth", "backbone.file: there is no file /no.pth"),
        ("backbone.weights=package", "package exists only for backbone.name=tf_efficientnet_lite0"),
        (
            "backbone.weights=hub",
            "set backbone=lite0 (a small network whose weights are",
        ),
        (
            "loss.pos_weight=lots",
            "loss.pos_weight must be auto, null or a number above 0; got 'lots'",
        ),
        ("data.augment=[{name:Affinee}]", " (did you mean 'Affine'?); each entry is {name: Aff"),
        ("data.augment=[{name:Affine,rotat:3}]", "no argument 'rotat' (did you mean 'rotate'?)"),
        ("data.batch_size=1", "batch norm needs at least 2 images; increase it, or set head.norm"),
        ("data.batch_size=85", "larger than the training split (84 images); lower"),
        ("data.root=/no/such", "data.root: there is no directory /no/such"),
        ("data.root=~/films", "there is no directory {home}/films"),
        ("data.labels=[Blub]", "data.labels must be one of BLOB; got 'Blub' (did you mean 'BLOB'?"),
        ("data.views=[PA]", "this data set records no views; remove data.views"),
        ("data.patient_pattern='(x)'", "finds no patient in 120 of 120 file names: p001_0.png, "),
        ("data.val_frac=0.9", "data.val_frac and data.test_frac must add to less than 1; got 0.9"),
        ("data.val_frac=0.01", "too few patients (40) for the splits test, val, train"),
        ("trainer.devices=two", "trainer.devices must be auto, a number of devices, -1 for all"),
        ("trainer.strategy=ddp trainer.sync_batchnorm=true", "batchnorm works only on GPUs; leave"),
        ("run.resume=auto", "run.resume=auto needs the same run folder in every call: add run.dir"),
        ("run.save_every_n_steps=0", "run.save_every_n_steps must be at least 1; got 0"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2, but nothing has started processes on other"),
        ("trainer.strategy=dpd", "trainer.strategy must be one of auto, ddp; got 'dpd' (did you"),
    ],
)
def test_a_value_that_the_run_cannot_use(refuse, tiny, tmp_path, override, told):
    assert told.replace("{home}", str(tmp_path)) in refuse(*tiny, *SPLITS, *override.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(refuse, tiny):
    tiny.remove("trainer.accelerator=cpu")
    tiny.remove("backbone.weights=none")
    told = refuse(*tiny, "trainer=gpu", "backbone.weights=hub")  # before the hub is asked
    assert told.startswith("trainer.accelerator=gpu: there is no GPU here; trainer.accelerator")


def test_a_weight_file_of_another_kind(refuse, tiny, tmp_path):
    torch.save({"a": Path("x")}, tmp_path / "objects.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    for name, told in (
        ("objects.pth", "it must be .safetensors, or .pth with"),
        ("text.safetensors", "cannot read weights from"),
        ("other.pth", "do not fit the network: "),
    ):
        file = f"backbone.file={tmp_path}/{name}"
        assert told in refuse(*tiny, "backbone.weights=file", file)


# Data


@pytest.mark.parametrize("source", ["nih14", "folder", "table data.csv=a.csv"])
def test_a_data_root_that_is_not_there(refuse, source):
    told = refuse(*f"backbone=lite0 data={source} data.root=/no/such".split())
    assert told == "data.root: there is no directory /no/such"


def test_a_data_root_that_holds_something_else(refuse, films):
    told = refuse("backbone=lite0", "data=nih14", f"data.root={films}")
    assert "holds no Data_Entry_2017_v2020.csv" in told
    told = refuse("backbone=lite0", "data=folder", f"data.root={films}/BLOB")
    assert "needs two or more class folders" in told
    assert "found none" in told
    told = refuse("backbone=lite0", "data=table", f"data.root={films}", "data.csv=a.csv")
    assert re.match(r"data.csv: there is no file .*/a.csv or .*/a.csv", told)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"path_column": "path"}, "needs the column 'path'; {csv} has the columns file, who, "),
        ({"patient_column": "whom"}, "has the columns file, who, BLOB (did you mean 'who'?)"),
        ({"labels": "null"}, "the columns of {csv} with only 1, 0 or empty cells are: BLOB"),
        ({"labels": "[Mass]"}, "data.labels must be one of BLOB; got 'Mass'"),
        ({"labels": "[BLOP]"}, "got 'BLOP' (did you mean 'BLOB'?)"),
    ],
)
def test_a_column_that_the_csv_lacks(refuse, own, tmp_path, keys, told):
    assert told.format(csv=tmp_path / "own.csv") in refuse(*own(**keys))


def test_images_that_are_not_on_disk(refuse, own, films):
    def lose(table):
        table.loc[[2, 3, 5, 7], "file"] = ["a.png", "b.png", "c.png", "d.png"]

    assert refuse(*own(lose)) == (
        f"images not on disk (4 of 120): {films}/a.png, {films}/b.png, {films}/c.png, ...; "
        "check data.root, remove their rows from the table, or leave them out with "
        "data.on_missing=skip"
    )


def damaged(films: Path, folder: Path, *, truncate: bool) -> Path:
    """A copy of the films with one that cannot be used."""
    shutil.copytree(films, folder)
    file = folder / "BLOB/p001_1.png"
    if truncate:
        file.write_bytes(file.read_bytes()[:300])
    else:
        cv2.imwrite(str(file), np.full((48, 48), 7, np.uint8))
    return file


@pytest.mark.parametrize(
    ("truncate", "reason"), [(True, "the file is truncated"), (False, "every pixel is 7")]
)
def test_an_image_that_cannot_be_used_stops_before_training(
    refuse, tiny, films, tmp_path, truncate, reason
):
    file = damaged(films, tmp_path / "films", truncate=truncate)
    assert refuse(*tiny, f"data.root={tmp_path}/films") == (
        f"1 of 120 images cannot be used: {file} ({reason}); repair them, or leave them out with "
        "data.on_unreadable=skip"
    )


def test_images_that_cannot_be_used_are_skipped_and_counted(call, tiny, films, tmp_path):
    damaged(films, tmp_path / "films", truncate=True)
    skip = [f"data.root={tmp_path}/films", "data.on_unreadable=skip", "run.dir=run"]
    code, out, lines = call(*tiny, *skip)
    assert (code, lines) == (0, [])
    assert "left out: 1 unusable image (data.on_unreadable=skip)" in out
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["skipped_images"] == 1
    assert sum(split["images"] for split in result["splits"]) == 119


def test_a_split_without_both_classes(refuse, own):
    def sort(table):
        late = table["who"] > "secret-p020"
        table["part"] = np.where(late & (table["BLOB"] == 1), "test", "train")

    told = refuse(*own(sort, split_column="part"))
    assert told.startswith(
        "the test split cannot score 'BLOB': positive images 30, negative images 0; "
    )
    assert "data.splits=own" in told


def test_a_patient_in_two_splits_is_counted_and_not_named(refuse, own):
    def leak(table):
        part = {who: ("train", "val", "test")[i % 3] for i, who in enumerate(table["who"].unique())}
        table["part"] = table["who"].map(part)
        table.loc[0, "part"] = "val"

    told = refuse(*own(leak, split_column="part"))
    assert told.startswith("patients are in two splits (1 in train and val), so the score would be")
    assert "secret" not in told
    assert not re.search(r"p\d{3}", told)


# Run folders


def test_a_run_folder_is_not_used_twice(refuse, tiny, finished_run):
    told = refuse(*tiny, f"run.dir={finished_run}")
    assert told == (
        f"{finished_run} already holds a run; continue it with run.resume={finished_run}, or give "
        "another run.dir"
    )


@pytest.mark.parametrize("folder", ["nowhere", "nowhere/deep", "films"])
def test_resuming_a_folder_without_a_run(refuse, tmp_path, folder):
    (tmp_path / "films").mkdir()
    assert refuse(f"run.resume={folder}") == (
        f"run.resume: {folder} holds no run (it has no config.yaml)"
    )


@pytest.mark.parametrize(
    "override", ["data=phantom", "experiment=quickstart", "head.width=64", "seed=2"]
)
def test_resuming_with_what_needs_a_new_run(refuse, finished_run, override):
    told = refuse(f"run.resume={finished_run}", override)
    assert f"{override} needs a new run; only single keys of data, trainer, logger" in told


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.max_epochs=many"], "trainer.max_epochs must be a whole number; got 'many'"),
        (["trainer.max_epoch=3"], "no key trainer.max_epoch (did you mean 'trainer.max_epochs'?)"),
        (["data.val_frac=0.3"], "the images, labels or splits are not those the checkpoint was"),
        (["data.labels=[Mass]"], "data.labels must be one of BLOB; got 'Mass'"),
    ],
)
def test_a_refused_resumption_leaves_the_run_as_it_was(refuse, finished_run, overrides, told):
    assert told in refuse(f"run.resume={finished_run}", *overrides)


def test_resuming_damaged_files(refuse, finished_run):
    for name in ("best", "last"):
        checkpoint = finished_run / f"checkpoints/{name}.ckpt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:9000])
    told = refuse(f"run.resume={finished_run}", "trainer.max_epochs=2")
    assert told == f"run.resume: no checkpoint of {finished_run} can be read; start a new run"
    (finished_run / "config.yaml").write_text("data: [")
    told = refuse(f"run.resume={finished_run}")
    assert told.startswith(f"cannot read {finished_run}/config.yaml: it is not valid YAML")


def test_resuming_with_a_single_key_works(call, finished_run):
    code, out, lines = call(
        f"run.resume={finished_run}", "trainer.max_epochs=3", "run.patience=null"
    )
    assert (code, lines) == (0, [])
    assert run_folder.read_json(finished_run / "result.json")["epochs"] == 3
    assert "epoch   3/3" in out
    assert "epoch   1/3" not in out


def test_a_tracker_that_refuses_leaves_no_run(call, tiny, tmp_path, monkeypatch):
    def refused(**keys):
        raise wandb.errors.UsageError("Invalid run. Try another")

    monkeypatch.setattr(wandb, "init", refused)
    code, _, lines = call(*tiny, "logger=wandb", "logger.mode=offline")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("fluoroscope: W&B: Invalid run; logger=csv needs no W&B")
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_limit_that_leaves_no_batch_is_refused(call, tiny):
    code, _, lines = call(*tiny, "trainer.limit_val_batches=0.001")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("fluoroscope: trainer.limit_val_batches=0.001 leaves none of 3 bat")


# Several runs


def test_a_bad_value_among_several_is_refused_before_the_first_run(refuse, tiny):
    assert refuse(*tiny, "-m", "head.width=31,wide") == (
        "head.width must be a whole number; got 'wide'"
    )
    assert "no key head.activatoin" in refuse("-m", "head.activatoin=gelu,relu")
    assert "got 'nih15'" in refuse("-m", "data=phantom,nih15")
    assert refuse("-m", "seed=interval(1,2)") == (
        "seed=interval(1,2): a sweep lists its values, seed=a,b,c"
    )


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("diagnostics.layers=[head.activation],[foo]", "'foo' matches no elementwise activation"),
        (
            "head.norm=layer,batch data.augment=[{name:Affine,rotate:[1,2,3]}]",
            "augmentation Affine",
        ),
    ],
)
def test_what_a_library_refuses_stops_a_sweep_before_its_first_run(refuse, tiny, key, told):
    assert told in refuse("-m", *tiny, *key.split())


def test_one_refused_run_does_not_stop_the_others(call, tiny, tmp_path):
    # A label that only the data can refuse; a misspelt activation stops the sweep before any run.
    code, out, lines = call("-m", *tiny, "data.labels=[Blub],[BLOB]", "hydra.sweep.dir=sweep")
    assert (code, len(lines)) == (2, 1)
    assert "data.labels must be one of BLOB; got 'Blub'" in lines[0]
    left = {"multirun.yaml", "0-relu-s1", "1-relu-s1"}
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == left
    assert (tmp_path / "sweep/0-relu-s1/failed.json").is_file()
    assert (tmp_path / "sweep/1-relu-s1/result.json").is_file()
    assert out.count("fluoroscope: relu-s1") == 1


def test_what_stops_every_run_is_said_once(refuse, tiny):
    told = refuse("-m", *tiny, "data.root=/no/such", "seed=1,2,3", "run.dir=never")
    assert told == "data.root: there is no directory /no/such"


# Evaluation


def test_evaluation_without_a_checkpoint(refuse, tmp_path, films):
    told = refuse(script="evaluate")
    assert told == "checkpoint is not set; add checkpoint=RUN/checkpoints/best.ckpt"
    told = refuse("checkpoint=no.ckpt", script="evaluate")
    assert told == "there is no checkpoint no.ckpt"
    for name in ("text.ckpt", "weights.ckpt"):
        (tmp_path / name).write_text("x")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.ckpt")
    for file in ("text.ckpt", "weights.ckpt", str(next(films.rglob("*.png")))):
        told = refuse(f"checkpoint={file}", script="evaluate")
        assert told == f"{file} is not a checkpoint of fluoroscope, or is damaged"


def test_no_is_no(call, finished_run):
    checkpoint = f"checkpoint={finished_run}/checkpoints/best.ckpt"
    place = ["run.dir=scored", 'run.name_images="no"']
    assert call(checkpoint, *place, script="evaluate")[0] == 0
    assert "patient" not in Path("scored/predictions/test.csv").read_text()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["run.name_images=perhaps"], "run.name_images must be true or false; got 'perhaps'"),
        (["checkpoint=null"], "checkpoint must be a run folder or a checkpoint, or a list of them"),
        (["margin=-1"], "margin must be in [0, 1]; got -1"),
        (["recalibrate=1", "data=phantom"], "recalibrate must be in (0, 1); got 1"),
        (["against=no.ckpt"], "there is no checkpoint no.ckpt"),
        (["subgroups=sex"], "subgroups must be a list"),
        (["split=all"], "split=all would score the training images too; give another data="),
        (["split=train"], "split must be one of all, test, val; got 'train'"),
        (["data.root=/no/such"], "data.root: there is no directory /no/such"),
        (["data=folder"], "data.root is not set; add data.root=DIR, the data set's directory"),
        (["data=folder", "split=all"], "data.root is not set; add data.root=DIR"),
        (["data=nih15"], f"data must be one of {CHOICES}; got 'nih15'"),
        (["data.batchsize=2"], "there is no key data.batchsize (did you mean 'data.batch_size'?)"),
        (["data.batch_size=two"], "data.batch_size must be a whole number; got 'two'"),
        (["data.batch_size=0"], "data.batch_size must be at least 1; got 0"),
        (["data.splits=mine"], "data.splits must be one of given, own; got 'mine'"),
        (["trainer.devices=none"], "trainer.devices must be auto, a number of devices, -1"),
        (["trainer.accelerator=gpuu"], "trainer.accelerator must be one of auto, cpu, cuda, gpu"),
        (["run.dir=run"], "run already holds a run; give another run.dir"),
    ],
)
def test_evaluation_of_what_cannot_be_scored(refuse, finished_run, overrides, told):
    checkpoint = f"checkpoint={finished_run}/checkpoints/best.ckpt"
    assert told in refuse(checkpoint, *overrides, script="evaluate")


def test_an_evaluation_is_not_written_over_another(call, refuse, finished_run):
    arguments = [f"checkpoint={finished_run}/checkpoints/best.ckpt", "run.dir=scored"]
    assert call(*arguments, script="evaluate")[0] == 0
    assert "scored already holds a run" in refuse(*arguments, script="evaluate")
