"""The configuration files, their schema and the classes that take the values agree."""

import inspect
import shutil
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_origin

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope import commands, sources
from fluoroscope.config import CONF, OPEN_KEYS
from fluoroscope.config.data_keys import Data
from fluoroscope.config.evaluate import Evaluate
from fluoroscope.config.run_checks import RESUMABLE, unknown_key
from fluoroscope.config.train import (
    Train,
    Trainer,
    check_train,
)
from fluoroscope.config.trust import TRUST
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.splits import assign_splits
from fluoroscope.diagnostics.alerts import Alerts
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.model.backbone import make_backbone
from fluoroscope.model.head import Head
from fluoroscope.model.loss import MaskedLoss
from fluoroscope.model.optimizer import Descent
from fluoroscope.phantom.render import write_collection
from fluoroscope.run.wandb_logger import SHARE
from tests.support.films import config

WATCHERS = {"enabled", "layers", "revive_every_n_epochs", "revive_by", "alerts"}
# What a file needs besides its own keys: a value of those that it leaves open.
OPEN = {"root": "d", "csv": "f.csv"}


def needed(file: Path) -> list[str]:
    own = OmegaConf.to_container(OmegaConf.load(file))
    section = f"{file.parent.name}."
    return [f"{section}{key}={OPEN.get(key, 1)}" for key, value in own.items() if value == "???"]


def chosen(file: Path) -> list[str]:
    """The overrides of a run that reads this file of a group."""
    group = str(file.parent.relative_to(CONF))
    return [f"{group}={file.stem}", *(needed(file) if group == "data" else [])]


# Without data=own, whose source is in the user's package: see tests/sources/test_own_source.py.
GROUPS = sorted(f for f in CONF.glob("*/**/*.yaml") if "\nsource: ???" not in f.read_text())
NEEDS = {file.stem: needed(file) for file in GROUPS if file.parent.name == "data"}


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])


@cache
def default() -> Any:
    cfg = composed("train")
    OmegaConf.set_struct(cfg, False)
    return cfg


def changed(*overrides: str) -> Any:
    """The default configuration with these keys, which need not exist."""
    return check_train(OmegaConf.merge(default(), OmegaConf.from_dotlist([*overrides])))


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as error:
        changed(*overrides)
    return str(error.value)


def typed_fields(schema: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names of a schema's keys, and their fields."""
    found = {}
    for entry in fields(schema):
        value = getattr(schema, entry.name)
        if is_dataclass(value):
            found |= typed_fields(value, f"{prefix}{entry.name}.")
        else:
            found[f"{prefix}{entry.name}"] = entry
    return found


def keys_of(nodes: Any, stop: set[str], prefix: str = "") -> set[str]:
    found = set()
    for name, value in nodes.items():
        key = f"{prefix}{name}"
        section = isinstance(value, dict) and value and key not in stop
        found |= keys_of(value, stop, f"{key}.") if section else {key}
    return found


@pytest.mark.parametrize("file", GROUPS, ids=lambda file: str(file.relative_to(CONF)))
def test_every_choice_is_composed_and_checked(file):
    assert config(*chosen(file)).head.width > 0


def test_every_other_file_is_that_of_a_command():
    assert {file.stem for file in CONF.glob("*.yaml")} == {*commands.names()}
    assert {*NEEDS} == {*sources.names()}


@pytest.mark.parametrize("source", NEEDS)
def test_files_and_schema_have_the_same_keys(source):
    schema = Train(data=sources.keys_of(source)())
    nodes = OmegaConf.to_container(composed("train", f"data={source}"))
    assert keys_of(nodes, {*OPEN_KEYS}) == {*typed_fields(schema), TRUST} - {"loggers"}


def test_evaluation_sets_keys_that_training_has():
    cfg = composed("evaluate")
    assert {*cfg} == {entry.name for entry in fields(Evaluate)} | {"data", "trainer", TRUST}
    assert {*cfg.data} <= {entry.name for entry in fields(Data)}
    assert {*cfg.trainer} <= {entry.name for entry in fields(Trainer)}


@pytest.mark.parametrize(
    ("section", "takes", "left", "shared"),
    [
        ("head", Head, {"prior_bias"}, 9),
        ("loss", MaskedLoss, set(), 4),
        ("optimizer", Descent, {"ema_decay"}, 7),
        ("diagnostics", Monitor, WATCHERS, 2),
        ("diagnostics.alerts", Alerts, {"nonfinite"}, 3),
        ("backbone", make_backbone, {"name", "weights"}, 7),
    ],
)
def test_a_default_is_the_same_in_the_file_and_in_the_class(section, takes, left, shared):
    """`left` are the keys that the builder reads itself, or that have no default in code."""
    written = OmegaConf.to_container(OmegaConf.select(changed(), section))
    defaults = defaults_of(takes)
    assert set(written) - set(defaults) == left
    if section == "head":  # a run takes it from its length, and a head knows no length
        assert written.pop("norm_momentum") == "auto"
        shared -= 1
    both = set(written) & set(defaults)
    assert len(both) == shared
    for key in both:
        # A mapping cannot be a default in code.
        assert (None if written[key] == {} else written[key]) == defaults[key], key


@pytest.mark.parametrize(
    ("takes", "shared"),
    [
        (XrayDataModule, {"image_px", "batch_size", "num_workers", "sampler"}),
        (assign_splits, {"val_frac", "test_frac", "fold"}),
        (write_collection, {"patients", "images_per_patient", "subtlety", "prevalence"}),
    ],
)
def test_a_default_of_the_data_is_the_same_in_the_file_and_in_the_code(takes, shared):
    written = OmegaConf.to_container(config("backbone=lite0").data)
    defaults = defaults_of(takes)
    assert set(written) & set(defaults) == shared
    assert all(written[key] == defaults[key] for key in shared)


def defaults_of(takes: Any) -> dict[str, Any]:
    parameters = inspect.signature(takes).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not p.empty}


