import csv
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from timm.layers import LayerNormAct, LayerNormAct2d, set_reentrant_ckpt
from torch import nn

from fluoroscope import build
from fluoroscope.diagnostics import channels
from fluoroscope.diagnostics.census import UnitCensus
from fluoroscope.diagnostics.channels import SHARES, ChannelCensus, channel_dim
from fluoroscope.diagnostics.layers import ELEMENTWISE, LayerMonitor, find_activations
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import make_backbone
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support.films import tiny_config, write_films
from tests.support.fits import bare_trainer

STEM = "backbone.network.bn1.act"
RELU = "+backbone.args.act_layer=relu"


class Recording(LayerMonitor):
    """Also keeps the sums of each window, by window and layer."""

    def __init__(self, *args):
        super().__init__(*args)
        self.windows = {"train": [], "val": []}

    def _close_window(self, window, pl_module):
        sums = {
            n: torch.cat([c.sums for c in w.values()], 1) for n, w in self.census[window].items()
        }
        self.windows[window].append(sums)
        super()._close_window(window, pl_module)


def shift(model):
    """Of 24 channels after the stem: three are shut, five never bend, sixteen are as they were."""
    norm = model.backbone.network.bn1
    assert norm.num_features == 24
    with torch.no_grad():
        norm.bias[:3] = -100
        norm.bias[3:8] = 100


def fit(films, folder, *overrides, monitor=None, prepare=shift, probe=(), **trainer_keys):
    """A tiny run by hand: model and what `metrics.csv` holds, the last value of each key."""
    cfg = tiny_config(films, RELU, "trainer.max_epochs=1", "data.augment=[]", *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    prepare(model)
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [*([monitor] if monitor else []), *probe]
    trainer = bare_trainer(cfg, callbacks, logger=MetricsCsv(folder), **trainer_keys)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return model, {key: float(value) for row in rows for key, value in row.items() if value}


def by_hand(z, activation):
    """The four shares with numpy, z of shape [samples, channels]."""
    z = z.detach().clone().double().requires_grad_()
    a = activation(z.clone())
    (g,) = torch.autograd.grad(a.sum(), z)
    opened = (g.abs() > 1e-6).numpy()
    dead, linear = ~opened.any(0), []
    for x, y in zip(z.detach().numpy().T, a.detach().numpy().T, strict=True):
        constant = x.std() == 0 or y.std() == 0
        linear.append(constant or np.corrcoef(x, y)[0, 1] ** 2 > 0.99)
    linear = np.array(linear) & ~dead
    return [dead.mean(), linear.mean(), (~dead & ~linear).mean(), opened.mean()]


def batches(shape):
    """Uneven ones with the channels last; channel 0 is shut, 1 never bends, 2 is a constant."""
    torch.manual_seed(5)
    found = [torch.randn(b, *shape) * 1.5 for b in (4, 1, 6)]
    for z in found:
        z[..., 0] -= 100
        z[..., 1] += 100
        z[..., 2] = 3.1
    return found


@pytest.mark.parametrize("chunk", [2**16, 40])
@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.Hardswish()]
)
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "nhwc", "tokens", "vectors"])
def test_channels_are_counted_over_every_position_of_every_image(
    monkeypatch, layout, activation, chunk
):
    monkeypatch.setattr(channels, "CHUNK_CPU", chunk)
    shape = {"tokens": (13, 7), "vectors": (7,)}.get(layout, (3, 5, 7))
    census = ChannelCensus(activation, 7)
    first = layout in ("nchw", "channels_last")
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for batch in batches(shape):
        z = (batch.movedim(-1, 1) if first else batch).contiguous(memory_format=memory)
        census.update(z, 1 if first else z.ndim - 1)
        assert torch.equal(z.movedim(1, -1) if first else z, batch)  # nothing in place
    flat = torch.cat([z.reshape(-1, 7) for z in batches(shape)])
    expected = by_hand(flat, activation)
    assert census.compute().tolist() == pytest.approx(expected, rel=1e-12)
    assert census.sums[0].tolist() == [len(flat)] * 7
    if isinstance(activation, nn.ReLU):
        assert expected[:3] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    units = UnitCensus(activation, 7)
    units.update(flat)
    values = units.compute()
    assert [values[share] for share in SHARES] == pytest.approx(expected, rel=1e-12)


def test_every_known_activation_has_the_gate_that_autograd_finds():
    torch.manual_seed(2)
    z = torch.randn(50, 3) * 4
    assert len(ELEMENTWISE) > 30
    assert not {nn.Identity, nn.Softmax, nn.GLU, nn.RReLU} & set(ELEMENTWISE)
    for cls in ELEMENTWISE:
        activation = cls(0.1, 20.0) if cls is nn.Threshold else cls()
        census = ChannelCensus(activation, 3)
        census.update(z, 1)
        x = z.clone().requires_grad_()
        (g,) = torch.autograd.grad(activation(x * 1).sum(), x)
        opened = (g.abs() > 1e-6).sum(0)
        assert census.sums[1].tolist() == opened.tolist(), cls
        torch.testing.assert_close(census.sums[3], activation(z.clone()).double().sum(0))


