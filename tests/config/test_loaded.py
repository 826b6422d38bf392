"""Configurations of run folders and checkpoints: data, whole, and of any version."""

import copy
import inspect
import io
from dataclasses import dataclass, field, make_dataclass

import pytest
import timm
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from timm.models import build_model_with_cfg

from fluoroscope import sources
from fluoroscope.config import CONF, loaded
from fluoroscope.config.loaded import differences, load, load_file
from fluoroscope.config.rules import LOADING
from fluoroscope.config.stored_yaml import read_yaml
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError
from fluoroscope.evaluation.subject import training_config
from fluoroscope.reporting.collect import collect
from fluoroscope.run.resume import load_checkpoint
from tests.pin.pinned import HERE
from tests.support.films import config

BEFORE = HERE / "before/run"
STORED = yaml.safe_load((BEFORE / "config.yaml").read_text())
NOW = load(STORED, Train, "run").config
# Keys of which a run always had a value, and that have no default.
NEEDED = ("data.source", "backbone.name", "backbone.weights")
ASKED_FOR = ("data.image_px", "data.batch_size")  # a command can give them


def leaves(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


KEYS = [*leaves(NOW)]


def at(node, key):
    for name in key.split("."):
        node = node[name]
    return node


def changed(key, *value, base=NOW):
    """A copy without the key, or with another value of it."""
    stored = copy.deepcopy(base)
    section, _, name = key.rpartition(".")
    section = at(stored, section) if section else stored
    section.pop(name, None)
    if value:
        section[name] = value[0]
    return stored


def run_folder(place, stored):
    place.mkdir()
    text = stored if isinstance(stored, str | bytes) else yaml.safe_dump(stored, sort_keys=False)
    (place / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return place


def resumed(folder, *overrides):
    words = [f"run.resume={folder}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_train(compose("train", words), words)


def test_all_keys_of_all_sections_are_tried():
    assert len(KEYS) > 70
    assert {key.partition(".")[0] for key in KEYS} == {*NOW}


@pytest.fixture(scope="module")
def default():
    """As Hydra composes it."""
    return config("backbone=lite0", "data=phantom", "head.activation=relu")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_lacking_has_the_value_of_before_it_existed(key, default):
    """The default in `conf/`, which Hydra composes, unless the table says otherwise."""
    stored = changed(key)
    if key in NEEDED:
        with pytest.raises(InputError, match=rf"(?s)run.*{key}.*") as refusal:
            load(stored, Train, "run")
        assert "\n" not in str(refusal.value)
        return
    full = load(stored, Train, "run", checked=False)
    if key in ASKED_FOR:
        assert at(full.config, key) == "???"
        return
    expected = loaded.OLDER.get(key, at(default, key))
    assert at(full.config, key) == expected
    assert full.added == {key: expected}
    assert [*differences(full.config, NOW)] == ([key] if expected != at(NOW, key) else [])
    assert key in full.lines[0]


@pytest.mark.parametrize("source", sources.names())
def test_the_keys_of_each_source_are_completed(source):
    """The least that a run of the source has had."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / f"data/{source}.yaml"))
    few = {"source": source, "image_px": 32, "batch_size": 2, "root": "x", "csv": "y"}
    few |= {key: "z" for key, value in own.items() if value == "???" and key not in few}
    data = {key: few[key] for key in sources.keys_of(source).__dataclass_fields__ if key in few}
    full = load(changed("data", data), Train, "run").config["data"]
    assert set(full) == {*sources.keys_of(source).__dataclass_fields__}
    assert "???" not in full.values()
    assert full["on_duplicate"] == "keep"
    assert full["follow_links"] is True
    assert full.get("dicom_patients", False) is False


@pytest.mark.parametrize("key", ["head.order", "logger"])
def test_resume_and_evaluation_complete_what_is_lacking(tmp_path, key, capsys):
    cfg = resumed(run_folder(tmp_path / "run", changed(key)))
    assert cfg.head.order == "activation-norm"
    assert cfg.optimizer.ema_decay is None
    assert key in capsys.readouterr().out
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = compose("evaluate", ["checkpoint=x"])
    again = training_config(load(changed(key), Train, "x").config, asked)
    assert (again.head.width, again.logger.project) == (31, "fluoroscope")


@pytest.mark.parametrize("section", ["", "data.", "head.", "optimizer.", "diagnostics.alerts."])
def test_a_key_that_does_not_exist_is_refused_unless_it_had_its_default(
    section, tmp_path, monkeypatch
):
    key = f"{section}bygone"
    stored = changed(key, 3)
    sentence = rf"config.yaml: this version has no key {key} \(there: 3\); "
    file = run_folder(tmp_path / "run", stored) / "config.yaml"
    with pytest.raises(InputError, match=sentence):
        load_file(file, Train)
    monkeypatch.setitem(loaded.GONE, key, 2)
    with pytest.raises(InputError, match=sentence):
        load_file(file, Train)
    monkeypatch.setitem(loaded.GONE, key, 3)
    full = load_file(file, Train)
    assert full.config == NOW
    assert full.ignored == {key: 3}
    assert f"no longer exist: {key}=3" in full.lines[0]


def test_a_section_that_does_not_exist_is_named_by_its_keys(monkeypatch):
    stored = changed("probe", {"every": 2, "deep": {"er": []}})
    with pytest.raises(InputError, match=r"no key probe.every \(there: 2\)"):
        load(stored, Train, "run")
    for key, value in {"probe.every": 2, "probe.deep.er": []}.items():
        monkeypatch.setitem(loaded.GONE, key, value)
    assert load(stored, Train, "run").config == NOW


def test_a_key_that_a_user_adds_has_its_default_in_all_runs_of_before(monkeypatch):
    Probe = make_dataclass("Probe", [("every", int, field(default=7))])

    @dataclass
    class Wider(Train):
        probe: Probe = field(default_factory=Probe)

    full = load(NOW, Wider, "run")
    assert full.added == {"probe.every": 7}
    monkeypatch.setitem(loaded.OLDER, "probe.every", 5)
    assert load(NOW, Wider, "run").config["probe"] == {"every": 5}


HOSTILE = {
    "a variable": ("run.name", "${oc.env:SECRET}"),
    "another key": ("run.name", "x-${head.activation}"),
    "an own resolver": ("logger.group", "${identity:}"),
    "escaped": ("run.experiment", r"\${oc.env:SECRET}"),
    "in a list": ("data.labels", ["Mass", "${oc.env:SECRET}"]),
    "in a mapping": ("head.activation_args", {"alpha": "${oc.env:SECRET}"}),
    "in a deep list": ("data.augment", [{"name": "Affine", "p": ["${oc.env:SECRET}"]}]),
    "in a name": ("head.activation_args", {"${oc.env:SECRET}": 1}),
    "not closed": ("run.name", "${oc.env:SECRET"),
    "missing": ("backbone.name", "???"),
    "a number as a name": ("data.label_map", {1: "Mass"}),
    "code to build": ("head._target_", "os.system"),
    "a whole section": ("optimizer", "${oc.env:SECRET}"),
    "of Hydra": ("hydra", {"run": {"dir": "/tmp/evil"}}),
    "a plugin of Lightning": ("trainer.plugins", ["evil"]),
    "a callback": ("trainer.callbacks", [{"_target_": "evil"}]),
    "a dotted name": ("head.width", 31),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_text_of_a_stored_configuration_is_acted_on(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", "hunter2")
    key, value = HOSTILE[case]
    stored = NOW | {key: value} if case == "a dotted name" else changed(key, value)
    folder = run_folder(tmp_path / "run", stored)
    before = (folder / "config.yaml").read_bytes()
    checkpoint = torch.load(BEFORE / "checkpoints/last.ckpt", weights_only=True)
    torch.save(checkpoint | {"config": stored}, folder / "strange.ckpt")
    (folder / "result.json").write_text("{}")
    for use in (
        lambda: load_file(folder / "config.yaml", Train),
        lambda: load_checkpoint(folder / "strange.ckpt"),
        lambda: collect([folder]),
    ):
        with pytest.raises(InputError) as refusal:
            use()
        assert "hunter2" not in str(refusal.value) + capsys.readouterr().out
        assert "\n" not in str(refusal.value)
        assert "strange.ckpt" in str(refusal.value) or "config.yaml" in str(refusal.value)
    assert (folder / "config.yaml").read_bytes() == before


def laughs():
    lines = ["a: &a [x, x]", "b: &b [*a, *a]", "c: &c [*b, *b]"]
    return "\n".join(lines)


TEXT = yaml.safe_dump(NOW, sort_keys=False)
SHAPES = {
    "empty": (b"", "it is empty"),
    "zeroed": (b"\0" * 4000, "it is empty"),
    "blank": (b" \n\n", "it is empty"),
    "a comment": (b"# nothing\n", "not a mapping"),
    "a list": (b"- 1\n- 2\n", "not a mapping"),
    "a scalar": (b"seed\n", "not a mapping"),
    "null": (b"null\n", "not a mapping"),
    "not YAML": (b"seed: [1\n", "not valid YAML in line 2"),
    "a tab": (b"seed:\n\t1\n", "not valid YAML in line 2"),
    "not UTF-8": (TEXT.encode() + b"# \xff\xfe\n", "not UTF-8 text"),
    "two bytes a letter": (TEXT.encode("utf-16"), "not UTF-8 text"),
    "cut": (TEXT[:100].encode(), "run"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "not valid YAML in line 2"),
    "a key twice": (b"seed: 1\nseed: 2\n", "the key seed is there twice"),
    "a key twice in a section": (b"head:\n  width: 1\n  width: 2\n", "width is there twice"),
    "an alias": (laughs().encode(), "an alias"),
    "merged": (b"a: 1\nb: {<<: {c: 1}}\n", "not valid YAML"),
    "a tag": (b"seed: !!python/object/apply:os.system [x]\n", "not valid YAML"),
    "an unknown tag": (b"seed: !mine 1\n", "not valid YAML"),
    "bytes": (b"seed: !!binary aGVsbG8=\n", "not valid YAML"),
    "a set": (b"seed: !!set {a, b}\n", "not valid YAML"),
    "a long number": (b"seed: " + b"9" * 5000 + b"\n", "not valid YAML"),
    "deep": (b"a: " + b"[" * 100_000 + b"]" * 100_000, "more than 20 levels deep"),
    "deep mappings": (b"{a: " * 50_000, "more than 20 levels deep"),
    "long": (b"#" * 2**21, "more than 1,048,576 bytes"),
    "a section of another type": (TEXT.replace("loss:\n  name: bce", "loss: 3\nx:\n  name: b"), ""),
    "a list for a section": (yaml.safe_dump(changed("head", [1])), "head must be a section"),
    "null for a section": (yaml.safe_dump(changed("data", None)), "no data.source"),
    "no data": (yaml.safe_dump(changed("data")), "no data.source"),
    "no backbone": (yaml.safe_dump(changed("backbone")), "backbone.name is lacking"),
    "another source": (yaml.safe_dump(changed("data.source", "nowhere")), "data.source must be"),
    "a list as source": (yaml.safe_dump(changed("data.source", ["nih14"])), "data.source must be"),
    "text for a number": (yaml.safe_dump(changed("head.width", "wide")), "head.width must be"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_damaged_configuration_is_refused_in_one_sentence(shape, tmp_path):
    text, reason = SHAPES[shape]
    folder = run_folder(tmp_path / "run", text)
    with pytest.raises(InputError) as refusal:
        load_file(folder / "config.yaml", Train)
    assert "config.yaml" in str(refusal.value)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_a_configuration_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(InputError, match=r"config.yaml: Is a directory"):
        read_yaml(tmp_path / "config.yaml")


ENTRIES = {
    "no config": lambda c: c.pop("config"),
    "a config of text": lambda c: c.update(config="seed: 1"),
    "a config of tensors": lambda c: c["config"]["head"].update(width=torch.tensor(31)),
    "a config that holds itself": lambda c: c["config"]["head"].update(activation_args=c["config"]),
    "a section less": lambda c: c["config"].pop("data"),
    "no weights": lambda c: c.pop("state_dict"),
    "weights in a list": lambda c: c.update(state_dict=[1]),
    "no counters": lambda c: c.pop("global_step"),
    "a counter of text": lambda c: c.update(epochs="2"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_checkpoint_of_another_shape_is_refused_in_one_sentence(case, tmp_path):
    checkpoint = torch.load(BEFORE / "checkpoints/last.ckpt", weights_only=True)
    ENTRIES[case](checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt") as refusal:
        load_checkpoint(tmp_path / "x.ckpt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"conv.weight": torch.zeros(2)}, "pytorch-lightning_version": "2.6.0"},
        {"arch": "resnet18", "state_dict": {}, "epoch": 3, "args": {}},
        {"conv.weight": torch.zeros(2)},
        [1, 2],
        torch.zeros(3),
    ],
    ids=["Lightning", "timm", "weights", "a list", "a tensor"],
)
def test_a_checkpoint_of_other_programs_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt is not a checkpoint of fluoroscope"):
        load_checkpoint(tmp_path / "x.ckpt")


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


def test_no_checkpoint_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = torch.load(BEFORE / "checkpoints/last.ckpt", weights_only=True)
    torch.save(good | {"config": Evil()}, "x.ckpt")
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "executed").exists()
    torch.load(io.BytesIO((tmp_path / "x.ckpt").read_bytes()), weights_only=False)
    assert (tmp_path / "executed").exists()  # the file would have


DESTINATION = {
    "project": "stolen",
    "entity": "thief",
    "group": "theirs",
    "share": ["host", "paths"],
}


def stranger(**logger):
    stored = copy.deepcopy(NOW)
    stored["logger"] |= DESTINATION | {"mode": "online"} | logger
    stored["run"] |= {"name_images": True, "estimate": True}
    return stored


def test_todays_command_decides_where_a_resumed_run_goes(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", stranger())
    cfg = resumed(folder)
    assert dict(cfg.logger) == {
        **{"mode": "auto", "project": "fluoroscope", "entity": None},
        **{"group": "default-phantom", "tags": [], "share": []},
    }
    assert (cfg.run.name_images, cfg.run.estimate) == (False, False)
    said = capsys.readouterr().out
    assert "this command decides logger.project=fluoroscope" in said
    assert "add logger.project=stolen logger.entity=thief" in said
    mine = resumed(folder, "logger.project=mine", "logger.mode=offline", "run.name_images=true")
    assert (mine.logger.project, mine.logger.mode, mine.logger.entity) == ("mine", "offline", None)
    assert mine.run.name_images


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_a_resumed_run_stays_offline_unless_the_command_says_otherwise(tmp_path, mode):
    folder = run_folder(tmp_path / "run", stranger(mode=mode))
    assert resumed(folder).logger.mode == mode
    assert resumed(folder, "logger.mode=auto").logger.mode == "auto"


ARGS = {
    "a pickle": {"checkpoint_path": "evil.pth"},
    "a pickle without a suffix": {"checkpoint_path": "evil"},
    "weights by address": {"pretrained_cfg": {"url": "http://evil/x"}},
    "weights by file": {"pretrained_cfg_overlay": {"file": "/tmp/evil.pth"}},
    "a tag": {"pretrained_cfg": "evil"},
    "a folder": {"cache_dir": "/tmp/evil"},
    "weights": {"pretrained": True},
    "maps": {"features_only": True},
    "a future name": {"weights_file": "evil"},
    "a future address": {"hub_url": "evil"},
    "a path in an option": {"act_layer": "/tmp/evil"},
    "a file in an option": {"act_layer": "evil.pth"},
    "a mapping": {"norm_layer": {"_target_": "os.system"}},
    "a path in a list": {"layers": [1, ["../evil"]]},
}


@pytest.mark.parametrize("case", ARGS)
def test_arguments_of_a_network_name_no_file(case):
    stored = changed("backbone.args", ARGS[case])
    name = next(iter(ARGS[case]))
    with pytest.raises(InputError, match=rf"x.ckpt: backbone\.args.*{name}"):
        load(stored, Train, "x.ckpt")


def test_the_command_line_names_no_file_to_timm_either():
    with pytest.raises(InputError, match=r"weights come from backbone.weights=file"):
        config("++backbone.args.checkpoint_path=evil.pth")


def test_all_arguments_of_timms_loader_are_known():
    for function in (timm.create_model, build_model_with_cfg):
        arguments = inspect.signature(function).parameters
        names = {name for name, p in arguments.items() if p.kind != p.VAR_KEYWORD}
        assert names <= LOADING


def test_options_of_an_architecture_are_accepted():
    options = {
        **{"drop_rate": 0.1, "drop_path_rate": 0.2, "global_pool": "avgmax", "act_layer": "silu"},
        **{"img_size": [48, 48], "pretrained_window_sizes": [0, 0], "class_token": False},
        **{"in_chans": 1, "init_values": None, "bn_eps": 1e-3, "global_pool": ""},
    }
    stored = changed("backbone.args", options)
    assert load(stored, Train, "run").config["backbone"]["args"] == options
