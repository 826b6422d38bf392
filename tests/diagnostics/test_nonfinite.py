import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from fluoroscope import build
from fluoroscope.diagnostics.nonfinite import NonFinite
from fluoroscope.errors import InputError
from fluoroscope.run import wandb_logger
from tests.diagnostics.test_monitor import CountedSteps
from tests.support.films import tiny_config
from tests.support.fits import bare_trainer, fuse_adamw
from tests.support.wandb_log import OfflineRun, wandb_config

BAD_STEP = 13  # the fourth of the second epoch, and none of those that are looked at
KEYS = ["trainer.max_epochs=2"]


class NaNGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, hit):
        ctx.save_for_backward(hit)
        return features.clone()

    @staticmethod
    def backward(ctx, grad):
        (hit,) = ctx.saved_tensors
        return torch.where(hit[:, None], math.nan, grad), None


class Trap(nn.Module):
    """Breaks features on a film: in the forward pass, there by what was drawn, or only backward."""

    def __init__(self, how):
        super().__init__()
        self.how, self.drawn = how, None

    def forward(self, features, hit):
        if self.how == "noise" and hit.any():
            noise = torch.rand(3)
            self.drawn = noise if self.drawn is None else self.drawn
            return torch.where((noise == self.drawn).all(), math.nan, features)
        if self.how == "gradient":
            return NaNGradient.apply(features, hit)
        if self.how == "features":
            return torch.where(hit[:, None], math.nan, features)
        return features


class Trapped(nn.Module):
    """A backbone with a trap behind it that one film in one epoch springs."""

    def __init__(self, backbone, how):
        super().__init__()
        self.backbone, self.trap = backbone, Trap(how)
        self.film, self.armed, self.hit = None, False, None

    def forward(self, image):
        self.hit = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        if self.film is not None and self.armed:
            self.hit = (image == self.film).flatten(1).all(1)
        return self.trap(self.backbone(image), self.hit)


class Recorder(pl.Callback):
    """Rows and weights at the start of each batch; arms the trap on the bad step's film."""

    def __init__(self, weight=None):
        self.rows, self.states, self.weight = [], [], weight

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rows.append(batch["index"].tolist())
        backbone = pl_module.backbone
        if len(self.rows) == BAD_STEP + 1:
            backbone.film, backbone.armed = batch["image"][3].clone(), True
            if self.weight is not None:
                pl_module.get_parameter(self.weight).data[-1, -1] = math.inf
        self.states.append({k: v.clone() for k, v in pl_module.state_dict().items()})


