"""Shortened hashes of patients: they show an overlap of two groups, but name nobody.

**Why short.** Anyone can hash all numbers of a hospital (10^7 take half a minute) and look which of
the hashes a checkpoint holds. So a mark keeps only the first bits of the hash, and many numbers
share it. The number of bits comes from the form of the ids: k digits (letters, if there are no
digits) count as 10^k possible numbers, at most 10^7. A mark fits `IDS_PER_MARK` = 64 of them on
average. Of a register that uses only a third of its numbers it still fits about 20 people, and
fewer than ten about once in 200 marks. Ids of three digits or fewer get 6 bits, with which a mark
fits 16 of 1,000 numbers: with fewer bits no overlap could be found at all.

**What remains visible.** A checkpoint with marks of the share p of all values excludes the share
1 - p of all people, and makes each of the others 1 / p times as likely to be in it.

**What goes unseen.** Other people also hit marks, by chance: their number is binomial. More hits
than chance gives once in 1 / `LEVEL` collections are an overlap; `Overlap.unseen` is the largest
number of shared patients that need not reach this.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtrc

from fluoroscope.data.study_table import SEVERAL

IDS_PER_MARK = 64
MOST_IDS = 10**7
FEWEST_BITS, WHOLE_BITS = 6, 64
LEVEL = 1e-3


def mark_bits(patients: Iterable[str], patients_of: str) -> int:
    """Bits of each mark of these patients, 6 to 17; see above.

    >>> mark_bits(["0004711", "0815123"], "hospital"), mark_bits(["p01", "p02"], "study")
    (17, 6)
    """
    digits: dict[str, list[int]] = {}
    for patient in patients:
        register, number = "", patient
        if patients_of == SEVERAL:
            register, _, number = patient.rpartition("\t")
        count = sum(c.isdigit() for c in number) or sum(c.isalpha() for c in number)
        digits.setdefault(register, []).append(count)
    shortest = min(map(median_low, digits.values()), default=0)
    ids = min(10**shortest, MOST_IDS)
    return max(FEWEST_BITS, (ids // IDS_PER_MARK).bit_length() - 1)


def patient_marks(patients: Iterable[str], patients_of: str, bits: int = WHOLE_BITS) -> list[int]:
    """The first bits of a hash of each patient, as a signed number.

    Args:
        patients: patient numbers of the study table.
        patients_of: register of the numbers; the same number in another register is another person.
            `SEVERAL`: each number follows its register and a tab.
        bits: 64 in checkpoints of earlier versions.
    """
    register = "" if patients_of == SEVERAL else f"{patients_of}\t"
    hashes = (hashlib.sha256(f"{register}{p}".encode(errors="surrogatepass")) for p in patients)
    return [int.from_bytes(h.digest()[:8], signed=True) >> (WHOLE_BITS - bits) for h in hashes]


class Overlap(NamedTuple):
    """The hits of some patients among the marks of others.

    Attributes:
        patients: number of patients that were compared.
        hits: number of them with a known mark.
        chance: probability that a person who is not among the others has a known mark.
    """

    patients: int
    hits: int
    chance: float

    @property
    def found(self) -> bool:
        """Whether there are more hits than by chance, at `LEVEL`."""
        return bool(_exceeds(self.hits, self))

    @property
    def shared(self) -> int:
        """Estimated number of patients in both groups."""
        shared = (self.hits - self.patients * self.chance) / max(1 - self.chance, 1e-9)
        return min(max(round(shared), 1), self.patients)

    @property
    def unseen(self) -> int:
        """The largest number of shared patients whose expected hits are not found."""
        shared = np.arange(self.patients + 1)
        hits = np.floor(shared + (self.patients - shared) * self.chance)
        return int(np.sum(~_exceeds(hits, self))) - 1


def _exceeds(hits: Any, overlap: Overlap) -> Any:
    by_chance = bdtrc(np.maximum(np.asarray(hits) - 1, 0), overlap.patients, overlap.chance)
    return (np.asarray(hits) > 0) & (by_chance < LEVEL)


def overlap(
    patients: Sequence[str], patients_of: str, known: Collection[int], bits: int
) -> Overlap:
    """Compare patients with the marks of a checkpoint.

    Args:
        patients: distinct patient numbers of the same register.
        known: marks in the checkpoint.
        bits: their length.
    """
    seen = set(known)
    hits = sum(mark in seen for mark in patient_marks(patients, patients_of, bits))
    return Overlap(len(patients), hits, len(seen) / 2**bits)


def shared_patients(
    checkpoint: Mapping[str, Any], patients: Sequence[str], patients_of: str | None
) -> Overlap:
    """`overlap` with the patients of a checkpoint; nothing is found if nobody knows the patients.

    Args:
        checkpoint: has the entries of `leakage.training_marks`; one of an earlier version has
            whole hashes.
    """
    if patients_of is None:
        return Overlap(len(patients), 0, 0.0)
    bits = checkpoint.get("patients_bits", WHOLE_BITS)
    return overlap(patients, patients_of, checkpoint["patients"].tolist(), bits)


def known_patients(
    checkpoint: Mapping[str, Any], patients: Sequence[str], patients_of: str | None
) -> set[str]:
    """The patients with a mark in a checkpoint: all whom it knows, and others by chance.

    Args:
        checkpoint, patients, patients_of: of `shared_patients`.
    """
    if patients_of is None:
        return set()
    seen, bits = set(checkpoint["patients"].tolist()), checkpoint.get("patients_bits", WHOLE_BITS)
    found = patient_marks(patients, patients_of, bits)
    return {patient for patient, mark in zip(patients, found, strict=True) if mark in seen}
