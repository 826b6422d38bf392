"""A folder of the user's own: all groups of all commands, and refusals that name the file."""

from unittest.mock import Mock

import pytest

from fluoroscope import sources
from fluoroscope.command import command_line, composition, own_files
from fluoroscope.config.ablate import check_ablate
from fluoroscope.config.doctor import check_doctor
from fluoroscope.config.evaluate import check_evaluate
from fluoroscope.config.prepare import check_prepare
from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError, NotHereError

GLOBAL = "# @package _global_\n"
CHECKS = {
    "train": (check_train, []),
    "ablate": (check_ablate, ["activations=[relu]", "backbone=lite0"]),
    "prepare": (check_prepare, ["out=copy"]),
    "doctor": (check_doctor, []),
    "evaluate": (check_evaluate, ["checkpoint=tests/pin/before/run"]),
}


def checked(own, command, *words):
    check, needs = CHECKS[command]
    options = command_line.read(["--config-dir", str(own), *needs, *words])
    _, jobs = composition.compose_jobs(command, options)
    return composition.check_jobs(jobs, check, options)[0]


def write(own, name, text):
    file = own / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("command", CHECKS)
def test_a_collection_of_one_s_own_serves_every_command(tmp_path, command, monkeypatch):
    monkeypatch.setattr(sources, "check_place", Mock())
    write(tmp_path, "data/ward", f"defaults: [nih14]\nroot: {tmp_path}/films\nviews: [PA]\n")
    found = checked(tmp_path, command, "data=ward")
    cfg = (
        next(iter(found.heads.values())) if command == "ablate" else getattr(found, "train", found)
    )
    assert (cfg.data.source, cfg.data.views) == ("nih14", ["PA"])


@pytest.mark.parametrize(
    ("group", "text", "key", "value"),
    [
        ("trainer", "defaults: [auto]\nmax_epochs: 3\n", "trainer.max_epochs", 3),
        ("logger", "defaults: [csv]\nproject: ours\n", "logger.project", "ours"),
        ("backbone", f"{GLOBAL}defaults: [lite0]\ndata: {{image_px: 96}}\n", "data.image_px", 96),
        ("experiment", "\n#  @package  _global_\nhead: {width: 9}\n", "head.width", 9),
    ],
)
def test_each_group_has_choices_of_one_s_own(tmp_path, group, text, key, value):
    write(tmp_path, f"{group}/mine", text)
    section, name = key.split(".")
    assert checked(tmp_path, "train", f"{group}=mine")[section][name] == value


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("experiment/a", f"{GLOBAL}head: {{widht: 3}}\n", "there is no key head.widht (did you"),
        ("experiment/a", f"{GLOBAL}head: {{width: x}}\n", "head.width must be a whole number"),
        ("experiment/a", f"{GLOBAL}head:\n  width: ${{nope}}\n", "head.width=${nope}: Interp"),
        (
            "experiment/a",
            f"{GLOBAL}defaults:\n  - override /backbone: b5\n",
            "backbone must be one",
        ),
        ("trainer/a", "defaults: [auto]\nmax_epochs: 0\n", "trainer.max_epochs must be at least 1"),
        ("data/a", "defaults: [nih14]\nroot: .\nward: 3\n", "there is no key data.ward"),
        ("logger/a", "defaults: [csv]\nmode: perhaps\n", "logger.mode must be one of auto"),
        ("experiment/a", "head: {width: 3}\n", "its first line must be # @package _global_"),
        ("experiment/a", f"# narrow\n{GLOBAL}head: {{width: 3}}\n", "its first line must be"),
    ],
)
def test_a_refusal_names_the_file_that_sets_the_key(tmp_path, name, text, told):
    file = write(tmp_path, name, text)
    with pytest.raises(InputError) as refusal:
        checked(tmp_path, "train", "seed=2", name.replace("/", "="))
    assert str(refusal.value).startswith(f"{file}: {told}")


def test_a_sweep_names_the_file_of_the_run_that_is_refused(tmp_path):
    write(tmp_path, "experiment/a", f"{GLOBAL}head: {{width: 3}}\n")
    file = write(tmp_path, "experiment/b", f"{GLOBAL}head: {{width: x}}\n")
    with pytest.raises(InputError) as refusal:
        checked(tmp_path, "train", "-m", "experiment=a,b")
    assert str(refusal.value).startswith(f"{file}: head.width must be")


@pytest.mark.parametrize("text", ["head: {width: 3\n", "a: b: c\n", b"\xff\xfe", "", "- a\n", "3"])
def test_a_file_that_holds_no_keys_is_named(tmp_path, text):
    file = write(tmp_path, "experiment/a", text)
    with pytest.raises(InputError) as refusal:
        checked(tmp_path, "train", "experiment=a")
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


def test_what_the_command_line_sets_is_not_blamed_on_a_file(tmp_path):
    write(tmp_path, "experiment/a", f"{GLOBAL}head: {{width: x}}\n")
    assert checked(tmp_path, "train", "experiment=a", "head.width=5").head.width == 5
    with pytest.raises(InputError) as refusal:
        checked(tmp_path, "train", "experiment=a", "head.width=y")
    assert str(refusal.value) == "head.width must be a whole number; got 'y'"


def test_a_refusal_keeps_its_kind(tmp_path):
    write(tmp_path, "data/a", "root: nowhere\n")
    with (
        pytest.raises(NotHereError, match=r"a\.yaml: data\.root: there"),
        own_files.named(str(tmp_path), ["data=a"]),
    ):
        raise NotHereError("data.root: there is no directory nowhere")
