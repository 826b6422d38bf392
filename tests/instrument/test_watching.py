"""The handle: windows, refusals, hooks that end, and networks that are wrapped or copied."""

import copy
import importlib
import io
import re
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as all_modules
from torch.utils.checkpoint import checkpoint

import fluoroscope
from fluoroscope.errors import InputError
from fluoroscope.instrument.entry_hooks import EntryHook
from fluoroscope.instrument.forward_pass import ForwardPass
from tests.instrument.networks import fit, make


class Net(nn.Module):
    """An activation of each kind; `broken` raises an error, `kept` checkpoints the block."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.act, self.second = nn.Linear(4, 7), nn.ReLU(inplace=True), nn.Linear(7, 5)
        self.out = nn.Linear(5, 2)
        self.broken = False
        self.kept = None

    def block(self, x):
        return functional.gelu(self.second(self.act(self.first(x))))

    def forward(self, x):
        z = self.block(x) if self.kept is None else self.again(x)
        if self.broken:
            raise RuntimeError("lost")
        return self.out(z)

    def again(self, x):
        return checkpoint(self.block, x.clone().requires_grad_(), use_reentrant=self.kept)

    def features(self, x):
        return self.second(self.act(self.first(x)))


OPTIMIZER = importlib.import_module("torch.optim.optimizer")
GRADIENTS = ["grad_l2", "grad_dormant_frac"]
LAYERS = ["act", "forward/gelu"]


def batches(seed=1, count=3):
    torch.manual_seed(seed)
    return [torch.randn(size, 4) for size in (6, 3, 4)[:count]]


def train(model, inputs=None, split=1):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for x in batches() if inputs is None else inputs:
        optimizer.zero_grad()
        for part in x.chunk(split):
            model(part).square().sum().backward()
        optimizer.step()


def watched(model, run=train, **keys):
    with fluoroscope.watch(model, **keys) as units:
        run(model)
    return units


def same(a, b, rtol=1e-6):
    assert a.index.tolist() == b.index.tolist()
    np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=rtol, atol=1e-9)


def no_hooks(model):
    return not (
        any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        or all_modules._global_forward_hooks
        or all_modules._global_forward_pre_hooks
        or torch.overrides._get_current_function_mode_stack()
        or OPTIMIZER._global_optimizer_pre_hooks
        or torch._dynamo.eval_frame._stance.stance != "default"
    )


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    assert no_hooks(nn.Linear(1, 1))


def test_hooks_end_with_the_watch_and_after_an_error():
    model = Net()
    units = fluoroscope.watch(model)
    model.broken = True
    with pytest.raises(RuntimeError, match="lost"):
        model(batches()[0])
    assert not all_modules._global_forward_hooks
    assert not torch.overrides._get_current_function_mode_stack()
    model.broken = False
    model(batches()[0])
    assert units.frame()["images"].tolist() == [12, 12]
    units.close()
    assert no_hooks(model)
    model(batches()[0])
    units.close()
    assert units.frame()["images"].tolist() == [12, 12]
    with pytest.raises(ZeroDivisionError), fluoroscope.watch(model):
        raise ZeroDivisionError
    assert no_hooks(model)


def test_a_watch_that_is_forgotten_counts_nothing_more():
    model = Net()
    units = fluoroscope.watch(model)
    del units
    train(model)
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        assert all(hook.watcher() is None for hook in hooks.values())
    OPTIMIZER._global_optimizer_pre_hooks.clear()


def test_windows_are_by_mode_or_by_name():
    model = Net()
    with fluoroscope.watch(model) as units:
        train(model)
        model.eval()
        with units.window("test"):
            model(torch.randn(5, 4))
        with torch.no_grad():
            model(torch.randn(2, 4))
        units.counting = False
        model(torch.randn(9, 4))
    images = units.frame()["images"]
    assert images.to_dict() == {
        (window, layer): count
        for window, count in (("train", 13), ("test", 5), ("eval", 2))
        for layer in LAYERS
    }
    assert units.frame("test").index.get_level_values("window").unique().tolist() == ["test"]
    values = units.values("eval", prefix="mine")
    assert values["mine/eval/act/blackout_frac"] == units.frame().loc[("eval", "act")].blackout_frac
    assert {key.split("/")[1] for key in units.values()} == {"train", "test", "eval"}
    assert [key for key in units.values("eval") if "grad" in key] == []
    assert "units/train/act/grad_dormant_frac" in units.values("train")


def test_a_reset_starts_a_window_and_keeps_the_picture():
    model = Net()
    with fluoroscope.watch(model) as units:
        train(model)
        first = units.channels("train").loc[("train", "act")].gate_open_share
        units.reset()
        with pytest.raises(InputError, match="Net was not called since watch or reset"):
            units.table()
        model(torch.randn(8, 4))
    figure = units.plot("act")
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (7, 2)
    assert sorted(drawn[:, 0].filled(0)) == pytest.approx(sorted(first), rel=1e-6)
    assert [t.get_text() for t in units.plot().axes[0].get_yticklabels()] == LAYERS


def test_every_second_call_of_the_training_is_counted():
    model = Net()

    def run(model):
        train(model, [torch.ones(size, 4) for size in (3, 5, 7, 9)])
        model.eval()
        model(torch.ones(2, 4)), model(torch.ones(2, 4))

    images = watched(model, run, every_n_calls=2).frame()["images"].tolist()
    assert images == [10, 10, 4, 4]


def test_accumulated_gradients_are_those_of_each_pass():
    frames = [watched(Net(), lambda m, n=n: train(m, split=n)).frame() for n in (1, 2)]
    for name in ("images", "dead_frac", "gate_open_frac", "grad_dormant_frac"):
        assert frames[0][name].tolist() == pytest.approx(frames[1][name].tolist())
    assert (frames[0]["grad_l2"] > frames[1]["grad_l2"]).all()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_block_counts_once(reentrant):
    model = Net()
    model.kept = reentrant
    found, wanted = watched(model).frame(), watched(Net()).frame()
    if reentrant:  # its first pass has no graph
        assert found["grad_l2"].isna().all()
        found, wanted = found.drop(columns=GRADIENTS), wanted.drop(columns=GRADIENTS)
    same(found, wanted)


def test_a_checkpointed_child_counts_once():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act = Net(), nn.ReLU()

        def forward(self, x):
            return self.act(checkpoint(self.inner, x, use_reentrant=False))

    images = watched(Outer()).frame()["images"].tolist()
    assert images == [13, 13, 13]


def test_two_watches_count_the_same():
    model = Net()
    with fluoroscope.watch(model) as one, fluoroscope.watch(model, "act") as two:
        train(model)
    same(one.frame(), watched(Net()).frame())
    same(two.frame(), one.frame().loc[[("train", "act")]])


def test_copies_and_pickles_are_not_watched():
    model = Net()
    with fluoroscope.watch(model) as units:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
            train(other)
            assert all(isinstance(h, EntryHook) for h in other._forward_hooks.values())
        with pytest.raises(InputError, match="was not called"):
            units.frame()
        assert set(model.state_dict()) == set(Net().state_dict())
        assert copy.deepcopy({"monitor": units})["monitor"] is units
        train(model)
    same(units.frame(), watched(Net()).frame())


def test_another_method_than_forward_is_counted():
    model = Net()
    units = watched(model, lambda m: m.features(torch.ones(3, 4)))
    assert units.frame().index.tolist() == [("train", "act")]
    assert units.frame()["images"].tolist() == [3]


def test_half_precision_counts():
    def run(model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            train(model, batches(count=1))

    a = watched(Net(), run).frame()
    b = watched(Net(), lambda model: train(model, batches(count=1))).frame()
    assert a["images"].tolist() == b["images"].tolist()
    assert a["gate_open_frac"].tolist() == pytest.approx(b["gate_open_frac"].tolist(), abs=0.05)
    assert a["grad_l2"].tolist() == pytest.approx(b["grad_l2"].tolist(), rel=0.1)


def test_counting_never_waits_for_the_device():
    """A tensor without data cannot be waited for."""
    model = Net().to("meta")
    with fluoroscope.watch(model) as units:
        model(torch.empty(5, 4, device="meta")).sum().backward()
        torch.optim.SGD(model.parameters()).step()
        layers = units._windows["train"].layers
        assert list(layers) == LAYERS
        assert all(layer.squares.device.type == "meta" for layer in layers.values())


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_part(model):
    model.first.compile(backend="eager")
    model.act.compile(backend="eager")
    return model


@pytest.mark.parametrize("compiled", [compiled_whole, compiled_part])
def test_a_compiled_network_is_counted_without_its_compiler(compiled):
    model = compiled(Net())
    model(batches()[0])  # compiled before it is watched
    same(watched(model).frame(), watched(Net()).frame())
    model(batches()[0])


def test_a_network_that_is_compiled_while_it_is_watched_counts_or_says_nothing_wrong():
    model = Net()
    with fluoroscope.watch(model) as units:
        compiled = torch.compile(model, backend="eager")
        train(compiled)
        with pytest.raises(InputError, match="was not called"):
            units.frame()
        train(model)
        assert units.frame()["images"].tolist() == [13, 13]


def root_compiled(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        (lambda: "resnet", {}, "watch needs a torch.nn.Module; got str"),
        (lambda: nn.DataParallel(Net()), {}, "cannot count in torch.nn.DataParallel"),
        (lambda: torch.jit.script(nn.ReLU()), {}, "cannot see into a scripted network"),
        (lambda: root_compiled(Net()), {}, "use compiled = torch.compile"),
        (Net, {"every_n_calls": 0}, "whole number of at least 1; got 0"),
        (Net, {"every_n_calls": 1.5}, "whole number of at least 1; got 1.5"),
        (Net, {"tolerance": -1}, "tolerance must be a number of at least 0; got -1"),
        (Net, {"layers": []}, "layers must name at least one layer; got none"),
        (Net, {"layers": ["act", 3]}, "layers must be a name of layers or a list of names; got ["),
        (Net, {"layers": None}, "layers must be a name of layers or a list of names; got None"),
        (Net, {"layers": "forward/rleu"}, "'forward/rleu' matches no activation of Net"),
        (Net, {"tolerance": "x"}, "tolerance must be a number of at least 0; got 'x'"),
        (Net, {"tolerance": float("nan")}, "tolerance must be a number of at least 0; got nan"),
        (Net, {"every_n_calls": True}, "whole number of at least 1; got True"),
        (Net, {"channel_dims": [1]}, "channel_dims must be a dict of dimensions by name; got [1]"),
        (Net, {"channel_dims": {"act": 0}}, "channel_dims: the dimension of 'act' must be a whole"),
        (Net, {"channel_dims": {"cat": 1}}, "channel_dims: 'cat' matches no activation of Net"),
        (Net, {"layers": "acts"}, "'acts' matches no activation of Net; closest names: act"),
        (Net, {"layers": ["act", "layer9.*"]}, "'layer9.*' matches no activation"),
    ],
)
def test_a_refusal_is_one_sentence_and_hooks_nothing(model, keys, message):
    model = model()
    with pytest.raises(InputError, match=re.escape(message)) as refusal:
        fluoroscope.watch(model, **keys)
    assert "\n" not in str(refusal.value)
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        assert no_hooks(model)


def test_a_network_without_activations_and_one_that_was_never_called_say_so():
    model = nn.Sequential(nn.Linear(3, 2))
    units = watched(model, lambda m: None)
    with pytest.raises(InputError, match="Sequential was not called since watch"):
        units.table()
    with pytest.raises(InputError, match="no activation was seen in Sequential; it has none, or"):
        watched(model, lambda m: m(torch.ones(2, 3))).values()
    units = watched(Net())
    with pytest.raises(InputError, match="Net was not called in the window 'eval'"):
        units.frame("eval")
    with pytest.raises(InputError, match="plot: 'cat' was not seen in the window 'train'"):
        units.plot("cat")


def test_halves_add_up_to_the_whole():
    """What two processes do with the same weights."""
    from fluoroscope.instrument.windows import WindowSums

    model, _, batch = make("cnn")
    model.eval()
    torch.manual_seed(2)
    x = batch(9)
    whole, *halves = (
        watched(model, lambda m, part=part: m(part).square().sum().backward())
        for part in (x, x[:4], x[4:])
    )
    merged = WindowSums() + halves[0]._sums()["eval"] + halves[1]._sums()["eval"]
    wanted = whole._sums()["eval"]
    assert list(merged.layers) == list(wanted.layers)
    for layer, sums in wanted.layers.items():
        numbers, expected = merged.layers[layer].numbers(), sums.numbers()
        parts = [half._sums()["eval"].layers[layer].numbers()["grad_l2"] for half in halves]
        expected["grad_l2"] = (sum(part**2 for part in parts) / 2) ** 0.5
        assert numbers == pytest.approx(expected, rel=1e-9)


def test_the_weights_of_a_training_are_the_same_with_a_picture_and_a_table():
    models = [make("cnn", torch.float32) for _ in range(2)]
    with fluoroscope.watch(models[0][0]) as units:
        fit(models[0][0], models[0][2])
        assert len(units.table().splitlines()) == 1 + 2 + 4
        units.plot()
    fit(models[1][0], models[1][2])
    for a, b in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        assert torch.equal(a, b)


class Gated(nn.Module):
    """A module of its own, made within forward, on transposed tokens and on a half of them."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 10)

    def forward(self, x):
        z = self.mix(x).transpose(1, 2)  # [B, 10, T]
        return Silu()(z), functional.gelu(z.chunk(2, dim=1)[0])


