"""Cross-validation: runs that differ in `data.fold` only are scored together.

The model of each fold is tested on patients that it has not seen. If the collection gives a test
split, all folds test it, and differ in their training and validation images.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from fluoroscope.choices import parse_fold
from fluoroscope.errors import InputError, plural
from fluoroscope.reporting.collect import Run

FOLD = "data.fold"
MOMENTUM = "head.norm_momentum"


class Tested(NamedTuple):
    """The test predictions of one model, or those of the folds' models one below the other.

    Attributes:
        table: as `collect.Run.predictions`.
        fold: number of the fold of each row [N]; None for one model.
    """

    table: pd.DataFrame
    fold: np.ndarray | None


def fold_of(run: Run) -> tuple[int, int] | None:
    """Number of the fold, from 1, and of all folds; None if the run has no fold."""
    value = run.config["data"].get("fold")
    return None if value is None else parse_fold(f"{run.place}: {FOLD}", value)


def number_of(run: Run) -> int:
    """Number of the fold, from 1; 0 if the run has no fold."""
    return (fold_of(run) or (0, 0))[0]


def by_fold(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """The runs of each fold, by its number; one entry if `data.fold` does not vary.

    Raises:
        InputError: some runs have no fold, or the numbers of folds differ.
    """
    of_all = [(fold_of(run) or (0, 0))[1] for run in runs]
    other = next((run for run, of in zip(runs, of_all, strict=True) if of != of_all[0]), None)
    if other is not None:
        first, second = (run.config["data"].get("fold") for run in (runs[0], other))
        refuse(runs[0], other, f"{FOLD} is {first} in the first and {second} in the second")
    members: dict[int, list[Run]] = {}
    for run in runs:
        members.setdefault(number_of(run), []).append(run)
    return dict(sorted(members.items()))


def settle_momentum(
    runs: Sequence[Run], flat: Sequence[dict[str, Any]], counts: Callable[[str], bool]
) -> None:
    """Give all folds the momentum of batch norm of their first one, where `auto` has chosen it.

    It follows from the number of batches, in which folds differ: equal keys then have one value per
    fold.

    Args:
        flat: the configurations of the runs, by dotted key; changed in place.
        counts: whether a key can change a result.
    """
    alike: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run, config in zip(runs, flat, strict=True):
        passed_over = (MOMENTUM, "seed", "head.activation", "head.activation_args")
        rest = {k: v for k, v in config.items() if counts(k) and k not in passed_over}
        alike.setdefault(repr(rest), {}).setdefault(number_of(run), []).append(config)
    for folds in alike.values():
        values = [{repr(config.get(MOMENTUM)) for config in members} for members in folds.values()]
        if len(folds) > 1 and all(len(known) == 1 for known in values):
            first = folds[min(folds)][0].get(MOMENTUM)
            for config in (config for members in folds.values() for config in members):
                config[MOMENTUM] = first


def refuse(first: Run, second: Run, why: str) -> NoReturn:
    """Raise the error for two runs that cannot be compared."""
    raise InputError(f"{first.place} and {second.place} cannot be compared: {why}")


def join_folds(runs: Sequence[Run]) -> list[Run]:
    """The runs, whose images and patients have the same numbers in the predictions of all folds.

    A run numbers them in its study table, which is the same for all folds, unless
    `data.on_duplicate=drop` left out other images in each. Then the numbers are made anew.

    Args:
        runs: comparable within each fold.

    Raises:
        InputError: the folds do not divide one collection by patient, or there are no predictions.
    """
    folds = by_fold(runs)
    if len(folds) == 1:
        return list(runs)
    first = {fold: members[0] for fold, members in folds.items()}
    if not all("test" in run.predictions for run in first.values()):
        raise InputError(
            f"the runs are folds of a cross-validation ({FOLD}), which needs the predictions of "
            "each run; they exist in run folders only: give folders with runs=FOLDER"
        )
    if any(run.config["data"].get("on_duplicate") == "drop" for run in runs):
        numbers = _new_numbers({fold: run.predictions["test"] for fold, run in first.items()})
        runs = [_renumbered(run, *numbers[number_of(run)]) for run in runs]
        first = {fold: members[0] for fold, members in by_fold(runs).items()}
    else:
        _check_sizes(list(first.values()))
    _check_fingerprints(list(first.values()))
    _check_apart(list(first.values()))
    return list(runs)


def _new_numbers(tables: dict[int, pd.DataFrame]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Rows and patients of each fold: the same ones if all folds test the same images."""
    rows = {fold: np.arange(len(table)) for fold, table in tables.items()}
    patients = {fold: pd.factorize(table["group"])[0] for fold, table in tables.items()}
    fold, *others = tables
    truth = [name for name in tables[fold] if f"{name}_probability" in tables[fold]]
    same = all(
        np.array_equal(patients[fold], patients[other])
        and np.array_equal(tables[fold][truth], tables[other][truth], equal_nan=True)
        for other in others
    )
    start = 0
    for fold, table in {} if same else tables.items():
        rows[fold], patients[fold] = rows[fold] + start, patients[fold] + start
        start += len(table)
    return {fold: (rows[fold], patients[fold]) for fold in tables}


def _renumbered(run: Run, rows: np.ndarray, patients: np.ndarray) -> Run:
    table = run.predictions["test"].assign(row=rows, group=patients)
    return replace(run, predictions=run.predictions | {"test": table})


def _check_sizes(runs: Sequence[Run]) -> None:
    """The folds of one collection have the same number of images."""
    sizes = []
    for run in runs:
        splits = {split["split"]: split["images"] for split in run.result.get("splits", [])}
        sizes.append(sum(splits.values()) if "train" in splits else None)
    for run, size in zip(runs, sizes, strict=True):
        if size != sizes[0]:
            refuse(
                *(runs[0], run),
                f"they are folds of different collections, of {sizes[0]} and of {size} images; "
                "train all folds again on one",
            )


