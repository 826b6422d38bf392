"""Assign patients to train, val and test, and check the splits."""

import hashlib
import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from fluoroscope.choices import parse_fold
from fluoroscope.data.study_table import COLLECTION, relative_paths
from fluoroscope.errors import InputError

SPLITS = ("train", "val", "test")
CANDIDATES = 100  # samples from which a draw takes the best


def assign_splits(
    table: pd.DataFrame,
    labels: Sequence[str],
    *,
    val_frac: float = 0.15,
    test_frac: float = 0.15,
    seed: int = 0,
    keep_given: bool = True,
    fold: str | None = None,
) -> pd.DataFrame:
    """A copy of the study table with a split for every image, equal for all images of a patient.

    Splits that the table gives are kept. Missing val and test splits are drawn from the patients
    whose images are in train or in no split; the others of these patients become train. The draw
    depends on patients, labels and `seed`, not on the order of the rows.

    If the table joins several collections, the splits of each are drawn or kept alone; a patient of
    two collections has one split.

    With a fold k/n, the patients are divided into n parts, which are the same for every k. Part k
    becomes the test split, or, if a test split is given, the val split, even if one is given.

    Args:
        table: study table.
        labels: columns whose prevalence is kept similar in the splits.
        val_frac: share in (0, 1) of the patients to draw for val, if val is not given.
        test_frac: share of them to draw for test, if test is not given; the sum is less than 1.
        seed: of the draw.
        keep_given: False draws all three splits.
        fold: such as "2/5"; None draws shares instead.

    Raises:
        InputError: for impossible folds, a table without images, and too few patients.
    """
    if table.empty:
        raise InputError("no usable images are left to split; check data.root and data.views")
    if COLLECTION in table:
        keys = {"val_frac": val_frac, "test_frac": test_frac, "seed": seed, "fold": fold}
        from fluoroscope.data.joint_tables import assign_each

        return assign_each(table, labels, keep_given=keep_given, **keys)
    given = table["split"] if keep_given else pd.Series(None, index=table.index, dtype=object)
    fractions = {"test": test_frac, "val": val_frac}
    if fold is not None:
        given = _give_fold(table, labels, given, fold, seed)
    pool = table[~given.isin(["val", "test"])]
    if pool.empty:  # a collection to evaluate on: nothing to draw from
        return table.assign(split=given)
    missing = {name: f for name, f in fractions.items() if not given.eq(name).any()}
    patients = _count_images(pool, labels)
    _check_enough(pool, len(patients), labels, missing)
    split_of = _draw_splits(patients, missing, np.random.default_rng(seed))
    drawn = table["patient"].map(split_of)
    return table.assign(split=given.where(given.isin(["val", "test"]), drawn).astype(object))


def _give_fold(
    table: pd.DataFrame, labels: Sequence[str], given: pd.Series, fold: str, seed: int
) -> pd.Series:
    """The given splits with the fold as test, or as val beside a given test split."""
    k, n = parse_fold("data.fold", fold)
    tested = given.eq("test")
    pool = table[~tested].sort_values(["patient", *labels], kind="stable")
    patients = pool["patient"].nunique()
    if patients < 2 * n:
        raise InputError(f"too few patients ({patients}) for data.fold={fold}; use fewer parts")
    _check_classes(pool, labels, n, f"{n} parts of data.fold={fold}")
    chosen = table.index.isin(pool.index[_parts(pool, labels, n, seed) == k - 1])
    if tested.any():
        return given.where(tested, None).mask(chosen, "val")
    return pd.Series(None, index=table.index, dtype=object).mask(chosen, "test")


def _parts(pool: pd.DataFrame, labels: Sequence[str], n: int, seed: int) -> np.ndarray:
    """The part of each image, int [N] from 0 to n - 1, equal for all images of a patient.

    scikit-learn balances one class per image. It gets the image's rarest finding, which balances
    every label better, and faster, than the combination of findings (see the tests).
    """
    # takes a second to import
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rarest_first = pool[list(labels)].eq(1).sum().sort_values(kind="stable").index
    found = pool[rarest_first].eq(1).to_numpy()  # [N, K]
    rarest = np.where(found.any(axis=1), found.argmax(axis=1), len(rarest_first))
    kind = StratifiedKFold if pool["patient"].is_unique else StratifiedGroupKFold
    folds = kind(n, shuffle=True, random_state=seed)  # without groups it is faster
    parts = np.empty(len(pool), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer images than parts
        for part, (_, chosen) in enumerate(folds.split(pool, rarest, pool["patient"])):
            parts[chosen] = part
    return parts


def check_splits(
    table: pd.DataFrame, labels: Sequence[str], needed: Sequence[str] = SPLITS, own: bool = False
) -> None:
    """Refuse splits that leak, and needed ones that cannot be scored. Patients are never named.

    Args:
        own: whether all splits were drawn by patient, so that no error advises it.

    Raises:
        InputError: for a patient in two splits, an empty split, and a label without both classes
            in one (unknown labels do not count).
    """
    _check_leaks(table)
    for name in needed:
        rows = table[table["split"] == name]
        if rows.empty:
            raise InputError(
                f"the {name} split has no images; "
                f"{'' if own else 'set data.splits=own to split by patient, or '}give {name} images"
            )
        for label in labels:
            present, absent = int((rows[label] == 1).sum()), int((rows[label] == 0).sum())
            if not (present and absent):
                raise InputError(
                    f"the {name} split cannot score {label!r}: positive images {present}, negative "
                    f"images {absent}; remove it from data.labels, or change the splits "
                    f"({'' if own else 'data.splits=own, '}data.val_frac, data.test_frac)"
                )


def count_table(table: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, str | int]]:
    """Per split: `split`, `images`, `patients`, and under each label its positive images."""
    counts: list[dict[str, str | int]] = []
    for name in SPLITS:
        rows = table[table["split"] == name]
        sizes = {"images": len(rows), "patients": int(rows["patient"].nunique())}
        positives = {label: int((rows[label] == 1).sum()) for label in labels}
        counts.append({"split": name, **sizes, **positives})
    return counts


