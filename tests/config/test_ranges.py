"""Every number of the configuration has a range, and the check of its schema keeps it."""

import math
from dataclasses import field, is_dataclass, make_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from omegaconf import MISSING, OmegaConf

from fluoroscope import sources
from fluoroscope.config import schema
from fluoroscope.config.ablate import Own
from fluoroscope.config.dashboard import Dashboard
from fluoroscope.config.demo import Demo
from fluoroscope.config.evaluate import Evaluate
from fluoroscope.config.predict import Predict
from fluoroscope.config.prepare import Prepare
from fluoroscope.config.report import Report
from fluoroscope.config.rules import check_devices, check_limit
from fluoroscope.config.sync import Sync
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from tests.config.test_config import refusal, typed_fields

SCHEMAS = {
    "train": Train(),
    **{f"data={name}": Train(data=sources.keys_of(name)()) for name in sources.names()},
    "ablate": Own(),
    "prepare": Prepare(),
    "report": Report(),
    "evaluate": Evaluate(),
    "dashboard": Dashboard(),
    "demo": Demo(),
    "predict": Predict(),
    "sync": Sync(),
}
# Keys of any type that take no number: words, folders and what a check of the command reads.
NO_NUMBER = {"ablate.activations", "ablate.grid", "prepare.weights", "prepare.audit"}
NO_NUMBER |= {"report.runs", "sync.runs"}
LIMITS = ("range", "choices", "rule")


def declared(limit: str) -> dict[str, tuple[Any, str, Any]]:
    """Schema, key and limit by a name; keys that every source has come once."""
    everywhere = typed_fields(Train())
    return {
        f"{name} {key}": (keys, key, entry.metadata[limit])
        for name, keys in SCHEMAS.items()
        for key, entry in typed_fields(keys).items()
        if limit in entry.metadata and not (name.startswith("data=") and key in everywhere)
    }


RANGES, RULES = declared("range"), declared("rule")
del RULES["evaluate checkpoint"]  # any text may be a path; see `test_place_checks`


def alone(keys: Any, section: str) -> Any:
    """A schema of one section, or of one key that is in none: a whole one takes 30 ms to check."""
    value, entry = getattr(keys, section), keys.__dataclass_fields__[section]
    if is_dataclass(value):
        return make_dataclass("Part", [(section, type(value), field(default_factory=type(value)))])
    given = field(default=MISSING, metadata=entry.metadata)
    return make_dataclass("Part", [(section, get_type_hints(type(keys))[section], given)])


def set_to(keys: Any, key: str, value: Any) -> Any:
    """The value as the schema takes it; other keys have none."""
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, key, value)
    part = alone(keys, key.partition(".")[0])
    return OmegaConf.select(schema.check(cfg, part(), whole=False), key)


def told(keys: Any, key: str, value: Any) -> str:
    with pytest.raises(InputError) as error:
        set_to(keys, key, value)
    return str(error.value)


def kind(keys: Any, key: str) -> set[Any]:
    """The types that a key takes."""
    *sections, name = key.split(".")
    for section in sections:
        keys = getattr(keys, section)
    hint = get_type_hints(type(keys))[name]
    return {hint} if get_origin(hint) in (dict, list, None) else {*get_args(hint)}


def test_every_number_has_a_range():
    without = {
        f"{name}.{key}"
        for name, keys in SCHEMAS.items()
        for key, entry in typed_fields(keys).items()
        if kind(keys, key) & {int, float, Any} and not {*LIMITS} & set(entry.metadata)
    }
    assert without == NO_NUMBER


def test_the_ranges_are_those_of_all_commands():
    assert len(RANGES) > 40
    assert {label.partition(" ")[0] for label in RANGES} >= {"train", "ablate", "prepare", "report"}


@pytest.mark.parametrize("label", RANGES)
def test_a_number_out_of_its_range_is_refused(label):
    keys, key, (low, high, ends) = RANGES[label]
    types = kind(keys, key)
    step = 1 if int in types else 1e-6
    outside = [low - step] if ends[0] == "[" else [low, low - step]
    inside = [low + step] if ends[0] == "(" else [low, low + step]
    if high < math.inf:
        outside += [high + step] if ends[1] == "]" else [high, high + step]
        inside += [high - step] if ends[1] == ")" else [high, high - step]
    for value in inside:
        assert set_to(keys, key, value) == value
    for value in outside:
        sentence = told(keys, key, value)
        assert sentence.startswith(f"{key} must be "), value
        assert f"{low}" in sentence.partition(";")[0]
        assert sentence.endswith(f"; got {float(value) if int not in types else value}")
    for value in (math.nan, math.inf, -math.inf, "many", True):
        assert told(keys, key, value).startswith(f"{key} must be "), value
    if type(None) in types:
        assert set_to(keys, key, None) is None
    else:
        assert "got null" in told(keys, key, None)


@pytest.mark.parametrize("label", RULES)
def test_a_rule_refuses_with_key_and_value(label):
    keys, key, _ = RULES[label]
    words = "x" * 129
    sentence = told(keys, key, [words] if kind(keys, key) == {list[str]} else words)
    assert sentence.split()[0].strip(":") == key
    assert words in sentence


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_devices, (1, 8, -1, "auto", "2", "0,1", "3,", [0], [1, 3]), ()),
        (check_devices, (), (0, -2, 1.5, True, None, "two", "0", ",", [], ["a"], [-1], "1,x")),
        (check_limit, (None, 1, 7, 0.25, 1.0, 5.0), (0, -1, 1.5, -0.5, True, "all", math.inf)),
    ],
)
def test_what_lightning_takes_for_devices_and_batches(check, good, bad):
    for value in good:
        check("trainer.key", value)
    for value in bad:
        with pytest.raises(InputError, match=r"^trainer.key must be .*; got "):
            check("trainer.key", value)


def test_a_number_of_a_few_is_refused_by_their_names():
    keys = SCHEMAS["data=medmnist"]
    assert set_to(keys, "data.size_px", 64) == 64
    sentence = told(keys, "data.size_px", 65)
    assert sentence.startswith("data.size_px must be one of 28, 64, 128, 224; got 65")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["data.val_frac=0.5", "data.test_frac=0.5"],
            "data.val_frac and data.test_frac must add to less than 1; got 0.5 and 0.5",
        ),
        (["data.batch_size=1"], "data.batch_size=1: batch norm needs at least 2 images"),
        (
            ["diagnostics.enabled=false", "diagnostics.revive_every_n_epochs=1"],
            "diagnostics.revive_every_n_epochs needs the census",
        ),
        (
            ["diagnostics.revive_by=gradient"],
            "diagnostics.revive_by=gradient revives no unit while",
        ),
        (["loss.focal_gamma=0.5"], "loss.focal_gamma must be 0 or at least 1; got 0.5"),
        (
            ["head.activation=celu", "head.activation_args.alpha=0"],
            "head.activation_args.alpha must be a number above 0; got 0",
        ),
        (
            ["head.activation=gelu", "head.activation_args.approximate=tan"],
            "head.activation_args.approximate must be one of none, tanh; got 'tan' (did you mean",
        ),
        (
            ["head.activation_args.inplace=1"],
            "head.activation_args.inplace must be true or false; got 1",
        ),
    ],
)
def test_values_that_single_keys_take_are_refused_together(overrides, sentence):
    assert sentence in refusal(*overrides)
