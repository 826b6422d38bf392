"""Which images and patients a model has seen, remembered without names."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from fluoroscope.data.image_stats import PERCEPTUAL_BITS, hash_signs

TAIL_BYTES = 4096
PERCEPTUAL = [f"perceptual_{i}" for i in range(4)]
# Of 732 NIH films resized to 224 px 99 % differ from the original in at most 12 bits, films of
# different patients in 62 and more (`python -m fluoroscope.audit.rates ROOT`).
ALIKE_BITS = 12
SAMPLE = 2000  # images that are compared: a share is asked for
BLOCK = 4096


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
