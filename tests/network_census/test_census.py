"""The census of given networks: its numbers against numpy's, what the page says, refusals."""

import json
import re
import shutil
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from fluoroscope.command import command_line
from fluoroscope.commands import CONF
from fluoroscope.config.census import check_census
from fluoroscope.errors import InputError
from fluoroscope.instrument.shares import share
from fluoroscope.network_census.story import take_census
from fluoroscope.trained.loading import open_trained
from tests.support.films import SIDE_PX
from tests.support.own_package import forgotten

# Units of a 1 x 1 convolution of pixels between 0 and 1: dead, dead, linear, and four in between;
# no gray level lies at a kink, where float32 and float64 might differ.
SLOPES = (-1.0, 0.3, 2.0, 1.0, -1.0, 5.0, 1.0)
SHIFTS = (-0.1, -0.41, 0.1, -0.401, 0.501, -2.01, -0.701)
NETS = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.first, self.act = nn.Conv2d(1, 7, 1), nn.ReLU(inplace=True)
        self.second, self.idle, self.gates = nn.Conv2d(7, 4, 3), nn.GELU(), nn.GLU(1)
        self.first.weight.data = gain * torch.tensor({SLOPES}).view(7, 1, 1, 1)
        self.first.bias.data = torch.tensor({SHIFTS})

    def forward(self, x):
        return self.gates(torch.tanh(self.second(self.act(self.first(x)))))

def make(**arguments):
    return Net(**arguments)

class Alone(Net):
    def forward(self, x):
        if len(x) > 1:
            raise RuntimeError("one at a time")
        return super().forward(x)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act = nn.LazyConv2d(7, 1), nn.ReLU()

    def forward(self, x):
        return dict(out=self.act(self.first(x)))

class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 3, 3), nn.Softmax(1))

def Exits():
    raise SystemExit(3)

def broken():
    raise ValueError("no luck. Try again")

