"""A run says whether it knows the patients, from the source to `result.json`."""

import json

import pandas as pd
import pytest

from fluoroscope.data.study_table import ALL_UNKNOWN, SOME_UNKNOWN, Decision, Studies, study_table
from fluoroscope.run import summary

UNKNOWN = {
    "all": ("folder", ()),
    "some": ("folder", (Decision(SOME_UNKNOWN, {"images": 3}),)),
    "none": (None, (Decision(ALL_UNKNOWN, {"images": 30}),)),
}


def studies(known, source="folder"):
    labels = pd.DataFrame({"Mass": [0.0, 1.0] * 15})
    splits = ["train"] * 10 + ["val"] * 10 + ["test"] * 10
    table = study_table([f"/x/{n}.png" for n in range(30)], labels, splits=splits)
    patients_of, decisions = UNKNOWN[known]
    return Studies(table, ["Mass"], "f00d", 0, pd.DataFrame(), decisions, patients_of, source)


@pytest.mark.parametrize("known", UNKNOWN)
def test_the_start_of_a_run_warns_of_unknown_patients(known, capsys):
    summary.print_studies(studies(known))
    printed = capsys.readouterr().out
    text, header = " ".join(printed.split()), [line.split()[0] for line in printed.splitlines()[:4]]
    names = ["train", "images", *["patients"] * (known != "none"), "Mass"]
    assert header[: len(names)] == names
    assert ("warning: " in text) == (known != "all")
    assert ("its interval is too narrow" in text) == (known != "all")
    assert ("set data.patient_pattern" in text) == (known == "none")


@pytest.mark.parametrize(
    ("source", "advice"),
    [("folder", "data.patient_pattern"), ("table", "data.patient_column"), ("covid", None)],
)
def test_the_advice_names_a_key_of_the_source(source, advice, capsys):
    summary.warn_of_patients(studies("none", source))
    text = " ".join(capsys.readouterr().out.split())
    assert text.endswith(f"; set {advice} if it can tell patients apart" if advice else "narrow")


def test_no_advice_to_set_a_key_that_is_set(capsys):
    """The column of patients is given and holds nothing."""
    decisions = (Decision(SOME_UNKNOWN, {"images": 30}),)
    summary.warn_of_patients(studies("none", "table")._replace(decisions=decisions))
    assert "data.patient_column" not in capsys.readouterr().out


@pytest.mark.parametrize("known", UNKNOWN)
def test_counts_of_unknown_patients_are_null(known):
    written = json.loads(json.dumps(summary.about_patients(studies(known))))
    assert written == ({} if known == "all" else {"patients_known": known})
    counted = [row["patients"] for row in summary.split_counts(studies(known))]
    assert counted == ([None] * 3 if known == "none" else [10] * 3)
