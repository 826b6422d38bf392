"""Images and patients of the runs whose weights a run starts from; they are not tested again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fluoroscope.data.leakage import check_unseen, seen_images
from fluoroscope.data.lookalikes import refuse_alike
from fluoroscope.data.splits import SPLITS, check_splits, fingerprint
from fluoroscope.data.study_table import Decision, Studies

MARKS = (
    *("split_fingerprint", "source", "seen", "pictures"),
    *("patients", "patients_bits", "patients_of", "weights_trained_on"),
)
STARTED = (
    "leave them out of the test split with data.on_duplicate=drop, or test on another collection",
    "data.on_duplicate=keep",
)


def marks_of(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The `training_marks` of a checkpoint and of all runs whose weights it started from."""
    own = {name: checkpoint[name] for name in MARKS if name in checkpoint}
    known = {marks["split_fingerprint"]: marks for marks in (*checkpoint.get("earlier", ()), own)}
    return list(known.values())


def without_seen(studies: Studies, earlier: Sequence[Mapping[str, Any]], policy: str) -> Studies:
    """The studies of a run that starts from weights of earlier runs, with their marks.

    Args:
        earlier: `marks_of` the checkpoint with these weights.
        policy: `data.on_duplicate`, here for test images that an earlier run was trained on, and
            those of its patients: stop, drop (from the test split) or keep.

    Raises:
        InputError: policy is stop and there are such images, or none or one class is left.
    """
    seen = np.zeros(len(studies.table), bool)
    rows = np.flatnonzero(studies.rows_of("test"))
    for marks_before in earlier if len(rows) else ():
        if policy == "stop":
            check_unseen(marks_before, studies, "test", advice=STARTED)
        else:
            seen[rows] |= seen_images(marks_before, studies, "test")
    if not seen.any():
        return studies._replace(earlier=tuple(earlier))
    verb = {"drop": "left out", "keep": "kept"}[policy]
    decision = Decision(f"test images whose patients earlier weights know: {verb}", _count(seen))
    decisions = (*studies.decisions, decision)
    if policy == "keep":
        return studies._replace(earlier=tuple(earlier), decisions=decisions)
    table, survey = (frame[~seen].reset_index(drop=True) for frame in studies[:5:4])
    check_splits(table, studies.labels, SPLITS, own=False)
    for marks_before in earlier:
        refuse_alike(marks_before, survey[(table["split"] == "test").to_numpy()], STARTED)
    name = fingerprint(table, studies.labels)
    left = studies._replace(table=table, survey=survey, fingerprint=name, decisions=decisions)
    return left._replace(earlier=tuple(earlier))


def _count(seen: np.ndarray) -> dict[str, int]:
    return {"images": int(seen.sum())}
