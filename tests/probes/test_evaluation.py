"""`probes=true` joins the evaluation: its file, its page and what it prints."""

import json

import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.probes.changes import CHANGES
from tests.test_evaluate import evaluated, films, table, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a test split that can be judged."""
    root = tmp_path_factory.mktemp("probed")
    studies = pd.read_csv(films(root / "films", 72) / "studies.csv")
    studies["split"] = ["train"] * 24 + ["val"] * 24 + ["test"] * 24
    studies["view"] = ["PA", "PA", "AP"] * 24
    studies.to_csv(root / "films/studies.csv", index=False)
    columns = ("patient_column=patient", "split_column=split", "view_column=view")
    trained(root / "run", *table(root / "films", *(f"data.{words}" for words in columns)))
    return root


def test_the_probes_join_file_page_and_console(run, tmp_path, capsys):
    evaluated(tmp_path / "out", f"checkpoint={run}/run", "probes=true", "subgroups=[]")
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    probes = content["probes"]
    (label,) = content["labels"]
    own = probes["labels"][label]
    assert own["auroc"]["value"] == pytest.approx(content["labels"][label]["auroc"]["value"])
    assert [*own["probes"]] == [*CHANGES, "within_views"]
    assert set(own["views"]) == {"AP", "PA"}
    assert probes["lungs"] == "ellipse"
    page = (tmp_path / "out/evaluation.html").read_text()
    assert probes["summary"][1:] in page  # a sentence begins with a capital there
    assert "corners masked" in page
    assert probes["summary"] in " ".join(capsys.readouterr().out.split())


def test_masks_that_do_not_fit_are_refused_before_anything_is_scored(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fluoroscope.evaluate.score_split", None)
    words = [f"checkpoint={run}/run", "probes=true", f"masks={tmp_path}"]
    with pytest.raises(InputError, match="24 of 24 images have no mask in "):
        evaluated(tmp_path / "out", *words)