def fingerprint(table: pd.DataFrame, labels: Sequence[str]) -> str:
    """Hash of file names, patients, splits and labels, 16 hex digits.

    It does not depend on the order of the rows or on the directory of the collection.
    """
    values = [_spelt(table[label]) for label in labels]
    columns = [_file_names(table), table["patient"], table["split"], *values]
    lines = sorted("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    text = "\n".join(["\t".join(labels), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_names(table: pd.DataFrame) -> list[str]:
    """Paths of the images below their collection."""
    if COLLECTION not in table:
        return relative_paths(list(table["path"]))
    parts = table.groupby(COLLECTION, sort=False)["path"]
    return (
        table[COLLECTION] + "/" + parts.transform(lambda paths: relative_paths(list(paths)))
    ).tolist()


def _spelt(label: pd.Series) -> list[str]:
    spelling = {value: f"{value:g}" for value in label.dropna().unique().tolist()}
    return [spelling.get(value, "?") for value in label.tolist()]


def _count_images(pool: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """One row per patient: positive images of each label (-1 if all are unknown), and `images`."""
    by_patient = pool.groupby("patient", sort=True)
    counts = by_patient[list(labels)].sum(min_count=1).fillna(-1)
    # `_draw` balances the first column best: the rarest finding.
    rarest_first = (counts > 0).sum().sort_values(kind="stable").index
    return counts[rarest_first].assign(images=by_patient.size())


def _draw_splits(
    patients: pd.DataFrame, fractions: dict[str, float], random: np.random.Generator
) -> dict[str, str]:
    split_of = dict.fromkeys(patients.index, "train")
    left, left_share = patients, 1.0
    for name, fraction in fractions.items():
        drawn = _draw(left, fraction / left_share, random)
        split_of |= dict.fromkeys(left.index[drawn], name)
        left, left_share = left[~drawn], left_share - fraction
    return split_of


def _draw(patients: pd.DataFrame, fraction: float, random: np.random.Generator) -> np.ndarray:
    """Stratified draw of patients, bool [P]: the best balanced of many systematic samples.

    A sample takes every (1 / fraction)-th patient in the order of the strata, so that a stratum of
    n patients gives n * fraction patients, plus or minus one. The best sample has shares of all
    images and of each label's positive images nearest to `fraction`.
    """
    counts = patients.to_numpy(float)  # [P, K + 1]
    # sorts by the first label, then the second, ...
    _, stratum = np.unique(np.sign(counts[:, :-1]), axis=0, return_inverse=True)
    shares = counts.clip(0) / np.maximum(counts.clip(0).sum(axis=0), 1)
    best, best_gap = np.zeros(len(counts), bool), np.inf
    for _ in range(CANDIDATES):
        order = np.lexsort([random.permutation(len(counts)), stratum])
        position = np.arange(len(counts) + 1) * fraction + random.random()
        drawn = np.zeros(len(counts), bool)
        drawn[order] = np.diff(np.floor(position)) > 0
        gap = np.abs(shares[drawn].sum(axis=0) - fraction).sum()
        if gap < best_gap:
            best, best_gap = drawn, gap
    return best


def _check_enough(
    pool: pd.DataFrame, patients: int, labels: Sequence[str], missing: dict[str, float]
) -> None:
    if not missing:
        return
    needed = ", ".join([*missing, "train"])
    if patients * min(missing.values()) < 2:
        raise InputError(
            f"too few patients ({patients}) for the splits {needed}: "
            f"a share of {min(missing.values())} is less than two patients; add patients, raise "
            "data.val_frac and data.test_frac, or give the splits"
        )
    _check_classes(pool, labels, len(missing) + 1, f"splits {needed}")


def _check_classes(pool: pd.DataFrame, labels: Sequence[str], least: int, where: str) -> None:
    for label in labels:
        for value, words in ((1, "with"), (0, "without")):
            found = pool.loc[pool[label] == value, "patient"].nunique()
            if found < least:
                raise InputError(
                    f"too few patients ({found}) have an image {words} {label!r} to put one into "
                    f"each of the {where}; remove it from data.labels, add patients, or give the "
                    "splits"
                )


def _check_leaks(table: pd.DataFrame) -> None:
    splits_of = table.groupby("patient")["split"].agg(set)
    leaks = {
        f"{a} and {b}": int(splits_of.map({a, b}.issubset).sum())
        for a, b in combinations(SPLITS, 2)
    }
    found = [f"{count} in {pair}" for pair, count in leaks.items() if count]
    if found:
        raise InputError(
            f"patients are in two splits ({', '.join(found)}), so the score would be too high; "
            "set data.splits=own to split by patient, or check how patients are identified"
        )