def test_films_of_the_phantom_are_as_large_as_the_code_draws_them():
    assert changed().data.film_px == defaults_of(write_collection)["size_px"]


def test_choices_are_those_of_the_classes():
    choices = {k: entry.metadata.get("choices") for k, entry in typed_fields(Train()).items()}
    assert set(choices["logger.share"]) == set(SHARE)


def test_open_keys_are_the_mappings_of_the_schema():
    mappings = {k for k, entry in typed_fields(Train()).items() if get_origin(entry.type) is dict}
    assert mappings == set(OPEN_KEYS)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=abc", "seed must be a whole number; got 'abc'"),
        ("head.width=wide", "head.width must be a whole number; got 'wide'"),
        ("head.width=1.5", "head.width must be a whole number; got 1.5"),
        ("seed=null", "seed must be a whole number; got null"),
        ("run.patience=soon", "run.patience must be a whole number or null; got 'soon'"),
        ("head.dropout=true", "head.dropout must be a number; got true"),
        ("backbone.frozen=maybe", "backbone.frozen must be true or false; got 'maybe'"),
        (
            "data.labels=Mass",
            "data.labels must be a list, written 'data.labels=[Mass]' or null; got 'Mass'",
        ),
        (
            "data.augment=[Affine]",
            "data.augment must be a list, written 'data.augment=[{name: ...}]'; got [\"Affine\"]",
        ),
        (
            "backbone.args=3",
            "backbone.args must be a mapping, written 'backbone.args={name: value}'; got 3",
        ),
        ("run.name=[a]", 'run.name must be text; got ["a"]'),
        ("head=keras", "head must be a section with keys such as head.width; got 'keras'"),
        ("loss.name=hinge", "loss.name must be one of bce, focal; got 'hinge'"),
        (
            "backbone.weights=null",
            "backbone.weights must be one of file, hub, none, package; got null",
        ),
        ("logger.share=[hos]", "logger.share must be one of host, paths; got 'hos' (did you mean"),
        ("run.name=${nothing}", "run.name=${nothing}: Interpolation key 'nothing' not found"),
        ("foo=1", "there is no key foo; --help shows them all"),
        ("head.widht=1", "there is no key head.widht (did you mean 'head.width'?)"),
    ],
)
def test_a_wrong_value_is_told_with_key_value_and_what_is_wanted(override, told):
    assert told in refusal(override)


@pytest.mark.parametrize(
    ("key", "good", "bad", "told"),
    [
        ("optimizer.warmup_frac", (0, 0.99), (2, 1, -0.1), "in [0, 1)"),
        ("optimizer.ema_decay", (0.5, "null"), (0, 1), "in (0, 1)"),
        ("optimizer.lr", (0, 3), (-1, ".nan"), "at least 0"),
        ("data.batch_size", (2, 512), (0, -2), "at least 1"),
        ("data.image_px", (32,), (31,), "at least 32"),
        ("data.subtlety", (0, 1), (1.1,), "in [0, 1]"),
        ("data.num_workers", (0, "null"), (-1,), "at least 0"),
        ("seed", (0, 2**32 - 1), (-1, 2**32), "in [0, 4294967295]"),
        ("trainer.max_epochs", (1,), (0, -1), "at least 1"),
        ("head.dropout", (0, 0.5), (1, -0.1, ".inf"), "in [0, 1)"),
        ("data.val_frac", (0.01, 0.8), (0, 1), "in (0, 1)"),
    ],
)
def test_a_number_is_kept_to_its_range(key, good, bad, told):
    for value in good:
        shown = OmegaConf.select(changed(f"{key}={value}"), key)
        assert shown == (None if value == "null" else value)
    for value in bad:
        assert f"{key} must be {told}; got" in refusal(f"{key}={value}")


