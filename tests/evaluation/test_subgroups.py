"""Groups of images: their scores, and gaps whose intervals hold together."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from fluoroscope.evaluation.attributes import Attribute
from fluoroscope.evaluation.contents import as_json
from fluoroscope.evaluation.moving_scores import Gap, auroc_score, share_score
from fluoroscope.evaluation.subgroups import compare_groups
from fluoroscope.statistics import auroc_interval


def drawn(rng, patients=300, images=1, prevalence=0.3, labels=("Mass",), skill=1.2):
    """Predictions of patients whose images resemble each other; `skill` per patient or one."""
    patient = np.repeat(np.arange(patients), images)
    table = {"row": np.arange(len(patient)), "group": patient}
    for label in labels:
        truth = np.repeat(rng.random(patients) < prevalence, images).astype(float)
        own = np.repeat(rng.normal(size=patients), images) * 0.8
        lift = truth * (np.repeat(skill, images) if np.ndim(skill) else skill)
        table[label] = truth
        table[f"{label}_probability"] = expit(lift + own + 0.6 * rng.normal(size=len(patient)))
    return pd.DataFrame(table)


def divided(name, of, groups):
    return Attribute(name, np.asarray(of), tuple(groups))


def by_name(found, attribute, label="Mass"):
    rows = [r for r in found.groups if r.attribute == attribute and r.label == label]
    return {row.group: row for row in rows}


def by_ranks(truth, score):
    """The AUROC by Mann and Whitney's statistic."""
    positives = int(truth.sum())
    above = rankdata(score)[truth == 1].sum() - positives * (positives + 1) / 2
    return above / (positives * (len(truth) - positives))


def bootstrapped(table, quantity, rng, draws=2000):
    """Percentiles of a quantity over patients that are drawn again, with all their images."""
    rows = [np.flatnonzero(table["group"] == g) for g in range(table["group"].max() + 1)]
    values = []
    for _ in range(draws):
        again = np.concatenate([rows[g] for g in rng.integers(len(rows), size=len(rows))])
        values.append(quantity(again))
    return np.nanpercentile(values, [2.5, 97.5])


@pytest.fixture(scope="module")
def two():
    """Three images per patient; sex goes with the patient, the view does not."""
    rng = np.random.default_rng(3)
    table = drawn(rng, patients=150, images=3)
    sex = divided("sex", table["group"] % 3 == 0, ["M", "F"])
    view = divided("view", table["row"] % 3 == 0, ["PA", "AP"])
    return table, sex, view


def test_scores_of_groups_are_those_of_their_images(two):
    table, sex, _ = two
    found = compare_groups(table, ["Mass"], [sex], {"Mass": 0.6}, "youden")
    rows = by_name(found, "sex")
    for number, name in enumerate(sex.groups):
        own = table[sex.of == number]
        row, score, truth = rows[name], own["Mass_probability"], own["Mass"]
        assert row.auroc.value == pytest.approx(roc_auc_score(truth, score))
        assert row.auroc[1:] == pytest.approx(auroc_interval(own, ["Mass"]))
        assert row.sensitivity.value == pytest.approx((score >= 0.6)[truth == 1].mean())
        assert row.specificity.value == pytest.approx((score < 0.6)[truth == 0].mean())
        assert row.prevalence.value == pytest.approx(truth.mean())
        assert (row.images, row.patients) == (len(own), own["group"].nunique())
        assert (row.positives, row.negatives) == ((truth == 1).sum(), (truth == 0).sum())
    assert (rows["M"].reference, rows["M"].gaps) == ("", {})
    assert rows["F"].reference == "M"  # the larger group
    for name in ("auroc", "sensitivity", "specificity"):
        gap = getattr(rows["F"], name).value - getattr(rows["M"], name).value
        assert rows["F"].gaps[name].value == pytest.approx(gap)


@pytest.mark.parametrize("which", ["sex", "view"])
def test_a_gap_has_the_interval_of_a_bootstrap_over_patients(two, which):
    """Also if the groups have the same patients, whose scores go together."""
    table, *attributes = two
    attribute = next(own for own in attributes if own.name == which)
    truth, score = (table[name].to_numpy() for name in ("Mass", "Mass_probability"))
    patient = table["group"].to_numpy()

    def gap_of(rows):
        parts = [rows[attribute.of[rows] == number] for number in (0, 1)]
        first, second = (by_ranks(truth[part], score[part]) for part in parts)
        return second - first

    parts = [np.flatnonzero(attribute.of == number) for number in (0, 1)]
    first, second = (auroc_score(score[p], truth[p], patient[p], 150) for p in parts)
    ours = Gap(second, first).estimate()
    assert ours.value == pytest.approx(gap_of(np.arange(len(table))))
    np.testing.assert_allclose(
        ours[1:], bootstrapped(table, gap_of, np.random.default_rng(0), 800), atol=0.02
    )
    alone = Gap(second, auroc_score(score[parts[0]], truth[parts[0]], patient[parts[0]] + 150, 300))
    assert len(alone.other.moves) == 300  # other patients: nothing cancels


