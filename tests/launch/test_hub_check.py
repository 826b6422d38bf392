"""A hub that cannot provide weights is noticed before anything heavy is imported."""

import socket
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from fluoroscope.errors import InputError
from fluoroscope.launch.hub_check import check_hub
from tests.support.hub_server import HubServer

NAME = "test_efficientnet.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has one set of weights, and its empty cache here."""
    check_hub.cache_clear()
    weights = tmp_path / f"hub/timm/{NAME}/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    with HubServer(tmp_path / "hub") as server:
        point_at(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield SimpleNamespace(server=server, cache=tmp_path / "cache")


def point_at(url, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_weights_on_the_hub_are_accepted_and_asked_for_once(hub):
    check_hub(NAME)
    check_hub(NAME)
    assert [line for line in hub.server.asked if line.startswith("HEAD")] == [
        f"HEAD /timm/{NAME}/resolve/main/model.safetensors"
    ]


def test_weights_that_the_hub_lacks_are_refused_with_the_other_sources(hub):
    with pytest.raises(InputError) as refused:
        check_hub("tf_efficientnet_b4.aa_in1k")
    sentence = str(refused.value)
    assert "does not provide tf_efficientnet_b4.aa_in1k" in sentence
    for way in ("backbone=lite0", "backbone.weights=file", "prepare.py weights=tf_efficientnet_b4"):
        assert way in sentence


def test_the_cache_needs_no_hub(hub, monkeypatch):
    weights = hub.cache / "models--timm--tf_efficientnet_b4.aa_in1k/snapshots/1/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_hub("tf_efficientnet_b4.aa_in1k")
    assert hub.server.asked == []


def test_an_offline_machine_is_refused_without_asking(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="does not provide"):
        check_hub(NAME)
    assert hub.server.asked == []


def test_a_hub_that_takes_the_call_and_is_silent_is_given_up(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        started = time.monotonic()
        with pytest.raises(InputError, match="within 4 s"):
            check_hub(NAME)
    assert time.monotonic() - started < 5
