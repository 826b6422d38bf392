"""Leakage: copies across splits, and images and patients that a model was trained on.

No message names an image or a patient.
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
from fluoroscope.data.study_table import NOBODY, SEVERAL, Decision, Studies
from fluoroscope.errors import InputError, check_choice

TAIL_BYTES = 4096
PERCEPTUAL = [f"perceptual_{i}" for i in range(4)]
# 99 % of 732 NIH films resized to 224 px differ from the original in at most 12 bits, films of
# different patients in at least 62 (`python -m benchmarks.near_duplicates ROOT`).
ALIKE_BITS = 12
SAMPLE = 2000  # images that are compared, to estimate a share
BLOCK = 4096
ALIKE_FRAC = 0.02  # a few different images look alike by chance
ADVICE = "score the checkpoint's test split (without data=), or another collection"


def copy_groups(exact: pd.Series, usable: pd.Series) -> np.ndarray:
    """Group of copies to which each image belongs, int [N]; -1 for an image without a copy.

    Args:
        exact: exact hashes from the survey.
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
    """Rows to leave out so that no image has a copy in another split, bool [N], and the decision.

    Args:
        table: study table with splits.
        survey: of the same rows, all of them usable.
        on_duplicate: "stop" refuses copies across splits; "drop" leaves an image of train out if
            val or test has a copy, and one of val if test has a copy; "keep" only counts them.

    Raises:
        InputError: with "stop", if there are copies across splits.
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
            f"images have an exact copy in val or test ({listed}), so the score would be too high; "
            "leave them out with data.on_duplicate=drop, or keep them with data.on_duplicate=keep; "
            "python scripts/prepare.py audit=only lists them"
        )
    done = {"drop": "left out", "keep": "kept"}[on_duplicate]
    decision = Decision(f"images with an exact copy in val or test: {done}", counts)
    return later & (on_duplicate == "drop"), (decision,)


def _also_later(groups: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Images of train with a copy in val or test, and images of val with a copy in test."""
    in_test = np.isin(groups, groups[split == "test"])
    in_val = np.isin(groups, groups[split == "val"])
    found = (split == "train") & (in_val | in_test) | (split == "val") & in_test
    return found & (groups >= 0)


def marks(paths: Sequence[str]) -> list[int]:
    """A signed 64-bit hash per file, of its size and last bytes, which needs one small read.

    The last bytes of compressed images differ; those of an uncompressed image are only its margin.
    """
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(_mark, paths))


def patient_marks(patients: Iterable[str], patients_of: str) -> list[int]:
    """A signed 64-bit hash of each patient.

    Anyone with a list of all patient numbers can find out which of them were hashed.

    Args:
        patients: patient numbers of the study table.
        patients_of: register of the numbers; the same number in another register is another person.
            `SEVERAL`: each number follows its register and a tab.
    """
    register = "" if patients_of == SEVERAL else f"{patients_of}\t"
    return [_number(hashlib.sha256(f"{register}{p}".encode()).digest()) for p in patients]


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


def _mark(path: str) -> int:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL_BYTES))
        digest = hashlib.sha256(size.to_bytes(8) + file.read())
    return _number(digest.digest())


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)


def training_marks(studies: Studies) -> dict[str, Any]:
    """Hashes that a checkpoint stores to recognise its training data, without any names.

    Entries: `split_fingerprint`; `source`; of the training and validation images `seen` (hashes of
    their pixels), `pictures` (perceptual hashes) and `patients` (`patient_marks`); `patients_of`,
    the register of the patients.
    """
    import torch  # here, because audits and copies of a collection work without torch

    used = studies.table["split"].isin(["train", "val"]).to_numpy(bool)
    patients: list[int] = []
    if studies.patients_of is not None:
        patients = patient_marks(studies.table["patient"][used].unique(), studies.patients_of)
    return {
        "split_fingerprint": studies.fingerprint,
        "source": studies.source,
        "seen": torch.from_numpy(np.array(studies.survey["exact"][used], np.int64)),
        "pictures": torch.from_numpy(pictures(studies.survey[used])),
        "patients": torch.tensor(patients, dtype=torch.int64),
        "patients_of": studies.patients_of,
    }


def check_unseen(
    checkpoint: Mapping[str, Any], studies: Studies, split: str, allow_alike: bool = False
) -> bool:
    """Refuse to score images or patients that a checkpoint was trained or chosen on.

    The checkpoint's own splits are recognised by their fingerprint and need no comparison.

    Args:
        checkpoint: has the entries of `training_marks`.
        studies: the studies to score.
        split: of the studies, or "all".
        allow_alike: accept patients with known numbers and images that look like known ones, but
            never the same pixels.

    Returns:
        Whether all patients are known and were compared with those of the training.

    Raises:
        InputError: the checkpoint knows some of them.
    """
    own = checkpoint["split_fingerprint"] == studies.fingerprint
    if own and split != "all":
        return studies.patients_known == "all"
    rows = np.isin(studies.table["split"], [split]) | (split == "all")
    table, survey = studies.table[rows], studies.survey[rows]
    trained = "the checkpoint was trained or validated on"
    known = _known_images(checkpoint, table, survey)
    if known:
        raise InputError(f"{trained} {known} of the {len(table)} images to score; {ADVICE}")
    if allow_alike or "pictures" not in checkpoint:
        return False
    known, patients = _known_patients(checkpoint, table, studies.patients_of)
    if known:
        raise InputError(
            f"{trained} {known} of the {patients} patients to score; {ADVICE}, or, if these are "
            "other people with the same numbers, add already_seen=allow"
        )
    share = alike_frac(pictures(survey), checkpoint["pictures"].numpy())
    if share > ALIKE_FRAC:
        raise InputError(
            f"{trained} images that look like {share:.0%} of the images to score, which may be "
            f"resized copies; {ADVICE}, or, if they are different images, add already_seen=allow"
        )
    registers = {checkpoint.get("patients_of", NOBODY), studies.patients_of}
    return len(registers) == 1 and SEVERAL not in registers and studies.patients_known == "all"


def _known_images(checkpoint: Mapping[str, Any], table: pd.DataFrame, survey: pd.DataFrame) -> int:
    """Number of images with known pixels; an older checkpoint has hashes of files only."""
    known = set(checkpoint["seen"].tolist())
    if "pictures" not in checkpoint:
        print("this checkpoint is old and has no hashes of patients and pixels: comparing files")
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
