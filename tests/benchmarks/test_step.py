"""All arms do the same work, and the numbers are what they are called."""

import json
import re
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import nn

from benchmarks.fits import Block, Training
from benchmarks.loops import Timm, peak_flops, step_flops, time_bare
from benchmarks.step import Arms, Sample, Work, compare, conclude, judge, measure
from benchmarks.syncs import SyncsByStep, counting
from benchmarks.watchers import AsOnGpu, callbacks, of_every_run
from fluoroscope.errors import InputError
from fluoroscope.run import run_folder
from tests.benchmarks.jobs import job

ARMS = ["bare", "timm", "trainer_unwatched", "trainer"]
HARD = ["trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.05"]
HARD += ["optimizer.layer_decay=0.7", "loss.pos_weight=2", "data.labels=[a,b,c]"]


@pytest.mark.parametrize(
    "overrides",
    [
        HARD,
        *(pytest.param(k, marks=pytest.mark.whole) for k in ([], ["trainer.precision=bf16-mixed"])),
    ],
)
def test_every_arm_of_this_model_ends_with_the_same_weights(overrides, tmp_path):
    ends = []
    with Training(job(*overrides), tmp_path) as training:
        start = {k: v.clone() for k, v in training.model.state_dict().items()}
        run = of_every_run(training)
        arms = [lambda: time_bare(training), lambda: training.time(run)]
        arms.append(lambda: training.time([*callbacks("monitor", training), *run]))
        for arm in arms:
            training.restart()
            arm()
            ends.append({k: v.clone() for k, v in training.model.state_dict().items()})
    moved = [k for k in start if not torch.equal(start[k], ends[0][k])]
    assert len(moved) > 30
    for end in ends[1:]:
        assert all(torch.equal(end[k], ends[0][k]) for k in start)


def test_between_logged_steps_a_run_never_waits_for_the_device(tmp_path, monkeypatch):
    """All that a run does, with the fused optimizer of a GPU; see `test_syncs` for the count."""
    always = partial(torch.optim.AdamW, fused=True)
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: always(groups))
    cut = job("diagnostics.every_n_steps=4", "trainer.gradient_clip_val=1")
    with Training(cut, tmp_path) as training, counting(training.device) as syncs:
        everything = [*callbacks("monitor", training), *of_every_run(training), AsOnGpu()]
        steps = SyncsByStep(syncs)
        training.fit(10, [*everything, steps])
    # The monitor logs steps 0, 4, 8, Lightning those before them.
    assert [n == 0 for n in steps.per_step[1:9]] == [True, True, False, False] * 2


@pytest.fixture
def pair(tmp_path):
    """A training and timm's of the same network, with the same weights in it."""
    torch.manual_seed(1)
    cut = job("data.labels=[a,b]", "trainer.accumulate_grad_batches=2", "benchmark.steps=2")
    with Training(cut, tmp_path) as training:
        other = Timm(training)
        other.model.load_state_dict(training.model.backbone.network.state_dict(), strict=False)
        yield training, other


def test_timm_sees_the_images_that_the_backbone_sees(pair):
    training, other = pair
    backbone, network = training.model.backbone.eval(), other.model.eval()
    for mine, its in zip(training.batches, other.batches, strict=True):
        assert torch.equal(mine["target"], its["target"])
        features = network.forward_head(network.forward_features(its["image"]), pre_logits=True)
        assert torch.equal(features, backbone(mine["image"]))


