"""Verdicts on scores whose truth is known, against closed forms and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fluoroscope.probes.changes import CHANGES
from fluoroscope.probes.judgement import CALLED, CLEAR, OPEN, UNCHANGED, judge


def images(count=300, seed=0, labels=("Mass",), per_patient=2):
    """Truth and group of each image, and a generator."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"group": np.arange(count) // per_patient})
    for label in labels:
        table[label] = rng.permutation(np.arange(count) % 2).astype(float)
    return table, rng


def scores(table, rng, **strengths):
    """Logits by probe: the distance of the classes in standard deviations, 2 if not named."""
    truth = table.drop(columns="group").to_numpy()
    noise = rng.normal(size=truth.shape)
    base = 2 * truth + noise
    found = {UNCHANGED: base} | {
        name: base + 0.1 * rng.normal(size=truth.shape) for name in CHANGES
    }
    found["lungs_hidden"] = rng.normal(size=truth.shape)
    for name, strength in strengths.items():
        found[name] = strength * truth + rng.normal(size=truth.shape)
    return found


def verdicts(probes):
    return {name: probe.verdict for name, probe in probes.probes.items() if probe.verdict}


def test_a_model_that_reads_the_lungs_is_clear():
    table, rng = images()
    mass = judge(table, scores(table, rng), {"Mass": ""})["Mass"]
    assert set(verdicts(mass).values()) == {CLEAR}
    assert all(not probe.words for probe in mass.probes.values())


@pytest.mark.parametrize(
    ("name", "strength", "does"),
    [("lungs_hidden", 2, "keeps"), ("corners_masked", 0, "loses"), ("darker", 0.3, "loses")],
)
def test_a_model_that_depends_on_a_change_is_called_out_in_words(name, strength, does):
    table, rng = images()
    mass = judge(table, scores(table, rng, **{name: strength}), {"Mass": ""})["Mass"]
    assert [probe for probe, verdict in verdicts(mass).items() if verdict == CALLED] == [name]
    words = mass.probes[name].words
    assert words.startswith(f"Mass: the model {does} ")
    assert f"AUROC {mass.probes[name].auroc.value:.2f}, was {mass.auroc.value:.2f}" in words


def test_the_numbers_are_those_of_another_implementation():
    table, rng = images(120, labels=("Mass", "Edema", "Nodule"))
    table.loc[:9, "Edema"] = math.nan
    found = scores(table, rng, flipped=1)
    result = judge(table, found, {"Mass": "", "Edema": "", "Nodule": "too few images"})
    values = {}
    for k, label in enumerate(("Mass", "Edema")):
        known = table[label].notna()
        values[label] = {
            name: roc_auc_score(table[label][known], logits[known, k])
            for name, logits in found.items()
        }
        flipped = result[label].probes["flipped"]
        assert flipped.auroc.value == pytest.approx(values[label]["flipped"], abs=1e-12)
        change = values[label]["flipped"] - values[label][UNCHANGED]
        assert flipped.change.value == pytest.approx(change, abs=1e-12)
        assert flipped.change.low < change < flipped.change.high
    mean = np.mean([values[label]["flipped"] for label in values])
    assert result["macro"].probes["flipped"].auroc.value == pytest.approx(mean, abs=1e-12)
    assert result["Nodule"].why_not == "too few images"
    assert result["Nodule"].probes == {}


def test_a_score_that_is_chance_is_never_called_out():
    table, rng = images(60)
    found = {name: rng.normal(size=(60, 1)) for name in (UNCHANGED, *CHANGES)}
    mass = judge(table, found, {"Mass": ""})["Mass"]
    assert set(verdicts(mass).values()) == {OPEN}
    assert "not above chance" in mass.why_not


def test_few_images_decide_nothing_and_a_perfect_marker_is_still_called_out():
    table, rng = images(24, per_patient=1)
    found = scores(table, rng, corners_masked=1.0)
    assert verdicts(judge(table, found, {"Mass": ""})["Mass"])["corners_masked"] == OPEN
    marker = table[["Mass"]].to_numpy()
    found = dict.fromkeys((UNCHANGED, *CHANGES), marker)
    found["corners_masked"] = np.zeros((24, 1))
    found["borders_masked"] = np.zeros((24, 1))
    called = verdicts(judge(table, found, {"Mass": ""})["Mass"])
    assert {n for n, v in called.items() if v == CALLED} == {
        *("corners_masked", "borders_masked", "lungs_hidden")
    }


def test_a_model_that_tells_the_views_apart_loses_within_them():
    """AP films score higher and are of the sicker; within a view the score is nearly chance."""
    table, rng = images(400)
    sick = table["Mass"].to_numpy()
    lateral = rng.random(400) < np.where(sick == 1, 0.85, 0.15)
    base = (2.5 * lateral + 0.2 * sick + rng.normal(size=400))[:, None]
    found = dict.fromkeys((UNCHANGED, *CHANGES), base) | {"lungs_hidden": 0 * base}
    views = ["AP" if flag else "PA" for flag in lateral]
    mass = judge(table, found, {"Mass": ""}, views)["Mass"]
    assert [n for n, v in verdicts(mass).items() if v == CALLED] == ["within_views"]
    assert "it tells the views apart" in mass.probes["within_views"].words
    for view in ("AP", "PA"):
        rows = np.array(views) == view
        expected = roc_auc_score(sick[rows], base[rows, 0])
        assert mass.views[view].value == pytest.approx(expected, abs=1e-12)
    one = judge(table, found, {"Mass": ""}, ["PA"] * 400)["Mass"]
    assert "within_views" not in one.probes


def test_the_mean_within_views_is_of_the_same_labels_or_unknown():
    """Edema is seen in lateral films alone, so no two films of one view can be compared."""
    table, rng = images(200, labels=("Mass", "Edema"))
    views = ["LATERAL" if sick else "PA" for sick in table["Edema"]]
    result = judge(table, scores(table, rng), {"Mass": "", "Edema": ""}, views)
    for name in ("Edema", "macro"):
        within = result[name].probes["within_views"]
        assert math.isnan(within.auroc.value)
        assert math.isnan(within.change.low)
        assert within.verdict == OPEN
    assert result["Mass"].probes["within_views"].verdict == CLEAR
    assert result["macro"].probes["flipped"].verdict == CLEAR


def test_a_view_with_few_images_has_no_score():
    table, rng = images(100)
    views = ["LATERAL"] * 12 + ["PA"] * 88
    mass = judge(table, scores(table, rng), {"Mass": ""}, views)["Mass"]
    assert math.isnan(mass.views["LATERAL"].value)
    assert 0.8 < mass.views["PA"].value <= 1


def test_a_finding_outside_the_lungs_may_be_seen_without_them():
    table, rng = images(labels=("Rib Fracture",))
    found = scores(table, rng, lungs_hidden=2)
    probes = judge(table, found, {"Rib Fracture": ""})["Rib Fracture"].probes
    assert probes["lungs_hidden"].verdict == ""


@pytest.mark.whole
def test_call_outs_are_rare_where_nothing_depends_on_any_change():
    called = 0
    for seed in range(200):
        table, rng = images(100, seed, ("Mass", "Edema"))
        found = scores(table, rng)
        result = judge(table, found, {"Mass": "", "Edema": ""})
        called += any(CALLED in verdicts(probes).values() for probes in result.values())
    assert called <= 17  # of 200 at 5 %: above with a probability of 1 in 50
