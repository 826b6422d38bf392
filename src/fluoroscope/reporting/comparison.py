"""Compare activations: scores, units and gradients of each, and differences to a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.errors import check_choice
from fluoroscope.reporting.collect import Collection, Run
from fluoroscope.reporting.columns import COLUMNS, EFFECT, measure
from fluoroscope.reporting.grid import by_setting, check_comparable, check_complete, label
from fluoroscope.reporting.rows import ACTIVATION, default_reference, in_rows
from fluoroscope.run.score_limits import patients_warning, score_limits
from fluoroscope.statistics import (
    Floats,
    crossed,
    draws,
    holm,
    macro_auroc,
    nanmean,
    one_patient,
    paired_p,
    percentile_interval,
    seeds_needed,
    t_interval,
)


@dataclass(frozen=True)
class SettingTable:
    """The activations under one setting: one value of every other key that varies.

    Attributes:
        setting: those keys, dotted, e.g. `{"head.order": "norm-activation", "optimizer.lr": 1e-4}`;
            empty if only the activation and the seed vary.
        label: the same as text; `""` if `setting` is empty.
        rows: one row per activation, the reference first, then by falling AUROC, with the columns
            `columns.COLUMNS`.
        runs: all runs of the setting.
        by_run: one row per run, in the order of `runs`: activation, seed, auroc, and the columns
            that `columns.measure` takes from a single run.
    """

    setting: dict[str, Any]
    label: str
    rows: pd.DataFrame
    runs: list[Run]
    by_run: pd.DataFrame
    by: str = ACTIVATION


@dataclass(frozen=True)
class Comparison:
    """All settings, and the facts that they share.

    Attributes:
        settings: at least one.
        common: facts that hold for all runs: source, labels, backbone, ...
        reference: name of the row that the others are compared with.
        left_out: one line for each run or number that is missing from the tables.
        limits: what limits the test scores of all runs; see `score_limits`.
        by: what the rows are: `activation`, `remedy` or a dotted key.
    """

    settings: list[SettingTable]
    common: dict[str, Any]
    reference: str
    left_out: list[str]
    by: str = ACTIVATION
    limits: Sequence[str] = ()


def compare(
    collection: Collection,
    reference: str | None = None,
    incomplete: bool = False,
    resamples: int = 1000,
    by: str = ACTIVATION,
) -> Comparison:
    """Compare every row with the reference, setting by setting, over shared seeds.

    All runs are scored on the same resamples of the test patients, so a resample that is hard for
    one run is hard for all and cancels in the difference. The same runs give the same numbers.

    Args:
        collection: from `collect.collect`.
        reference: name of a row; None for `rows.default_reference`.
        incomplete: compare although some combinations of row, setting and seed are missing.
        resamples: number of bootstrap draws.
        by: what the rows are, see `Comparison`.

    Raises:
        InputError: the runs cannot be compared (`grid.check_comparable`), two runs have the same
            activation, setting and seed, a combination is missing, or no run has the reference.
    """
    runs = in_rows(collection.runs, by)
    reference = default_reference(runs, by) if reference is None else reference
    check_choice("reference", reference, {run.row for run in runs})
    check_comparable(runs, by)
    groups = by_setting(runs, by)
    missing = check_complete(groups, incomplete)
    weight = _weights(runs, resamples)
    settings = [
        SettingTable(setting, label(setting), *_tables(members, reference, weight), by)
        for setting, members in groups
    ]
    left_out = [*collection.left_out, *missing]
    if weight is None:
        left_out.append(
            "predictions (they exist in run folders only): intervals of differences are over seeds "
            "alone"
        )
    return Comparison(settings, common(runs), reference, left_out, by, _limits(runs[0]))


def _limits(run: Run) -> list[str]:
    """The limits of the test scores, which are the same for all runs."""
    known = run.result.get("patients_known", "all")
    if "test" not in run.predictions:
        return [warning] if (warning := patients_warning(known)) else []
    return score_limits(run.predictions["test"], run.result["labels"], known)


def _weights(runs: Sequence[Run], resamples: int) -> Floats | None:
    """How often each patient is drawn, `[P, R]`; None if a run has no predictions."""
    if not all("test" in run.predictions for run in runs):
        return None
    return draws(runs[0].predictions["test"]["group"].nunique(), resamples)


def common(runs: Sequence[Run]) -> dict[str, Any]:
    """Facts that hold for all runs, by the name that the report shows."""
    result = runs[0].result
    splits = {row["split"]: row for row in result.get("splits", [])}
    # Limits may have left out some of the images.
    for split, scored in {"val": result.get("validated", {}), "test": result["test"]}.items():
        if split in splits and "images" in scored:
            splits[split] |= {name: scored[name] for name in ("images", "patients")}
    facts = {
        "source": result["source"],
        "labels": result["labels"],
        **{f"{split} images": row["images"] for split, row in splits.items()},
        **{f"{split} patients": n for split, row in splits.items() if (n := row["patients"])},
        **({"patients_known": known} if (known := result.get("patients_known")) else {}),
        "split_fingerprint": result["split_fingerprint"],
        **_averaged(runs),
    }
    for name, values in {
        "image_px": [run.config["data"]["image_px"] for run in runs],
        "backbone": [run.config["backbone"]["name"] for run in runs],
        "weights": [run.config["backbone"]["weights"] for run in runs],
        "frozen": [run.config["backbone"]["frozen"] for run in runs],
        "epochs": [run.config.get("trainer", {}).get("max_epochs") for run in runs],
        "width": [run.config["head"].get("width") for run in runs],
    }.items():
        if len(set(values)) == 1:
            facts[name] = values[0]
    seeds = sorted({run.seed for run in runs})
    return facts | {"seeds": seeds, "runs": len(runs)}


def _averaged(runs: Sequence[Run]) -> dict[str, str]:
    """Whose scores and units are those of averaged weights, if there are any."""
    count = sum(bool(run.result.get("averaged_weights")) for run in runs)
    which = "all runs" if count == len(runs) else f"{count} of {len(runs)} runs"
    return {"averaged_weights": f"scores and units of {which}"} if count else {}


def _tables(
    runs: list[Run], reference: str, weight: Floats | None
) -> tuple[pd.DataFrame, list[Run], pd.DataFrame]:
    """`rows`, `runs` and `by_run` of one setting."""
    by_name: dict[str, dict[int, Floats]] = {}
    measures = []
    for run in runs:
        scored = _scored(run, weight)
        by_name.setdefault(run.row, {})[run.seed] = scored
        identity = {"activation": run.row, "seed": run.seed, "auroc": float(scored[0])}
        measures.append(identity | measure(run))
    by_run = pd.DataFrame(measures)
    rows = pd.DataFrame(
        {"activation": name, **_scores(seeds), **_paired(seeds, by_name.get(reference, {}))}
        | _means(by_run[by_run["activation"] == name])
        for name, seeds in by_name.items()
    )
    rows.loc[rows["activation"] == reference, PAIRED] = math.nan
    rows["p_holm"] = holm(rows["p"])
    rows["finding"] = [find(row, reference) for _, row in rows.iterrows()]
    rows["more_seeds"] = (rows["seeds_needed"] - rows["difference_seeds"]).clip(lower=0)
    first = rows["activation"] != reference
    order = rows.assign(first=first).sort_values(["first", "auroc"], ascending=[True, False]).index
    return rows.loc[order, list(COLUMNS)].reset_index(drop=True), runs, by_run


def find(row: pd.Series, reference: str, level: float = 0.05) -> str:
    """The finding for a row of `SettingTable.rows`.

    `better` or `worse` if the adjusted p is below the level and the interval excludes zero;
    `unknown` without a p or without an interval; else `no difference`.
    """
    if row["activation"] == reference:
        return "reference"
    if math.isnan(row["p_holm"]) or math.isnan(row["difference_low"]):
        return "unknown"
    if row["p_holm"] < level and row["difference_low"] > 0:
        return "better"
    if row["p_holm"] < level and row["difference_high"] < 0:
        return "worse"
    return "no difference"


def _scored(run: Run, weight: Floats | None) -> Floats:
    """Test AUROC, followed by the AUROC of each resample, `[1 + R]`; R = 0 without predictions."""
    if weight is None:
        return np.array([nanmean([run.result["test"]["auroc"]])])
    predictions, labels = run.predictions["test"], run.result["labels"]
    with_all = np.hstack([np.ones((len(weight), 1)), weight])
    scores = macro_auroc(predictions, labels, with_all)
    if any(one_patient(predictions, label) for label in labels):
        scores[1:] = math.nan  # no resample holds another patient: there is no interval
    return scores


def _scores(seeds: dict[int, Floats]) -> dict[str, float]:
    """Mean AUROC over the seeds of an activation, with its spread; `seeds` holds `[1 + R]` each."""
    values = np.stack(list(seeds.values()))  # [S, 1 + R]
    low, high = _interval(values[:, 1:].mean(0))
    sd = values[:, 0].std(ddof=1) if len(values) > 1 else math.nan
    bounds = {"auroc_low": low, "auroc_high": high}
    return {"seeds": len(seeds), "auroc": values[:, 0].mean(), "auroc_sd": sd, **bounds}


def _interval(resampled: Floats) -> tuple[float, float]:
    return percentile_interval(resampled) if len(resampled) else (math.nan, math.nan)


PAIRED = ["difference", "difference_low", "difference_high", "difference_seeds", "p"]
PAIRED += ["seeds_needed"]


def _paired(seeds: dict[int, Floats], reference: dict[int, Floats]) -> dict[str, float]:
    """The difference to the reference, over the seeds that both have."""
    shared = sorted(seeds.keys() & reference.keys())
    if not shared:
        return dict.fromkeys(PAIRED, math.nan) | {"difference_seeds": 0}
    values = np.stack([seeds[seed] - reference[seed] for seed in shared])  # [S, 1 + R]
    resampled = values.shape[1] > 1
    low, high = _interval(crossed(values[:, 1:])) if resampled else t_interval(values[:, 0])[1:]
    return {
        "difference": values[:, 0].mean(),
        "difference_low": low,
        "difference_high": high,
        "difference_seeds": len(shared),
        "p": paired_p(values[:, 0]),
        "seeds_needed": seeds_needed(values[:, 0], EFFECT),
    }


def _means(by_run: pd.DataFrame) -> dict[str, float]:
    of_run = [column for column in by_run if column in COLUMNS and column != "activation"]
    means = {column: nanmean(by_run[column]) for column in of_run if column != "auroc"}
    return means | {"blackout_max": float(by_run["blackout_max"].max())}
