"""Cures for dead units against each other: what each does to the census and to the score."""

import copy
import math
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from fluoroscope import build
from fluoroscope.ablation.settings import Remedies, folder_name
from fluoroscope.ablation.study import SHARES, Run, Study
from fluoroscope.console import make_console, short_path
from fluoroscope.run import run_folder
from fluoroscope.statistics import t_interval
from fluoroscope.train import hush


def main(remedies: Remedies) -> None:
    """Entry of `scripts/remedies.py`."""
    hush()
    folder = Path(HydraConfig.get().runtime.output_dir)
    table = compare(remedies, folder)
    table.to_csv(folder / "remedies.csv", index=False)
    rows = summarise(table)
    run_folder.write_text(folder / "remedies.md", markdown(rows, table))
    _print(rows)
    print(f"folder {short_path(folder)}")


def compare(remedies: Remedies, folder: Path) -> pd.DataFrame:
    """Train every remedy with every seed; a row a run. What the folder holds is not done again.

    A run that diverges is a row of NaN with `failed`, and the others go on.

    Raises:
        InputError: before the first run, what one of them cannot be trained with; a run folder
            that holds something else.
    """
    for cfg in remedies.runs.values():
        build.check_model(cfg)
    study = Study(next(iter(remedies.runs.values())))
    plan = [
        _planned(remedies, name, offset, folder, study.studies.labels)
        for name in remedies.runs
        for offset in range(remedies.seeds)
    ]
    for run in plan:
        study.check(run)
    rows = []
    for done, run in enumerate(plan, start=1):
        if not (run.folder / run_folder.RESULT).exists():
            run_folder.write_json(run.folder / run_folder.RESULT, study.run(run.cfg, run.folder))
        result = run_folder.read_json(run.folder / run_folder.RESULT)
        rows.append(_row(run.remedy, result))
        told = f"dead {_number(rows[-1]['dead'], '.1%')}  AUROC {_number(rows[-1]['auroc'], '.3f')}"
        told = f"failed: {result['failed']}" if "failed" in result else told
        print(f"{done:>3}/{len(plan)}  {run.remedy}, seed {run.cfg.seed}: {told}", flush=True)
    return pd.DataFrame(rows)


def _planned(remedies: Remedies, name: str, offset: int, folder: Path, labels: list[str]) -> Run:
    cfg = copy.deepcopy(remedies.runs[name])
    cfg.seed += offset
    cfg.run.name = f"{name}-s{cfg.seed}"
    cfg.data.labels = labels  # "all the source has" is a different list tomorrow
    return Run(name, cfg, folder / f"{folder_name(name)}-s{cfg.seed}")


def _row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    values = {key: result["units"][place] for key, place in SHARES.items()}
    values |= {"auroc": result["test"]["auroc"], "fit_s": result["fit_s"]}
    # JSON has no NaN.
    numbers = {key: math.nan if value is None else value for key, value in values.items()}
    return {"remedy": name, "seed": result["seed"], **numbers, "failed": "failed" in result}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """A row a remedy: mean shares, mean AUROC with its 95 % interval over seeds, and the paired
    difference to the first remedy with its interval (Student's t; NaN for one seed).

    Seeds that failed, or whose AUROC is undefined, are left out; `failed` counts the former.
    """
    first = table["remedy"].iloc[0]
    by_seed = table.pivot(index="seed", columns="remedy", values="auroc")
    rows = []
    for name, group in table.groupby("remedy", sort=False):
        auroc = t_interval(by_seed[name].to_numpy())
        gain = t_interval((by_seed[name] - by_seed[first]).to_numpy())
        shares = {key: group[key].mean() for key in SHARES}
        counts = {"seeds": len(group), "failed": int(group["failed"].sum())}
        low_high = {"auroc_low": auroc[1], "auroc_high": auroc[2]}
        gains = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
        rows.append({"remedy": name, **counts, **shares, "auroc": auroc[0], **low_high, **gains})
    return pd.DataFrame(rows)


def _number(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else format(value, form)


def _span(mean: float, low: float, high: float, form: str) -> str:
    told = _number(mean, form)
    return told if math.isnan(low) else f"{told} ({low:{form}} to {high:{form}})"


def _cells(row: Any, first: bool) -> list[str]:
    failed = f" ({row.failed} of {row.seeds} failed)" if row.failed else ""
    return [
        row.remedy + failed,
        *[_number(getattr(row, key), ".1%") for key in SHARES],
        _span(row.auroc, row.auroc_low, row.auroc_high, ".3f"),
        "" if first else _span(row.gain, row.gain_low, row.gain_high, "+.3f"),
    ]


COLUMNS = ["remedy", *SHARES, "test AUROC (95 %, seeds)", "against the first (paired, 95 %)"]
WHEN = f"{', '.join(SHARES)}: validation of the last epoch; test AUROC: of the best epoch"


def markdown(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The table of `summarise` for a page."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [_cells(row, i == 0) for i, row in enumerate(rows.itertuples())]
    seeds = table["seed"].nunique()
    told = (
        f"{seeds} seeds each; the same test images throughout, so that the intervals say nothing "
        "of other patients."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{WHEN}.\n\n{told}\n"


def _print(rows: pd.DataFrame) -> None:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right")
    for i, row in enumerate(rows.itertuples()):
        table.add_row(*_cells(row, i == 0))
    console = make_console()
    console.print(table)
    console.print(WHEN)
