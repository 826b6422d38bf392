"""When and why units of the head died, in one line."""

from collections import Counter
from typing import Any

NEVER = -1  # the step of a unit that no training image opened
CAUSES = {
    "common_direction": "the features' common direction",
    "bias": "the bias",
    "features": "a shift of the features",
    "other": "another term",
}
Row = dict[str, Any]


def describe(rows: list[Row], width: int) -> str:
    """How many of `width` units died, when and why, in one line.

    >>> row = {"unit": 0, "step": 39, "lr": 0.01, "cause": "common_direction"}
    >>> describe([row, {**row, "unit": 5, "step": 7}], 896)  # doctest: +NORMALIZE_WHITESPACE
    "2 of 896 units died, 90% of them by step 40, at learning rates up to 0.01; main cause: the
    features' common direction, not the bias"
    """
    last = {row["unit"]: row for row in rows}  # the last death of each unit
    died = [row for row in last.values() if row["step"] != NEVER]
    unopened = len(last) - len(died)
    also = f"{unopened} of {width} units never opened on a training image"
    if not died:
        return also if unopened else f"none of {width} units died"
    steps = sorted(row["step"] + 1 for row in died)
    by = steps[(9 * len(steps) - 1) // 10]
    line = (
        f"{len(died)} of {width} units died, 90% of them by step {by}, at learning rates up to "
        f"{max(row['lr'] for row in died):.2g}; {_blame(died)}"
    )
    return f"{line}; {also}" if unopened else line


def _blame(died: list[Row]) -> str:
    counts = Counter(row["cause"] for row in died).most_common()
    main, share = counts[0][0], counts[0][1] / len(died)
    if share < 2 / 3:
        return "causes: " + ", ".join(f"{CAUSES[cause]} ({count})" for cause, count in counts)
    other = "the bias" if main == "common_direction" else CAUSES["common_direction"]
    return f"main cause: {CAUSES[main]}, not {other}"
