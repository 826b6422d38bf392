"""What a checkpoint and W&B get of a configuration names nobody; the run's folder has the rest."""

import json

import pytest
import yaml
from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.config.schema import plain
from fluoroscope.config.shareable import (
    LEFT_OUT,
    MODEL,
    for_checkpoint,
    for_upload,
    is_shareable,
    left_out,
    restored,
    without_paths,
)
from fluoroscope.config.train import check_train
from tests.config.test_config import NEEDS
from tests.support.films import config

NAME = "Doe-Jane"


def whole(source):
    return plain(config(f"data={source}", *NEEDS[source], f"data.root=/films/{NAME}"))


def planted(nodes, prefix=""):
    """The configuration with a name in place of all text but that of the model."""
    found = {}
    for name, value in nodes.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in MODEL:
            found[name] = planted(value, f"{key}.")
        elif key in MODEL or isinstance(value, bool | int | float):
            found[name] = value
        else:
            found[name] = [NAME, NAME] if isinstance(value, list) else NAME
    return found


@pytest.mark.parametrize("source", sources.names())
def test_no_text_that_anyone_may_choose_leaves_the_folder(source):
    cfg = planted(whole(source))
    assert NAME in json.dumps(cfg["data"])
    assert NAME not in json.dumps(for_checkpoint(cfg))
    assert NAME not in json.dumps(for_upload(cfg, ()))


def test_a_key_added_later_is_left_out_too():
    cfg = whole("phantom") | {"doctor": {"name": NAME, "age": 61}, "ward": NAME}
    cfg["data"]["clinic"] = [NAME]
    assert NAME not in json.dumps(for_checkpoint(cfg))
    assert for_upload(cfg, ())["doctor"] == {"age": 61}
    assert for_checkpoint(cfg)["data"]["clinic"] == [LEFT_OUT]


@pytest.mark.parametrize("source", sources.names())
def test_numbers_choices_defaults_and_the_model_stay(source):
    cfg = whole(source)
    kept = for_checkpoint(cfg)
    own = {"data.root", "run.dir", "run.name", "logger.group"}
    assert set(left_out(kept)) <= own | {need.partition("=")[0] for need in NEEDS[source]}
    for section in ("backbone", "head", "loss", "optimizer", "trainer"):
        assert kept[section] == cfg[section]
    check_train(OmegaConf.create(kept))  # it is a valid configuration


@pytest.mark.parametrize(
    ("key", "value", "stays"),
    [
        ("data.labels", ["Nodule/Mass"], True),
        ("data.patient_pattern", r"(p\d+)_", False),
        ("data.exclude", [], True),
        ("data.root", "data/phantom", True),
        ("data.root", "films", False),
        ("backbone.args", {"depth": 3, "act_layer": "relu"}, True),
        ("backbone.args", {"checkpoint_path": "/w.pth"}, False),
        ("backbone.file", None, True),
        ("trainer.precision", "bf16-mixed", True),
        ("optimizer.lr", 1e-3, True),
        ("run.dir", "outputs/x", False),
    ],
)
def test_single_values(key, value, stays):
    section, name = key.split(".")
    cfg = {"data": {"source": "phantom"}}
    cfg.setdefault(section, {})[name] = value
    assert (name in for_upload(cfg, ())[section]) == stays
    if name != "root":  # its default is of one source
        assert is_shareable(key, value) == stays


def test_facts_that_are_paths_are_left_out():
    facts = {"labels": ["Nodule/Mass"], "weights": "/films/w.pth", "epochs": 3, "source": "nih14"}
    assert without_paths(facts) == {k: v for k, v in facts.items() if k != "weights"}


def test_the_run_s_folder_gives_the_names_back(tmp_path):
    cfg = whole("table")
    cfg["trainer"]["max_epochs"] = 99  # a later resume
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg))
    stored = for_checkpoint(whole("table"))
    again = restored(stored, tmp_path / "checkpoints/best.ckpt")
    assert again["data"] == cfg["data"]
    assert again["trainer"] == stored["trainer"]
    assert list(left_out(again)) == []


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "7", "data: 3", "data: {root: }", "\0"])
def test_without_a_readable_config_nothing_is_given_back(tmp_path, text):
    stored = for_checkpoint(whole("nih14"))
    assert restored(stored, tmp_path / "checkpoints/best.ckpt") == stored
    (tmp_path / "config.yaml").write_text(text)
    again = restored(stored, tmp_path / "checkpoints/best.ckpt")
    assert again["trainer"] == stored["trainer"]
    assert again["data"]["root"] in (LEFT_OUT, None)
