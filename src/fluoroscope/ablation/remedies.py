"""Cures for dead units against each other: what each does to the census and to the score."""

import copy
import io
import shutil
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from scipy import stats

from fluoroscope import build, runs, summary
from fluoroscope.ablation.features import CachedFeatures, FeatureDataModule, extract
from fluoroscope.ablation.settings import Remedies
from fluoroscope.config import Train
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.tracking import MetricsCsv
from fluoroscope.train import Stamp, hush, load_checkpoint, score

SHARES = {"dead": "val/dead_frac", "linear": "val/linear_frac", "blackout": "val/blackout_frac"}


def main(remedies: Remedies) -> None:
    """Entry of `scripts/remedies.py`."""
    hush()
    folder = Path(HydraConfig.get().runtime.output_dir)
    table = compare(remedies, folder)
    table.to_csv(folder / "remedies.csv", index=False)
    rows = summarise(table)
    runs.write_text(folder / "remedies.md", markdown(rows, table))
    _print(rows)
    print(f"folder {summary.near(folder)}")


def compare(remedies: Remedies, folder: Path) -> pd.DataFrame:
    """Train every remedy with every seed; a row a run. What the folder holds is not done again."""
    study = _Study(next(iter(remedies.runs.values())))
    todo = [(name, seed) for name in remedies.runs for seed in range(remedies.seeds)]
    rows = []
    for done, (name, offset) in enumerate(todo, start=1):
        cfg = copy.deepcopy(remedies.runs[name])
        cfg.seed += offset
        place = folder / f"{name.replace(' ', '-').replace('/', 'by')}-s{cfg.seed}"
        if not (place / runs.RESULT).exists():
            runs.write_json(place / runs.RESULT, study.run(cfg, place))
        result = runs.read_json(place / runs.RESULT)
        rows.append(_row(name, result))
        told = f"dead {rows[-1]['dead']:.1%}  AUROC {rows[-1]['auroc']:.3f}"
        print(f"{done:>3}/{len(todo)}  {name}, seed {cfg.seed}: {told}", flush=True)
    return pd.DataFrame(rows)


def _row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    shares = {key: result["units"][place] for key, place in SHARES.items()}
    told = {"auroc": result["test"]["auroc"], "fit_s": result["fit_s"]}
    return {"remedy": name, "seed": result["seed"], **shares, **told}


class _Study:
    """The data of all runs, read once; behind a frozen backbone the features, computed once."""

    def __init__(self, cfg: Train) -> None:
        self.studies = build.build_studies(cfg)
        self.cached: dict[str, torch.Tensor] = {}
        summary.print_studies(self.studies)

    def run(self, cfg: Train, folder: Path) -> dict[str, Any]:
        """Train, score, and leave `metrics.csv` and the result."""
        folder.mkdir(parents=True, exist_ok=True)
        cfg.data.labels = self.studies.labels
        started = time.perf_counter()
        data = build.build_data(cfg, self.studies)
        model = build.build_classifier(cfg, data)
        if cfg.backbone.frozen and not cfg.data.augment:
            data = FeatureDataModule(data, self._features(cfg, model.backbone, data))
            model.backbone = CachedFeatures(model.backbone.num_features)  # type: ignore[assignment]
        watchers = build.build_watchers(cfg, folder)
        stamp = Stamp(build.plain(cfg), self.studies, folder)
        trainer = build.build_trainer(cfg, folder, watchers, stamp)
        trainer.loggers = [MetricsCsv(folder)]
        pl.seed_everything(cfg.seed, verbose=False)
        with redirect_stdout(io.StringIO()):  # epochs and alerts of dozens of runs
            trainer.fit(model, datamodule=data)
        score(trainer, model, data, load_checkpoint(runs.best_checkpoint(folder)))
        shutil.rmtree(folder / "checkpoints")
        result = summary.result(cfg, self.studies, trainer, model, watchers)
        return result | {"fit_s": time.perf_counter() - started}

    def _features(
        self, cfg: Train, backbone: torch.nn.Module, data: XrayDataModule
    ) -> torch.Tensor:
        key = OmegaConf.to_yaml(cfg.backbone) + str(cfg.data.image_px)
        if cfg.backbone.weights == "none":
            key += str(cfg.seed)  # an untrained backbone is another one with each seed
        if key not in self.cached:
            self.cached[key] = extract(backbone, data)
        return self.cached[key]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """A row a remedy: mean shares, mean AUROC with its 95 % interval over seeds, and the paired
    difference to the first remedy with its interval (Student's t; NaN for one seed).
    """
    first = table["remedy"].iloc[0]
    by_seed = table.pivot_table(index="seed", columns="remedy", values="auroc", sort=False)
    rows = []
    for name, group in table.groupby("remedy", sort=False):
        auroc = interval(by_seed[name].to_numpy())
        gain = interval((by_seed[name] - by_seed[first]).to_numpy())
        shares = {key: group[key].mean() for key in SHARES}
        low_high = {"auroc_low": auroc[1], "auroc_high": auroc[2]}
        gains = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
        rows.append({"remedy": name, **shares, "auroc": auroc[0], **low_high, **gains})
    return pd.DataFrame(rows)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and the bounds of its 95 % interval by Student's t."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def _cells(row: Any, first: bool) -> list[str]:
    gain = "" if first else f"{row.gain:+.3f} ({row.gain_low:+.3f} to {row.gain_high:+.3f})"
    shares = [f"{getattr(row, key):.1%}" for key in SHARES]
    return [
        row.remedy,
        *shares,
        f"{row.auroc:.3f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})",
        gain,
    ]


COLUMNS = ["remedy", *SHARES, "test AUROC (95 %, seeds)", "against the first (paired, 95 %)"]


def markdown(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The table of `summarise` for a page."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [_cells(row, i == 0) for i, row in enumerate(rows.itertuples())]
    seeds = table["seed"].nunique()
    told = f"{seeds} seeds each; the same test images throughout, so that the intervals say nothing"
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{told} of other patients.\n"
    )


def _print(rows: pd.DataFrame) -> None:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right")
    for i, row in enumerate(rows.itertuples()):
        table.add_row(*_cells(row, i == 0))
    Console(highlight=False, width=140).print(table)