def test_timms_step_is_adamw_on_the_mean_loss_of_the_accumulated_batches(pair):
    training, other = pair
    training.options.warmup, training.options.steps = 0, 1
    twin = timm.create_model("test_efficientnet", num_classes=2).train()
    twin.load_state_dict(other.model.state_dict())
    images, target = ([batch[key] for batch in other.batches[:2]] for key in ("image", "target"))
    no_decay = [p for p in twin.parameters() if p.ndim <= 1]
    decay = [p for p in twin.parameters() if p.ndim > 1]
    groups = [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": 1e-2}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    loss = sum(nn.BCEWithLogitsLoss()(twin(x), y) for x, y in zip(images, target, strict=True)) / 2
    loss.backward()
    optimizer.step()
    other.fit()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_frozen_backbone_has_no_timm(tmp_path):
    with Training(job("backbone.frozen=true"), tmp_path) as training:
        assert Arms(training).names == ["bare", "trainer_unwatched", "trainer"]
        with pytest.raises(InputError, match="frozen"):
            Timm(training)


def test_a_precision_without_a_loop_by_hand_is_refused():
    with pytest.raises(InputError, match="precision must be 32-true or bf16-mixed or 16-mixed"):
        measure(job("trainer.precision=64-true"))


def count_by_hooks(network, image):
    """Twice the multiplications of convolutions and linear layers, of each layer's own shapes."""
    total = []

    def add(module, inputs, output):
        weights = module.weight[0].numel()  # of one output: in_channels / groups * kernel
        total.append(2 * weights * output.numel())

    handles = [
        module.register_forward_hook(add)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    y = network(image)
    for handle in handles:
        handle.remove()
    return sum(total), y


@pytest.mark.parametrize(("frozen", "factor"), [(False, 3), (True, 1)])
def test_the_arithmetic_of_a_step(frozen, factor, tmp_path):
    with Training(job("data.labels=[a,b]"), tmp_path) as training:
        pass
    backbone, head = training.model.backbone, training.model.head
    image = training.batches[0]["image"][:1]
    modes = [m.training for m in training.model.modules()]
    flops = step_flops(backbone, head, image, frozen)
    assert [m.training for m in training.model.modules()] == modes
    of_backbone, f = count_by_hooks(backbone.eval(), image)
    of_head, _ = count_by_hooks(head.eval(), f)
    assert of_head == 2 * (f.shape[1] * 31 + 31 * 2)
    assert flops == factor * of_backbone + 3 * of_head


def test_a_known_network_has_its_known_arithmetic():
    """timm lists tf_efficientnet_lite0 at 224 px with 0.41 G multiply-adds."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    flops = step_flops(network, nn.Identity(), torch.zeros(1, 3, 224, 224), frozen=True)
    assert flops / 2e9 == pytest.approx(0.41, abs=0.03)


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H200", "bf16-mixed", 989e12),
        ("NVIDIA H100 PCIe", "16-mixed", 756e12),
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA L40S", "bf16-mixed", 362e12),
        ("NVIDIA L4", "bf16-mixed", 121e12),
        ("NVIDIA H200", "32-true", None),
        ("cpu", "bf16-mixed", None),
    ],
)
def test_a_chips_peak_is_that_of_its_name(device, precision, expected):
    assert peak_flops(device, precision) == expected


def sample(step_s, cpu_s, peak_gib=None):
    return Sample(Block(step_s, 0.0, cpu_s), peak_gib)


def test_an_arm_is_compared_with_bare_of_its_round():
    rng = np.random.default_rng(3)
    mine, hand, mine_cpu, hand_cpu = rng.uniform(0.5, 2, (4, 5))
    samples = {
        "bare": [sample(*pair) for pair in zip(hand, hand_cpu, strict=True)],
        "trainer": [
            sample(*pair) for pair in zip(mine, mine_cpu, [1.0, 3.0, 2.0, 1, 1], strict=True)
        ],
    }
    numbers = compare("trainer", samples, Work(24, 6e9, 3e9, 1e11, 2e10))
    quantiles = {
        "images_s": 24 / mine,
        "step_ms": 1e3 * mine,
        "speed_ratio": hand / mine,
        "cpu_speed_ratio": hand_cpu / mine_cpu,
    }
    for key, values in quantiles.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        assert numbers[key] == pytest.approx({"median": median, "low": low, "high": high})
    assert numbers["peak_gib"] == 3.0
    assert numbers["gflop_s"] == pytest.approx(6 / np.median(mine))
    assert numbers["peak_frac"] == pytest.approx(0.06 / np.median(mine))
    assert numbers["memory_frac"] == pytest.approx(0.15 / np.median(mine))
    bare = compare("bare", samples, Work(24, 6e9, 3e9, None, None))
    assert bare["peak_frac"] is bare["memory_frac"] is bare["peak_gib"] is None


def test_the_targets_are_those_of_the_design():
    numbers = {
        arm: {
            "images_s": {"median": 1400.0},
            "speed_ratio": {"median": speed},
            "steps_ms": steps,
        }
        for arm, speed, steps in [
            ("bare", 1.0, [1.0, 1.0]),
            ("timm", 1.2, [2.0, 3.0]),
            ("trainer_unwatched", 0.99, [1.0, 1.0]),
            ("trainer", 0.97, [1.0, 2.0]),
        ]
    }
    facts = {"backbone": "tf_efficientnet_b4.aa_in1k", "image_px": 380, "precision": "bf16-mixed"}
    facts["machine"] = {"device": "NVIDIA H200"}
    found = [(t["value"], t["at_least"], t["met"]) for t in judge(numbers, facts)]
    assert found == [
        (0.99, 0.98, True),
        (0.97, 0.97, True),
        (1.75, 1.0, True),  # of 2 / 1 and 3 / 2
        (1400.0, 1500.0, False),
    ]
    assert len(judge(numbers, facts | {"image_px": 224})) == 3
    del numbers["timm"]
    assert len(judge(numbers, facts | {"machine": {"device": "cpu"}})) == 2


def test_a_measurement_from_start_to_table(tmp_path, capsys):
    result = measure(job())
    assert capsys.readouterr().out.count("round ") == 2
    conclude(job(f"out={tmp_path}/r.json"), result)
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept == run_folder.finite(result)
    assert list(kept["arms"]) == ARMS
    assert kept["arms"]["bare"]["speed_ratio"] == {"median": 1, "low": 1, "high": 1}
    for numbers in kept["arms"].values():
        assert len(numbers["steps_ms"]) == 2
        assert numbers["peak_frac"] is numbers["peak_gib"] is None
        assert numbers["images_s"]["median"] > 0
    out = capsys.readouterr().out
    for arm, numbers in kept["arms"].items():
        ratio = numbers["speed_ratio"]["median"]
        assert re.search(rf"^ *{arm} .* {ratio:.3f} ", out, re.MULTILINE), out
    assert out.count("target at least 0.9") == 2
    assert "trainer / timm, images/s: " in out
