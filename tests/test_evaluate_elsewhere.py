"""A model of one collection is scored on another that spells its labels differently."""

import json
import math

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fluoroscope.errors import InputError
from tests.support.collections import write_chexpert, write_nih14, write_padchest, write_table
from tests.support.films import write_films
from tests.test_evaluate import evaluated, trained

LABELS = "data.labels=[Pleural Effusion,No Finding]"
AGAIN = "split=all"


def rewrite(file, **words):
    text = file.read_text()
    for before, after in words.items():
        text = text.replace(before, after)
    file.write_text(text)


@pytest.fixture(scope="module")
def model(films, tmp_path_factory):
    """A model of CheXpert that knows two labels, of which the second has no counterpart."""
    root = write_chexpert(films, tmp_path_factory.mktemp("chexpert") / "data")
    folder = tmp_path_factory.mktemp("chexpert") / "run"
    return trained(folder, "data=chexpert", f"data.root={root}", LABELS)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The same new films in the form of four collections."""
    place = tmp_path_factory.mktemp("others")
    films = write_films(place / "films", seed=5)
    roots = {
        "chexpert": write_chexpert(films, place / "chexpert"),
        "nih14": write_nih14(films, place / "nih14"),
        "padchest": write_padchest(films, place / "padchest"),
        "table": write_table(films, place / "table"),
    }
    rewrite(roots["nih14"] / "Data_Entry_2017_v2020.csv", Pneumonia="Effusion")
    rewrite(next(roots["padchest"].glob("*.csv")), pneumonia="pleural effusion")
    return roots


def elsewhere(source, others, *words):
    return [f"data={source}", f"data.root={others[source]}", AGAIN, *words]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_labels_that_both_have_are_scored_and_the_others_are_listed(
    model, others, tmp_path, capsys
):
    aurocs = {}
    for source, spelling in (("nih14", "Effusion"), ("padchest", "pleural effusion")):
        words = elsewhere(source, others, "already_seen=allow")
        scores = evaluated(tmp_path / source, model, *words)
        result = result_of(tmp_path / source)
        assert result["labels"] == ["Pleural Effusion"]
        assert result["labels_in_collection"] == [spelling]
        assert result["labels_not_scored"] == ["No Finding"]
        assert math.isnan(scores["auroc/No Finding"])
        told = " ".join(capsys.readouterr().out.split())
        assert f"Pleural Effusion (there {spelling})" in told
        assert "not scored, the collection lacks them: No Finding" in told
        rows = pd.read_csv(tmp_path / source / "predictions/all.csv")
        assert rows["No Finding"].isna().all()
        assert rows["No Finding_probability"].notna().all()
        assert rows["Pleural Effusion"].sum() == 60
        score = rows["Pleural Effusion_probability"]
        assert scores["auroc"] == pytest.approx(roc_auc_score(rows["Pleural Effusion"], score))
        aurocs[source] = scores["auroc"]
    # the same films: the score does not depend on how the label is spelled
    assert aurocs["nih14"] == aurocs["padchest"]


def test_a_label_map_pairs_the_rest(model, others, tmp_path):
    words = elsewhere("table", others, "data.csv=studies.csv", "data.path_column=path")
    rewrite(others["table"] / "studies.csv", Effusion="Fluid")
    words.append("already_seen=allow")
    told = r"the model knows Pleural Effusion, No Finding, and data=table has none of them; it has "
    with pytest.raises(
        InputError, match=told + r"patient, Fluid, file, .*'data.label_map={NAME: Ple"
    ):
        evaluated(tmp_path / "no", model, *words)
    assert not (tmp_path / "no/result.json").exists()
    evaluated(tmp_path / "yes", model, *words, "++data.label_map={Fluid: effusion}")
    assert result_of(tmp_path / "yes")["labels_in_collection"] == ["Fluid"]


def test_none_in_common_is_refused_with_the_reason(model, tmp_path, films):
    root = write_nih14(films, tmp_path / "nih14")
    only = trained(
        tmp_path / "run", "data=nih14", f"data.root={root}", "data.labels=[infiltration]"
    )
    state = torch.load(only.partition("=")[2], weights_only=True)
    assert state["config"]["data"]["labels"] == ["Infiltration"]
    other = write_chexpert(films, tmp_path / "chexpert")
    told = r"data=chexpert has none of them; .*Infiltration is a label of its own: reports and read"
    with pytest.raises(InputError, match=told):
        evaluated(tmp_path / "no", only, "data=chexpert", f"data.root={other}", AGAIN)
