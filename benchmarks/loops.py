"""The same training without Lightning: a loop by hand, and timm's own step; and its arithmetic."""

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
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fits import Block, Repeated, Training, block_between, now
from fluoroscope.errors import InputError
from fluoroscope.model.classifier import Batch
from fluoroscope.model.optimizer import parameter_groups, warmup_cosine

aten = torch.ops.aten
UNMOVED = {aten.empty, aten.empty_like, aten.empty_strided, aten.detach, aten.new_empty}
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Dense 16-bit tensor operations per second with 32-bit accumulation, without sparsity, by a part of
# the device's name; the first match counts. Source: NVIDIA's data sheets.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
# Bytes per second of a device's memory. Source: NVIDIA's data sheets.
PEAK_BYTES = {
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100": 3.35e12,
    "A100-SXM4-40GB": 1.555e12,
    "A100": 2.0e12,
    "L40S": 864e9,
    "L4": 300e9,
    "RTX 4090": 1008e9,
    "RTX 3090": 936e9,
}


def time_bare(training: Training) -> Block:
    """Fit the model by hand: the same loss, parameter groups, AdamW, schedule and precision."""
    cfg, device = training.cfg, training.device
    model = training.model.to(device).train()
    keys, steps = cfg.optimizer, training.options.warmup + training.options.steps
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

    block = _time(step, training, training.batches)
    model.cpu()
    return block


class Timm:
    """timm's own training step of the same network, built from the parts of its train.py.

    `create_model` with a linear classifier, `create_optimizer_v2("adamw")` with one learning rate,
    `BinaryCrossEntropy`, autocast, and `NativeScaler` for float16. It does less than this
    project's step: its images are normalised colour floats already (timm's loader does that), its
    head is one linear layer, and it has no schedule, no logger and no diagnostics.

    Raises:
        InputError: the backbone is frozen; train.py has no step for that.
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
        self.batches = [{**b, "image": self._normalise(b["image"])} for b in training.batches]

    def _normalise(self, image: Tensor) -> Tensor:
        backbone = self.training.model.backbone
        mean, std = backbone.mean.to(image.device), backbone.std.to(image.device)
        x = (image.float() / 255 - mean) / std  # [B, 3, H, W]
        return x.contiguous(memory_format=backbone.memory_format)

    def time(self) -> Block:
        """A fit from the initial weights."""
        self.model.load_state_dict(self._start)
        return self.fit()

    def fit(self) -> Block:
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

        block = _time(step, self.training, self.batches)
        model.cpu()
        return block


def _autocast(training: Training) -> AbstractContextManager[Any]:
    dtype = HALVES.get(training.cfg.trainer.precision)
    return torch.autocast(training.device.type, dtype) if dtype else nullcontext()


def _time(step: Callable[[list[Batch]], None], training: Training, batches: list[Batch]) -> Block:
    """Time the steps as `fits.Clock` times those of a fit."""
    warmup, steps = training.options.warmup, training.options.steps
    each = training.cfg.trainer.accumulate_grad_batches
    feed: Iterator[Batch] = iter(Repeated(batches, (warmup + steps) * each))
    for _ in range(warmup):
        step(list(islice(feed, each)))
    first = now(training.device)
    for _ in range(steps):
        step(list(islice(feed, each)))
    last = now(training.device)
    return block_between(first, last, steps, last)


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of a chip by its name; None if the chip or the precision is not in the table."""
    if precision not in HALVES:
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)


def peak_bytes(device: str) -> float | None:
    """Bytes/s of a chip's memory by its name; None if it is not in the table."""
    return next((peak for name, peak in PEAK_BYTES.items() if name in device), None)


class _Traffic(TorchDispatchMode):
    """Bytes of all tensors that operators read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outs = func(*args, **(kwargs or {}))
        if not (func.is_view or func.overloadpacket in UNMOVED):
            tensors = [x for x in tree_leaves((args, kwargs, outs)) if isinstance(x, Tensor)]
            # An expanded tensor is read once, however often it is repeated.
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)
        return outs


def step_bytes(training: Training) -> int:
    """Bytes that the eager operators of a step of `bare` read and write, forward and backward.

    An upper bound of the memory traffic: what a cache still holds is not read from memory again.
    """
    model = training.model.to(training.device).train()
    batch = training.batches[0]
    with torch.compiler.set_stance("force_eager"), _Traffic() as traffic:
        with _autocast(training):
            loss = model.loss(model(batch["image"]), batch["target"])
        loss.backward()
    model.zero_grad()
    weights = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    model.cpu()
    # AdamW reads weight, gradient and two moments, and writes all but the gradient.
    return traffic.bytes * training.cfg.trainer.accumulate_grad_batches + 7 * weights


def step_flops(backbone: nn.Module, head: nn.Module, image: Tensor, frozen: bool) -> int:
    """Floating-point operations of a training step of one image `[1, 1, H, W]`.

    Counts matrix products and convolutions, a multiplication and an addition each: once for the
    forward pass, twice that for the backward pass of what is trained. Operations that
    checkpointing repeats do not count. torch's own count of the backward pass is not used: it
    takes the weight gradient of a depthwise convolution for that of a full one.
    """
    modes = {part: part.training for top in (backbone, head) for part in top.modules()}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        try:
            forward, features = _count(backbone.eval(), image)
            tail, _ = _count(head.eval(), features)
        finally:
            for part, mode in modes.items():
                part.training = mode
    return (1 if frozen else 3) * forward + 3 * tail


def _count(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    with FlopCounterMode(display=False) as counter:
        y = module(x)
    return counter.get_total_flops(), y
