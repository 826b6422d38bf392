"""Near duplicates across splits: one film resized, recompressed, windowed, cropped or inverted.

Films of different patients look alike, so a perceptual hash only proposes pairs. Each pair is then
decoded, aligned and compared in its details. DISTANCE and SAME were chosen on NIH films, see
data/README.md.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from fluoroscope.commands import called
from fluoroscope.console import show_progress
from fluoroscope.data.image_stats import PERCEPTUAL_BITS, hash_signs, mirrored, thumbnail, trim
from fluoroscope.data.lookalikes import PERCEPTUAL
from fluoroscope.data.study_table import Decision
from fluoroscope.files.images import UnreadableError, decode

DISTANCE = 60  # bits of 256; films of two patients differ in about 124
SAME = 0.9  # correlation of the details after alignment
MOST_PAIRS = 20_000  # the nearest ones; only these are compared
ROWS, COLUMNS = 1024, 8192  # of one block of distances: 32 MiB
DETAIL_PX = 128
KINDS = ("copy", "negative", "mirror image", "mirrored negative")
# At the start of a run: this many distances take about 2 s on two cores, a detailed pair 20 ms.
QUICK_DISTANCES, QUICK_PAIRS = 100_000_000, 100
LISTED = f"{called('prepare')} audit=only lists them"


class Pair(NamedTuple):
    """Rows of two images that look alike, and their relation, one of `KINDS`."""

    row: int
    other: int
    kind: str
    distance: int


def across_splits(
    table: pd.DataFrame, survey: pd.DataFrame, most: int = MOST_PAIRS
) -> tuple[list[Pair], int]:
    """Pairs of images in two splits that show the same film, and the number of proposed pairs.

    Args:
        table: study table; images without a split are left out.
        survey: of the same rows.
        most: number of proposed pairs to compare in detail, the nearest first.
    """
    usable = survey[survey["reason"] == ""]
    split = table["split"].reindex(usable.index)
    rows = [usable.index[split == name].to_numpy() for name in ("train", "val", "test")]
    proposed = [pair for a, b in combinations(rows, 2) for pair in propose(usable, a, b)]
    proposed.sort(key=lambda pair: pair.distance)
    return confirm(table["path"], survey["polarity"], proposed[:most]), len(proposed)


def quick_check(table: pd.DataFrame, survey: pd.DataFrame) -> tuple[Decision, ...]:
    """The near duplicates across splits, as a run tells them at its start; () if there are none.

    Of a large collection a random part of val and test is compared, and only the `QUICK_PAIRS`
    nearest pairs are decoded: there may be more. The audit compares all.

    Args:
        table, survey: as in `across_splits`.
    """
    part = _part(table["split"])
    rows, measures = (frame.iloc[part].reset_index(drop=True) for frame in (table, survey))
    found, proposed = across_splits(rows, measures, QUICK_PAIRS)
    some = f", among {len(part):,} images compared" if len(part) < len(table) else ""
    some += f", among the {QUICK_PAIRS} nearest pairs" if proposed > QUICK_PAIRS else ""
    policy = f"pairs of images in two splits that look like the same film{some}: kept, {LISTED}"
    return (Decision(policy, {"pairs": len(found)}),) if found else ()


def _part(split: pd.Series) -> np.ndarray:
    """Row numbers: all of train, and as many others as `QUICK_DISTANCES` allows."""
    is_train = (split == "train").to_numpy(bool)
    trained, others = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    most = QUICK_DISTANCES // max(len(trained), 1)
    drawn = np.random.default_rng(0).permutation(others)[:most]
    return np.sort(np.concatenate([trained, drawn]))


def propose(survey: pd.DataFrame, rows: np.ndarray, others: np.ndarray) -> list[Pair]:
    """The nearest pairs by perceptual hash, one row of each set; exact copies are left out.

    All distances are computed, in blocks: time grows with the product of both numbers, memory does
    not grow. A negative differs in every bit, so it is as far from chance as a copy.
    """
    found = np.empty((0, 4), np.int64)  # row, other, number of the kind, distance
    for start in _blocks(len(rows), ROWS, "comparing images"):
        these = rows[start : start + ROWS]
        signs = _signs(survey, these)
        for first in range(0, len(others), COLUMNS):
            those = others[first : first + COLUMNS]
            columns = _signs(survey, those).T
            for mirror, left in enumerate((signs, mirrored(signs))):
                near = _near(left @ columns, these, those, mirror)
                if len(near):
                    found = _nearest(np.concatenate([found, near]))
    exact = survey["exact"]
    copies = exact[found[:, 0]].to_numpy() == exact[found[:, 1]].to_numpy()
    return [
        Pair(row, other, KINDS[kind], distance)
        for row, other, kind, distance in found[~(copies & (found[:, 2] == 0))].tolist()
    ]


def _signs(survey: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    return hash_signs(survey.loc[rows, PERCEPTUAL].to_numpy(np.uint64))


def _near(agree: np.ndarray, rows: np.ndarray, others: np.ndarray, mirror: int) -> np.ndarray:
    """Pairs of a block; `agree` is 256 - 2 * distance for a copy, minus that for a negative."""
    i, j = np.nonzero(np.abs(agree) >= PERCEPTUAL_BITS - 2 * DISTANCE)
    value = agree[i, j].astype(np.int64)
    kind, distance = 2 * mirror + (value < 0), (PERCEPTUAL_BITS - np.abs(value)) // 2
    return _nearest(np.stack([rows[i], others[j], kind, distance], axis=1))


def _nearest(pairs: np.ndarray) -> np.ndarray:
    """The nearest `MOST_PAIRS`: images that all look alike must not fill the memory with pairs."""
    if len(pairs) <= MOST_PAIRS:
        return pairs
    return pairs[np.argsort(pairs[:, 3], kind="stable")[:MOST_PAIRS]]


def confirm(paths: pd.Series, score: pd.Series, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that show the same film, each once; decodes both images of each pair.

    Args:
        paths, score: image file and polarity by row.
    """

    def same(pair: Pair) -> bool:
        try:
            film, other = (
                trim(thumbnail(decode(paths[row])), negative=score[row] < 0)
                for row in (pair.row, pair.other)
            )
        except UnreadableError:  # the file has changed since the survey
            return False
        return similarity(film, other, pair.kind) >= SAME

    with ThreadPoolExecutor() as pool:
        verdicts = pool.map(same, pairs)
        verdicts = show_progress(verdicts, "comparing films in detail", len(pairs))
        found = [pair for pair, is_same in zip(pairs, verdicts, strict=True) if is_same]
    return list({(pair.row, pair.other): pair for pair in reversed(found)}.values())[::-1]


