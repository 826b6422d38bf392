"""Weights from a stand-in for the hub, by the real client, into a folder and into a backbone."""

import hashlib
import json
import re
import shlex
import socket
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fluoroscope.command import entry
from fluoroscope.config.prepare import Job
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import make_backbone
from fluoroscope.prepare import weights
from tests.support.hub_server import HubServer

TINY, TAGGED = "test_efficientnet", "test_efficientnet.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has one set of weights, its empty cache here, and a folder for the result."""
    torch.manual_seed(5)
    network = timm.create_model(TINY)
    (tmp_path / f"hub/timm/{TAGGED}").mkdir(parents=True)
    save_file(network.state_dict(), tmp_path / f"hub/timm/{TAGGED}/model.safetensors")
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        out = tmp_path / "weights"
        yield SimpleNamespace(
            server=server, network=network, out=out, file=out / f"{TAGGED}.safetensors"
        )


def prepare(hub, *names):
    weights.main(Job(list(names) or [TAGGED], hub.out))


def manifest(hub):
    return json.loads((hub.out / f"{TAGGED}.manifest.json").read_text())


def test_weights_are_fetched_and_described(hub, capsys):
    prepare(hub, TINY)
    assert sorted(path.name for path in hub.out.iterdir()) == [
        f"{TAGGED}.manifest.json",
        f"{TAGGED}.safetensors",
    ]
    content = hub.file.read_bytes()
    tag = timm.get_pretrained_cfg(TINY)
    assert manifest(hub) == {
        "name": TAGGED,
        "architecture": TINY,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "mean": list(tag.mean),
        "std": list(tag.std),
        "input_size": list(tag.input_size),
        "license": tag.license,
        "timm": timm.__version__,
    }
    of_hub = hub.network.state_dict()
    for key, value in load_file(hub.file).items():  # all but the classifier
        assert torch.equal(value, of_hub[key]), key
    assert "fetching ... 0.4 MB" in capsys.readouterr().out


def test_the_line_it_ends_with_trains_with_those_weights(hub, capsys):
    prepare(hub)
    (line,) = re.findall(r"python scripts/train\.py (.*)", capsys.readouterr().out)
    keys = dict(word.removeprefix("backbone.").split("=") for word in shlex.split(line))
    backbone = make_backbone(**keys)
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, hub.network.state_dict()[key]), key


def test_a_second_call_fetches_nothing(hub, capsys):
    prepare(hub)
    before = {path: path.stat().st_mtime_ns for path in hub.out.iterdir()}
    hub.server.asked.clear()
    prepare(hub, TAGGED, TINY)
    assert hub.server.asked == []
    assert {path: path.stat().st_mtime_ns for path in hub.out.iterdir()} == before
    assert capsys.readouterr().out.count("SHA-256 matches the manifest") == 2


def flip(hub):
    content = bytearray(hub.file.read_bytes())
    content[-5] ^= 1
    hub.file.write_bytes(content)


def shorten(hub):
    hub.file.write_bytes(hub.file.read_bytes()[:-100])


def lose_manifest(hub):
    (hub.out / f"{TAGGED}.manifest.json").unlink()


def break_manifest(hub):
    (hub.out / f"{TAGGED}.manifest.json").write_text('{"name": ')


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip, "its SHA-256 differs from the manifest"),
        (shorten, "bytes"),
        (lose_manifest, "it has no manifest"),
        (break_manifest, "its manifest cannot be read"),
    ],
)
def test_damage_is_found_named_and_mended(hub, capsys, harm, message):
    prepare(hub)
    whole, described = hub.file.read_bytes(), manifest(hub)
    harm(hub)
    prepare(hub)
    assert f"{TAGGED}.safetensors is damaged (" in (out := capsys.readouterr().out)
    assert message in out
    assert (hub.file.read_bytes(), manifest(hub)) == (whole, described)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip, r"is damaged \(its SHA-256 differs from the manifest\); copy it again"),
        (shorten, r"is damaged \(it has \d+ of \d+ bytes\)"),
        (break_manifest, "manifest.json is damaged; delete it"),
    ],
)
def test_training_refuses_a_damaged_file(hub, harm, message):
    prepare(hub)
    harm(hub)
    with pytest.raises(InputError, match=message):
        make_backbone(TAGGED, "file", str(hub.file))


def test_training_refuses_weights_of_another_mean_and_std(hub):
    prepare(hub)
    path = hub.out / f"{TAGGED}.manifest.json"
    path.write_text(json.dumps(manifest(hub) | {"mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(InputError, match=f"another mean and std .* set backbone.name={TAGGED}"):
        make_backbone(TINY, "file", str(hub.file))


def test_without_a_hub_one_sentence_says_so(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(InputError, match=f"cannot fetch {TAGGED}: the hub .* does not answer"):
        prepare(hub)
    assert list(hub.out.iterdir()) == []


def test_without_a_hub_its_cache_serves(hub, monkeypatch):
    prepare(hub)
    whole = hub.file.read_bytes()
    hub.file.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.server.asked.clear()
    prepare(hub)
    assert hub.file.read_bytes() == whole
    assert hub.server.asked == []


def test_a_hub_without_those_weights_is_named(hub):
    with pytest.raises(
        InputError, match=rf"cannot fetch test_resnet.r160_in1k from {constants.ENDPOINT}"
    ):
        prepare(hub, "test_resnet")


def test_a_full_disk_leaves_nothing_half_written(hub, monkeypatch):
    def full(state, part, metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write .* No space left on device"):
        prepare(hub)
    assert list(hub.out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_b44", "no efficientnet_b44 (did you mean 'efficientnet_b4'?)"),
        ("efficientnet_b4.imagenet", "it has efficientnet_b4.ra2_in1k"),
        ("efficientnet_b7", "timm has no weights for efficientnet_b7"),
    ],
)
def test_names_are_checked_before_anything_is_fetched(hub, name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        prepare(hub, TAGGED, name)
    assert hub.server.asked == []
    assert weights.full_name("efficientnet_b4") == "efficientnet_b4.ra2_in1k"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weights=[]"], "weights is empty"),
        (["weights=[3]"], "must be a timm name or a list"),
        (["weights=test_vit", "out=taken"], "taken is a file"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    with pytest.raises(SystemExit) as end:
        entry.command(
            "",
            "prepare",
            "fluoroscope.prepare.prepare_jobs:main",
            "fluoroscope.config.prepare:check_prepare",
        )
    assert end.value.code == 2
    assert message in capsys.readouterr().err
