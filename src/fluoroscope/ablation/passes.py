"""Train one pass and write the run folders of its heads, in this or in another process."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins import Precision
from torch import Tensor, nn

from fluoroscope import build
from fluoroscope.ablation.head_folder import write_head
from fluoroscope.ablation.members import Batches, Member, Row
from fluoroscope.ablation.training import Pass
from fluoroscope.config.train import Train
from fluoroscope.data.feature_data import FeatureDataModule
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import plural
from fluoroscope.model.backbone import Backbone
from fluoroscope.model.own_scores import own_scores


class Finished(NamedTuple):
    """A pass whose heads are on disk."""

    line: str  # its scores, for the console
    seconds: float  # of its training
    rows: dict[str, list[Row]]  # logged numbers of each head, by name


class PassRunner(NamedTuple):
    """Everything that the passes of an ablation share; it can be sent to another process.

    Attributes:
        heads: configurations, by name.
        folder: of the heads' run folders.
        provenance: entries of each `provenance.json`.
        sources: by `backbone_seed`, the backbone of live images or the features `[1 + V, N, F]`.
        threads: of PyTorch in a pass; they determine the last bits of its sums.
    """

    heads: Mapping[str, Train]
    folder: Path
    studies: Studies
    provenance: Mapping[str, Any]
    sources: Mapping[int, Backbone | Tensor]
    device: torch.device
    precision: Precision
    threads: int

    def run(self, names: Sequence[str], on_batch: Callable[[], None]) -> Finished:
        """Train the heads and write their folders; each `fit_s` is an equal share of the pass."""
        gc.collect()  # optimizer and schedule form a cycle that keeps an earlier pass alive
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        started = time.perf_counter()
        members = self._train([self.heads[name] for name in names], on_batch)
        seconds = time.perf_counter() - started
        for name, member in zip(names, members, strict=True):
            share = seconds / len(members)
            write_head(member, self.folder / name, self.studies, self.provenance, share)
        rows = {name: member.rows for name, member in zip(names, members, strict=True)}
        return Finished(_summed(members), seconds, rows)

    def _train(self, cfgs: Sequence[Train], on_batch: Callable[[], None]) -> list[Member]:
        data: Any = build.build_data(cfgs[0], self.studies)
        source = self.sources[backbone_seed(cfgs[0])]
        backbone: nn.Module = nn.Identity()
        if isinstance(source, Tensor):
            width, data = source.shape[-1], FeatureDataModule(data, source)
        else:
            width, backbone = source.num_features, source
        members = [Member(cfg, build.build_head(cfg, width, data)) for cfg in cfgs]
        loss = build.build_loss(cfgs[0], data).to(self.device)
        shared = Batches(
            *(backbone, data, loss, self.device, self.precision), own_scores(cfgs[0].scores)
        )
        Pass(members, shared, on_batch).run()
        return members


def backbone_seed(cfg: Train) -> int:
    """Seed of the backbone's weights; -1 if they are pretrained. Heads with one value share it."""
    return cfg.seed if cfg.backbone.weights == "none" else -1


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