def similarity(film: np.ndarray, other: np.ndarray, kind: str = KINDS[0]) -> float:
    """Correlation of the details of two thumbnails [256, 256] after an affine alignment.

    Contrast, brightness and window change the details little, see `detail`.

    Source: G. Evangelidis, E. Psarakis, Parametric image alignment using enhanced correlation
        coefficient maximization (2008), IEEE TPAMI 30.
    """
    one, two = detail(film), detail(_turned(other, kind))
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    try:
        cv2.findTransformECC(one, two, warp, cv2.MOTION_AFFINE, stop)  # writes to warp
    except cv2.error:  # no alignment found: compare them as they are
        warp = np.eye(2, 3, dtype=np.float32)
    moved = _warp(two, warp, cv2.INTER_LINEAR)
    inside = _warp(np.ones_like(two), warp, cv2.INTER_NEAREST) > 0
    edge = DETAIL_PX // 16
    inside[:edge] = inside[-edge:] = inside[:, :edge] = inside[:, -edge:] = False
    if inside.mean() < 0.5:
        return 0.0
    a, b = one[inside] - one[inside].mean(), moved[inside] - moved[inside].mean()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))


def detail(film: np.ndarray) -> np.ndarray:
    """(Thumbnail - its local mean) / its local spread, float32 [128, 128]."""
    small = cv2.resize(film, (DETAIL_PX, DETAIL_PX), interpolation=cv2.INTER_AREA)
    pixels = small.astype(np.float32)
    sigma = DETAIL_PX / 16
    pixels = pixels - cv2.GaussianBlur(pixels, (0, 0), sigma)
    spread = np.sqrt(cv2.GaussianBlur(pixels * pixels, (0, 0), sigma))
    return pixels / (spread + 2)  # 2 gray levels: flat areas hold only noise


def _turned(film: np.ndarray, kind: str) -> np.ndarray:
    film = np.ascontiguousarray(film[:, ::-1]) if "mirror" in kind else film
    return ~film if "negative" in kind else film


def _warp(image: np.ndarray, warp: np.ndarray, method: int) -> np.ndarray:
    size = (DETAIL_PX, DETAIL_PX)
    return cv2.warpAffine(image, warp, size, flags=method | cv2.WARP_INVERSE_MAP)


def _blocks(total: int, size: int, description: str) -> Iterator[int]:
    starts = range(0, total, size)
    yield from show_progress(starts, description, len(starts))