def test_a_share_has_the_interval_of_a_bootstrap_over_patients(two):
    table = two[0]
    called, truth = (table["Mass_probability"] >= 0.6).to_numpy(), table["Mass"].to_numpy()
    ours = share_score(called, truth == 1, table["group"].to_numpy(), 150).estimate()

    def sensitivity(rows):
        return called[rows][truth[rows] == 1].mean()

    expected = bootstrapped(table, sensitivity, np.random.default_rng(0), 800)
    np.testing.assert_allclose(ours[1:], expected, atol=0.025)


def test_all_hits_leave_the_exact_bound():
    """Of 12 patients without a miss: the bound of Clopper and Pearson."""
    every = np.ones(12, bool)
    share = share_score(every, every, np.arange(12), 12).estimate()
    assert share == pytest.approx((1, 0.025 ** (1 / 12), 1))
    none = share_score(~every, every, np.arange(12), 12).estimate()
    assert none == pytest.approx((0, 0, 1 - 0.025 ** (1 / 12)))
    empty = share_score(every, ~every, np.arange(12), 12)
    assert math.isnan(empty.value)


def test_groups_with_fewer_than_ten_patients_of_a_class_are_listed_and_not_judged():
    rng = np.random.default_rng(1)
    table = drawn(rng, patients=200, images=2)
    # Nine positive patients with two images each: 18 images are not enough.
    positive = np.unique(table["group"][table["Mass"] == 1])
    small = table["group"].isin(positive[:9]) | table["group"].isin(range(0, 200, 9))
    small &= ~table["group"].isin(positive[9:])
    scanner = divided("scanner", small.astype(int), ["GE", "Old"])
    found = compare_groups(table, ["Mass"], [scanner], {})
    row = by_name(found, "scanner")["Old"]
    assert (row.judged, row.gaps) == (False, {})
    assert math.isnan(row.auroc.value)
    assert row.why_not == "only 18 positive images of 9 patients; 10 of each are needed"
    assert "scanner: no two groups are large enough" in found.sentences[0]
    unknown = compare_groups(table, ["Mass"], [scanner], {}, patients_known="none")
    assert by_name(unknown, "scanner")["Old"].patients is None
    with_ten = scanner._replace(of=np.where(table["group"] == positive[9], 1, scanner.of))
    assert by_name(compare_groups(table, ["Mass"], [with_ten], {}), "scanner")["Old"].judged


@pytest.mark.parametrize("patients", [1, 9, 10])
def test_positives_of_few_patients_are_not_counted(patients):
    """That the only woman has the label would be her diagnosis."""
    table = drawn(np.random.default_rng(1), patients=60, images=2)
    sex = divided("sex", (table["group"] < patients).astype(int), ["M", "F"])
    table.loc[(sex.of == 1) & (table["row"] % 2 == 0), "Mass"] = np.nan
    for known in ("all", "none"):
        row = by_name(compare_groups(table, ["Mass"], [sex], {}, patients_known=known), "sex")["F"]
        assert row.images == patients
        assert not row.judged
        if patients < 10:
            assert (row.positives, row.negatives) == (None, None)
            assert row.why_not == f"fewer than 10 {'patients' if known == 'all' else 'images'}"
        else:
            assert row.positives + row.negatives == patients


def remaining(rows, table, of):
    """Patients of whom the positives are those of all images less those that are shown."""
    hidden = {n for n, row in enumerate(rows) if row.positives is None}
    return set(table["group"][np.isin(of, [-1, *hidden])])


@pytest.mark.parametrize(
    "sizes", [(3, 57), (3, 12, 45), (4, 5, 51), (6, 7, 47), (12, 48), (2, 11, 13, 34)]
)
@pytest.mark.parametrize("unknown", [0, 3, 20])
def test_positives_of_few_patients_cannot_be_found_by_subtraction(sizes, unknown):
    table = drawn(np.random.default_rng(2), patients=sum(sizes) + unknown, images=2)
    of = np.repeat(np.repeat([*range(len(sizes)), -1], [*sizes, unknown]), 2)
    site = divided("site", of, [f"S{n}" for n in range(len(sizes))])
    rows = list(by_name(compare_groups(table, ["Mass"], [site], {}), "site").values())
    rest = remaining(rows, table, of)
    assert not rest or len(rest) >= 10
    assert all(row.positives is None for row, size in zip(rows, sizes, strict=True) if size < 10)
    for row in rows:
        if row.positives is None:
            assert "positive image" not in row.why_not
            assert math.isnan(row.prevalence.value)
    # No more is hidden than is needed: without the last group, few patients would remain.
    further = [size for row, size in zip(rows, sizes, strict=True) if not row.positives]
    further = [size for size in further if size >= 10]
    assert not further or len(rest) - max(further) < 10