ready, nothing = Net(), 3
"""
UNIT = "backbone.contract={channels: 1, mean: 0, std: 1, range: [0, 1]}"
OWN = ["model=mypkg.nets:make", f"data.image_px={SIDE_PX}", UNIT]
TIMM = ["model=timm/test_efficientnet", "backbone.weights=none", f"data.image_px={SIDE_PX}"]


def job(*keys):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        keys = [*map(command_line.spell_out, keys), "trainer.accelerator=cpu", "data.num_workers=0"]
        return check_census(compose("census", keys), keys)


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """`mypkg.nets` in the working folder; `mypkg.other` must never be imported."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/__init__.py").write_text("")
    (tmp_path / "mypkg/nets.py").write_text(NETS)
    (tmp_path / "mypkg/other.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with forgotten():
        yield tmp_path


@pytest.fixture(scope="module")
def five(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    for path in sorted(films.rglob("*.png"))[::25]:
        shutil.copy(path, folder / path.name)
    return folder


def test_the_numbers_are_those_of_numpy(nets, five):
    """Films as large as the input are not resized."""
    content = take_census(job(*OWN, f"images={five}", "run.dir=out", "data.batch_size=2"))
    x = np.stack([cv2.imread(str(p), 0) for p in sorted(five.iterdir())]) / 255
    z = np.multiply.outer(SLOPES, x.ravel()) + np.array(SHIFTS)[:, None]  # [7, samples]
    a, is_open = np.maximum(z, 0), z > 0
    dead = ~is_open.any(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        straight = np.array([np.corrcoef(*unit)[0, 1] ** 2 for unit in zip(z, a, strict=True)])
    linear = ~dead & (straight > 0.99)
    assert 0 < dead.sum() < 7 > linear.sum() > 0  # the case is not trivial
    units = pd.read_csv("out/units.csv").query("layer == 'act'")
    assert units["dead"].tolist() == dead.tolist()
    assert units["linear"].tolist() == linear.tolist()
    np.testing.assert_allclose(units["gate_open_share"], is_open.mean(1), atol=1e-6)
    layer = pd.read_csv("out/layers.csv").set_index("layer").loc["act"]
    assert (layer["depth"], layer["activation"], layer["units"]) == (1, "ReLU", 7)
    assert (layer["dead"], layer["linear"]) == (dead.sum(), linear.sum())
    assert layer["dead_frac"] == pytest.approx(dead.mean())
    assert layer["blackout_frac"] == 0
    assert content["images"] == len(x) == 5
    assert content["dead_bound_frac"] == pytest.approx(1 - 0.05 ** (1 / 5))


def test_the_page_says_what_was_counted_and_what_was_not(nets, five):
    content = take_census(job(*OWN, f"images={five}", "run.dir=out"))
    page = (nets / "out/census.html").read_text()
    assert "2 of 11 units are dead (18.2 %)" in page
    worst = "act (ReLU, layer 1 of 2, 7 units): 2 dead (28.6 %), 1 linear (14.3 %)"
    assert content["worst"][0] == worst
    assert worst.replace(" %", "\N{NO-BREAK SPACE}%") in page
    assert content["unseen"] == {
        "idle": "no call of it was counted",
        "gates": "the gate of a unit is another unit",
    }
    few = "5 images are few: a unit that opens on less than 45.1 % of such images may be counted"
    said = f"{few} as dead, and one with few positions per image as linear"
    assert content["said"][1] == said
    assert said.replace(" %", "\N{NO-BREAK SPACE}%") in page
    assert [row["activation"] for row in content["layers"]] == ["ReLU", "tanh"]
    assert json.loads((nets / "out/census.json").read_text())["said"] == content["said"]
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "mypkg.other" not in sys.modules


def test_a_run_is_counted_on_its_own_films(trained_run, tmp_path):
    keys = [f"model={trained_run}", "films=17", f"run.dir={tmp_path / 'out'}"]
    content = take_census(job(*keys))
    assert content["fingerprint"] == open_trained(trained_run, "cpu").fingerprint
    assert (content["source"], content["images"], content["image_px"]) == ("folder", 17, SIDE_PX)
    names = [row["layer"] for row in content["layers"]]
    assert names[-1] == "head.activation"
    assert len(names) > 3
    page = (tmp_path / "out/census.html").read_text()
    assert "17 of folder, drawn at random from 120" in page
    assert str(trained_run) not in page


def test_a_network_of_timm_and_films_that_cannot_be_read(five, tmp_path):
    films = tmp_path / "films"
    shutil.copytree(five, films)
    (films / "cut.png").write_bytes(next(five.iterdir()).read_bytes()[:300])
    keys = [*TIMM, f"images={films}", "layers=['blocks.*']", f"run.dir={tmp_path / 'out'}"]
    content = take_census(job(*keys))
    assert (content["images"], content["unreadable"]) == (5, 1)
    assert "1 film cannot be read and was not counted" in " ".join(content["said"])
    assert all(row["layer"].startswith("blocks.") for row in content["layers"])
    assert content["weights"] == "random"


def test_the_same_command_gives_the_same_numbers(five, tmp_path):
    first, second = (
        take_census(job(*TIMM, f"images={five}", "films=3", f"run.dir={tmp_path / name}"))
        for name in "ab"
    )
    assert first == second


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (["model=nope", "images=."], "there is no file or folder nope; give timm/NAME"),
        (["model=resnet18", "images=."], "write model=timm/resnet18"),
        (["model=timm/resnet1", "images=."], r"no model 'resnet1' \(did you mean"),
        (["model=timm/resnet18", "images=."], "set model=timm/tf_efficientnet_lite0 backbone.weig"),
        (TIMM, "no images are given; add images=FOLDER"),
        ([*TIMM, "images=nowhere"], "there is no file or folder nowhere"),
        ([*TIMM, "images=.", "data=phantom"], "both name images"),
        ([*TIMM, "data=nih14"], "data.root is not set"),
        ([*TIMM, "images=.", "head.width=3"], "head.width is not read for the census"),
        ([*TIMM, "images=.", "layers=[]"], "layers must list"),
        ([*TIMM, "images=.", "layers=['blcks.*']"], "matches no activation"),
        ([*TIMM, "images=empty"], "holds no image"),
        ([*TIMM, "images=broken"], "no film can be read, of 1"),
        ([*TIMM, "images=.", "backbone.args={depth: 3}"], "backbone.args do not fit"),
        ([*OWN[:2], "images=."], "backbone.contract is not set, and nothing else says"),
        ([*OWN, "images=.", UNIT.replace("std: 1", "std: 0")], "backbone.contract.std must be"),
        ([*OWN[:2], "images=.", UNIT.replace("mean: 0, ", "")], "backbone.contract lacks mean"),
        ([*OWN, "images=.", "backbone.weights=none"], "backbone.weights is not read for"),
        ([*OWN, "images=.", "model=mypkg.nets:mak"], r"has no mak \(did you mean 'make'\?\)"),
        ([*OWN, "images=.", "model=nopkg:make"], "there is no module nopkg"),
        ([*OWN, "images=.", "model=mypkg.nets:broken"], r"called with {} \(ValueError: no luck\)"),
        ([*OWN, "images=.", "model=mypkg.nets:nothing"], "class or function that returns a net"),
        ([*OWN, "images=.", "model=mypkg.other:make"], r"cannot be imported \(it exits\)"),
        ([*OWN, "images=.", "backbone.args={gian: 2}"], "unexpected keyword argument 'gian'"),
        ([*OWN, "images=.", UNIT.replace("channels: 1", "channels: 3")], "2 images of 48 x 48 pix"),
        ([*OWN, "images=.", "model=mypkg.nets:Alone"], "2 images of 48 x 48 pixels .RuntimeError"),
        ([*OWN, "images=.", "model=mypkg.nets:Plain"], "no activation was seen in Plain"),
        ([*OWN, "images=.", "model=mypkg.nets:Exits"], "cannot be called with {} .SystemExit: 3"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(nets, five, keys, complaint):
    (nets / "empty").mkdir()
    (nets / "broken").mkdir()
    (nets / "broken/film.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    shutil.copy(next(five.iterdir()), nets / "film.png")
    with pytest.raises(InputError, match=complaint) as refusal:
        take_census(job(*keys, "run.dir=out"))
    assert "\n" not in str(refusal.value)
    assert not (nets / "out").exists()


def test_an_instance_counts_without_a_call_and_arguments_reach_the_factory(nets, five):
    ready = take_census(job(*OWN, "model=mypkg.nets:ready", f"images={five}", "run.dir=a"))
    gained = take_census(job(*OWN, "backbone.args={gain: 0}", f"images={five}", "run.dir=b"))
    first, second = (content["layers"][0] for content in (ready, gained))
    assert (first["dead"], first["linear"]) == (2, 1)
    assert second["dead"] == sum(shift <= 0 for shift in SHIFTS)  # every input is the shift


def test_a_contract_says_size_and_range_of_the_pixels(nets, five):
    """The same numbers as from 0 to 1: x -> 4 x - 2, and (y + 2) / 4."""
    keys = ["model=mypkg.nets:make", f"images={five}"]
    other = f"{{channels: 1, mean: -2, std: 4, range: [-2, 2], image_px: {SIDE_PX}}}"
    first = take_census(job(*keys, OWN[1], UNIT, "run.dir=a"))
    second = take_census(job(*keys, f"backbone.contract={other}", "run.dir=b"))
    assert second["image_px"] == SIDE_PX
    assert first["layers"][0] == pytest.approx(second["layers"][0])


def test_a_network_of_one_image_needs_a_batch_of_one(nets, five):
    keys = [*OWN, "model=mypkg.nets:Alone", f"images={five}", "data.batch_size=1", "run.dir=a"]
    assert take_census(job(*keys))["images"] == 5


def test_a_network_whose_weights_are_made_in_the_first_call_is_counted(nets, five):
    content = take_census(
        job(*OWN, "model=mypkg.nets:Lazy", f"images={five}", "films=1", "run.dir=a")
    )
    assert (content["network"], content["layers"][0]["units"]) == ("mypkg.nets:Lazy", 7)
    assert "1 image is few: " in content["said"][1]


def test_a_share_reads_as_none_or_all_only_if_it_is():
    assert [share(v) for v in (0, 1e-9, 0.5, 1 - 1e-9, 1)] == [
        *("0 %", "<0.1 %", "50.0 %"),
        *(">99.9 %", "100 %"),
    ]
    assert share(float("nan")) == "n/a"