class Delayed(NonFinite):
    """As on a GPU: the host looks at the logged steps alone."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self.immediate = False


class Blind(NonFinite):
    """Every hook does nothing."""

    on_train_start = on_train_batch_start = on_train_batch_end = lambda *args: None
    on_before_backward = on_before_optimizer_step = on_fit_end = lambda *args: None


class Broken:
    """A tiny run that breaks at `BAD_STEP`, and what it left."""

    def __init__(self, films, folder, how, watch=NonFinite, recorder=Recorder, keys=(), **trainer):
        cfg = tiny_config(films, *KEYS, *keys)
        self.data = build.build_data(cfg, build.build_studies(cfg))
        self.model = build.build_classifier(cfg, self.data)
        self.model.backbone = Trapped(self.model.backbone, how)
        if how == "loss":
            self.break_loss()
        self.recorder, self.watch = recorder(), watch(folder, every_n_steps=6)
        self.trainer = bare_trainer(cfg, [self.watch, self.recorder], **trainer)
        self.error = None
        try:
            self.trainer.fit(self.model, datamodule=self.data)
        except InputError as error:
            self.error = str(error)
        self.path = folder / "checkpoints/nonfinite.ckpt"

    def break_loss(self):
        plain, backbone = self.model.loss.forward, self.model.backbone
        self.model.loss.forward = lambda *arguments: torch.where(
            backbone.hit.any(), math.inf, plain(*arguments)
        )

    def checkpoint(self):
        return torch.load(self.path, weights_only=True)

    def weights_equal(self, state, keys=None):
        now = self.model.state_dict()
        names = keys or now.keys()
        return all(torch.equal(now[name].cpu(), state[name].cpu()) for name in names)


@pytest.fixture
def fused(monkeypatch):
    fuse_adamw(monkeypatch)


CASES = {
    "features": "the output of backbone.trap",
    "gradient": "the gradient of ",
    "loss": "the loss",
}


@pytest.mark.parametrize("how", CASES)
def test_the_run_stops_before_the_bad_step_and_names_it(films, tmp_path, how):
    run = Broken(films, tmp_path, how)
    rows = run.recorder.rows[BAD_STEP]
    assert len(run.recorder.rows) == BAD_STEP + 1  # at once
    assert f"training stopped at optimizer step {BAD_STEP} in epoch 2: {CASES[how]}" in run.error
    assert f"8 images (rows {', '.join(map(str, rows[:5]))}, ... of the study table)" in run.error
    assert str(run.path) in run.error
    assert "lower optimizer.lr, or set trainer.gradient_clip_val" in run.error
    if how == "gradient":  # the trap has none of its own: the nearest that lies before it
        *_, nearest = (name for name, _ in run.model.backbone.named_parameters())
        assert f"the gradient of backbone.{nearest} is" in run.error
    assert run.weights_equal(run.recorder.states[BAD_STEP])  # running statistics too


@pytest.mark.parametrize("how", CASES)
def test_the_checkpoint_replays_the_failure(films, tmp_path, how):
    run = Broken(films, tmp_path, how)
    saved = run.checkpoint()
    assert saved["global_step"] == saved["nonfinite"]["step"] == BAD_STEP
    assert saved["epoch"] == saved["nonfinite"]["epoch"] == 1
    (place,) = saved["nonfinite"]["batches"]
    assert place["index"] == run.recorder.rows[BAD_STEP]
    assert (place["rank"], place["batch_idx"]) == (0, 3)
    run.model.load_state_dict({k: torch.zeros_like(v) for k, v in saved["state_dict"].items()})
    run.model.load_state_dict(saved["state_dict"])
    dataset = run.data._dataset("train", run.data.augmentation)
    draws = [(dataset.index.tolist().index(i), 1, 0) for i in place["index"]]
    batch = torch.utils.data.default_collate([dataset[draw] for draw in draws])
    run.model.train()
    loss = run.model.loss(run.model(batch["image"]), batch["target"])
    loss.backward()
    assert loss.isfinite() == (how == "gradient")
    stem = next(run.model.backbone.parameters())
    assert stem.grad.isfinite().all() == (how == "loss")  # an infinite constant has no slope


@pytest.mark.parametrize(
    ("weight", "layer"),
    [("head.dense.weight", "head.dense"), ("head.out.weight", "head.out")],
)
def test_a_weight_that_overflowed_names_its_layer(films, tmp_path, weight, layer):
    run = Broken(films, tmp_path, "", recorder=partial(Recorder, weight))
    assert f"step {BAD_STEP} in epoch 2: the output of {layer} is the first value that" in run.error


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_an_infinite_weight_of_a_convolution(films, tmp_path, checkpointing):
    """Where blocks are recomputed, the second look must save the tensors that the first did."""
    conv = "backbone.backbone.network.blocks.1.0.conv_exp"
    recorder = partial(Recorder, f"{conv}.weight")
    keys = [f"backbone.grad_checkpointing={checkpointing}"]
    run = Broken(films, tmp_path, "", recorder=recorder, keys=keys)
    assert f"the output of {conv} is the first" in run.error


@pytest.mark.parametrize("how", CASES)
def test_until_the_host_looks_the_fused_optimizer_skips(films, tmp_path, fused, how):
    run = Broken(films, tmp_path, how, watch=Delayed, keys=["trainer.gradient_clip_val=1.0"])
    assert len(run.recorder.rows) == 19  # looked at 0, 6, 9 (epoch's last), 12, 18
    assert f"training stopped at optimizer step {BAD_STEP} in epoch 2: {CASES[how]}" in run.error
    assert f"rows {', '.join(map(str, run.recorder.rows[BAD_STEP][:5]))}, ..." in run.error
    before = run.recorder.states[BAD_STEP]
    weights = [name for name, _ in run.model.named_parameters()]
    assert run.weights_equal(before, weights)
    assert all(v.isfinite().all() for v in run.model.state_dict().values())
    saved = run.checkpoint()
    steps = {float(s["step"]) for s in saved["optimizer_states"][0]["state"].values()}
    assert steps == {float(BAD_STEP)}
    statistics = [name for name in before if name.endswith("running_var")]
    assert run.weights_equal(run.recorder.states[13], statistics)  # of the look after step 12
    assert not hasattr(run.trainer.optimizers[0], "found_inf")


def test_a_step_that_is_good_but_late_in_the_epoch_is_looked_at(films, tmp_path, fused):
    """Before validation would meet the damaged statistics, or the epoch's checkpoint."""

    class Late(Recorder):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if len(self.rows) == 8:
                pl_module.backbone.film, pl_module.backbone.armed = batch["image"][0].clone(), True
            self.rows.append(batch["index"].tolist())

    run = Broken(films, tmp_path, "features", watch=Delayed, recorder=Late)
    assert "training stopped at optimizer step 8 in epoch 1" in run.error