def test_everything_that_is_not_set_is_told_at_once():
    for source, told in (
        ("table", "data.csv and data.root are not set; add data.csv=... data.root=..."),
        ("nih14", "data.root is not set; add data.root=..."),
    ):
        with pytest.raises(InputError) as error:
            config(f"data={source}")
        assert str(error.value) == told


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("head.activatoin", "head.activation"),
        ("optimiser.lr", "optimizer.lr"),
        ("activation", "head.activation"),
        ("epochs", "trainer.max_epochs"),
        ("data.workers", "data.num_workers"),
    ],
)
def test_the_nearest_key_is_found_by_its_last_part(key, near):
    assert f"there is no key {key} (did you mean {near!r}?)" in str(unknown_key(key, default()))


def test_no_key_is_suggested_where_none_is_near():
    assert str(unknown_key("head.foo", default())).startswith("there is no key head.foo; ")


def test_a_key_of_another_source_is_told_with_the_source():
    told = "data.csv exists only with data=table; remove it, or choose this source"
    assert str(unknown_key("data.csv", default())) == told


def test_interpolations_are_resolved():
    cfg = changed("seed=7", "head.activation=gelu", "run.experiment=trial")
    assert (cfg.run.name, cfg.logger.group) == ("gelu-s7", "trial-phantom")


def test_a_resumed_run_keeps_its_configuration_but_for_single_keys(tmp_path):
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(changed("head.width=31", "seed=5")))
    overrides = [f"run.resume={tmp_path}", "trainer.max_epochs=3", "run.patience=null"]
    cfg = check_train(composed("train", *overrides), overrides)
    assert (cfg.head.width, cfg.seed, cfg.trainer.max_epochs) == (31, 5, 3)
    assert (cfg.run.resume, cfg.run.patience) == (str(tmp_path), None)
    for override in (
        "head.width=64",
        "seed=1",
        "data=phantom",
        "experiment=quickstart",
    ):
        wanted = [*overrides, override]
        with pytest.raises(InputError, match=rf"{override} needs a new run; .* of data, trainer"):
            check_train(composed("train", *wanted), wanted)
    fixed = [*overrides, "diagnostics.enabled=false"]
    with pytest.raises(InputError, match="enabled is true, and false needs a new run"):
        check_train(composed("train", *fixed), fixed)


def test_what_a_resumed_run_can_change_are_sections():
    assert {*RESUMABLE} < {entry.name for entry in fields(Train)}


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("No GPU found! Pass `weights_only=False`.\nSee https://a.b", "No GPU found"),
        ("0.1 * 3 < 1. Please raise it", "0.1 * 3 < 1"),
        ("should be an int > 0.", "should be an int > 0"),
        ("two\nlines", "two"),
        ("", "ValueError"),
    ],
)
def test_the_first_sentence_of_a_librarys_error(text, first):
    assert first_sentence(ValueError(text)) == first


B4, LITE0 = ("tf_efficientnet_b4.aa_in1k", "hub"), ("tf_efficientnet_lite0", "package")


@pytest.mark.parametrize(
    ("overrides", "image_px", "batch_size", "network"),
    [
        ("", 380, 64, B4),
        ("backbone=lite0", 224, 32, LITE0),
        ("backbone=lite0 data=medmnist", 224, 32, LITE0),
        ("experiment=quickstart", 160, 16, LITE0),
        ("experiment=quickstart backbone=b4", 160, 16, B4),
        ("experiment=quickstart data.image_px=96", 96, 16, LITE0),
        ("experiment=question data.batch_size=8", 380, 8, B4),
        (
            "backbone=lite0 backbone.name=resnet18 backbone.weights=none",
            224,
            32,
            ("resnet18", "none"),
        ),
    ],
)
def test_the_command_line_wins_over_an_experiment_and_that_over_the_backbone(
    overrides, image_px, batch_size, network
):
    cfg = config(*overrides.split())
    assert (cfg.data.image_px, cfg.data.batch_size) == (image_px, batch_size)
    assert (cfg.backbone.name, cfg.backbone.weights) == network


def test_a_collection_wins_over_the_backbone_and_an_experiment_over_it(tmp_path, monkeypatch):
    """With a copy of `conf` in which a collection sets the size."""
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/data/small.yaml").write_text("defaults: [phantom]\nimage_px: 64\n")
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        assert compose("train", ["data=small"]).data.image_px == 64
        assert compose("train", ["data=small", "experiment=quickstart"]).data.image_px == 160
        assert compose("train", ["data=small", "data.image_px=32"]).data.image_px == 32
