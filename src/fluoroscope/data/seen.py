"""Which images and patients a model has seen, remembered without names."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

TAIL_BYTES = 4096


def marks(paths: Sequence[str]) -> list[int]:
    """A signed 64-bit hash an image, of its file's size and last bytes.

    Compressed pixels end in bytes that no other image shares, so a copy is known under any name
    and in any folder, at the cost of one small read. A copy that was resized is not known.
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


def _mark(path: str) -> int:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL_BYTES))
        digest = hashlib.sha256(size.to_bytes(8) + file.read())
    return _number(digest.digest())


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)
