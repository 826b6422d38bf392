"""No refusal advises what is set already: whoever follows the advice never hears it again."""

import ast
import contextlib
import re
import sys
import warnings
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope import estimate
from fluoroscope.audit.findings import Subject
from fluoroscope.audit.split_checks import check_classes, check_presence
from fluoroscope.command.run_one import register_resolvers
from fluoroscope.config import CONF
from fluoroscope.config.ablate import check_ablate
from fluoroscope.config.train import check_run, check_train
from fluoroscope.errors import InputError, changes
from fluoroscope.launch import launch_check
from fluoroscope.launch.launch_check import OneMachine
from fluoroscope.run.device import explain_out_of_memory
from fluoroscope.run.progress import faster_keys
from fluoroscope.sources.reading.read_studies import read_studies
from tests.launch.test_launch_check import task
from tests.support.films import TINY, config

VALUE = r"\[[^\]]*\]|[^\s;,:)']+"
ADVICE = re.compile(
    rf"\b((?:data|run|trainer|backbone|head|logger|diagnostics)(?:\.\w+)+)=({VALUE})"
)
PLACEHOLDER = re.compile(r"[A-Z_.]+|\.\.\.")  # such as FILE.csv


def advised(message):
    """The keys and values that a refusal names after what it is about."""
    remedy = message.partition(";" if ";" in message else " ")[2]
    found = ADVICE.findall(remedy.replace("{", "").replace("}", ""))
    return [(key, value) for key, value in found if not PLACEHOLDER.fullmatch(value)]


def follow(attempt, given, depth=4):
    """Follow each advice of each refusal; none may name what is given. Returns all advice."""
    try:
        attempt(given)
    except InputError as refusal:
        message = str(refusal)
    else:
        return set()
    found = advised(message)
    for key, value in found:
        assert given.get(key) != value, f"{key}={value} is set, and is advised again: {message}"
    further = [follow(attempt, given | dict([pair]), depth - 1) for pair in found if depth]
    return {f"{key}={value}" for key, value in found}.union(*further)


# ------------------------------------------------------------------------------------- the data
def write_images(root, names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), rng.integers(0, 255, (40, 40), np.uint8))


def make(root, change=lambda table: None, patients=30):
    """A table of two images of each patient, which `change` alters; with all splits."""
    names = [f"images/{i}.png" for i in range(2 * patients)]
    write_images(root, names)
    who = np.arange(2 * patients) // 2
    table = pd.DataFrame({"path": names, "who": [f"p{w}" for w in who], "Edema": who % 2})
    table["part"] = [("train", "train", "val", "test")[w // 2 % 4] for w in who]
    change(table)
    table.to_csv(root / "studies.csv", index=False)


def lose(table):
    table.loc[:2, "path"] = ["x.png", "y.png", "z.png"]


def lose_all(table):
    table["path"] = "gone/" + table["path"]


def leak(table):
    table.loc[0, "part"] = "val"


def empty(table):
    table.loc[table["part"] == "val", "part"] = "train"
    table["part"] = table["part"].replace("train", "val")


def one_class(table):
    table.loc[table["part"] == "test", "Edema"] = 1


def hardly_any(table):
    table["Edema"] = [1] * 2 + [0] * (len(table) - 2)


def nobody(table):
    table.loc[3:9, "who"] = "Unknown"


def words(table):
    table["Edema"] = np.where(table["Edema"] == 1, "yes", "no")


def joined(table):
    table["Edema"] = np.where(table["Edema"] == 1, "Edema|Mass;Nodule", "normal")


def uncertain(table):
    table.loc[4, "Edema"] = -1


def break_all(root):
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:300])


def break_one(root):
    (root / "images/7.png").write_bytes(b"no image")


def copy_across(root):
    (root / "images/4.png").write_bytes((root / "images/8.png").read_bytes())


def link_out(root):
    outside = root.parent / "outside.png"
    (root / "images/3.png").rename(outside)
    (root / "images/3.png").symlink_to(outside)


def go_lower(root):
    (root / "deeper").mkdir()


SPLIT = {"data.split_column": "part"}
SETS = {  # a change of the table or of its files, and the keys of the run
    "no image is there": (lose_all, None, {}),
    "some images are not there": (lose, None, {}),
    "no image can be read": (None, break_all, {}),
    "one image cannot be read": (None, break_one, {}),
    "a patient in two splits": (leak, None, SPLIT),
    "no images for training": (empty, None, SPLIT),
    "a test split of one class": (one_class, None, SPLIT),
    "hardly any positive image": (hardly_any, None, SPLIT),
    "the same, drawn": (hardly_any, None, {"data.splits": "own"}),
    "copies across splits": (None, copy_across, SPLIT),
    "a link to the outside": (None, link_out, {}),
    "patients who are nobody": (nobody, None, {}),
    "words": (words, None, {}),
    "findings that are joined": (joined, None, {"data.label_column": "Edema", "data.labels": None}),
    "uncertain labels": (uncertain, None, {}),
    "a root too low": (None, go_lower, {"data.root": "{root}/deeper"}),
}


