"""How often the report's rule errs, found by simulated studies whose truth is known.

python -m benchmarks.placebo [STUDIES]

Simulates STUDIES (default 1000) studies of each kind. In the first table all activations are
equally good although their scores differ: any *better* or *worse* is an error. The second table
has one activation that is better; the third compares forecasts with simulated studies; the last
one says how often the interval of one AUROC holds the truth.

A patient has 1 + Poisson(0.56) films and a finding with probability 0.48, which 80 % of the films
share. The score of a film is STRENGTH times the finding plus three normal parts, half of whose
variance is the patient's: one of all models, one of each activation (`fixed`, times the first) and
one of each seed (`noise`, times the first). In a cross-validation each fold has a model, whose
scores have a scale of their own and whose strength varies by `FOLD_SPREAD`.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from fluoroscope.config.report import Rule
from fluoroscope.reporting.comparison import finding_of
from fluoroscope.reporting.inference import Difference, simultaneous
from fluoroscope.statistics import Floats, auroc, logit_interval

STRENGTH = 1.8
SHARE = 0.7  # of a normal part: of the patient, and again of the film
FOLD_SPREAD = 0.1  # of the strength, between the models of the folds
NOISE = (0.08, 0.25)  # drawn once per study
RULE = Rule(min_patients=0, min_seeds=2)  # floors off
EFFECT = 0.0435


@dataclass(frozen=True)
class Kind:
    """A kind of study: `others` activations and a reference in each setting."""

    patients: int
    seeds: int
    others: int
    settings: int
    fixed: float
    noise: tuple[float, float] = NOISE
    gain: float = 0.0  # true AUROC of the first other activation, minus the reference's
    folds: int = 1


PLACEBO = [
    *(Kind(72, 10, 11, 1, fixed) for fixed in (0.0, 0.15, 0.25, 0.5)),
    Kind(72, 10, 11, 2, 0.25),
    Kind(72, 10, 11, 4, 0.25),
    Kind(72, 40, 11, 1, 0.15),
    Kind(20, 10, 11, 1, 0.25),
    Kind(20, 3, 11, 1, 0.25),
    Kind(20, 40, 11, 2, 0.5),
    Kind(72, 3, 11, 1, 0.0),
    Kind(72, 3, 3, 1, 0.15),
    Kind(200, 5, 11, 1, 0.05),
    Kind(400, 10, 11, 1, 0.25),
    Kind(400, 3, 3, 2, 0.5),
    Kind(400, 40, 11, 4, 0.15),
    Kind(72, 3, 11, 4, 0.0, (0.5, 1.0)),
    Kind(200, 5, 11, 1, 0.0, (0.5, 1.0)),
    Kind(72, 10, 3, 1, 0.0, folds=5),
    Kind(72, 10, 11, 1, 0.25, folds=5),
    Kind(72, 3, 3, 1, 0.15, folds=3),
    Kind(200, 5, 3, 1, 0.0, (0.5, 1.0), folds=5),
]
POWER = [Kind(72, 10, 3, 1, fixed, gain=EFFECT) for fixed in (0.0, 0.15, 0.25, 0.5)]
MARGIN = [Kind(72, 10, 3, 1, fixed, gain=RULE.margin) for fixed in (0.0, 0.15, 0.25)]
FORECAST = [Kind(72, 10, 3, 1, 0.15), Kind(72, 5, 3, 1, 0.0, (0.3, 0.3)), Kind(72, 3, 1, 1, 0.25)]


@dataclass(frozen=True)
class Films:
    """The films of one study: truth and patient, both [N]."""

    truth: Floats
    patient: np.ndarray
    patients: int

    def normal(self, rng: np.random.Generator, *lead: int) -> Floats:
        """A normal part of the scores, [*lead, N]."""
        shared = rng.standard_normal((*lead, self.patients))[..., self.patient]
        return SHARE * (shared + rng.standard_normal((*lead, len(self.patient))))


def films(rng: np.random.Generator, patients: int) -> Films:
    while True:
        patient = np.repeat(np.arange(patients), 1 + rng.poisson(0.56, patients))
        shared, own = rng.random(patients)[patient] < 0.48, rng.random(len(patient)) < 0.48
        truth = np.where(rng.random(len(patient)) < 0.8, shared, own).astype(float)
        if 0 < truth.sum() < len(truth):
            return Films(truth, patient, patients)


def true_auroc(strength: float, fixed: float, noise: float) -> float:
    variance = 2 * SHARE**2 * (1 + fixed**2 + noise**2)
    return NormalDist().cdf(strength / math.sqrt(2 * variance))


def strength_of(gain: float, fixed: float, noise: float) -> float:
    """The strength with which the AUROC is `gain` higher than with `STRENGTH`."""
    variance = 2 * SHARE**2 * (1 + fixed**2 + noise**2)
    return NormalDist().inv_cdf(true_auroc(STRENGTH, fixed, noise) + gain) * math.sqrt(2 * variance)


def study(rng: np.random.Generator, kind: Kind) -> list[Difference]:
    """The differences of one simulated study, setting by setting."""
    seen, noise = films(rng, kind.patients), rng.uniform(*kind.noise)
    arms = (kind.settings, kind.others + 1)
    score = seen.normal(rng) + kind.fixed * seen.normal(rng, *arms)[:, :, None]
    score = score + noise * seen.normal(rng, *arms, kind.seeds)
    strength = np.full((*arms, 1, 1), STRENGTH)
    strength[:, 1] = strength_of(kind.gain, kind.fixed, noise)
    fold = None if kind.folds == 1 else seen.patient % kind.folds
    if fold is not None:
        of_model = rng.standard_normal((2, *score.shape[:3], kind.folds))[..., fold]
        strength = strength * (1 + FOLD_SPREAD * of_model[0])
    score += strength * seen.truth
    if fold is not None:
        score = score * np.exp(of_model[1]) + 9 * of_model[1]
    values, influence = np.empty(score.shape[:3]), np.empty((*score.shape[:3], kind.patients))
    for place in np.ndindex(score.shape[:3]):
        values[place], influence[place] = auroc(score[place], seen.truth, seen.patient, fold)
    return [
        Difference(range(kind.seeds), v - own_v, p - own_p)
        for own_v, own_p, of_values, of_patients in zip(
            values[:, 0], influence[:, 0], values[:, 1:], influence[:, 1:], strict=True
        )
        for v, p in zip(of_values, of_patients, strict=True)
    ]


def findings(kind: Kind, studies: int) -> Iterator[tuple[list[str], bool]]:
    """Of each study: its findings, and whether all intervals hold the truth."""
    rng = np.random.default_rng(0)
    truth = np.zeros((kind.settings, kind.others))
    truth[:, 0] = kind.gain
    for _ in range(studies):
        differences = study(rng, kind)
        intervals = simultaneous(differences).intervals
        held = [
            low <= true <= high
            for (low, high, _), true in zip(intervals, truth.ravel(), strict=True)
        ]
        yield [finding_of(low, high, RULE.margin) for low, high, _ in intervals], all(held)


def share(hits: list[bool]) -> str:
    """A share with its standard error."""
    mean = float(np.mean(hits))
    return f"{mean:.3f} ± {math.sqrt(mean * (1 - mean) / len(hits)):.3f}"


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def heading(*titles: str) -> None:
    print()
    row(*titles)
    row(*["---"] * len(titles))


def name(kind: Kind) -> tuple[object, ...]:
    noise = "{} to {}".format(*kind.noise)
    sizes = kind.patients, kind.folds, kind.seeds, kind.others, kind.settings
    return *sizes, kind.fixed, noise


COLUMNS = ("patients", "folds", "seeds", "others", "settings", "fixed", "noise")


def placebo(studies: int) -> None:
    heading(*COLUMNS, "any better", "any better or worse", "all intervals hold", "equivalent")
    for kind in PLACEBO:
        found, held = zip(*findings(kind, studies), strict=True)
        better = ["better" in names for names in found]
        either = [bool({"better", "worse"} & set(names)) for names in found]
        same = np.mean([n == "equivalent" for names in found for n in names])
        row(*name(kind), share(better), share(either), share(list(held)), f"{same:.2f}")


def power(studies: int) -> None:
    heading(*COLUMNS, "true difference", "found better", "called equivalent")
    for kind in (*POWER, *MARGIN):
        first = [names[0] for names, _ in findings(kind, studies)]
        better, same = ([f == answer for f in first] for answer in ("better", "equivalent"))
        row(*name(kind), kind.gain, share(better), share(same))


def forecast(studies: int) -> None:
    """The patients that a typical pilot study forecasts, and the share of studies with so many
    that find the difference: four of five are promised.
    """
    heading(*COLUMNS, "true difference", "patients needed", "found better by so many")
    for kind in FORECAST:
        for gain in (RULE.margin, EFFECT):
            rng = np.random.default_rng(1)
            pilots = [study(rng, replace(kind, gain=gain)) for _ in range(200)]
            critical = float(np.mean([simultaneous(pilot).critical for pilot in pilots[:50]]))
            needed = float(
                np.median([p[0].parts.patients_needed(gain, kind.seeds, critical) for p in pilots])
            )
            if needed > 1000:
                row(*name(kind), gain, f"{needed:.0f}", "not simulated")
                continue
            later = replace(kind, patients=int(needed), gain=gain)
            found = [names[0] == "better" for names, _ in findings(later, studies)]
            row(*name(kind), gain, int(needed), share(found))


def coverage(studies: int) -> None:
    heading("patients", "true AUROC", "interval holds it")
    rng = np.random.default_rng(2)
    for strength in (0.6, STRENGTH, 2.8):
        for patients in (10, 20, 72, 200):
            true, held = true_auroc(strength, 0, 0), list[bool]()
            while len(held) < studies:
                seen = films(rng, patients)
                score = strength * seen.truth + seen.normal(rng)
                value, influence = auroc(score, seen.truth, seen.patient)
                fewest = min(len(set(seen.patient[seen.truth == c])) for c in (0, 1))
                if fewest > 1:  # of one patient there is no interval
                    low, high = logit_interval(value, influence, fewest)
                    held.append(low <= true <= high)
            row(patients, f"{true:.3f}", share(held))


if __name__ == "__main__":
    STUDIES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for table in (placebo, power, forecast, coverage):
        table(STUDIES)