class Silu(nn.Module):
    def forward(self, x):
        return functional.silu(x)


def test_transposed_channels_are_found_and_others_can_be_stated():
    names = ["forward/silu", "forward/gelu"]
    for dims, units_each in ((None, [10, 5]), ({"*/gelu": -1}, [10, 7]), ({"*": -1}, [7, 7])):
        model = Gated()
        with fluoroscope.watch(model, channel_dims=dims) as units:
            model(torch.randn(2, 7, 3))
        assert units.frame()["units"].droplevel(0).to_dict() == dict(
            zip(names, units_each, strict=True)
        )
        assert not units.unseen


class Data(torch.Tensor):
    """A tensor of another class."""


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.randint(0, 9, (3, 4)), "its input is a Tensor of torch.int64, torch.strided"),
        (torch.randn(3, 4).as_subclass(Data), "its input is a Data of torch.float32"),
        (torch.randn(3, 4).to_sparse(), "torch.sparse_coo"),
    ],
)
def test_what_cannot_be_counted_is_named_and_the_call_goes_on(x, why):
    with fluoroscope.watch(nn.Sequential(nn.ReLU())) as units:
        assert torch.equal(units._named(x).to_dense(), x.to_dense().clamp(min=0))
    assert why in units.unseen["0"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("layer_call.Layer.update", LAYERS),
        ("layer_call.Layer.add_gradient", LAYERS),
        ("layer_call.LayerCall._index", LAYERS),
        ("windows.Window.add_step", ["gradient of the weights"]),
    ],
)
def test_an_error_of_the_instrument_does_not_reach_the_training(monkeypatch, part, names):
    def lost(*args):
        raise RuntimeError("out of memory. Buy more.")

    monkeypatch.setattr(f"fluoroscope.instrument.{part}", lost)
    model = Net()
    units = watched(model)
    assert units.unseen == dict.fromkeys(names, "out of memory")
    plain = Net()
    train(plain)
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_calls_within_a_transform_of_functions_go_on():
    model = Net()

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    with fluoroscope.watch(model) as units:
        x, parameters = torch.ones(3, 4), dict(model.named_parameters())
        found = torch.func.grad(loss)(parameters, x)
        loss(parameters, x).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
    assert units.unseen == {"Net": "a call within torch.func"}
    assert units.frame()["images"].tolist() == [3, 3]


