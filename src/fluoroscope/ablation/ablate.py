"""Train many heads on one frozen backbone in one pass; write one run folder per head."""

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope.ablation.bank import head_bytes
from fluoroscope.ablation.head_folder import check_folder, check_source, keep_momentum
from fluoroscope.ablation.passes import Finished, PassRunner, backbone_seed
from fluoroscope.ablation.separate_steps import check_separate
from fluoroscope.ablation.workers import Workers, share, start_imports
from fluoroscope.choices import ADAMW
from fluoroscope.config.ablate import Ablation
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train
from fluoroscope.console import Progress, short_path
from fluoroscope.errors import plural
from fluoroscope.launch.process_setup import cores
from fluoroscope.launch.stopping import Stopped
from fluoroscope.model.backbone import Backbone
from fluoroscope.run import run_folder, summary, wandb_logger, wandb_mode
from fluoroscope.run.device import settle_device
from fluoroscope.run.starting_weights import settle
from fluoroscope.run.training_check import check_training, settle_momentum

HEADS = "heads"
GIB = 2**30


def main(ablation: Ablation) -> None:
    """Entry of `scripts/ablate.py`."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        ablate(ablation, folder, list(hydra.overrides.task))
    except (KeyboardInterrupt, SystemExit) as stop:  # Ctrl-C, or a scheduler's signal
        print(f"stopped; to continue, repeat the command with run.dir={short_path(folder)}")
        if isinstance(stop, Stopped):
            stop.told = True
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
    report.main(report.Job([folder], None, None, None, reference, incomplete=True))


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
        settle(cfg)
    for cfg in _distinct(ablation.heads.values()):
        build.check_model(cfg)
    first = next(iter(ablation.heads.values()))
    if first.optimizer.name != ADAMW:
        check_separate(build.build_descent(first))
    study = Ablating(ablation, folder, overrides)
    passes = study.plan()
    total = sum(study.work(names) for names in passes)
    with (
        Progress("heads", total) as progress,
        closing(study.train(passes, progress)) as trained,
    ):
        for number, done in enumerate(trained, start=1):
            study.send(done)
            print(f"pass {number}/{len(passes)}: {done.line}  {done.seconds:.1f} s", flush=True)


class Ablating:
    """The studies, backbones, features and folder of an ablation."""

    def __init__(self, ablation: Ablation, folder: Path, overrides: Sequence[str]) -> None:
        self.ablation, self.folder = ablation, folder
        first = next(iter(ablation.heads.values()))
        trainer = build.build_trainer(first, folder)
        self.device, self.precision = trainer.strategy.root_device, trainer.precision_plugin
        # A GPU, or a backbone in each batch, is busy with one pass.
        self._alone = self.device.type != "cpu" or ablation.features == "live"
        self.studies = build.build_studies(first)
        summary.print_studies(self.studies)
        for cfg in ablation.heads.values():
            cfg.data.labels = self.studies.labels  # the list, since "all labels" may change later
        data = build.build_data(first, self.studies)
        keep_momentum(ablation.heads, folder / HEADS)
        settle_momentum(ablation.heads.values(), data, processes=1)
        for cfg in _distinct(ablation.heads.values()):
            check_training(cfg, build.build_data(cfg, self.studies), processes=1)
        source = {"features": ablation.features, "views": ablation.views}
        for name, cfg in ablation.heads.items():
            check_folder(cfg, folder / HEADS / name, self.studies)
            check_source(source, folder / HEADS / name)
        self.provenance = run_folder.provenance(list(overrides), self.studies) | source
        self.mode, self.why = wandb_mode.choose_mode(first.logger.mode)
        self.backbones: dict[int, Backbone] = {}

    def plan(self) -> list[list[str]]:
        """Names of the heads of each pass: same batches, and as many heads as memory allows."""
        heads, place = self.ablation.heads, self.folder / HEADS
        diverged = {name for name in heads if (place / name / run_folder.FAILED).exists()}
        done = {name for name in heads if (place / name / run_folder.RESULT).exists()} | diverged
        todo = {name: cfg for name, cfg in heads.items() if name not in done}
        passes = [part for names in _by_batches(todo) for part in self._that_fit(names)]
        todo_line = f"{plural(len(todo), 'head')} in {len(passes)} pass{'es' * (len(passes) != 1)}"
        at_once = self.at_once(passes)
        todo_line += f" ({at_once} at a time)" * (at_once > 1)
        todo_line += f", {len(done)} already done" * (len(done) > 0)
        todo_line += f" ({len(diverged)} diverged)" * (len(diverged) > 0)
        print(f"{todo_line}; {self.why if self.mode != 'off' else 'heads are not sent to W&B'}")
        return passes

    def _that_fit(self, names: list[str]) -> Iterator[list[str]]:
        part: list[str] = []
        used = 0.0
        for name in names:
            needed = self._bytes([name])
            if part and used + needed > self.ablation.memory_gib * GIB:
                yield part
                part, used = [], 0.0
            part, used = [*part, name], used + needed
        yield part

    def _bytes(self, names: Sequence[str]) -> float:
        """Memory for training heads."""
        cfgs, labels = [self.ablation.heads[name] for name in names], len(self.studies.labels)
        return sum(head_bytes(cfg, self._backbone(cfg).num_features, labels) for cfg in cfgs)

    def at_once(self, passes: Sequence[Sequence[str]]) -> int:
        """Number of passes that train at the same time, as many as cores and memory allow."""
        needed = sorted(map(self._bytes, passes), reverse=True)
        count = 1 if self._alone else min(cores(), len(passes))
        while count > 1 and sum(needed[:count]) > self.ablation.memory_gib * GIB:
            count -= 1
        return count

    def work(self, names: Sequence[str]) -> int:
        """Number of training batches of a pass, times its number of heads."""
        cfg = self.ablation.heads[names[0]]
        batches = build.build_data(cfg, self.studies).train_sampler().batches
        return batches * cfg.trainer.max_epochs * len(names)

    def train(
        self, passes: Sequence[Sequence[str]], progress: Progress
    ) -> Generator[Finished, None, None]:
        """Train the passes and write their heads; yield each pass, in their order."""
        at_once, sizes = self.at_once(passes), [len(names) for names in passes]
        if at_once > 1:
            start_imports()
        runner = self._runner(passes)
        if at_once > 1 and share(runner.sources.values()):
            text = f"{plural(sum(sizes), 'head')}, {at_once} passes at a time, batches"
            with Workers(at_once, runner, passes) as workers:
                yield from workers.finished(lambda i: progress.advance(sizes[i], text))
            return
        for number, names in enumerate(passes, start=1):
            text = f"pass {number}/{len(passes)}, {plural(len(names), 'head')}, batches"
            yield runner.run(names, partial(progress.advance, len(names), text))

    def _runner(self, passes: Sequence[Sequence[str]]) -> PassRunner:
        heads, threads = self.ablation.heads, torch.get_num_threads()
        sources: dict[int, Any] = {}
        for cfg in [heads[names[0]] for names in passes]:
            if backbone_seed(cfg) not in sources:
                sources[backbone_seed(cfg)] = self._source(cfg)
        if not self._alone:
            # Of all heads: it must not depend on what is done, or on what runs at once.
            # Two at least, since a pass uses a second core for a part of the time.
            threads = min(threads, max(2, cores() // len(list(_by_batches(heads)))))
        place = self.folder / HEADS
        machine = self.device, self.precision, threads
        return PassRunner(heads, place, self.studies, self.provenance, sources, *machine)

    def send(self, done: Finished) -> None:
        """Log each head of a pass to W&B as one run."""
        if self.mode == "off":
            return
        for name, rows in done.rows.items():
            cfg, place = self.ablation.heads[name], self.folder / HEADS / name
            run_id = run_folder.read_json(place / run_folder.PROVENANCE)["run_id"]
            sink = build.build_loggers(cfg, place, self.mode, run_id)[-1]
            for row in rows:
                sink.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
            trained = (place / run_folder.RESULT).exists()
            if trained:
                wandb_logger.record(run_folder.read_json(place / run_folder.RESULT))
            wandb_logger.finish(0 if trained else 1)

    def _backbone(self, cfg: Train) -> Backbone:
        """The backbone of a head: one for all heads, or one per seed if it is untrained."""
        key = backbone_seed(cfg)
        if key not in self.backbones:
            self.backbones[key] = build.build_backbone(cfg)
        return self.backbones[key]

    def _source(self, cfg: Train) -> Any:
        """What feeds a head: the backbone of live images, or precomputed features."""
        backbone = self._backbone(cfg)
        if self.ablation.features == "live":
            return self.precision.convert_module(backbone.eval().to(self.device))
        # The first seed draws the views, so that they do not depend on which heads are done.
        heads = self.ablation.heads.values()
        first = next(c for c in heads if backbone_seed(c) == backbone_seed(cfg))
        images = build.build_data(first, self.studies)
        return build.build_features(cfg, images, backbone, self.device)


def _by_batches(heads: Mapping[str, Train]) -> Iterator[list[str]]:
    """Groups of heads that see the same batches in the same order, by name."""

    def key(name: str) -> tuple[int, int]:
        cfg = heads[name]
        order = cfg.seed if cfg.data.order_seed is None else cfg.data.order_seed
        return order, backbone_seed(cfg)

    for _, names in groupby(sorted(heads, key=key), key=key):
        yield list(names)


def _distinct(cfgs: Any) -> list[Train]:
    """One configuration for each distinct `head` section."""
    return list({OmegaConf.to_yaml(cfg.head): cfg for cfg in cfgs}.values())
