"""Tiny fits, one after the other, in one process or in several at once."""

import hashlib
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytorch_lightning as pl
import torch

from fluoroscope import build
from fluoroscope.config.run_checks import DEBUGGING
from fluoroscope.config.schema import plain
from fluoroscope.diagnostics.monitor import Monitor
from fluoroscope.diagnostics.postmortem import PostMortem
from tests.support.films import tiny_config


def bare_trainer(cfg, callbacks=(), **keys) -> pl.Trainer:
    """Lightning's trainer by the configuration, with these callbacks alone; it says nothing."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "use_distributed_sampler": False}
    configured = {k: v for k, v in plain(cfg)["trainer"].items() if k not in DEBUGGING}
    return pl.Trainer(**configured | quiet | keys, callbacks=list(callbacks))


def fuse_adamw(monkeypatch) -> None:
    """AdamW as the classifier makes it on a GPU; the CPU has the kernel too."""
    plain = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: plain(groups, fused=True))


def trace_only(monkeypatch, backend: str = "eager") -> None:
    """Dynamo traces what is compiled and a backend that builds nothing runs its graphs: inductor
    takes a minute to build on a CPU.
    """
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend=backend))


def fit(films: Path, overrides: list[str], probes=(), **trainer_args) -> dict:
    """What the monitor last logged on this process, the rows of the post-mortem, and a
    digest of weights and moments; all of the diagnostics watch, or none.

    Args:
        probes: further callbacks, after the diagnostics.
    """
    cfg = tiny_config(films, *overrides)
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    folder = TemporaryDirectory()
    watchers = build.build_watchers(cfg, Path(folder.name))
    trainer = bare_trainer(cfg, [*watchers, *probes], **trainer_args)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data)
    moments = [s["exp_avg"] for s in trainer.optimizers[0].state.values()]
    digest = hashlib.sha256()
    for tensor in [*model.state_dict().values(), *moments]:
        digest.update(tensor.cpu().numpy().tobytes())
    told = {"digest": digest.hexdigest(), "steps": trainer.global_step, "last": {}, "rows": []}
    for watcher in watchers:
        if isinstance(watcher, Monitor):
            told["last"] = watcher.history.last
        if isinstance(watcher, PostMortem):
            told["rows"] = watcher.rows
    return told


def main(films: Path, cases: dict[str, list[str]], out: Path) -> None:
    """Write what each case's fit told, by this process's rank."""
    told = {name: fit(films, overrides) for name, overrides in cases.items()}
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(told))
