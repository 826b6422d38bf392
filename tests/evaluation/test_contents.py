"""`evaluation.json` holds plain values; what is unknown is null; every number has its interval."""

import json
import math

from fluoroscope.evaluation.contents import (
    UNKNOWN,
    Bin,
    Estimate,
    Evaluation,
    LabelScores,
    Macro,
    as_json,
    estimates,
)


def evaluation(**scores):
    label = LabelScores(True, "", 40, 17, 23, None, None, None, **scores)
    head = ("f" * 16, "phantom", "test", "s" * 16, 40, None, "none", False, "", None)
    return Evaluation(*head, [], {"Disc": label}, Macro(1, auroc=Estimate(0.75, 0.5, 1.0)))


def test_unknown_numbers_are_null_and_the_file_is_json():
    values = json.loads(json.dumps(as_json(evaluation()), allow_nan=False))
    assert values["labels"]["Disc"]["auroc"] == {"value": None, "low": None, "high": None}
    assert values["macro"]["auroc"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert values["labels"]["Disc"]["positives"] == 17
    assert values["subgroups"] is None


def test_an_infinite_bound_is_null():
    assert as_json(Estimate(4.0, 2.0, math.inf)) == {"value": 4.0, "low": 2.0, "high": None}


def test_bins_are_plain_too():
    part = as_json([Bin(0.0, 0.5, 3, 0.25, UNKNOWN)])
    assert part[0]["observed"]["low"] is None
    assert part[0]["images"] == 3


def test_estimates_are_found_at_their_places():
    found = dict(estimates(evaluation(brier=Estimate(0.1, 0.05, 0.2))))
    assert found["labels.Disc.brier"] == (0.1, 0.05, 0.2)
    assert found["macro.auroc"].value == 0.75


def test_an_estimate_reads_as_text():
    assert str(Estimate(0.9, 0.85, 0.9321)) == "0.900 (0.850 to 0.932)"
    assert str(UNKNOWN) == "n/a"
    assert str(Estimate(0.5, math.nan, math.nan)) == "0.500"
