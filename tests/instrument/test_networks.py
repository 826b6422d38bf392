"""Layers and channels of many architectures, and of two processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn

import fluoroscope
from fluoroscope.diagnostics.layers import LayerMonitor, find_activations
from tests.diagnostics.test_layers import out_width

WHOLE = [
    *("tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "regnety_002", "dla34"),
    *("densenet121", "swin_tiny_patch4_window7_224", "mixer_s16_224", "convmixer_768_32"),
    *("maxvit_tiny_rw_224", "coatnet_nano_rw_224", "poolformer_s12"),
]
QUICK = ["mobilenetv3_small_050", "convnext_atto", "edgenext_xx_small"]
SIZES = {"vit": 224, "swin": 224, "mixer": 224, "maxvit": 224, "coatnet": 224}
ARCHITECTURES = [*QUICK, *(pytest.param(name, marks=pytest.mark.whole) for name in WHOLE)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_activation_has_as_many_units_as_the_layer_before(name):
    model = timm.create_model(name, num_classes=2).eval()
    px = next((px for start, px in SIZES.items() if name.startswith(start)), 64)
    latest, expected = [0], {}
    weighted = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
    for module in model.modules():
        if isinstance(module, weighted):
            # Before it runs, for the activation of a fused norm is called within it.
            module.register_forward_pre_hook(lambda m, _: latest.__setitem__(0, out_width(m)))
    for layer, module in find_activations(nn.ModuleDict({"m": model}), ["m.*"]).items():
        calls = expected.setdefault(layer.removeprefix("m."), [])
        module.register_forward_pre_hook(lambda *_, calls=calls: calls.append(latest[0]))
    with fluoroscope.watch(model) as units, torch.inference_mode():
        model(torch.randn(2, 3, px, px))
    found = units.frame()["units"].droplevel("window").to_dict()
    called = {n: calls for n, calls in expected.items() if calls}
    assert {n.partition("#")[0] for n in found if "/" not in n} == called.keys()
    for layer, calls in called.items():
        names = [layer, *(f"{layer}#{n}" for n in range(2, len(calls) + 1))]
        assert [found[n] for n in names] == calls


def test_a_run_of_this_project_logs_the_same_numbers():
    """LayerMonitor and the watch are adapters of one core."""
    model = nn.ModuleDict({"backbone": timm.create_model("test_efficientnet", num_classes=0)})
    model.device, logged = torch.device("cpu"), {}
    model.log_dict = lambda values, **_: logged.update(values)
    monitor = LayerMonitor(["backbone.*"])
    monitor.on_fit_start(None, model.eval())
    monitor.on_validation_batch_start(SimpleNamespace(sanity_checking=False))
    with fluoroscope.watch(model) as units, torch.inference_mode():
        for size in (3, 2):
            model.backbone(torch.randn(size, 3, 64, 64))
    monitor.on_validation_epoch_end(SimpleNamespace(sanity_checking=False), model)
    monitor.on_fit_end(None, model)
    values = units.values(prefix="layers")
    values = {key.replace("/eval/", "/val/"): value for key, value in values.items()}
    assert len(logged) == 13 * 4
    assert {key: values[key] for key in logged} == pytest.approx(logged, rel=1e-12)


class Turned(nn.Module):
    """Channels last between two convolutions."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x.movedim(1, -1)).movedim(-1, 1)


SHAPES = {
    "conv1d": (nn.Conv1d(3, 7, 2), (3, 11)),
    "conv3d": (nn.Conv3d(3, 7, 2), (3, 5, 4, 6)),
    "group norm": (nn.Sequential(nn.Conv2d(3, 7, 2), nn.GroupNorm(1, 7)), (3, 5, 4)),
    "layer norm over maps": (nn.Sequential(nn.Conv2d(3, 7, 2), LayerNorm2d(7)), (3, 5, 4)),
    "transposed": (nn.ConvTranspose2d(3, 7, 2), (3, 5, 4)),
    "batch norm of vectors": (nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7)), (3,)),
    "tokens": (nn.Linear(3, 7), (5, 3)),
    "tokens of a grid": (nn.Sequential(nn.Linear(3, 7), nn.LayerNorm(7)), (5, 4, 3)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_units_are_the_channels_of_any_shape(name):
    layer, shape = SHAPES[name]
    model = nn.Sequential(layer, nn.ReLU())
    with fluoroscope.watch(model) as units:
        model(torch.randn(2, *shape))
    assert units.frame()[["units", "images"]].values.tolist() == [[7, 2]]


def test_units_are_the_channels_where_their_dimension_changes():
    turned = Turned(nn.LayerNorm(7), nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 5))
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), turned, nn.Conv2d(5, 4, 1), nn.SiLU())
    with fluoroscope.watch(model) as units:
        model(torch.randn(2, 3, 8, 10))
    assert units.frame()["units"].tolist() == [7, 9, 4]


TOGETHER = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import fluoroscope
from tests.instrument.networks import fit, make

rank = int(sys.argv[1])
dist.init_process_group("gloo", rank=rank, world_size=2)
model, _, batch = make("mlp")
model = DistributedDataParallel(model)
with fluoroscope.watch(model) as units:
    torch.manual_seed(4)
    x = batch(9)
    model(x[:5] if rank == 0 else x[5:]).square().sum().backward()
    if rank == 1:  # a window that the other process has not
        model.eval()
        model.module(x)
    units.frame().to_pickle(sys.argv[2])
    units.reset()
dist.destroy_process_group()
"""


@pytest.mark.whole
def test_two_processes_count_what_one_does(tmp_path):
    import pandas as pd

    from tests.instrument.networks import make

    root = Path(__file__).parents[2]
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    env["PYTHONPATH"] = f"{root / 'src'}:{root}"
    started = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, str(r), str(tmp_path / str(r))], env=env)
        for r in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    frames = [pd.read_pickle(tmp_path / str(rank)) for rank in range(2)]
    model, _, batch = make("mlp")
    torch.manual_seed(4)
    with fluoroscope.watch(model) as units:
        x = batch(9)
        model(x).square().sum().backward()
        model.eval()
        model(x)
    kept = [c for c in units.frame() if c != "grad_l2"]  # of half of the images each
    for frame in frames:
        assert frame.index.tolist() == units.frame().index.tolist()
        for column in kept:
            assert frame[column].tolist() == pytest.approx(
                units.frame()[column].tolist(), rel=1e-9, nan_ok=True
            )