@pytest.mark.parametrize("name", SETS)
def test_advice_about_data_is_not_repeated(tmp_path, name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    change, damage, keys = SETS[name]
    make(tmp_path / "root", change or (lambda table: None))
    if damage:
        damage(tmp_path / "root")
    base = {"data.root": str(tmp_path / "root"), "data.csv": "studies.csv"}
    base |= {"data.patient_column": "who", "data.labels": "[Edema]"}
    given = {k: v and v.format(root=tmp_path / "root") for k, v in (base | keys).items()}

    def attempt(given):
        words = [f"{key}={value}" for key, value in given.items() if value is not None]
        cfg = config("data=table", *words)
        read_studies(OmegaConf.to_container(cfg.data))

    follow(attempt, given)


def dropped(table):
    """Exact copies, of which only the last split keeps one: too few positive images are left."""
    table["Edema"] = [1] * 12 + [0] * (len(table) - 12)


def copy_positives(root):
    for number in range(1, 12):
        (root / f"images/{number}.png").write_bytes((root / "images/0.png").read_bytes())


def test_splits_that_were_drawn_are_not_advised(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make(tmp_path / "root", dropped)
    copy_positives(tmp_path / "root")
    keys = [f"data.root={tmp_path / 'root'}", "data.csv=studies.csv", "data.patient_column=who"]
    cfg = config("data=table", *keys, "data.labels=[Edema]", "data.on_duplicate=drop")
    data = OmegaConf.to_container(cfg.data)
    for splits in ("given", "own"):
        with pytest.raises(InputError, match="split cannot score 'Edema': positive") as refusal:
            read_studies(data | {"splits": splits})
        assert ("data.splits=own" in str(refusal.value)) == (splits == "given")


def test_folders_are_advised_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"films/{kind}/{i}.png" for kind in ("normal", "sick") for i in range(12)]
    masks = [f"films/sick/masks/{i}.png" for i in range(12)]
    write_images(tmp_path, [*names, *masks])

    def attempt(given):
        cfg = config("data=folder", *(f"{key}={value}" for key, value in given.items()))
        read_studies(OmegaConf.to_container(cfg.data))

    for root in (tmp_path, tmp_path / "films", tmp_path / "films/sick"):
        follow(attempt, {"data.root": str(root)})


# ------------------------------------------------------------------------------------- the keys
CACHED = {"data.features": "cached"}
WITHOUT_A_KEY = [  # advised is a command, or a value of one's own
    {"trainer.num_nodes": "2"},
    {"data.val_frac": "0.6", "data.test_frac": "0.6"},
    {"run.resume": "auto"},
    {"data.feature_views": "2"},
]
KEYS = [
    CACHED,
    CACHED | {"trainer.num_nodes": "2", "trainer.devices": "1", "backbone.frozen": "true"},
    CACHED | {"trainer.devices": "2", "backbone.frozen": "true", "data.augment": "[]"},
    CACHED
    | {"diagnostics.layers": "[backbone.*]", "backbone.frozen": "true", "data.augment": "[]"},
    {"data.batch_size": "1"},
    {"data.batch_size": "1", "head.norm": "batch"},
    {"trainer.accelerator": "gpu", "trainer.devices": "1"},
    {"trainer.accelerator": "cuda", "trainer.devices": "2"},
    *WITHOUT_A_KEY,
]


def composed(films, given, name="train"):
    """The words of a tiny run with these keys, and what Hydra makes of them."""
    register_resolvers()
    base = [word for word in TINY if word.partition("=")[0] not in given]
    words = [*base, f"data.root={films}", *(f"{key}={value}" for key, value in given.items())]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, words), words


@pytest.mark.parametrize("given", KEYS, ids=str)
def test_advice_about_keys_is_not_repeated(films, given, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(launch_check.ctypes, "CDLL", Mock(side_effect=OSError))
    monkeypatch.setattr(launch_check, "Path", Mock(**{"return_value.exists.return_value": False}))
    told = follow(lambda keys: check_run(*composed(films, keys)), given)
    assert told or given in WITHOUT_A_KEY


@pytest.mark.parametrize(
    "given",
    [
        {"trainer.devices": "2"},
        pytest.param({"trainer.devices": "1", "trainer.num_nodes": "2"}, marks=pytest.mark.whole),
        {"trainer.devices": "2", "trainer.num_nodes": "2", "trainer.strategy": "ddp"},
    ],
    ids=str,
)
@pytest.mark.parametrize("started", ["ablate", "estimate", "srun", "torchrun"])
def test_advice_about_processes_is_not_repeated(films, given, started, monkeypatch):
    environ = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "0", "RANK": "0"}
    environ |= {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "0", "ROLE_RANK": "0"}

    def attempt(keys):
        if started == "ablate":
            keys = {"backbone.frozen": "true", "++activations": "[relu]", "++seeds": "1"} | keys
            check_ablate(*composed(films, keys, "ablate"))
            return
        cfg = check_train(*composed(films, keys))
        if started == "estimate":
            monkeypatch.setattr(estimate, "settle_device", Mock(side_effect=StopIteration))
            with contextlib.suppress(StopIteration):
                estimate.estimate(cfg)
            return
        own = task(1, 3) if started == "srun" else environ
        launch_check.check_launch(cfg.trainer, own, False)

    assert follow(attempt, given) or (started == "estimate" and given["trainer.devices"] == "1")


