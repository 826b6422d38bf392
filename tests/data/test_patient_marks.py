"""A mark fits many numbers, and yet an overlap of two groups is found."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from fluoroscope.data import leakage
from fluoroscope.data.lookalikes import PERCEPTUAL
from fluoroscope.data.patient_marks import (
    LEVEL,
    Overlap,
    mark_bits,
    overlap,
    patient_marks,
)
from fluoroscope.data.study_table import SEVERAL, Studies
from fluoroscope.errors import InputError


def numbers(digits, count, seed=0):
    drawn = np.random.default_rng(seed).choice(10**digits, count, replace=False)
    return [f"{number:0{digits}}" for number in drawn]


@pytest.mark.parametrize("form", ["{:04}", "P{:04}", "site-B/{:04}", "{:05}"])
def test_a_mark_fits_at_least_ten_numbers_of_its_register(form):
    used = [form.format(number) for number in range(0, 9000, 30)]
    bits = mark_bits(used, "hospital")
    everyone = patient_marks(map(form.format, range(10 ** int(form[-2]))), "hospital", bits)
    fits = Counter(everyone)
    assert min(fits[mark] for mark in patient_marks(used, "hospital", bits)) >= 10


def test_of_ten_million_numbers_a_mark_fits_at_least_ten():
    """By the share of a sample, since hashing all takes half a minute."""
    used = numbers(7, 500)
    bits = mark_bits(used, "hospital")
    assert bits == 17
    sample = Counter(patient_marks(numbers(7, 200_000, seed=1), "hospital", bits))
    known = patient_marks(used, "hospital", bits)
    mean = 50 * np.mean([sample[mark] for mark in set(known)])
    assert mean == pytest.approx(10**7 / 2**17, rel=0.2)


@pytest.mark.parametrize(
    ("patients", "of", "bits"),
    [
        (["4711", "99", "0815"], "x", 7),
        (["12345678901234567890"], "x", 17),  # no more than a hospital has
        (["Doe^Jane", "Li^Wei"], "x", 10),
        (["p001", "p002"], "x", 6),
        ([], "x", 6),
        (["a\t0000001", "b\t0001"], SEVERAL, 7),  # as short as the smallest register needs
        (["00001", "00002", "123456789"], "x", 10),  # one odd number does not lengthen all
    ],
)
def test_the_form_of_the_ids_decides_the_length(patients, of, bits):
    assert mark_bits(patients, of) == bits


def test_a_short_mark_is_the_beginning_of_the_whole_one():
    (whole,), (short,) = (patient_marks(["4711"], "x", bits) for bits in (64, 17))
    assert whole >> 47 == short


@pytest.mark.parametrize("bits", [6, 10, 17])
def test_strangers_are_refused_as_rarely_as_stated(bits):
    known = patient_marks(numbers(7, 2**bits // 5), "x", bits)
    found = [overlap(numbers(7, 60, seed), "x", known, bits).found for seed in range(1, 301)]
    assert sum(found) <= binom.ppf(0.9999, 300, LEVEL)


@pytest.mark.parametrize("bits", [6, 10, 17, 64])
def test_an_overlap_above_the_stated_size_is_found(bits):
    people = numbers(7, 400)
    known = patient_marks(people[:30], "x", bits)
    for shared in (0, 5, 30):
        scored = people[30 - shared : 130 - shared]
        seen = overlap(scored, "x", known, bits)
        by_chance = len(set(known)) / 2.0**bits
        assert seen.chance == by_chance
        assert seen.unseen == pytest.approx(unseen(100, by_chance), abs=1)
        if shared > 1.5 * seen.unseen:
            assert seen.found
            assert seen.shared == pytest.approx(shared, abs=6)
    assert overlap(people[30:130], "x", known, bits).found is False


def unseen(patients, chance):
    """By scipy's binomial, one number of shared patients after another."""
    shared = range(patients + 1)
    hits = [int(s + (patients - s) * chance) for s in shared]
    return max(s for s in shared if binom.sf(hits[s] - 1, patients, chance) >= LEVEL)


def test_one_patient_of_an_old_checkpoint_is_enough():
    seen = overlap(numbers(7, 50), "x", patient_marks(numbers(7, 50)[-1:], "x"), 64)
    assert (seen.hits, seen.found, seen.unseen, seen.shared) == (1, True, 0, 1)


def test_if_every_mark_is_taken_nobody_is_compared():
    seen = Overlap(patients=40, hits=40, chance=1.0)
    assert (seen.found, seen.unseen) == (False, 40)


def studies(patients, seed, fingerprint):
    """Films of these patients that look like nothing else."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"path": "", "patient": patients, "split": "train"})
    survey = pd.DataFrame({"exact": rng.integers(2**62, size=len(patients))})
    for name in PERCEPTUAL:
        survey[name] = rng.integers(2**63, size=len(patients), dtype=np.uint64)
    return Studies(table, ["A"], fingerprint, 0, survey, patients_of="x", source="x")


@pytest.mark.parametrize(("digits", "shared"), [(3, 30), (5, 12), (7, 4)])
def test_an_evaluation_refuses_shared_patients_and_accepts_others(digits, shared, capsys):
    people = numbers(digits, 200)
    checkpoint = leakage.training_marks(studies(people[:40], 0, "own"))
    other = studies(people[40 - shared : 80 - shared], 1, "other")
    with pytest.raises(InputError, match=r"about \d+ of the 40 patients to score \(\d+ hits?,"):
        leakage.check_unseen(checkpoint, other, "all")
    assert leakage.check_unseen(checkpoint, studies(people[40:80], 1, "other"), "all")
    assert "shared patients would go unseen" in capsys.readouterr().out


def test_whole_marks_of_old_checkpoints_are_compared_exactly():
    people = numbers(5, 200)
    checkpoint = leakage.training_marks(studies(people[:40], 0, "own"))
    checkpoint |= {"patients": torch.tensor(patient_marks(people[:40], "x"))}
    del checkpoint["patients_bits"]
    with pytest.raises(InputError, match=r"on 1 of the 40 patients to score \(1 hit, 0 exp"):
        leakage.check_unseen(checkpoint, studies(people[39:79], 1, "other"), "all")
    assert leakage.check_unseen(checkpoint, studies(people[40:80], 1, "other"), "all")


def test_the_marks_are_in_no_order_of_the_patients():
    stored = leakage.training_marks(studies(numbers(5, 50), 0, "own"))["patients"].tolist()
    assert stored == sorted(set(stored))