def _check_fingerprints(runs: Sequence[Run]) -> None:
    known: dict[str, Run] = {}
    for run in runs:
        twin = known.setdefault(run.result["split_fingerprint"], run)
        if twin is not run:
            refuse(
                *(twin, run),
                f"{FOLD} is {_name(twin)} in the first and {_name(run)} in the second, but their "
                "splits are the same (split_fingerprint)",
            )


def _check_apart(runs: Sequence[Run]) -> None:
    """Each image is tested by one fold or by all, with all images of its patient."""
    tested = pooled(runs)
    told = ["group", *runs[0].result["labels"]]
    of_image = tested.table.assign(**{FOLD: tested.fold}).groupby("row")
    differ = of_image[told].nunique(dropna=False).gt(1).any(axis=1)
    if differ.any():
        raise InputError(
            f"the runs are no folds of one collection ({FOLD}): {plural(differ.sum(), 'image')} "
            "of the test splits have another patient or label in another fold; train all folds "
            "again on one collection"
        )
    folds, patient = of_image[FOLD].nunique(), of_image["group"].first()
    of_patient = tested.table.assign(**{FOLD: tested.fold}).groupby("group")[FOLD].nunique()
    wrong = patient[(folds != patient.map(of_patient)) | ~folds.isin([1, len(runs)])]
    if len(wrong):
        raise InputError(
            f"the runs are no cross-validation ({FOLD}): {plural(wrong.nunique(), 'patient')} of "
            "the test split of one fold are tested by another one too; train all folds again on "
            "one collection"
        )


def _name(run: Run) -> str:
    fold = fold_of(run)
    return "null" if fold is None else f"{fold[0]}/{fold[1]}"


def pooled(runs: Sequence[Run]) -> Tested:
    """The test predictions of the folds of one activation and seed.

    Args:
        runs: one per fold, with the numbers of `join_folds`; or one run.
    """
    if len(runs) == 1:
        return Tested(runs[0].predictions["test"], None)
    ordered = sorted(runs, key=number_of)
    tables = [run.predictions["test"] for run in ordered]
    fold = np.repeat([number_of(run) for run in ordered], [len(table) for table in tables])
    return Tested(pd.concat(tables, ignore_index=True), fold)


def cells(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    """The runs of each row and seed of a setting: one, or one per fold."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        found.setdefault((run.row, run.seed), []).append(run)
    return found


def keep_whole(
    groups: Sequence[tuple[Any, list[Run]]],
) -> tuple[list[tuple[Any, list[Run]]], list[str]]:
    """The runs of those folds, and of those rows and seeds, that have each other.

    If some runs of a cross-validation are missing, these are the most runs of which every row and
    seed has the same folds.

    Args:
        groups: settings and their runs.

    Returns:
        The settings that have such runs, and a line on what was left out.
    """
    having = [{number_of(run) for run in c} for _, runs in groups for c in cells(runs).values()]
    order = [fold for fold, _ in Counter(f for folds in having for f in folds).most_common()]
    blocks = [set(order[:n]) for n in range(1, len(order) + 1)]
    chosen = max(blocks, key=lambda b: (len(b) * sum(b <= folds for folds in having), len(b)))
    kept = [(setting, _of_folds(runs, chosen)) for setting, runs in groups]
    left = sum(len(runs) for _, runs in groups) - sum(len(runs) for _, runs in kept)
    if not left:
        return list(groups), []
    numbers = ", ".join(map(str, sorted(chosen)))
    return [group for group in kept if group[1]], [
        f"{plural(left, 'run')}, so that every activation and seed has the same folds: {numbers}"
    ]


def _of_folds(runs: Sequence[Run], chosen: set[int]) -> list[Run]:
    whole = [c for c in cells(runs).values() if chosen <= {number_of(run) for run in c}]
    return [run for members in whole for run in members if number_of(run) in chosen]


def fold_facts(runs: Sequence[Run]) -> dict[str, Any]:
    """Facts of `comparison.common` on the folds; empty without folds.

    Keys: those of the numbers of images and patients, and `split_fingerprint` (one per fold) and
    `folds`.
    """
    first = {number: members[0] for number, members in by_fold(runs).items()}
    if len(first) == 1:
        return {}
    seen = pooled(list(first.values())).table
    facts: dict[str, Any] = {}
    for name, what in product(("train", "val"), ("images", "patients")):
        counts = [_count(run, name, what) for run in first.values()]
        facts[f"{name} {what}"] = _range(counts)
    patients = None if _count(runs[0], "test", "patients") is None else seen["group"].nunique()
    facts |= {"test images": seen["row"].nunique(), "test patients": patients}
    fingerprints = [run.result["split_fingerprint"] for run in first.values()]
    of_all = (fold_of(runs[0]) or (0, 0))[1]
    names = f"{', '.join(map(str, first))} of {of_all}"  # no slash: W&B gets no paths
    once = seen["row"].is_unique
    how = "each image is scored by the model that has not seen it" if once else "one test split"
    facts = {name: value for name, value in facts.items() if value is not None}
    return facts | {"split_fingerprint": fingerprints, "folds": f"{names}; {how}"}


def _count(run: Run, name: str, what: str) -> int | None:
    splits = run.result.get("splits", [])
    return next((split[what] for split in splits if split["split"] == name), None)


def _range(counts: Sequence[int | None]) -> int | str | None:
    known = sorted({count for count in counts if count is not None})
    if len(known) < 2:
        return known[0] if known else None
    return f"{known[0]} to {known[-1]}"
