"""Images and patients in more than one place: copies across splits, and what a model has seen.

Nothing here names an image or a patient.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.choices import ON_DUPLICATE
from fluoroscope.data.image_stats import PERCEPTUAL_BITS, hash_signs
from fluoroscope.data.study_table import Decision, Studies
from fluoroscope.errors import InputError, check_choice

TAIL_BYTES = 4096
PERCEPTUAL = [f"perceptual_{i}" for i in range(4)]
# Of 732 NIH films resized to 224 px 99 % differ from the original in at most 12 bits, films of
# different patients in 62 and more (`python -m benchmarks.near_duplicates ROOT`).
ALIKE_BITS = 12
SAMPLE = 2000  # images that are compared: a share is asked for
BLOCK = 4096
ALIKE_FRAC = 0.02  # different images do look alike now and then
ADVICE = "score its own test split (no data=), or another collection"


def copy_groups(exact: pd.Series, usable: pd.Series) -> np.ndarray:
    """Number of the picture of each image that has a copy, -1 of each that has none, int [N].

    Args:
        exact: hashes of the survey.
        usable: False leaves an image out.
    """
    repeated = exact.duplicated(keep=False) & usable
    repeated &= exact.where(usable).duplicated(keep=False)
    groups = np.full(len(exact), -1)
    groups[repeated] = pd.factorize(exact[repeated])[0]
    return groups


def check_copies(
    table: pd.DataFrame, survey: pd.DataFrame, on_duplicate: str = "stop"
) -> tuple[np.ndarray, tuple[Decision, ...]]:
    """Rows to leave out so that no picture is in two splits, bool [N], and what was decided.

    Args:
        table: study table with splits.
        survey: of the same rows, all of them usable.
        on_duplicate: "stop" refuses copies across splits; "drop" leaves them out of train where
            val or test has one, and out of val where test has one; "keep" only counts them.

    Raises:
        InputError: with "stop": how many images, and in which splits. Names none of them.
    """
    check_choice("data.on_duplicate", on_duplicate, ON_DUPLICATE)
    split = table["split"].to_numpy()
    later = _also_later(copy_groups(survey["exact"], survey["reason"] == ""), split)
    if not later.any():
        return later, ()
    counts = {name: int((later & (split == name)).sum()) for name in ("train", "val")}
    counts = {name: count for name, count in counts.items() if count}
    if on_duplicate == "stop":
        listed = " and ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(
            f"images have a copy, pixel for pixel, in a split that scores ({listed}), so the score "
            "would be too good; leave them out with data.on_duplicate=drop, or keep them with "
            "data.on_duplicate=keep; python scripts/prepare.py audit=only lists them"
        )
    done = {"drop": "left out", "keep": "kept"}[on_duplicate]
    decision = Decision(f"images with a copy in a split that scores: {done}", counts)
    return later & (on_duplicate == "drop"), (decision,)


def _also_later(groups: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Images of train with a copy in val or test, and of val with one in test."""
    in_test = np.isin(groups, groups[split == "test"])
    in_val = np.isin(groups, groups[split == "val"])
    found = (split == "train") & (in_val | in_test) | (split == "val") & in_test
    return found & (groups >= 0)


def marks(paths: Sequence[str]) -> list[int]:
    """A signed 64-bit hash a file, of its size and last bytes, at the cost of one small read.

    Compressed pixels end in bytes that no other image shares; of files that are not compressed it
    sees a margin alone.
    """
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(_mark, paths))


def patient_marks(patients: Iterable[str], patients_of: str) -> list[int]:
    """A signed 64-bit hash of each patient.

    Who has the list of all numbers can find out whose are among them, as with any such record.

    Args:
        patients: as the study table has them.
        patients_of: whose numbers they are; those of another register are other people.
    """
    texts = (f"{patients_of}\t{patient}".encode() for patient in patients)
    return [_number(hashlib.sha256(text).digest()) for text in texts]


def pictures(survey: pd.DataFrame) -> np.ndarray:
    """What the images look like, int64 [N, 4]: the perceptual hashes of `data.survey`."""
    return np.array(survey[PERCEPTUAL], np.uint64, order="C").view(np.int64)


