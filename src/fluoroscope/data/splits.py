"""Who is trained on and who is tested on: patients to train, val and test, and the refusals."""

import hashlib
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from fluoroscope.data.studies import relative_paths
from fluoroscope.errors import InputError

SPLITS = ("train", "val", "test")
CANDIDATES = 100  # samples a draw chooses from


def assign_splits(
    table: pd.DataFrame,
    labels: Sequence[str],
    *,
    val_frac: float = 0.15,
    test_frac: float = 0.15,
    seed: int = 0,
    keep_given: bool = True,
) -> pd.DataFrame:
    """Copy of the study table in which every image has a split; all images of a patient share it.

    A split that the table gives is kept. Missing val and test splits are drawn from the patients
    of the images that are given as train or not at all; the rest of them is train. The draw
    depends on patients, labels and `seed`, not on the order of the rows.

    Args:
        table: study table.
        labels: columns whose shares are kept alike in the splits.
        val_frac: share of the drawn-from patients that validate, if val is not given.
        test_frac: share of them that test, if test is not given.
        seed: of the draw.
        keep_given: False draws all three anew.

    Raises:
        InputError: for impossible fractions, for no images and for too few patients.
    """
    if table.empty:
        raise InputError("no usable images are left to split; check data.root and data.views")
    if not (val_frac > 0 and test_frac > 0 and val_frac + test_frac < 1):
        raise InputError(
            "data.val_frac and data.test_frac must be above 0 and add to less than 1; "
            f"got {val_frac} and {test_frac}"
        )
    given = table["split"] if keep_given else pd.Series(None, index=table.index, dtype=object)
    pool = table[~given.isin(["val", "test"])]
    fractions = {"test": test_frac, "val": val_frac}
    missing = {name: f for name, f in fractions.items() if not given.eq(name).any()}
    patients = _count_images(pool, labels)
    _check_enough(pool, len(patients), labels, missing)
    split_of = _draw_splits(patients, missing, np.random.default_rng(seed))
    drawn = table["patient"].map(split_of)
    return table.assign(split=given.where(given.isin(["val", "test"]), drawn).astype(object))


def check_splits(table: pd.DataFrame, labels: Sequence[str]) -> None:
    """Refuse splits that leak or that cannot be scored. Patients are counted, never named.

    Raises:
        InputError: for a patient in two splits, an empty split, and a label without both classes
            in one (unknown labels do not count).
    """
    _check_leaks(table)
    for name in SPLITS:
        rows = table[table["split"] == name]
        if rows.empty:
            raise InputError(
                f"the {name} split has no images; set data.splits=own to split by patient, or "
                f"give {name} images"
            )
        for label in labels:
            present, absent = int((rows[label] == 1).sum()), int((rows[label] == 0).sum())
            if not (present and absent):
                raise InputError(
                    f"the {name} split cannot score {label!r}: {present} images with it and "
                    f"{absent} without; take it out of data.labels, or change the splits "
                    "(data.splits=own, data.val_frac, data.test_frac)"
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
    """16 hex digits of file names, patients, splits and labels.

    The order of the rows and the directory that holds all images do not count.
    """
    values = table[list(labels)].map(lambda value: "?" if pd.isna(value) else str(int(value)))
    columns = [relative_paths(list(table["path"])), table["patient"], table["split"]]
    columns += [values[label] for label in labels]
    lines = sorted("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    text = "\n".join(["\t".join(labels), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _count_images(pool: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """One row a patient: under each label its positive images, -1 if unknown on all; `images`."""
    by_patient = pool.groupby("patient", sort=True)
    counts = by_patient[list(labels)].sum(min_count=1).fillna(-1)
    # The rarest finding leads: it is the first that `_draw` sorts by, and so spread best.
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

    A sample takes every (1 / fraction)-th patient of an order that has like ones side by side, so
    a stratum of n patients gives n * fraction, give or take one. The one that is kept has shares
    of all images and of each label's positive images nearest to `fraction`.
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
    needed = [*missing, "train"]
    if missing and patients * min(missing.values()) < 2:
        raise InputError(
            f"{patients} patients are too few for the splits {', '.join(needed)}: "
            f"a share of {min(missing.values())} is less than two of them; add patients, raise "
            "data.val_frac and data.test_frac, or give the splits"
        )
    for label in labels:
        for value, words in ((1, "with"), (0, "without")):
            found = pool.loc[pool[label] == value, "patient"].nunique()
            if missing and found < len(needed):
                raise InputError(
                    f"{found} patients have an image {words} {label!r}, too few for one in each "
                    f"of the splits {', '.join(needed)}; take it out of data.labels, add "
                    "patients, or give the splits"
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
            f"patients are in two splits ({', '.join(found)}), so the score would be too good; "
            "set data.splits=own to split by patient, or check what names the patient"
        )
