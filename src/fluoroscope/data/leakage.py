"""Leakage: images and patients that a model was trained on.

No message names an image or a patient.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.data.lookalikes import SCORED, TRAINED, pictures, refuse_alike
from fluoroscope.data.patient_marks import (
    WHOLE_BITS,
    known_patients,
    mark_bits,
    patient_marks,
    shared_patients,
)
from fluoroscope.data.study_table import NOBODY, SEVERAL, Studies
from fluoroscope.errors import InputError, plural

TAIL_BYTES = 4096


def marks(paths: Sequence[str]) -> list[int]:
    """A signed 64-bit hash per file, of its size and last bytes, which needs one small read.

    The last bytes of compressed images differ; those of an uncompressed image are only its margin.
    """
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(_mark, paths))


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
    their pixels), `pictures` (perceptual hashes) and `patients` (the different `patient_marks`,
    sorted); `patients_bits`, the length of these; `patients_of`, the register of the patients;
    `earlier`, the same of the runs whose weights this one started from.
    """
    import torch  # here, because audits and copies of a collection work without torch

    used = studies.table["split"].isin(["train", "val"]).to_numpy(bool)
    patients: list[int] = []
    bits = WHOLE_BITS
    if studies.patients_of is not None:
        people = studies.table["patient"][used].unique()
        bits = mark_bits(people, studies.patients_of)
        patients = sorted(set(patient_marks(people, studies.patients_of, bits)))
    return {
        "split_fingerprint": studies.fingerprint,
        "source": studies.source,
        "seen": torch.from_numpy(np.array(studies.survey["exact"][used], np.int64)),
        "pictures": torch.from_numpy(pictures(studies.survey[used])),
        "patients": torch.tensor(patients, dtype=torch.int64),
        "patients_bits": bits,
        "patients_of": studies.patients_of,
        "earlier": list(studies.earlier),
    }


def check_unseen(
    checkpoint: Mapping[str, Any],
    studies: Studies,
    split: str,
    allow_alike: bool = False,
    advice: tuple[str, str] = SCORED,
) -> bool:
    """Refuse to score images or patients that a checkpoint was trained or chosen on.

    The checkpoint's own splits are recognised by their fingerprint and need no comparison.

    Args:
        checkpoint: has the entries of `training_marks`.
        studies: the studies to score.
        split: of the studies, or "all".
        allow_alike: accept patients with known numbers and images that look like known ones, but
            never the same pixels.
        advice: what to do, and the key that accepts them.

    Returns:
        Whether all patients are known and were compared with those of the training.

    Raises:
        InputError: the checkpoint knows some of them.
    """
    own = checkpoint["split_fingerprint"] == studies.fingerprint
    if own and split != "all":
        return studies.patients_known == "all"
    for marks_before in checkpoint.get("earlier", ()):
        check_unseen(marks_before, studies, split, allow_alike, advice)
    table, survey = _of_split(studies, split)
    if known := int(_known_images(checkpoint, table, survey).sum()):
        raise InputError(f"{TRAINED} {known} of the {len(table)} images to score; {advice[0]}")
    if allow_alike or "pictures" not in checkpoint:
        return False
    people = shared_patients(checkpoint, table["patient"].unique().tolist(), studies.patients_of)
    by_chance = f"{people.patients * people.chance:.0f} expected by chance"
    if people.found:
        about = "about " if people.chance > 1e-6 else ""
        raise InputError(
            f"{TRAINED} {about}{people.shared} of the {people.patients} patients to score "
            f"({plural(people.hits, 'hit')}, {by_chance}); {advice[0]}, or, if these are other "
            f"people with the same numbers, add {advice[1]}"
        )
    if people.unseen:
        print(
            f"patients {people.hits} of {people.patients:,} have a mark of the training, "
            f"{by_chance}; up to {people.unseen:,} shared patients would go unseen"
        )
    refuse_alike(checkpoint, survey, advice)
    if people.unseen >= people.patients:
        return False
    registers = {checkpoint.get("patients_of", NOBODY), studies.patients_of}
    return len(registers) == 1 and SEVERAL not in registers and studies.patients_known == "all"


def seen_images(
    checkpoint: Mapping[str, Any], studies: Studies, split: str, allow_alike: bool = False
) -> np.ndarray:
    """Which images of a split, or whose patients, a checkpoint was trained or validated on.

    Marks of patients are short, so a few others count as seen too (`patient_marks`). Resized copies
    are not recognised: let `refuse_alike` look at the others.

    Args:
        checkpoint, studies, split, allow_alike: of `check_unseen`.

    Returns:
        bool, one per image of the split, in the order of the study table.
    """
    table, survey = _of_split(studies, split)
    if checkpoint["split_fingerprint"] == studies.fingerprint and split != "all":
        return np.zeros(len(table), bool)
    seen = _known_images(checkpoint, table, survey)
    for marks_before in checkpoint.get("earlier", ()):
        seen |= seen_images(marks_before, studies, split, allow_alike)
    people = table["patient"]
    known = set(people[seen])
    if not allow_alike and "pictures" in checkpoint:
        known |= known_patients(checkpoint, people.unique().tolist(), studies.patients_of)
    return people.isin(known).to_numpy(bool)


def _of_split(studies: Studies, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = studies.rows_of(split)
    return studies.table[rows], studies.survey[rows]


def _known_images(
    checkpoint: Mapping[str, Any], table: pd.DataFrame, survey: pd.DataFrame
) -> np.ndarray:
    """Which images have known pixels; an older checkpoint has hashes of files only."""
    known = checkpoint["seen"].tolist()
    if "pictures" not in checkpoint:
        print("this checkpoint is old and has no hashes of patients and pixels: comparing files")
        return np.isin(marks(table["path"].tolist()), known)
    return np.isin(survey["exact"], known)