def test_counting_never_waits_for_the_device():
    """A tensor without data cannot be waited for."""
    census = ChannelCensus(nn.ReLU(), 7).to("meta")
    census.update(torch.empty(4, 7, 3, 5, device="meta"), 1)
    assert census.sums.shape == (7, 7)
    assert census.compute().device.type == "meta"


def test_two_halves_merged_are_the_whole():
    whole, *parts = (ChannelCensus(nn.ReLU(), 7) for _ in range(3))
    z = torch.cat(batches((3, 5, 7)))
    z[:5, ..., 3] = -1  # shut in one half alone
    whole.update(z, 3)
    for part, half in zip(parts, (z[:5], z[5:]), strict=True):
        part.update(half, 3)
    parts[0].merge_state(parts[1])
    assert parts[0].compute().tolist() == pytest.approx(whole.compute().tolist(), rel=1e-12)
    assert parts[1].compute()[0] == whole.compute()[0] == 1 / 7
    alone = ChannelCensus(nn.ReLU(), 7)
    alone.update(z[:5], 3)
    assert alone.compute()[0] == 2 / 7


def test_where_the_channels_are():
    maps, tokens = torch.empty(2, 3, 4, 5), torch.empty(2, 3, 4)
    conv, linear = nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Sequential(nn.Linear(1, 1))
    assert channel_dim(maps, conv) == channel_dim(maps, LayerNormAct2d(3)) == 1
    assert channel_dim(maps, linear) == channel_dim(maps, LayerNormAct(5)) == 3
    assert channel_dim(tokens, conv) == channel_dim(tokens, linear) == 2
    assert channel_dim(torch.empty(2, 3), conv) == 1


class Model(nn.Module):
    device = torch.device("cpu")

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.ModuleDict({"activation": nn.ReLU()})


def out_width(module):
    names = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape")
    width = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    return width[-1] if isinstance(width, tuple) else width


ARCHITECTURES = {
    "tf_efficientnet_lite0": 33,
    "efficientnet_b4": 128,
    "resnet18": 17,
    "convnext_atto": 12,
    "vit_tiny_patch16_224": 12,
    "mobilenetv3_small_050": 42,
    "regnety_002": 66,
    "edgenext_xx_small": 12,  # linear layers over [B, H, W, C]
    "dla34": 21,  # activations that are called several times
}


@pytest.mark.parametrize(("name", "count"), ARCHITECTURES.items())
def test_all_activations_fire_with_as_many_channels_as_the_layer_before(name, count):
    args = {"img_size": (64, 96)} if "vit" in name else {}
    model = Model(make_backbone(name, "none", args=args)).eval()
    monitor = LayerMonitor(["backbone.*"])
    monitor.on_fit_start(None, model)
    expected, latest = {}, [0]
    weighted = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
    for layer, module in model.named_modules():
        if isinstance(module, weighted):
            # Before it runs, for the activation of a fused norm is called within it.
            module.register_forward_pre_hook(lambda m, _: latest.__setitem__(0, out_width(m)))
        elif layer in monitor.census["val"]:
            widths = expected.setdefault(layer, set())
            module.register_forward_pre_hook(lambda *_, widths=widths: widths.add(latest[0]))
    monitor.on_validation_batch_start(SimpleNamespace(sanity_checking=False))
    with torch.inference_mode():
        model.backbone(torch.randint(0, 256, (3, 1, 64, 96), dtype=torch.uint8))
    counted = {layer: set(widths) for layer, widths in monitor.census["val"].items()}
    assert len(expected) == count
    assert counted == expected
    for widths in monitor.census["val"].values():
        for census in widths.values():
            assert census.sums[0].min() > 0
    monitor.on_fit_end(None, model)
    assert (
        not any(m._forward_pre_hooks for n, m in model.named_modules() if n in counted) or expected
    )