@pytest.mark.parametrize("given", [{}, {"backbone.frozen": "true"}, {"data.augment": "[]"}])
def test_keys_for_shorter_runs_are_those_that_are_not_set(films, given):
    cfg = check_train(*composed(films, given))
    for keys in faster_keys(cfg):
        assert not [pair for pair in given.items() if "=".join(pair) in keys.split()]


@pytest.mark.parametrize("checkpointing", ["true", "false"])
@pytest.mark.parametrize("size", ["1", "2"])
def test_keys_that_need_less_memory_are_those_that_are_not_set(films, checkpointing, size):
    given = {"backbone.grad_checkpointing": checkpointing, "data.batch_size": size}
    cfg = check_train(*composed(films, given | {"head.norm": "layer"}))
    with pytest.raises(InputError) as refusal, explain_out_of_memory(cfg):
        raise torch.OutOfMemoryError
    assert not set(advised(str(refusal.value))) & set(given.items())


def test_changes_are_what_is_not_set():
    section = OneMachine(devices="2")
    assert changes({"trainer.devices": 2, "trainer.num_nodes": 3}, section) == "trainer.num_nodes=3"
    assert changes({"trainer.devices": 2}, section) == ""


# -------------------------------------------------------------------------------- all the advice
# Values in the sentences of src and where this page, or its condition, keeps them from repeating.
CHECKED = {
    "audit/duplicates.py": "one sentence for each value of data.on_duplicate",
    "audit/image_checks.py": "with skip such images are not among the audited ones",
    "audit/prevalence.py": "data.splits: test_audit; with data.views set, no view is missing",
    "audit/split_checks.py": "below",
    "command/resumed_sweep.py": "says the value that is refused",
    "config/ablate.py": "says the value that is refused",
    "config/run_checks.py": "KEYS",
    "config/substitutes.py": "says what takes the place of a key that does not exist",
    "data/copies.py": "SETS; only with stop",
    "data/earlier_runs.py": "only with stop",
    "data/loader.py": "only where there are loader processes",
    "data/splits.py": "SETS",
    "data/study_table.py": "SETS",
    "data/survey.py": "SETS",
    "diagnostics/nonfinite.py": "only in a mixed precision",
    "doctor/machine.py": "only where there are loader processes",
    "prepare/copying.py": "only with stop",
    "run/progress.py": "above",
    "run/summary.py": "says what was done",
    "run/training_check.py": "only with false; above",
    "sources/reading/table_labels.py": "SETS; only without data.positive",
    "sources/table.py": "SETS; only with stop",
}
SOURCE = Path(__file__).parents[2] / "src/fluoroscope"


def sentences(path):
    """The text in a file that is no docstring."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if id(node) not in docstrings else []


def test_the_files_that_are_known_here_advise_a_value():
    """A file that a user adds is not among them; one of ours should be, and a warning says so."""
    fixed = re.compile(r"\b(?:data|run|trainer)\.[a-z_]+=(?:[a-z0-9]|\[[A-Za-z,.]*\])")
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if any(map(fixed.search, sentences(path)))
    }
    assert found >= {*CHECKED}
    for file in found - {*CHECKED}:
        warnings.warn(f"{file} advises a value of a key: a test should follow it", stacklevel=1)


@pytest.mark.parametrize("own", [False, True])
def test_the_audit_advises_own_splits_only_where_they_are_not(own):
    table = pd.DataFrame({"patient": list("aabbccdd"), "view": None, "Edema": [1, 1, 0, 1] * 2})
    table["split"] = ["train"] * 4 + ["val", "train", "val", None]
    survey = pd.DataFrame({"reason": [""] * len(table)})
    subject = Subject(table, ["Edema"], survey, own=own)
    found = [f for check in (check_presence, check_classes) for f in check(subject)]
    assert {finding.name for finding in found} >= {"empty-split", "images-without-split"}
    assert any("data.splits=own" in finding.advice for finding in found) != own