def test_a_planted_gap_is_found_and_said():
    rng = np.random.default_rng(2)
    weak = rng.random(800) < 0.4
    table = drawn(rng, patients=800, skill=np.where(weak, 0.3, 1.8))
    sex = divided("sex", weak, ["M", "F"])
    age = divided("age", rng.integers(0, 3, 800), ["0 to 17", "18 to 39", "40 to 59"])
    found = compare_groups(table, ["Mass"], [sex, age], {"Mass": 0.6}, "youden")
    assert by_name(found, "sex")["F"].gaps["auroc"].high < 0
    assert found.sentences[0].startswith("sex: ")
    assert " is lower in F than in M by 0." in found.sentences[0]
    assert found.sentences[1].startswith("age: no gap between groups was found; one of up to 0.")


def test_the_more_gaps_hold_together_the_wider_each_interval_is():
    rng = np.random.default_rng(6)
    table = drawn(rng, patients=300)
    attributes = [divided(f"a{n}", rng.random(300) < 0.4, ["x", "y"]) for n in range(6)]
    alone = compare_groups(table, ["Mass"], attributes[:1], {})
    several = compare_groups(table, ["Mass"], attributes, {})
    (_, one), (_, same) = (by_name(found, "a0").values() for found in (alone, several))
    width = [row.gaps["auroc"].high - row.gaps["auroc"].low for row in (one, same)]
    # Six nearly independent gaps: Sidak's level; the intervals are nearly normal.
    ratio = norm.isf((1 - 0.95 ** (1 / 6)) / 2) / norm.isf(0.025)
    assert width[1] / width[0] == pytest.approx(ratio, rel=0.05)
    assert one.auroc == same.auroc  # the interval of a group is that of the group alone


def test_the_mean_compares_the_labels_that_both_groups_have():
    rng = np.random.default_rng(4)
    table = drawn(rng, patients=400, labels=("A", "B", "C"))
    sex = divided("sex", rng.random(400) < 0.4, ["M", "F"])
    table.loc[sex.of == 1, "C"] = np.nan  # nobody knows C of F
    found = compare_groups(table, ["A", "B", "C"], [sex], {})
    mean, parts = by_name(found, "sex", None), [by_name(found, "sex", n) for n in "ABC"]
    assert (mean["M"].labels, mean["F"].labels) == (3, 2)
    assert mean["M"].auroc.value == pytest.approx(np.mean([p["M"].auroc.value for p in parts]))
    gaps = [p["F"].gaps["auroc"].value for p in parts[:2]]
    assert mean["F"].gaps["auroc"].value == pytest.approx(np.mean(gaps))
    assert parts[2]["F"].why_not == "fewer than 10 patients"
    assert [row.label for row in found.groups] == [None] * 2 + ["A"] * 2 + ["B"] * 2 + ["C"] * 2


def test_the_content_can_be_written_as_json(two):
    table, *attributes = two
    content = as_json(compare_groups(table, ["Mass"], attributes, {"Mass": 0.6}, "youden"))
    assert content["groups"][1]["gaps"]["auroc"].keys() == {"value", "low", "high"}
    assert content["unknown"] == {"sex": 0, "view": 0}


def false_alarms(studies, patients, seed=0):
    """Share of studies without any true gap in which some gap's interval excludes zero.

    Each patient has two images. The view is that of the image, the others are the patient's.
    """
    rng, alarms = np.random.default_rng(seed), 0
    for _ in range(studies):
        table = drawn(rng, patients, images=2)
        attributes = [
            divided("sex", np.repeat(rng.random(patients) < 0.4, 2), ["M", "F"]),
            divided("age", np.repeat(rng.choice(3, patients, p=[0.2, 0.3, 0.5]), 2), list("abc")),
            divided("view", rng.random(2 * patients) < 0.3, ["PA", "AP"]),
        ]
        found = compare_groups(table, ["Mass"], attributes, {"Mass": 0.6}, "youden")
        gaps = [gap for row in found.groups for gap in row.gaps.values()]
        alarms += any(gap.low > 0 or gap.high < 0 for gap in gaps)
    return alarms / studies


@pytest.mark.whole
def test_without_any_gap_one_is_found_in_at_most_five_per_cent_of_studies():
    assert false_alarms(400, 300) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
