"""Images that look like those of a training, perhaps resized or recompressed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.data.image_stats import PERCEPTUAL_BITS, hash_signs
from fluoroscope.errors import InputError

PERCEPTUAL = [f"perceptual_{i}" for i in range(4)]
# 99 % of 732 NIH films resized to 224 px differ from the original in at most 12 bits, films of
# different patients in at least 62 (`python -m benchmarks.near_duplicates ROOT`).
ALIKE_BITS = 12
SAMPLE = 2000  # images that are compared, to estimate a share
BLOCK = 4096
ALIKE_FRAC = 0.02  # a few different images look alike by chance
TRAINED = "the checkpoint was trained or validated on"
SCORED = (  # what to do, and the key that accepts them
    "score the checkpoint's test split (without data=), or another collection",
    "already_seen=allow",
)


def pictures(survey: pd.DataFrame) -> np.ndarray:
    """The perceptual hashes of a survey, int64 [N, 4]."""
    return np.array(survey[PERCEPTUAL], np.uint64, order="C").view(np.int64)


def alike_frac(found: np.ndarray, seen: np.ndarray) -> float:
    """Share of found images that look like a seen image, perhaps resized or recompressed.

    Args:
        found, seen: results of `pictures`, [N, 4] and [M, 4]; at most `SAMPLE` of `found` are used.
    """
    if not len(found) or not len(seen):
        return 0.0
    drawn = np.random.default_rng(0).permutation(len(found))[:SAMPLE]
    signs = hash_signs(found[drawn].view(np.uint64))
    nearest = np.full(len(drawn), -1.0, np.float32)
    for start in range(0, len(seen), BLOCK):
        others = hash_signs(np.ascontiguousarray(seen[start : start + BLOCK]).view(np.uint64))
        nearest = np.maximum(nearest, (signs @ others.T).max(axis=1))
    return float((nearest >= PERCEPTUAL_BITS - 2 * ALIKE_BITS).mean())


def refuse_alike(
    checkpoint: Mapping[str, Any], survey: pd.DataFrame, advice: tuple[str, str] = SCORED
) -> None:
    """Refuse images that look like those of the training.

    Args:
        checkpoint: has the entries of `training_marks`; one of an older version has no pictures.
        survey: of the images to score.
    """
    if "pictures" not in checkpoint:
        return
    share = alike_frac(pictures(survey), checkpoint["pictures"].numpy())
    if share > ALIKE_FRAC:
        raise InputError(
            f"{TRAINED} images that look like {share:.0%} of the images to score, which may be "
            f"resized copies; {advice[0]}, or, if they are different images, add {advice[1]}"
        )