def alike_frac(found: np.ndarray, seen: np.ndarray) -> float:
    """Share of pictures that look the same as one that was seen, resized or recompressed.

    Args:
        found, seen: of `pictures`, [N, 4] and [M, 4]; of many that were found some are drawn.
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


def _mark(path: str) -> int:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL_BYTES))
        digest = hashlib.sha256(size.to_bytes(8) + file.read())
    return _number(digest.digest())


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)


def training_marks(studies: Studies) -> dict[str, Any]:
    """What a checkpoint keeps of its training data, to recognise them later without any name.

    Entries: `split_fingerprint`; of the training and validation images `seen` (hashes of their
    pixels), `pictures` (perceptual hashes) and `patients` (`patient_marks`).
    """
    import torch  # the audit and the copy of a collection, which need no torch, read this module

    used = studies.table["split"].isin(["train", "val"]).to_numpy(bool)
    patients: list[int] = []
    if studies.patients_of is not None:
        patients = patient_marks(studies.table["patient"][used].unique(), studies.patients_of)
    return {
        "split_fingerprint": studies.fingerprint,
        "seen": torch.from_numpy(np.array(studies.survey["exact"][used], np.int64)),
        "pictures": torch.from_numpy(pictures(studies.survey[used])),
        "patients": torch.tensor(patients, dtype=torch.int64),
    }


def check_unseen(
    checkpoint: Mapping[str, Any], studies: Studies, split: str, allow_alike: bool = False
) -> None:
    """Refuse to score images or patients that a checkpoint was trained or chosen on.

    The checkpoint's own splits are recognised by their fingerprint and need no comparison.

    Args:
        checkpoint: with the entries of `training_marks`.
        studies: to score.
        split: of the studies, or "all".
        allow_alike: accept patients with known numbers and images that look like known ones, but
            never the same pixels.

    Raises:
        InputError: how many of them the checkpoint knows, and what to do.
    """
    own = checkpoint["split_fingerprint"] == studies.fingerprint
    if own and split != "all":
        return
    rows = np.isin(studies.table["split"], [split]) | (split == "all")
    table, survey = studies.table[rows], studies.survey[rows]
    where = "were in the training or validation split of this checkpoint"
    known = _known_images(checkpoint, table, survey)
    if known:
        raise InputError(f"{known} of the {len(table)} images to score {where}; {ADVICE}")
    if allow_alike or "pictures" not in checkpoint:
        return
    known, patients = _known_patients(checkpoint, table, studies.patients_of)
    if known:
        raise InputError(
            f"{known} of the {patients} patients to score {where}; {ADVICE}, or, if these are "
            "other people with the same numbers, add already_seen=allow"
        )
    share = alike_frac(pictures(survey), checkpoint["pictures"].numpy())
    if share > ALIKE_FRAC:
        raise InputError(
            f"{share:.0%} of the images to score look like images that {where}, as a resized copy "
            f"of them does; {ADVICE}, or, if they are different images, add already_seen=allow"
        )


def _known_images(checkpoint: Mapping[str, Any], table: pd.DataFrame, survey: pd.DataFrame) -> int:
    """Number of images with known pixels; a checkpoint of an older version knows only files."""
    known = set(checkpoint["seen"].tolist())
    if "pictures" not in checkpoint:
        print("this checkpoint is older than marks of patients and pictures: files are compared")
        return sum(mark in known for mark in marks(table["path"].tolist()))
    return sum(pixels in known for pixels in survey["exact"].tolist())


def _known_patients(
    checkpoint: Mapping[str, Any], table: pd.DataFrame, patients_of: str | None
) -> tuple[int, int]:
    """Number of patients that the checkpoint knows, and number of patients."""
    patients = table["patient"].unique().tolist()
    if patients_of is None:
        return 0, len(patients)
    known = set(checkpoint["patients"].tolist())
    return sum(mark in known for mark in patient_marks(patients, patients_of)), len(patients)