def test_the_bad_one_of_accumulated_batches_is_found(films, tmp_path):
    run = Broken(films, tmp_path, "gradient", keys=["trainer.accumulate_grad_batches=2"])
    (place,) = run.checkpoint()["nonfinite"]["batches"]
    assert (place["batch_idx"], place["index"]) == (3, run.recorder.rows[BAD_STEP])
    assert "training stopped at optimizer step 6 in epoch 2" in run.error
    assert run.weights_equal(run.recorder.states[12], [n for n, _ in run.model.named_parameters()])


def test_a_gradient_that_closed_units_hide_from_the_rest_is_found(films, tmp_path):
    """Not every gradient that is not finite reaches the first layer: each one is checked."""

    class Burst(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 4:
                pl_module.head.norm.weight.grad[2] = math.inf

    cfg = tiny_config(films, *KEYS)
    data = build.build_data(cfg, build.build_studies(cfg))
    trainer = bare_trainer(cfg, [Burst(), NonFinite(tmp_path)])
    said = "step 4 in epoch 1: the loss or a gradient is not finite"
    with pytest.raises(InputError, match=said):
        trainer.fit(build.build_classifier(cfg, data), datamodule=data)


@pytest.mark.parametrize("watch", [NonFinite, Delayed])
def test_a_healthy_run_is_untouched(films, tmp_path, watch, fused):
    plain, watched = (Broken(films, tmp_path, "", watch=w) for w in (Blind, watch))
    assert watched.error is None
    assert watched.weights_equal(plain.model.state_dict())
    assert not hasattr(watched.trainer.optimizers[0], "found_inf")
    assert watched.watch._steps == []
    assert not watched.path.exists()


def test_wandb_is_told_what_broke_but_no_rows_of_the_table(films, tmp_path):
    logger = wandb_logger.make_wandb_logger(tmp_path, wandb_config(), "offline", "a1b2c3d4")
    try:
        broken = Broken(films, tmp_path, "features", logger=logger)
    finally:
        wandb_logger.finish(1)
    (alert,) = OfflineRun(tmp_path)._of("alert")
    assert alert.level == "ERROR"
    assert alert.text == broken.error.partition(", on ")[0]
    assert f"training stopped at optimizer step {BAD_STEP} in epoch" in alert.text


class Counter(CountedSteps):
    rows = ()


def test_nothing_waits_for_the_device_between_two_looks(films, tmp_path, fused):
    counts = [
        Broken(films, tmp_path, "", watch=watch, recorder=Counter).recorder.per_step
        for watch in (Delayed, Blind)
    ]
    extra = [on - off for on, off in zip(*counts, strict=True)]
    looks = [0, 6, 9, 12, 18, 19]
    assert len(extra) == 20
    assert [step for step in range(20) if extra[step]] == looks
    assert {extra[step] for step in looks} == {1}


def test_what_was_drawn_in_the_bad_batch_is_drawn_again(films, tmp_path):
    run = Broken(films, tmp_path, "noise")
    assert f"optimizer step {BAD_STEP} in epoch 2: the output of backbone.trap" in run.error


def test_mixed_precision_is_a_cause_that_is_named(films, tmp_path):
    run = Broken(films, tmp_path, "gradient", keys=["trainer.precision=bf16-mixed"])
    assert f"optimizer step {BAD_STEP} in epoch 2: the gradient of backbone.backbone" in run.error
    assert "trainer.gradient_clip_val, or set trainer.precision=32-true" in run.error


class Scaled(pl.plugins.MixedPrecision):
    """The loss scaler of 16-mixed, which Lightning gives to GPUs alone."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


def test_with_a_loss_scaler_gradients_may_overflow_but_not_the_loss(films, tmp_path):
    options = {"plugins": [Scaled()], "precision": None, "watch": Delayed}
    run = Broken(films, tmp_path / "gradient", "gradient", **options)
    assert run.error is None
    options["plugins"] = [Scaled()]
    run = Broken(films, tmp_path / "loss", "loss", **options)
    assert f"training stopped at optimizer step {BAD_STEP} in epoch 2: the loss" in run.error
    weights = [name for name, _ in run.model.named_parameters()]
    assert len(run.recorder.rows) == 19
    assert run.weights_equal(run.recorder.states[BAD_STEP], weights)
