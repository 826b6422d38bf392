"""Survey of all images: which can be used, and their statistics; results are cached."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from fluoroscope.choices import ON_UNREADABLE
from fluoroscope.console import show_progress
from fluoroscope.data.image_stats import MEASURES, measure
from fluoroscope.data.study_table import Decision
from fluoroscope.data.survey_cache import Remembered
from fluoroscope.errors import InputError, check_choice
from fluoroscope.files.images import UnreadableError, decode_film

BLOCK = 1024  # images given to the threads at a time
SAVE_EVERY_S = 60  # an interruption loses at most this much work


def user_cache() -> Path | None:
    """The cache directory of this user; None if the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "fluoroscope"
    except RuntimeError:  # a container's user may have no home
        return None


def find_unusable(
    paths: Sequence[str | Path], survey: pd.DataFrame, on_unreadable: str = "stop"
) -> list[int]:
    """Indices of the images that cannot be used: unreadable, or the same value everywhere.

    Args:
        paths: image files.
        survey: their `survey_images`.
        on_unreadable: "stop" raises an error for such images, "skip" returns them.

    Raises:
        InputError: with "stop" if an image cannot be used, or if none can; names the first three
            with the reason.
    """
    check_choice("data.on_unreadable", on_unreadable, ON_UNREADABLE)
    reasons = {index: reason for index, reason in enumerate(survey["reason"]) if reason}
    if reasons and (on_unreadable == "stop" or len(reasons) == len(paths)):
        first = "; ".join(f"{paths[i]} ({reason})" for i, reason in list(reasons.items())[:3])
        advice = (
            "no usable images are left; check data.root"
            if len(reasons) == len(paths)
            else "repair them, or leave them out with data.on_unreadable=skip"
        )
        raise InputError(f"{len(reasons)} of {len(paths)} images cannot be used: {first}; {advice}")
    return list(reasons)


def turned_images(survey: pd.DataFrame) -> tuple[Decision, ...]:
    """How many images of a survey were turned or mirrored."""
    turned = int((survey["orientation"] > 1).sum())
    policy = "images turned or mirrored, as their orientation tag says"
    return (Decision(policy, {"images": turned}),) if turned else ()


def survey_images(
    paths: Sequence[str | Path],
    workers: int | None = None,
    cache_dir: str | Path | None = None,
    description: str = "checking images",
) -> pd.DataFrame:
    """Statistics of each image, one row per image, in the order of the paths.

    Every image is decoded once. Results are cached, even if the survey is interrupted, until a
    file's size or modification time changes. Images that cannot be used are tried again each time.

    Columns: `reason` (why it cannot be used, "" if it can), `height`, `width`, `low`, `high`,
    `orientation` (the tag by which it was turned, 1: it was not), `mean`, `std`, `dark_frac`,
    `bright_frac` (shares of pixels <= 16 and >= 239), and, as in `image_stats`, `polarity`,
    `exact` (`exact_hash`) and `perceptual_0` to `perceptual_3` (`perceptual_hash`). All but the
    reason are 0 if the file cannot be read.

    Args:
        paths: image files.
        workers: number of threads; None means the default of `ThreadPoolExecutor`.
        cache_dir: directory of the cache; None caches nothing.
        description: text next to the progress bar.
    """
    files = [os.fspath(path) for path in paths]
    memory = Remembered(cache_dir, files) if cache_dir is not None and files else None
    # If several processes start together, one decodes and the others use its cached results.
    with memory.alone() if memory else nullcontext():
        return _survey(files, memory, workers, description)


def _survey(
    files: list[str], memory: Remembered | None, workers: int | None, description: str
) -> pd.DataFrame:
    rows, known = np.zeros(len(files), MEASURES), np.zeros(len(files), bool)
    if memory:
        rows, known = memory.recall()
    reasons = np.full(len(files), "", object)
    unknown = np.flatnonzero(~known)
    saved = time.monotonic()
    try:
        alone = memory is not None  # the process that holds the lock works for all
        measured = _measured(files, unknown, workers)
        shown = show_progress(measured, description, len(unknown), every_process=alone)
        for index, (reason, row) in shown:
            reasons[index], rows[index], known[index] = reason, row, not reason
            if memory and time.monotonic() - saved > SAVE_EVERY_S:
                memory.keep(rows, known)
                saved = time.monotonic()
    finally:
        if memory and len(unknown):
            memory.keep(rows, known)
    return _frame(reasons, rows)


def _measured(
    files: Sequence[str], indices: np.ndarray, workers: int | None
) -> Iterator[tuple[int, tuple[str, np.ndarray]]]:
    pool = ThreadPoolExecutor(workers)
    try:
        yield from _in_blocks(pool, files, indices)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_blocks(
    pool: ThreadPoolExecutor, files: Sequence[str], indices: np.ndarray
) -> Iterator[tuple[int, tuple[str, np.ndarray]]]:
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK].tolist()
        yield from zip(block, pool.map(_measure_file, [files[i] for i in block]), strict=True)


def _measure_file(file: str) -> tuple[str, np.ndarray]:
    try:
        film = decode_film(file)
    except UnreadableError as error:
        return str(error), np.zeros((), MEASURES)
    row = measure(film.pixels)
    row["orientation"] = film.orientation
    return (f"every pixel is {row['low']}" if row["low"] == row["high"] else ""), row


def _frame(reasons: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    plain = [name for name in MEASURES.names or () if name != "perceptual"]
    hashes = {f"perceptual_{i}": rows["perceptual"][:, i] for i in range(4)}
    return pd.DataFrame({"reason": reasons} | {name: rows[name] for name in plain} | hashes)