def test_an_activation_that_is_shared_counts_all_of_its_calls():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, calls):
            return [self.act(z.clone()) for z in calls]

    torch.manual_seed(1)
    calls = [
        torch.randn(2, 5, 3, 4) - 2.5,
        torch.randn(2, 7, 3, 2) - 2,
        torch.randn(2, 5, 1, 1) - 2.5,
    ]
    model = Model(Shared())
    monitor = LayerMonitor(["backbone.act"])
    monitor.on_fit_start(None, model)
    model.backbone(calls)  # makes the widths known, and is not counted
    assert [c.sums.sum() for c in monitor.census["val"]["backbone.act"].values()] == [0, 0]
    monitor.on_validation_batch_start(SimpleNamespace(sanity_checking=False))
    model.backbone(calls)
    logged = {}
    model.log_dict = lambda values, **_: logged.update(values)
    monitor._close_window("val", model)
    five = torch.cat([z.movedim(1, -1).reshape(-1, 5) for z in (calls[0], calls[2])])
    seven = calls[1].movedim(1, -1).reshape(-1, 7)
    parts = [np.array(by_hand(z, nn.ReLU())) * z.shape[1] / 12 for z in (five, seven)]
    values = [logged[f"layers/val/backbone.act/{share}"] for share in SHARES]
    assert values == pytest.approx(list(sum(parts)), rel=1e-12)
    assert 0 < values[0] < 1
    for odd in (torch.randn(6), torch.tensor(1.0), torch.randn(0, 5), torch.randn(2, 3, 2, 2, 2)):
        model.backbone([odd])


def test_names_and_patterns():
    model = Model(make_backbone("test_efficientnet", "none"))
    every = find_activations(model, ["backbone.*"])
    assert len(every) == 13
    assert find_activations(model, ["*"]) == find_activations(model, [STEM, "*.*"]) == every
    assert find_activations(model, ["head.activation"]) == find_activations(model, []) == {}
    assert list(find_activations(model, ["head.activation", "backbone.network.bn?.act"])) == [
        STEM,
        "backbone.network.bn2.act",
    ]
    named = dict(model.named_modules())
    assert all(named[name] is module for name, module in every.items())
    identity = "backbone.network.blocks.0.0.drop_path"
    assert isinstance(named[identity], nn.Identity)
    for pattern in ("backbone.network.bn1.acts", identity, "backbone", "blocks.*"):
        with pytest.raises(InputError, match=re.escape(repr(pattern))) as refusal:
            find_activations(model, [STEM, pattern])
        offered = str(refusal.value).split("closest names: ")[1].split(", ")
        assert len(offered) == 3
        assert set(offered) <= {*every, "head.activation"}
    with pytest.raises(InputError, match=r"closest names: backbone\.network\.bn1\.act,"):
        find_activations(model, ["backbone.network.bn1.acts"])


def test_a_compiled_network_is_refused_unless_it_is_left_alone():
    model = Model(make_backbone("test_efficientnet", "none", compile=True))
    with pytest.raises(InputError, match=r"set backbone\.compile=false") as refusal:
        find_activations(model, ["backbone.*bn1*"])
    assert str(refusal.value).count(".act ") == 1
    assert find_activations(model, ["head.activation"]) == {}


