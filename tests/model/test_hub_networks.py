"""Networks of a repository on the hub, fetched by timm's own client from a server of the tests."""

import json

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fluoroscope import build
from fluoroscope.config.weights_keys import check_weights_contract
from fluoroscope.errors import InputError
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.model.backbone import make_backbone
from fluoroscope.run.starting_weights import settle
from tests.launch.test_hub_check import point_at
from tests.support.films import tiny_config
from tests.support.hub_server import HubServer

TINY, NAME = "test_efficientnet", "hf-hub:clinic/chest-net"
FORM = {"input_size": [1, 48, 48], "classifier": "classifier", "first_conv": "conv_stem"}
GRAY = {"mean": [0.5], "std": [0.25], **FORM}


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Publish a network in one channel with this `pretrained_cfg`; returns the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    check_hub.cache_clear()

    def write(cfg, **about):
        folder = tmp_path / "hub/clinic/chest-net"
        folder.mkdir(parents=True)
        network = timm.create_model(TINY, in_chans=1, num_classes=3).eval()
        save_file(network.state_dict(), folder / "model.safetensors")
        content = {"architecture": TINY, "num_classes": 3, "pretrained_cfg": cfg, **about}
        (folder / "config.json").write_text(json.dumps(content))
        return network

    with HubServer(tmp_path / "hub") as server:
        point_at(server.url, monkeypatch)
        write.server = server
        yield write


def settled(films, *keys):
    cfg = tiny_config(films, f"backbone.name={NAME}", "backbone.weights=hub", *keys)
    settle(cfg)
    return cfg


def test_its_own_configuration_is_the_contract(films, publish, monkeypatch):
    network = publish(GRAY, model_args={"in_chans": 1, "drop_rate": 0.1})
    check_hub(NAME)
    cfg = settled(films)
    assert cfg.backbone.contract == {
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "range": [0.0, 1.0],
        "image_px": 48,
        "architecture": TINY,
    }
    assert cfg.backbone.args == {"drop_rate": 0.1}
    backbone = build.build_backbone(cfg).eval()
    image = torch.randint(0, 256, (2, 1, 48, 48)).to(torch.uint8)
    expected = network.forward_head(
        network.forward_features((image / 255 - 0.5) / 0.25), pre_logits=True
    )
    torch.testing.assert_close(backbone(image), expected, rtol=1e-4, atol=1e-5)
    # Later no hub is needed: the checkpoint holds the weights, and its configuration the rest.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    publish.server.asked.clear()
    again = build.build_backbone(cfg, pretrained=False)
    assert [*again.state_dict()] == [*backbone.state_dict()]
    assert torch.equal(again.mean, backbone.mean)
    settle(cfg)
    assert publish.server.asked == []


def test_without_mean_and_std_the_contract_is_unknown(films, publish):
    publish(FORM)
    with pytest.raises(InputError, match=r"nothing says which channels, mean, std and range"):
        settled(films)


def test_the_users_contract_counts(films, publish):
    publish(FORM, model_args={"in_chans": 1})
    contract = "{channels: 1, mean: 0, std: 1, range: [-1024, 1024], trained_on: [nih14]}"
    cfg = settled(films, f"++backbone.contract={contract}")
    assert cfg.backbone.contract["architecture"] == TINY
    white = torch.full((1, 1, 48, 48), 255, dtype=torch.uint8)
    assert float(build.build_backbone(cfg).normalise(white).max()) == pytest.approx(1024)


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "is not an option of an architecture"),
        ({"architecture": "nonsense"}, "has no model 'nonsense'"),
        ({"architecture": "hf-hub:other/net"}, "architecture must be a network of timm"),
        ({"pretrained_cfg": {**GRAY, "std": [0]}}, "std must be a number above 0"),
    ],
)
def test_a_strangers_configuration_is_data(films, publish, about, told):
    publish(about.pop("pretrained_cfg", GRAY), **about)
    with pytest.raises(InputError, match=told):
        settled(films)


def test_weights_that_do_not_come_say_how_to_fetch_them(films, publish):
    publish(GRAY)
    cfg = settled(films)
    (publish.server.root / "clinic/chest-net/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"machine \(hf download clinic/chest-net\) and set"):
        build.build_backbone(cfg)
    with pytest.raises(InputError, match="nothing says which channels"):
        make_backbone(NAME, "hub")


def test_a_repository_that_is_not_there_is_refused(films, publish, monkeypatch):
    with pytest.raises(InputError, match=r"provides no config\.json of a timm network"):
        settled(films)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_hub.cache_clear()
    with pytest.raises(InputError, match="does not provide hf-hub:clinic/chest-net"):
        check_hub(NAME)


def test_a_checkpoint_of_a_stranger_asks_no_hub(publish):
    with pytest.raises(InputError, match="only the hub knows this network"):
        make_backbone(NAME, "none")
    for architecture in (NAME, "local-dir:/etc", "timm/resnet50.a1_in1k", "resnet50.a1_in1k"):
        contract = {
            "channels": 1,
            "mean": 0,
            "std": 1,
            "range": [0, 1],
            "architecture": architecture,
        }
        with pytest.raises(InputError, match="architecture must be a network of timm without a"):
            check_weights_contract("backbone.contract", contract)
    assert publish.server.asked == []