def test_an_activation_that_is_replaced_counts_anew():
    model = Net()
    with fluoroscope.watch(model, "act") as units:
        model(torch.ones(3, 4))
        model.act = nn.GELU()
        model(torch.ones(5, 4))
    (row,) = units.frame().to_dict("records")
    assert (row["images"], row["gate_open_frac"]) == (5, 1)


def test_another_network_that_is_called_within_is_not_counted():
    model, other = Net(), Net()
    with fluoroscope.watch(model) as units:
        model.second.register_forward_hook(lambda *_: [other(torch.ones(9, 4))].clear())
        model(torch.ones(3, 4))
    assert units.frame()["images"].tolist() == [3, 3]
    assert units.unseen == {"Net": "a module that is called, but no part of the network"}
    model.second._forward_hooks.clear()


def test_an_activation_that_is_made_in_the_call_is_a_function_of_it():
    class Made(nn.Module):
        def forward(self, x):
            return nn.ReLU()(x)

    with fluoroscope.watch(Made()) as units:
        units._named(torch.randn(3, 4))
    assert units.frame().index.tolist() == [("train", "forward/relu")]


def test_threads_that_call_at_once_lose_nothing_but_counts():
    model, x = Net(), torch.ones(3, 4)
    wanted, found = model(x), []
    with fluoroscope.watch(model) as units:
        calls = [threading.Thread(target=lambda: found.append(model(x))) for _ in range(20)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert len(found) == 20
    assert all(torch.equal(a, wanted) for a in found)
    images = units.frame()["images"].tolist()
    assert images[0] == images[1] <= 60


def test_the_rest_of_a_call_that_was_not_counted_is_not_counted_either():
    """The first call ends while the other thread is between two layers of its own."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    between, ended = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: model(torch.ones(9, 4)))

    def begin(*_):
        if not other.ident:
            other.start()
            assert between.wait(60)

    def wait(*_):
        if threading.current_thread() is other:
            between.set()
            assert ended.wait(60)

    with fluoroscope.watch(model) as units:
        model[0].register_forward_hook(begin)
        model[2].register_forward_hook(wait)
        model(torch.ones(3, 4))
        ended.set()
        other.join()
        assert units.frame()["images"].tolist() == [3, 3]
        model(torch.ones(2, 4))  # and the next call of any thread is
        again = threading.Thread(target=lambda: model(torch.ones(5, 4)))
        again.start()
        again.join()
    assert units.frame()["images"].tolist() == [10, 10]
    assert units.unseen == {"Sequential": "a call while another thread called it"}


def test_a_call_of_another_thread_waits_for_no_pass_and_disturbs_none(monkeypatch):
    model, stop, others = Net(), ForwardPass.stop, []

    def call_meanwhile(self):
        if not others:
            others.append(threading.Thread(target=lambda: model(torch.ones(9, 4))))
            others[0].start()
            others[0].join()
        stop(self)

    monkeypatch.setattr(ForwardPass, "stop", call_meanwhile)
    with fluoroscope.watch(model) as units:
        model(torch.ones(3, 4))
        model(torch.ones(2, 4))
    assert units.frame()["images"].tolist() == [5, 5]
    assert units.unseen == {"Net": "a call while another thread called it"}
