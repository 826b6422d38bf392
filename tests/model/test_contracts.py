"""Weights beyond ImageNet: each network sees a film as it saw the films of its training."""

import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from fluoroscope import sources
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import make_backbone
from fluoroscope.model.contracts import PUBLISHED, Contract, contract_of, save_advice
from fluoroscope.model.training_collections import SAME_FILMS, shared_with, trained_on
from fluoroscope.run.input_check import check_batch

TINY = "test_efficientnet"
XRAY = {"channels": 1, "mean": 0, "std": 1, "range": [-1024, 1024], "trained_on": ["nih14"]}


def films(batch=2, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 1, side, side), generator=generator).to(torch.uint8)


def shaken(network, seed=5):
    """The network with weights and statistics that no layer starts with."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            is_scale = name.endswith("running_var") or (value.ndim == 1 and "weight" in name)
            state[name] = 0.5 + noise if is_scale else value + 0.02 * (noise - 0.5)
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture(scope="module")
def xrv():
    return pytest.importorskip("torchxrayvision")


def as_theirs(xrv, images):
    """The films as torchxrayvision's own code normalises them."""
    return torch.from_numpy(xrv.utils.normalize(images.numpy().astype("float64"), 255)).float()


@torch.no_grad()
def test_a_densenet_gives_the_features_of_torchxrayvision(xrv, tmp_path):
    theirs = shaken(xrv.models.DenseNet(weights=None))
    state = theirs.state_dict() | {"op_threshs": torch.zeros(18)}  # as published ones have
    torch.save(state, tmp_path / "xrv.pth")
    ours = make_backbone("xrv/densenet121-res224-nih", "file", str(tmp_path / "xrv.pth")).eval()
    images = films()
    seen = as_theirs(xrv, images)
    assert seen.abs().max() > 1000
    torch.testing.assert_close(ours.normalise(images), seen, rtol=1e-6, atol=1e-3)
    scale = theirs.features2(seen).abs().max()
    torch.testing.assert_close(
        ours(images) / scale, theirs.features2(seen) / scale, rtol=0, atol=1e-5
    )
    maps, own = theirs.features(seen).relu(), ours.network.forward_features(ours.normalise(images))
    torch.testing.assert_close(own / maps.max(), maps / maps.max(), rtol=0, atol=1e-5)
    assert ours.trained_px == (224,)


@torch.no_grad()
def test_a_resnet_gives_the_features_of_torchxrayvision(xrv, tmp_path):
    import torchvision

    theirs = torchvision.models.resnet50(num_classes=18)
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    shaken(theirs)
    state = {f"model.{name}": value for name, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "xrv.pth")
    ours = make_backbone("xrv/resnet50-res512-all", "file", str(tmp_path / "xrv.pth")).eval()
    theirs.fc = torch.nn.Identity()
    images = films()
    expected = theirs(as_theirs(xrv, images))
    scale = expected.abs().max()
    torch.testing.assert_close(ours(images) / scale, expected / scale, rtol=0, atol=1e-5)


