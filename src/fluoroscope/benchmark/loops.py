"""The same training without Lightning: a loop by hand, and timm's own step."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import timm
import torch
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import Tensor

from fluoroscope.benchmark.timing import Block, now
from fluoroscope.benchmark.training import Repeated, Training
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Batch
from fluoroscope.model.optimizer import parameter_groups, warmup_cosine

HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def bare(training: Training, steps: int, warmup: int) -> Block:
    """Fit the model itself by hand: the same loss, parameter groups, AdamW, schedule, precision."""
    cfg, device = training.cfg, training.device
    model = training.model.to(device).train()
    keys = cfg.optimizer
    groups = parameter_groups(
        model.backbone,
        model.head,
        lr=keys.lr,
        backbone_lr=keys.backbone_lr,
        weight_decay=keys.weight_decay,
        layer_decay=keys.layer_decay,
    )
    half = cfg.trainer.precision == "16-mixed"
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda" and not half)
    schedule = warmup_cosine(optimizer, int(keys.warmup_frac * steps), steps)
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    clip = cfg.trainer.gradient_clip_val

    def step(batches: list[Batch]) -> None:
        optimizer.zero_grad()
        for batch in batches:
            with _autocast(training):
                loss = model.loss(model(batch["image"]), batch["target"])
            scaler.scale(loss / len(batches)).backward()
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()

    block = _time(step, training, training.batches, steps, warmup)
    model.cpu()
    return block


class Timm:
    """timm's own training step of the same network, out of the parts of its train.py.

    `create_model` with a linear classifier, `create_optimizer_v2("adamw")` with one learning rate,
    `BinaryCrossEntropy`, autocast, and `NativeScaler` for float16. It has less to do than this
    project's step: its images are normalised colour floats already (timm's loader does that), its
    head is one linear layer, there is no schedule, no logger, and nothing is watched.

    Raises:
        InputError: the backbone is frozen, for which train.py has no step.
    """

    def __init__(self, training: Training) -> None:
        cfg = training.cfg
        if cfg.backbone.frozen:
            raise InputError("timm's train.py has no step with a frozen backbone")
        self.training = training
        labels, args = len(training.model.labels), dict(cfg.backbone.args)
        model: Any = timm.create_model(cfg.backbone.name, num_classes=labels, **args)
        if cfg.backbone.channels_last:
            model.to(memory_format=torch.channels_last)
        if cfg.backbone.grad_checkpointing:
            model.set_grad_checkpointing(True)
        if cfg.backbone.compile:
            model.compile()
        self.model, self._start = model, copy.deepcopy(model.state_dict())
        self.batches = [{**b, "image": self._normalised(b["image"])} for b in training.batches]

    def _normalised(self, image: Tensor) -> Tensor:
        backbone = self.training.model.backbone
        mean, std = backbone.mean.to(image.device), backbone.std.to(image.device)
        x = (image.float() / 255 - mean) / std  # [B, 3, H, W]
        return x.contiguous(memory_format=backbone.memory_format)

    def restart(self) -> None:
        """As `Training.restart`."""
        self.model.load_state_dict(self._start)

    def fit(self, steps: int, warmup: int) -> Block:
        cfg, device = self.training.cfg, self.training.device
        model = self.model.to(device).train()
        decay = cfg.optimizer.weight_decay
        optimizer = create_optimizer_v2(model, "adamw", lr=cfg.optimizer.lr, weight_decay=decay)
        criterion = BinaryCrossEntropy(smoothing=cfg.loss.label_smoothing, smooth_dense=True)
        half, clip = cfg.trainer.precision == "16-mixed", cfg.trainer.gradient_clip_val
        scaler = NativeScaler(device=device.type) if half else None

        def step(batches: list[Batch]) -> None:
            for number, batch in enumerate(batches, start=1):
                with _autocast(self.training):
                    loss = criterion(model(batch["image"]), batch["target"]) / len(batches)
                due = number == len(batches)
                if scaler is not None:
                    scaler(loss, optimizer, clip, parameters=model.parameters(), need_update=due)
                    continue
                loss.backward()
                if due and clip is not None:
                    dispatch_clip_grad(model.parameters(), clip)
                if due:
                    optimizer.step()
            optimizer.zero_grad()

        block = _time(step, self.training, self.batches, steps, warmup)
        model.cpu()
        return block


def _autocast(training: Training) -> AbstractContextManager[Any]:
    dtype = HALVES.get(training.cfg.trainer.precision)
    return torch.autocast(training.device.type, dtype) if dtype else nullcontext()


def _time(
    step: Callable[[list[Batch]], None],
    training: Training,
    batches: list[Batch],
    steps: int,
    warmup: int,
) -> Block:
    """As `timing.Clock` times a fit."""
    each = training.cfg.trainer.accumulate_grad_batches
    feed: Iterator[Batch] = iter(Repeated(batches, steps * each))
    for _ in range(warmup):
        step(list(islice(feed, each)))
    first = now(training.device)
    for _ in range(steps - warmup):
        step(list(islice(feed, each)))
    last = now(training.device)
    timed = steps - warmup
    return Block(
        step_s=(last.wall_s - first.wall_s) / timed,
        end_s=0.0,
        step_cpu_s=(last.cpu_s - first.cpu_s) / timed,
    )
