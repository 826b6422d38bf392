"""Train many heads on one frozen backbone in one pass; write one run folder per head."""

import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope.ablation.bank import head_bytes
from fluoroscope.ablation.head_folder import check_folder, check_source, write_head
from fluoroscope.ablation.members import Batches, Member
from fluoroscope.ablation.training import Pass
from fluoroscope.config.ablate import Ablation
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.console import Progress, short_path
from fluoroscope.data.feature_data import FeatureDataModule
from fluoroscope.errors import InputError, plural
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.model.backbone import Backbone
from fluoroscope.run import run_folder, summary, wandb_logger, wandb_mode
from fluoroscope.run.device import settle_device
from fluoroscope.run.input_check import check_batch_norm

HEADS = "heads"
GIB = 2**30


def main(ablation: Ablation) -> None:
    """Entry of `scripts/ablate.py`."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        raise InputError(
            "-m is not available for an ablation; list all heads in activations, seeds and grid"
        )
    folder = Path(hydra.runtime.output_dir)
    try:
        ablate(ablation, folder, list(hydra.overrides.task))
    except (KeyboardInterrupt, SystemExit) as stop:  # Ctrl-C, or a scheduler's signal
        print(f"stopped; to continue, repeat the command with run.dir={short_path(folder)}")
        sys.exit(getattr(stop, "code", 130))
    print(f"folder {short_path(folder)}")
    if ablation.report:
        _report(ablation, folder)


def _report(ablation: Ablation, folder: Path) -> None:
    """Write the report of `scripts/report.py runs=FOLDER`; it lists the heads that diverged."""
    from fluoroscope import report
    from fluoroscope.reporting.collect import activation_name

    finished = [
        activation_name(plain(cfg)["head"])
        for name, cfg in ablation.heads.items()
        if (folder / HEADS / name / run_folder.RESULT).exists()
    ]
    reference = "relu" if "relu" in finished else next(iter(finished), "relu")
    report.main(report.Job([folder], None, None, None, reference, incomplete=True, resamples=1000))


def ablate(ablation: Ablation, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Train the heads that `folder` lacks; write the run folder `heads/NAME` of each.

    Args:
        overrides: command-line overrides, stored in `provenance.json`.

    Raises:
        InputError: before the first pass, if a head's configuration is invalid or `folder` holds
            another study.
    """
    for note in ablation.notes:
        print(note)
    for cfg in ablation.heads.values():
        settle_device(cfg)
        if cfg.backbone.weights == "hub":
            check_hub(cfg.backbone.name)
    for cfg in _distinct(ablation.heads.values()):
        build.check_model(cfg)
    study = Ablating(ablation, folder, overrides)
    passes = study.plan()
    with Progress("heads", total=sum(study.work(names) for names in passes)) as progress:
        for number, names in enumerate(passes, start=1):
            label, started = f"pass {number}/{len(passes)}", time.perf_counter()
            advance = partial(
                progress.advance, len(names), f"{label}, {plural(len(names), 'head')}, batches"
            )
            members = study.train(names, advance)
            seconds = time.perf_counter() - started
            study.write(members, seconds)
            print(f"{label}: {_summed(members)}  {seconds:.1f} s", flush=True)
            del members
            gc.collect()  # optimizer and schedule form a cycle that keeps the weights alive


