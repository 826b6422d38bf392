"""Read a collection for a run: check its images, split it, and check the splits."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fluoroscope import sources
from fluoroscope.data.copies import check_copies
from fluoroscope.data.image_stats import DARK
from fluoroscope.data.joint_tables import count_shared
from fluoroscope.data.near_duplicates import quick_check
from fluoroscope.data.splits import SPLITS, assign_splits, check_splits, fingerprint
from fluoroscope.data.study_table import COLLECTION, Decision, Studies, first_three, label_columns
from fluoroscope.data.survey import find_unusable, survey_images, turned_images, user_cache
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.doubtful import exclude_key

FEW_GRAYS = DARK + 1  # the number of gray levels that the survey counts as dark, or as bright
BLACK_OR_WHITE = 0.9  # share of the pixels of a mask
FEW_MASKS, FEW_FRAC = 5, 0.1  # so many images, or a smaller share, may be films of little contrast
MOST = 0.95  # share of the pixels; at most 0.48 in 732 NIH films, for dark and for bright ones


def read_studies(data: Mapping[str, Any], split: bool | str = True) -> Studies:
    """Read, check and split a data set; see `sources` and `data.splits` for the errors.

    Args:
        data: the data section of the configuration.
        split: False keeps the splits of the source and does not check them; the name of a split
            needs images in this one only.
    """
    collection = sources.load_section(data)
    table, source = collection.table, collection.source or data["source"]
    labels = label_columns(table)
    survey = survey_images(table["path"].tolist(), cache_dir=user_cache())
    unusable = find_unusable(table["path"].tolist(), survey, data["on_unreadable"])
    table, survey = _without(table, unusable), _without(survey, unusable)
    refuse_masks(table["path"].tolist(), survey, data.get("exclude"))
    decisions = [*collection.decisions, *turned_images(survey), *_flat(survey)]
    if COLLECTION in table:
        decisions += count_shared(table, survey)
    if split:
        table = _split(table, labels, data)
        copied, settled = check_copies(table, survey, data["on_duplicate"])
        table, survey = _without(table, copied), _without(survey, copied)
        needed = SPLITS if split is True else [str(split)]
        check_splits(table, labels, needed, own=data["splits"] == "own")
        alike = () if source == "phantom" else quick_check(table, survey)  # drawn films all are
        decisions += [*settled, *alike]
    return Studies(
        *(table, labels, fingerprint(table, labels), len(unusable), survey, tuple(decisions)),
        patients_of=collection.patients_of or None,
        source=source,
    )


def refuse_masks(
    paths: Sequence[str], survey: pd.DataFrame, exclude: Sequence[str] | None = None
) -> None:
    """Refuse masks among films: black and white images with few grays between.

    None of 732 films of NIH ChestX-ray14 has more than 0.48 of its pixels near black or white. If
    all images are of this kind, nothing is refused.

    Args:
        paths: the images, one per row of the survey.
        survey: result of `survey_images`.
        exclude: the patterns that are set; None for a source without `data.exclude`.

    Raises:
        InputError: all images of a folder, or many of the collection, are of this kind.
    """
    ends = survey[["dark_frac", "bright_frac"]]
    masks = ends.sum(axis=1).gt(BLACK_OR_WHITE) & ends.gt(0).all(axis=1)
    masks |= survey["high"].eq(1) & survey["low"].eq(0)
    folders = pd.Series([os.path.dirname(path) for path in paths], index=masks.index)
    whole = masks.groupby(folders).transform("all") & folders.duplicated(keep=False)
    many = masks.sum() >= FEW_MASKS and masks.mean() > FEW_FRAC
    if masks.all() or not (whole.any() or many):
        return
    where = folders[whole if whole.any() else masks].map(os.path.basename).unique()
    advice = "correct data.root or the paths of the table"
    if exclude is not None:
        advice = "leave them out by name with data.exclude"
        advice += f", such as {exclude_key(where, exclude)}" if whole.any() else ""
    raise InputError(
        f"{masks.sum():,} of {len(masks):,} images are black and white with few grays between, as "
        f"masks are and films are not, in the folders {first_three(where)}; {advice}"
    )


def _flat(survey: pd.DataFrame) -> list[Decision]:
    """Count images with little contrast: a wrong window or scale, or one far too bright pixel.

    An image counts if nearly all pixels are dark or nearly all bright, or if all lie within
    `FEW_GRAYS` gray levels.
    """
    narrow = survey["high"].astype(int) - survey["low"] < FEW_GRAYS
    one_end = survey[["dark_frac", "bright_frac"]].max(axis=1) > MOST
    few = int((narrow | one_end).sum())
    policy = f"images with {MOST:.0%} of their pixels within {FEW_GRAYS} grays: kept"
    return [Decision(policy, {"images": few})] if few else []


def _without(rows: pd.DataFrame, which: Any) -> pd.DataFrame:
    """The other rows, with new row numbers."""
    return rows.drop(index=rows.index[which]).reset_index(drop=True)


def _split(table: pd.DataFrame, labels: list[str], data: Mapping[str, Any]) -> pd.DataFrame:
    fractions = {"val_frac": data["val_frac"], "test_frac": data["test_frac"]}
    given = data["splits"] == "given"
    return assign_splits(table, labels, **fractions, keep_given=given, fold=data["fold"])