class Recorder(pl.Callback):
    """The independent route: keeps the pre-activations of the stem, by window."""

    def __init__(self):
        self.z = {"train": [], "val": []}

    def on_train_start(self, trainer, pl_module):
        def keep(norm, inputs):
            if trainer.training and trainer.global_step % 3 == 0:
                self.z["train"].append(self.normalised(norm, inputs[0]))
            elif trainer.validating:
                self.z["val"].append(self.normalised(norm, inputs[0]))

        pl_module.backbone.network.bn1.register_forward_pre_hook(keep)

    @staticmethod
    def normalised(norm, x):
        if norm.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, var = norm.running_mean, norm.running_var
        z = (x.movedim(1, -1) - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
        return z.detach().reshape(-1, norm.num_features)


@pytest.fixture(scope="module")
def recorded(films, tmp_path_factory):
    monitor, recorder = Recording(["head.activation", "backbone.*"], 3), Recorder()
    folder = tmp_path_factory.mktemp("recorded")
    model, logged = fit(films, folder, monitor=monitor, probe=[recorder])
    return model, monitor, logged, recorder


def test_the_shares_are_those_of_recorded_pre_activations(recorded):
    _, _, logged, recorder = recorded
    assert [len(recorder.z[window]) for window in ("train", "val")] == [4, 3]  # of ten and three
    for window, parts in recorder.z.items():
        values = [logged[f"layers/{window}/{STEM}/{share}"] for share in SHARES]
        expected = by_hand(torch.cat(parts), nn.ReLU())
        assert expected[:3] == [3 / 24, 5 / 24, 16 / 24]
        assert values[:3] == pytest.approx(expected[:3], rel=1e-6)  # logged in float32
        assert values[3] == pytest.approx(expected[3], abs=1e-5)  # z was rounded by another order


def test_only_logged_steps_and_every_validation_image_are_counted(recorded):
    _, monitor, _, _ = recorded
    (train,), (val,) = monitor.windows["train"], monitor.windows["val"]
    positions = 24 * 24  # after a stem of stride two
    assert train[STEM][0].tolist() == [4 * 8 * positions] * 24  # steps 0, 3, 6, 9
    assert val[STEM][0].tolist() == [18 * positions] * 24  # the sanity check is not among them


def test_the_table_of_the_docstring_is_what_is_logged(recorded):
    _, _, logged, _ = recorded
    documented = re.findall(r"^    \| `(layers/[^`]+)`", LayerMonitor.__doc__, re.MULTILINE)
    assert len(documented) == 4
    keys = {
        key.replace("{train,val}", window).replace("{layer}", layer)
        for key in documented
        for window in ("train", "val")
        for layer in find_activations(recorded[0], ["backbone.*"])
    }
    assert {key for key in logged if key.startswith("layers/")} == keys
    assert len(keys) == 13 * 2 * 4
    for layer in {key.rpartition("/")[0] for key in keys}:
        assert sum(logged[f"{layer}/{share}"] for share in SHARES[:3]) == pytest.approx(1)


def test_watching_does_not_change_one_bit_of_the_weights(recorded, films, tmp_path):
    plain, _ = fit(films, tmp_path)
    for (name, a), b in zip(
        recorded[0].state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def assert_same_sums(windows, expected):
    for window in ("train", "val"):
        for sums, others in zip(windows[window], expected[window], strict=True):
            for name in others:
                assert torch.equal(sums[name][0], others[name][0]), name
                torch.testing.assert_close(sums[name], others[name], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_block_is_counted_once(recorded, films, tmp_path, reentrant):
    monitor = Recording(["backbone.*"], 3)
    set_reentrant_ckpt(reentrant)
    try:
        _, logged = fit(films, tmp_path, "backbone.grad_checkpointing=true", monitor=monitor)
    finally:
        set_reentrant_ckpt(False)
    assert_same_sums(monitor.windows, recorded[1].windows)
    layers = [key for key in logged if key.startswith("layers/")]
    assert {k: logged[k] for k in layers} == pytest.approx({k: recorded[2][k] for k in layers})


def test_activations_in_place_and_not_are_the_same(recorded, films, tmp_path):
    def prepare(model):
        shift(model)
        acts = find_activations(model, ["backbone.*"]).values()
        assert sum(act.inplace for act in acts if hasattr(act, "inplace")) > 5
        for act in acts:
            act.inplace = False

    monitor = Recording(["backbone.*"], 3)
    fit(films, tmp_path, monitor=monitor, prepare=prepare)
    for window in ("train", "val"):
        for sums, others in zip(monitor.windows[window], recorded[1].windows[window], strict=True):
            assert all(torch.equal(sums[name], others[name]) for name in others)


def test_a_layer_that_is_never_called_is_said_once(films, tmp_path, recwarn):
    def prepare(model):
        model.backbone.network.spare = nn.ReLU()

    monitor = LayerMonitor(["*spare", STEM])
    keys = ["trainer.max_epochs=2", "trainer.limit_train_batches=2"]
    _, logged = fit(films, tmp_path, *keys, monitor=monitor, prepare=prepare)
    said = [str(w.message) for w in recwarn if "was counted" in str(w.message)]
    # Steps 2 and 3 of the second epoch are no multiples of ten.
    assert len(said) == 2
    assert "of backbone.network.spare was counted in this val window" in said[0]
    assert f"of {STEM} was counted in this train window" in said[1]
    assert math.isnan(logged["layers/val/backbone.network.spare/dead_frac"])
    assert math.isnan(logged[f"layers/train/{STEM}/dead_frac"])
    assert logged[f"layers/val/{STEM}/dead_frac"] == 0
    assert not any("before the ``update`` method" in str(w.message) for w in recwarn)


@pytest.mark.whole
def test_two_processes_count_what_one_does(tmp_path):
    """119 films, so that splits and batches are uneven; the frozen backbone stays as it is."""
    films = write_films(tmp_path / "films")
    (films / "BLOB/p001_0.png").unlink()
    keys = ["backbone.frozen=true", "data.val_frac=0.175", "data.test_frac=0.125"]
    _, one = fit(films, tmp_path / "one", *keys, monitor=LayerMonitor(["backbone.*"], 3))
    monitor = LayerMonitor(["backbone.*"], 3)
    two_processes = {"strategy": "ddp_fork", "devices": 2}
    _, two = fit(
        films, tmp_path / "two", *keys, "data.batch_size=4", monitor=monitor, **two_processes
    )
    expected = {key: value for key, value in one.items() if key.startswith("layers/")}
    assert len(expected) == 13 * 2 * 4
    assert {key: two[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert two[f"layers/train/{STEM}/dead_frac"] == 3 / 24
    assert 0.3 < two[f"layers/val/{STEM}/gate_open_frac"] < 0.7