class Ablating:
    """The studies, features, backbones and folder of an ablation."""

    def __init__(self, ablation: Ablation, folder: Path, overrides: Sequence[str]) -> None:
        self.ablation, self.folder = ablation, folder
        first = next(iter(ablation.heads.values()))
        self.studies = build.build_studies(first)
        summary.print_studies(self.studies)
        for cfg in ablation.heads.values():
            cfg.data.labels = self.studies.labels  # the list, since "all labels" may change later
        for cfg in _distinct(ablation.heads.values()):
            check_batch_norm(cfg, build.build_data(cfg, self.studies), processes=1)
        source = {"features": ablation.features, "views": ablation.views}
        for name, cfg in ablation.heads.items():
            check_folder(cfg, folder / HEADS / name, self.studies)
            check_source(source, folder / HEADS / name)
        self.provenance = run_folder.provenance(list(overrides), self.studies.fingerprint) | source
        self.mode, self.why = wandb_mode.choose_mode(first.logger.mode)
        trainer = build.build_trainer(first, folder)
        self.device, self.precision = trainer.strategy.root_device, trainer.precision_plugin
        self.backbones: dict[Any, Backbone] = {}
        self.cached: dict[Any, torch.Tensor] = {}

    def plan(self) -> list[list[str]]:
        """Names of the heads of each pass: same batches, and as many heads as memory allows."""
        heads, place = self.ablation.heads, self.folder / HEADS
        diverged = {name for name in heads if (place / name / run_folder.FAILED).exists()}
        done = {name for name in heads if (place / name / run_folder.RESULT).exists()} | diverged
        todo = {name: cfg for name, cfg in heads.items() if name not in done}
        passes = [part for names in _by_batches(todo) for part in self._that_fit(names)]
        todo_line = f"{plural(len(todo), 'head')} in {len(passes)} pass{'es' * (len(passes) != 1)}"
        todo_line += f", {len(done)} already done" * (len(done) > 0)
        todo_line += f" ({len(diverged)} diverged)" * (len(diverged) > 0)
        print(f"{todo_line}; {self.why if self.mode != 'off' else 'heads are not sent to W&B'}")
        return passes

    def _that_fit(self, names: list[str]) -> Iterator[list[str]]:
        cfg = self.ablation.heads[names[0]]
        features = self._backbone(cfg).num_features
        budget = self.ablation.memory_gib * GIB
        part: list[str] = []
        used = 0.0
        for name in names:
            needed = head_bytes(self.ablation.heads[name], features, len(self.studies.labels))
            if part and used + needed > budget:
                yield part
                part, used = [], 0.0
            part, used = [*part, name], used + needed
        yield part

    def work(self, names: Sequence[str]) -> int:
        """Number of training batches of a pass, times its number of heads."""
        cfg = self.ablation.heads[names[0]]
        batches = build.build_data(cfg, self.studies).train_sampler().batches
        return batches * cfg.trainer.max_epochs * len(names)

    def train(self, names: Sequence[str], on_batch: Any) -> list[Member]:
        """Train one pass; return its members with their results."""
        cfgs = [self.ablation.heads[name] for name in names]
        data = build.build_data(cfgs[0], self.studies)
        backbone, data = self._source(cfgs[0], data)
        width: Any = backbone.num_features
        members = [Member(cfg, build.build_head(cfg, width, data)) for cfg in cfgs]
        loss = build.build_loss(cfgs[0], data).to(self.device)
        shared = Batches(backbone, data, loss, self.device, self.precision)
        Pass(members, shared, on_batch).run()
        return members

    def write(self, members: Sequence[Member], seconds: float) -> None:
        """Write the run folder of each member; each `fit_s` is an equal share of the pass."""
        places = [self.folder / HEADS / member.cfg.run.name for member in members]
        for member, place in zip(members, places, strict=True):
            write_head(member, place, self.studies, self.provenance, seconds / len(members))
        if self.mode != "off":  # only now, since the server may fail
            for member, place in zip(members, places, strict=True):
                self._send(member, place)

    def _send(self, member: Member, place: Path) -> None:
        """Log a member to W&B as one run."""
        run_id = run_folder.read_json(place / run_folder.PROVENANCE)["run_id"]
        sink = build.build_loggers(member.cfg, place, self.mode, run_id)[-1]
        for row in member.rows:
            sink.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        if member.failed is None:
            wandb_logger.record(run_folder.read_json(place / run_folder.RESULT))
        wandb_logger.finish(0 if member.failed is None else 1)

    def _backbone(self, cfg: Train) -> Backbone:
        """The backbone of a head: one for all heads, or one per seed if it is untrained."""
        key = _backbone_seed(cfg)
        if key not in self.backbones:
            self.backbones[key] = build.build_backbone(cfg)
        return self.backbones[key]

    def _source(self, cfg: Train, data: Any) -> tuple[Any, Any]:
        """The backbone, and its batches of images or of precomputed features."""
        backbone = self._backbone(cfg)
        if self.ablation.features == "live":
            return self.precision.convert_module(backbone.eval().to(self.device)), data
        if id(backbone) not in self.cached:
            # The first seed draws the views, so that they do not depend on which heads are done.
            heads = self.ablation.heads.values()
            first = next(c for c in heads if _backbone_seed(c) == _backbone_seed(cfg))
            images = build.build_data(first, self.studies)
            self.cached[id(backbone)] = build.build_features(cfg, images, backbone, self.device)
        return backbone, FeatureDataModule(data, self.cached[id(backbone)])


def _backbone_seed(cfg: Train) -> int:
    """Seed of the backbone's weights; -1 if they are pretrained. Heads with one value share it."""
    return cfg.seed if cfg.backbone.weights == "none" else -1


def _by_batches(heads: Mapping[str, Train]) -> Iterator[list[str]]:
    """Groups of heads that see the same batches in the same order, by name."""

    def key(name: str) -> tuple[int, int]:
        cfg = heads[name]
        order = cfg.seed if cfg.data.order_seed is None else cfg.data.order_seed
        return order, _backbone_seed(cfg)

    for _, names in groupby(sorted(heads, key=key), key=key):
        yield list(names)


def _distinct(cfgs: Any) -> list[Train]:
    """One configuration for each distinct `head` section."""
    return list({OmegaConf.to_yaml(cfg.head): cfg for cfg in cfgs}.values())


def _summed(members: Sequence[Member]) -> str:
    """The console line of a pass: lowest and highest test AUROC and dead share."""
    heads, alive = plural(len(members), "head"), [m for m in members if m.failed is None]
    failed = f", {len(members) - len(alive)} diverged" if len(alive) < len(members) else ""
    if not alive:
        return f"{heads}{failed}"
    aurocs = [m.scores["test"]["auroc"] for m in alive]
    dead = [m.record.metrics.history.last["units/val/dead_frac"] for m in alive]
    return (
        f"{heads}, seed {members[0].cfg.seed}{failed}: test AUROC {min(aurocs):.3f} to "
        f"{max(aurocs):.3f}, dead units {min(dead):.1%} to {max(dead):.1%}"
    )