def test_every_network_of_torchxrayvision_is_known_with_its_size(xrv):
    shown = {f"xrv/{name}": v for name, v in xrv.models.model_urls.items() if "-res" in name}
    assert {name: contract.image_px for name, contract in PUBLISHED.items()} == {
        name: entry["input_resolution"] for name, entry in shown.items()
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", TINY])
def test_one_channel_sees_what_three_equal_channels_see(name, tmp_path):
    colour = shaken(timm.create_model(name, num_classes=0))
    save_file(colour.state_dict(), tmp_path / "w.safetensors")
    file = str(tmp_path / "w.safetensors")
    gray = make_backbone(name, "file", file, args={"in_chans": 1}).eval()
    images, cfg = films(), timm.get_pretrained_cfg(name)
    mean, std = sum(cfg.mean) / 3, sum(cfg.std) / 3
    expected = colour(((images / 255 - mean) / std).expand(-1, 3, -1, -1))
    torch.testing.assert_close(gray(images), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_packaged_weights_in_one_channel_are_those_of_three():
    """Its mean and std are equal in all colours, so nothing is lost."""
    one = make_backbone("tf_efficientnet_lite0", "package", args={"in_chans": 1}).eval()
    three = make_backbone("tf_efficientnet_lite0", "package").eval()
    torch.testing.assert_close(one(films()), three(films()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "contract",
    [
        XRAY,
        {"channels": 1, "mean": 0.51, "std": [0.27], "range": [0, 1]},
        {"channels": 3, "mean": [100, 110, 120.5], "std": [50, 60, 70], "range": [0, 255]},
    ],
)
def test_a_contract_of_ones_own_says_how_the_network_sees_a_film(contract, tmp_path):
    network = shaken(timm.create_model(TINY, num_classes=0, in_chans=contract["channels"]))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = make_backbone(TINY, "file", str(tmp_path / "w.pth"), contract=contract).eval()
    images = films()
    low, high = contract["range"]
    gray = low + (high - low) * images.double() / 255
    sides = [torch.tensor(contract[key]).double().view(1, -1, 1, 1) for key in ("mean", "std")]
    seen = ((gray - sides[0]) / sides[1]).float()
    scale = float(seen.abs().max())
    torch.testing.assert_close(backbone.normalise(images) / scale, seen / scale, atol=1e-6, rtol=0)
    expected = network(seen)
    torch.testing.assert_close(backbone(images), expected, rtol=1e-3, atol=1e-4)
    assert check_batch(images, backbone.normalise(images) / backbone.scale) == []


def test_a_wrong_mean_is_noticed_at_the_first_batch():
    contract = XRAY | {"mean": 40_000}
    backbone = make_backbone(TINY, "none", contract=contract)
    assert check_batch(films(), backbone.normalise(films()) / backbone.scale)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mean": None}, "lacks mean"),
        ({"channels": 2}, "channels must be one of 1, 3; got 2"),
        ({"std": 0}, "std must be a number above 0"),
        ({"mean": [0, 1]}, "mean must be one number, or one for each of 1 channels"),
        ({"range": [1024, -1024]}, "range must rise"),
        ({"range": 255}, "range must be two numbers"),
        ({"range": [0, float("inf")]}, "range must be a finite number"),
        ({"image_px": 3}, "image_px must be at least 32"),
        ({"image_px": 224.5}, "image_px must be a whole number of pixels; got 224.5"),
        ({"std": float("nan")}, "std must be a number above 0; got NaN"),
        ({"means": 0}, "did you mean 'mean'"),
        ({"std": "one"}, "std must be a number above 0"),
    ],
)
def test_a_contract_that_says_nothing_clear_is_refused(change, told):
    with pytest.raises(InputError) as refusal:
        contract_of(TINY, XRAY | change)
    assert told in str(refusal.value)


def test_weights_whose_training_nobody_knows_are_refused_with_the_keys_to_set(tmp_path):
    gray = timm.create_model(TINY, num_classes=0, in_chans=1)
    save_file(gray.state_dict(), tmp_path / "gray.safetensors")
    with pytest.raises(InputError, match=r"set backbone\.contract=\{channels: 1, mean"):
        make_backbone(TINY, "file", str(tmp_path / "gray.safetensors"), args={"in_chans": 1})
    unpublished = timm.create_model("pit_ti_224", num_classes=0).pretrained_cfg  # has weights
    assert unpublished["hf_hub_id"]
    other = timm.create_model("lcnet_035", num_classes=0)  # timm has no weights of it
    save_file(other.state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="nothing says which channels, mean, std and range"):
        make_backbone("lcnet_035", "file", str(tmp_path / "small.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("xrv/densenet121-res224-nhi", "none"), "did you mean 'xrv/densenet121-res224-nih'"),
        (("xrv/densenet121-res224-nih", "hub"), "write the weights alone with python -c"),
        (("somebody/network", "none"), "hf-hub:OWNER/NAME"),
        (("hf-hub:somebody/network", "none"), "only the hub knows this network"),
        (("hf-hub:somebody", "hub"), "names no network"),
    ],
)
def test_names_without_weights_here_say_what_to_do(arguments, told):
    with pytest.raises(InputError) as refusal:
        make_backbone(*arguments)
    assert told in str(refusal.value)


def test_arguments_that_contradict_the_contract_are_refused():
    with pytest.raises(InputError, match=r"in_chans must be 1, as backbone\.contract says; got 3"):
        make_backbone("xrv/densenet121-res224-nih", "none", args={"in_chans": 3})
    with pytest.raises(InputError, match="in_chans must be 1 or 3; got 2"):
        make_backbone(TINY, "none", args={"in_chans": 2})


def test_a_file_that_holds_code_is_not_opened(xrv, tmp_path):
    """torchxrayvision's own files are pickled modules."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "nih.pt")
    with pytest.raises(InputError, match=r"x\.models\.DenseNet\(weights='densenet121-res224-nih'"):
        make_backbone("xrv/densenet121-res224-nih", "file", str(tmp_path / "nih.pt"))


@pytest.mark.parametrize(
    ("name", "weights", "contract", "collections"),
    [
        ("xrv/densenet121-res224-pc", "file", {}, ("padchest",)),
        ("xrv/densenet121-res224-pc", "none", {}, ()),  # no weights
        ("xrv/densenet121-res224-pc", "file", XRAY | {"trained_on": []}, ("padchest",)),
        (TINY, "file", XRAY, ("nih14",)),
        ("tf_efficientnet_lite0", "package", {}, ()),
    ],
)
def test_the_training_collections_of_weights_are_known(name, weights, contract, collections):
    backbone = {"name": name, "weights": weights, "contract": contract}
    assert trained_on(backbone) == collections


def test_collections_of_the_same_films_are_known():
    assert shared_with("rsna", ["padchest", "nih14"]) == ["nih14"]
    assert shared_with("covid", ["nih14", "chexpert"]) == []
    assert shared_with("chexpert", ["chexpert"]) == ["chexpert"]
    named = {source for group in SAME_FILMS for source in group}
    named |= {source for contract in PUBLISHED.values() for source in contract.trained_on}
    assert named <= {*sources.names()}


def test_a_contract_is_the_same_after_it_was_stored():
    for contract in PUBLISHED.values():
        assert contract_of("any", contract.as_keys()) == contract
    assert Contract(1, (0.5,), (0.5,), (0.0, 1.0)).of_unit == ((0.5,), (0.5,))


def test_layers_can_be_split_and_recomputed():
    """What follows a backbone works, since the network is timm's."""
    from fluoroscope.model.optimizer import parameter_groups

    backbone = make_backbone("xrv/densenet121-res224-all", "none", grad_checkpointing=True)
    groups = parameter_groups(
        backbone, torch.nn.Linear(2, 2), 1, 1, weight_decay=0.1, layer_decay=0.8
    )
    assert len({group["lr"] for group in groups}) > 4


def test_the_page_names_the_networks_and_keys_that_exist():
    page = (Path(__file__).parents[2] / "docs/extend.md").read_text()
    section = page.partition("## Weights")[2].partition("\n## ")[0]
    (contract,) = re.findall(r"`backbone\.contract=(\{.*?\})`", section)
    assert contract_of(TINY, yaml.safe_load(contract)).trained_on == ("nih14",)
    assert {*re.findall(r"xrv/[\w-]+", section)} <= {*PUBLISHED}
    assert save_advice("xrv/densenet121-res224-nih").split('"')[1] in section
