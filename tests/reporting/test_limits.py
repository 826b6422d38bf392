"""The limits of the test scores stand where a report shows the scores."""

import json
import math

import numpy as np
import pytest

from fluoroscope.console import make_console
from fluoroscope.report import _print
from fluoroscope.reporting import tables
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.reporting.page import HTML, MARKDOWN, facts, write
from fluoroscope.reporting.verdict import verdict
from tests.reporting.folders import LABELS, predictions, write_grid, write_run


def of_one_patient(seed):
    """All positive images of the first label are of one patient, who has no others."""
    table = predictions(seed)
    return table.assign(group=table["group"].where(table[LABELS[0]] != 1, 7))


def comparison_of(root, table, **entries):
    """Two activations, two seeds; `entries` are added to each result, its `test` included."""
    write_grid(root, {"relu": {}, "identity": {}}, (1, 2), table=table)
    for file in root.glob("*/result.json"):
        result = json.loads(file.read_text())
        result["test"] |= entries.get("test", {})
        result |= {key: value for key, value in entries.items() if key != "test"}
        if entries.get("patients_known") == "none":
            result["splits"][0]["patients"] = None
        file.write_text(json.dumps(result))
    return compare(collect([root]))


def told(comparison, folder, capsys):
    """The page, the Markdown and the console."""
    decided = verdict(comparison)
    write(comparison, decided, folder, lambda name: None)
    _print(make_console(), comparison, decided, folder)
    console = " ".join(capsys.readouterr().out.split())
    return (folder / HTML).read_text(), (folder / MARKDOWN).read_text(), console


def test_enough_images_of_known_patients_have_no_limits(tmp_path, capsys):
    comparison = comparison_of(tmp_path, predictions)
    assert comparison.limits == []
    assert not any("imit: " in text for text in told(comparison, tmp_path / "out", capsys))


@pytest.mark.parametrize(
    ("known", "images"), [("none", "60 images (patients unknown)"), ("some", "of at most 23")]
)
def test_unknown_patients_stand_beside_every_interval(tmp_path, capsys, known, images):
    entries = {"patients_known": known, "test": {"interval_too_narrow": True}}
    comparison = comparison_of(tmp_path, predictions, **entries)
    (limit,) = comparison.limits
    assert "its interval is too narrow" in limit
    for text in told(comparison, tmp_path / "out", capsys):
        assert limit in text
        assert "Difference, 95 %, too narrow" in text
    titles = tables.table(comparison.settings[0], tables.MAIN, "relu").titles
    assert "AUROC, 95 %, too narrow" in titles
    assert images in dict(facts(comparison))["Test"]
    assert "None" not in str(facts(comparison))


def test_one_positive_patient_gives_no_interval_and_no_finding(tmp_path, capsys):
    comparison = comparison_of(tmp_path, of_one_patient)
    rows = comparison.settings[0].rows.set_index("activation")
    for column in ("auroc_low", "auroc_high", "difference_low", "difference_high"):
        assert rows[column].isna().all()
    assert not math.isnan(rows.loc["identity", "difference"])
    assert rows.loc["identity", "finding"] == "undecided"
    assert len(comparison.limits) == 2
    for text in told(comparison, tmp_path / "out", capsys):
        assert f"the positive images of {LABELS[0]} are all of one patient" in text
    usual = comparison_of(tmp_path / "usual", predictions).settings[0].rows
    assert np.allclose(usual.set_index("activation")["auroc"], rows["auroc"])


@pytest.mark.parametrize(
    ("averaged", "told"),
    [(0, None), (1, "scores and units of 1 of 3 runs"), (3, "scores and units of all runs")],
)
def test_a_report_says_whose_weights_are_averaged(tmp_path, averaged, told):
    for seed in (1, 2, 3):
        folder = write_run(tmp_path / f"runs/{seed}", seed=seed)
        if seed <= averaged:
            result = json.loads((folder / "result.json").read_text()) | {"averaged_weights": True}
            (folder / "result.json").write_text(json.dumps(result))
    comparison = compare(collect([tmp_path / "runs"]))
    assert dict(facts(comparison)).get("Averaged weights") == told
    write(comparison, verdict(comparison), tmp_path / "out", lambda name: None)
    for page in (HTML, MARKDOWN):
        text = (tmp_path / "out" / page).read_text()
        assert ("Averaged weights" in text) == (told is not None)
        assert told is None or told in text
