"""Compare activations: scores, units and gradients of each, and differences to a reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.config.report import RULE, Rule
from fluoroscope.errors import check_choice, plural
from fluoroscope.reporting.collect import Collection, Run
from fluoroscope.reporting.columns import COLUMNS, EFFECT, measure
from fluoroscope.reporting.ensembles import score_ensembles
from fluoroscope.reporting.folds import (
    Tested,
    cells,
    fold_facts,
    join_folds,
    keep_whole,
    number_of,
    pooled,
)
from fluoroscope.reporting.grid import by_setting, check_comparable, check_complete, label
from fluoroscope.reporting.inference import Difference, simultaneous
from fluoroscope.reporting.rows import ACTIVATION, in_rows, reference_row
from fluoroscope.run.score_limits import patients_warning, score_limits
from fluoroscope.statistics import (
    Floats,
    count_classes,
    fewest_patients,
    logit_interval,
    macro_auroc,
    nanmean,
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
        folds: the scores of each fold of a cross-validation, see `_fold_rows`; None without folds.
    """

    setting: dict[str, Any]
    label: str
    rows: pd.DataFrame
    runs: list[Run]
    by_run: pd.DataFrame
    by: str = ACTIVATION
    folds: pd.DataFrame | None = None


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
        rule: what a finding needs.
        floor: why these test patients decide nothing, as a sentence without its full stop; or "".
        critical: of `inference.Family`; NaN if no difference has an interval.
    """

    settings: list[SettingTable]
    common: dict[str, Any]
    reference: str
    left_out: list[str]
    by: str = ACTIVATION
    limits: Sequence[str] = ()
    rule: Rule = RULE
    floor: str = ""
    critical: float = math.nan


def compare(
    collection: Collection,
    reference: str | None = None,
    incomplete: bool = False,
    rule: Rule = RULE,
    by: str = ACTIVATION,
) -> Comparison:
    """Compare every row with the reference, setting by setting, over shared seeds.

    All differences of all settings are one family (`inference.simultaneous`). All runs score the
    same patients, so a patient who is hard for one model is hard for all and cancels in the
    difference. The same runs give the same numbers. The folds of a seed have one score together.

    Args:
        collection: from `collect.collect`.
        reference: see `rows.reference_row`.
        incomplete: compare although some combinations of row, setting and seed are missing.
        rule: what a finding needs.
        by: what the rows are, see `Comparison`.

    Raises:
        InputError: the runs cannot be compared (`grid.check_comparable`, `folds.join_folds`), two
            runs have the same activation, setting, seed and fold, a combination is missing, or no
            run has the reference.
    """
    runs = in_rows(collection.runs, by)
    reference = reference_row(runs, reference, by)
    check_choice("reference", reference, {run.row for run in runs})
    check_comparable(runs, by)
    groups = by_setting(join_folds(runs), by)
    left_out = [*collection.left_out, *check_complete(groups, incomplete)]
    groups, partial = keep_whole(groups)
    left_out += partial
    runs = [run for _, members in groups for run in members]
    check_choice("reference", reference, {run.row for run in runs})
    scored = all("test" in run.predictions for run in runs)
    if not scored:
        left_out.append(
            "predictions (they exist in run folders only): intervals of differences are over seeds "
            "alone, so nothing is decided"
        )
    seen = _seen(groups) if scored else None
    scores = [_score_runs(members, scored) for _, members in groups]
    seeds = [_by_row(members, own) for (_, members), own in zip(groups, scores, strict=True)]
    differences = [_differences(by_row, reference) for by_row in seeds]
    family = simultaneous([d for of_setting in differences for d in of_setting.values()])
    floor, intervals = _floor(runs[0], seen, rule), iter(family.intervals)
    ensembles = score_ensembles(groups, reference) if scored else [{} for _ in groups]
    settings = []
    for (setting, members), own, by_row, pairs, together in zip(
        groups, scores, seeds, differences, ensembles, strict=True
    ):
        by_run = _by_run(members, own)
        rows = [
            {"activation": name, **_scores(list(of_row.values()), members[0], seen)}
            | (
                _paired(pairs[name], next(intervals), family.critical, rule)
                if name in pairs
                else {}
            )
            | together.get(name, {})
            | _means(by_run[by_run["activation"] == name])
            for name, of_row in by_row.items()
        ]
        table = _ordered(pd.DataFrame(rows), reference, rule, bool(floor))
        folds = _fold_rows(members, own, list(table["activation"]))
        settings.append(SettingTable(setting, label(setting), table, members, by_run, by, folds))
    facts = common(runs), reference, left_out, by, _limits(runs[0], seen)
    return Comparison(settings, *facts, rule, floor, family.critical)


def _seen(groups: Sequence[tuple[Any, list[Run]]]) -> pd.DataFrame:
    """The test images, which are the same for all activations and seeds; each image once."""
    return pooled(next(iter(cells(groups[0][1]).values()))).table.drop_duplicates("row")


def _limits(run: Run, seen: pd.DataFrame | None) -> list[str]:
    """The limits of the test scores, which are the same for all runs."""
    known = run.result.get("patients_known", "all")
    if seen is None:
        return [warning] if (warning := patients_warning(known)) else []
    return score_limits(seen, run.result["labels"], known)


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
        **fold_facts(runs),
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


@dataclass(frozen=True)
class Score:
    """The test AUROC of one run, and the influence of its patients [G]; G = 0 without them."""

    value: float
    influence: Floats


def _score_runs(runs: Sequence[Run], scored: bool) -> list[Score]:
    """The score of each run; without predictions that of its result."""
    return [
        _score(pooled([run]), run)
        if scored
        else Score(nanmean([run.result["test"]["auroc"]]), np.empty(0))
        for run in runs
    ]


def _score(tested: Tested, run: Run) -> Score:
    return Score(*macro_auroc(tested.table, run.result["labels"], tested.fold))


def _by_row(runs: Sequence[Run], scores: Sequence[Score]) -> dict[str, dict[int, Score]]:
    """The scores of one setting, by row and seed; the folds of a seed have one."""
    own = {id(run): score for run, score in zip(runs, scores, strict=True)}
    by_row: dict[str, dict[int, Score]] = {}
    for (row, seed), members in cells(runs).items():
        first = members[0]
        score = own[id(first)] if len(members) == 1 else _score(pooled(members), first)
        by_row.setdefault(row, {})[seed] = score
    return by_row


def _fold_rows(
    runs: Sequence[Run], scores: Sequence[Score], names: Sequence[str]
) -> pd.DataFrame | None:
    """The scores of each fold alone; None without folds.

    Returns:
        One row per activation and fold, with the columns `activation`, `fold`, `images`,
        `patients`, `seeds`, and `auroc` (mean over seeds), its `auroc_sd`, `auroc_low` and
        `auroc_high` as in `SettingTable.rows`.
    """
    found: dict[tuple[str, int], list[tuple[Run, Score]]] = {}
    for run, score in zip(runs, scores, strict=True):
        found.setdefault((run.row, number_of(run)), []).append((run, score))
    folds = sorted({fold for _, fold in found})
    if len(folds) == 1:
        return None
    rows = []
    for name, fold in product(names, folds):
        first, _ = found[name, fold][0]
        seen = first.predictions["test"]
        sizes = {"images": len(seen), "patients": seen["group"].nunique()}
        of_fold = _scores([score for _, score in found[name, fold]], first, seen)
        rows.append({"activation": name, "fold": fold, **sizes, **of_fold})
    return pd.DataFrame(rows)


def _differences(by_row: dict[str, dict[int, Score]], reference: str) -> dict[str, Difference]:
    """Each row but the reference, minus the reference, over the seeds that both have."""
    own = by_row.get(reference, {})
    differences = {}
    for name, seeds in by_row.items():
        shared = sorted(seeds.keys() & own.keys())
        if name != reference and shared:
            pairs = [(seeds[seed], own[seed]) for seed in shared]
            values = np.array([a.value - b.value for a, b in pairs])
            influence = np.stack([a.influence - b.influence for a, b in pairs])
            differences[name] = Difference(shared, values, influence)
    return differences


def _floor(run: Run, seen: pd.DataFrame | None, rule: Rule) -> str:
    """Why the test patients are too few for a finding; "" if they are not."""
    if seen is None:
        return "without predictions nothing shows how much other patients would change the scores"
    few = []
    for name in run.result["labels"]:
        for kind, (images, patients) in count_classes(seen, name).items():
            if images and patients < rule.min_patients:
                few.append(f"{plural(patients, f'{kind} test patient')} of {name}")
    if not few:
        return ""
    return f"{', '.join(few)}: a finding needs {rule.min_patients} of each (min_patients)"


def _by_run(runs: Sequence[Run], scores: Sequence[Score]) -> pd.DataFrame:
    return pd.DataFrame(
        {"activation": run.row, "seed": run.seed, "auroc": score.value} | measure(run)
        for run, score in zip(runs, scores, strict=True)
    )


def _scores(seeds: list[Score], run: Run, seen: pd.DataFrame | None) -> dict[str, float]:
    """Mean AUROC over the seeds of an activation, with its spread and interval over patients."""
    values = np.array([score.value for score in seeds])
    influence = np.mean([score.influence for score in seeds], axis=0)
    low = high = math.nan
    if seen is not None:
        fewest = fewest_patients(seen, run.result["labels"])
        low, high = logit_interval(float(values.mean()), influence, fewest)
    return {
        "seeds": len(seeds),
        "auroc": float(values.mean()),
        "auroc_sd": float(values.std(ddof=1)) if len(seeds) > 1 else math.nan,
        "auroc_low": low,
        "auroc_high": high,
    }


def _paired(
    pair: Difference, interval: tuple[float, float, float], critical: float, rule: Rule
) -> dict[str, float]:
    """The difference to the reference, its interval, and what would decide it."""
    low, high, p = interval
    if not pair.influence.shape[1]:
        low, high = t_interval(pair.values)[1:]
    paired = {
        "difference": pair.value,
        "difference_low": low,
        "difference_high": high,
        "difference_seeds": len(pair.seeds),
        "p": p,
    }
    if not pair.decidable:
        return paired
    seeds, patients = pair.influence.shape
    paired["smallest_difference"] = pair.parts.smallest(patients, critical)
    for name, effect in {"effect": EFFECT, "margin": rule.margin}.items():
        paired[f"seeds_for_{name}"] = pair.parts.seeds_needed(effect, patients, critical)
        paired[f"patients_for_{name}"] = pair.parts.patients_needed(effect, seeds, critical)
    return paired


def _ordered(rows: pd.DataFrame, reference: str, rule: Rule, below_floor: bool) -> pd.DataFrame:
    """The rows with their findings, the reference first, then by falling AUROC."""
    rows = rows.reindex(columns=list(COLUMNS))
    rows["difference_seeds"] = rows["difference_seeds"].fillna(0)
    findings = [find(row, reference, rule, below_floor) for _, row in rows.iterrows()]
    rows = rows.assign(finding=findings, first=rows["activation"] == reference)
    rows = rows.sort_values(["first", "auroc"], ascending=[False, False])
    return rows[list(COLUMNS)].reset_index(drop=True)


def find(row: pd.Series, reference: str, rule: Rule, below_floor: bool = False) -> str:
    """The finding for a row of `SettingTable.rows`, from where its interval lies.

    `better` above zero, `worse` below it, `equivalent` within the margin on both sides (also if it
    excludes zero: such a difference does not matter), else `undecided`. Also `undecided` with fewer
    seeds than `rule.min_seeds`, without an interval, or if `below_floor`.
    """
    if row["activation"] == reference:
        return "reference"
    low, high = row["difference_low"], row["difference_high"]
    if below_floor or row["difference_seeds"] < rule.min_seeds:
        return "undecided"
    return finding_of(low, high, rule.margin)


def finding_of(low: float, high: float, margin: float) -> str:
    """The finding for an interval alone; NaN is `undecided`."""
    if math.isnan(low):
        return "undecided"
    if -margin < low and high < margin:
        return "equivalent"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"


def _means(by_run: pd.DataFrame) -> dict[str, float]:
    of_run = [column for column in by_run if column in COLUMNS and column != "activation"]
    means = {column: nanmean(by_run[column]) for column in of_run if column != "auroc"}
    return means | {"blackout_max": float(by_run["blackout_max"].max())}
