"""Several prepared copies are trained on, and scored, together."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from fluoroscope import sources
from fluoroscope.data.splits import assign_splits, fingerprint
from fluoroscope.data.study_table import COLLECTION, label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.reading.read_studies import read_studies
from fluoroscope.statistics import auroc_interval
from fluoroscope.train import train
from tests.prepare.test_copying import prepare
from tests.support.collections import write_chexpert, write_nih14
from tests.support.films import TINY, config, write_films
from tests.test_evaluate import evaluated

TINY_RUN = [word for word in TINY if not word.startswith("data=")]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A copy of CheXpert, and one of ChestX-ray14 with other films; then one with shared ones."""
    place = tmp_path_factory.mktemp("copies")
    chexpert = write_chexpert(write_films(place / "a", seed=1), place / "chexpert")
    nih = write_nih14(write_films(place / "b", seed=2), place / "nih14")
    csv = nih / "Data_Entry_2017_v2020.csv"
    csv.write_text(csv.read_text().replace("Pneumonia|Infiltration", "Effusion|Infiltration"))
    names = sorted(path.name for path in (nih / "images").iterdir())
    (nih / "test_list.txt").write_text("\n".join(n for n in names if int(n[:8]) % 5 == 0))
    shared = place / "shared"  # a fourth of the other, under another name
    shutil.copytree(nih, shared)
    lines = csv.read_text().splitlines()
    kept = [line for line in lines[1:] if line < "00000010_"]
    (shared / csv.name).write_text("\n".join([lines[0], *kept]))
    (shared / "test_list.txt").unlink()
    keys = "data.labels=null"
    return {
        "chexpert": prepare("data=chexpert", keys, f"data.root={chexpert}", f"out={place}/c1"),
        "nih14": prepare("data=nih14", f"data.root={nih}", f"out={place}/c2"),
        "shared": prepare("data=nih14", f"data.root={shared}", f"out={place}/c3"),
    }


def loaded(copies, *names, **keys):
    return sources.load("prepared", [str(copies[name]) for name in names], **keys)


def studies(copies, *names, **keys):
    roots = ",".join(str(copies[name]) for name in names)
    cfg = config("data=prepared", f"data.root=[{roots}]", *keys.pop("words", []))
    return read_studies({**dict(cfg.data), "root": roots.split(","), **keys})


def test_copies_keep_sex_age_and_view(copies):
    table = sources.load("prepared", copies["nih14"]).table
    assert {*table["sex"]} == {"F"}
    assert {*table["age"]} == {50}
    assert table["age"].dtype == "Int16"
    assert {*table["view"]} == {"PA"}
    assert len(label_columns(table)) == 14


def test_the_union_names_findings_once_and_knows_what_each_collection_knows(copies):
    both = loaded(copies, "chexpert", "nih14")
    table = both.table
    assert both.source == "chexpert + nih14"
    parts = {name: sources.load("prepared", copies[name]).table for name in ("chexpert", "nih14")}
    assert len(table) == sum(map(len, parts.values()))
    labels = label_columns(table)
    assert len(labels) == len(set(labels)) == 14 + 14 - 7
    assert {"Pleural Effusion", "No Finding (chexpert)", "Infiltration (nih14)"} <= {*labels}
    of_nih, of_chexpert = (table[table[COLLECTION] == n] for n in ("nih14", "chexpert"))
    assert of_nih["Pleural Effusion"].tolist() == parts["nih14"]["Effusion"].tolist()
    np.testing.assert_array_equal(of_chexpert["Edema"], parts["chexpert"]["Edema"])
    assert of_nih["Lung Opacity"].isna().all()
    assert of_chexpert["Hernia"].isna().all()
    assert of_nih["Hernia"].notna().all()
    assert table["age"].dtype == "Int16"
    assert of_nih["patient"].tolist() == ("nih14\t" + parts["nih14"]["patient"]).tolist()


def test_labels_are_asked_for_in_any_spelling(copies):
    table = loaded(copies, "chexpert", "nih14", labels=["effusion", "INFILTRATION"]).table
    assert label_columns(table) == ["Pleural Effusion", "Infiltration (nih14)"]
    with pytest.raises(InputError, match=r"data.labels must be one of .*did you mean 'Pleural Ef"):
        loaded(copies, "chexpert", "nih14", labels=["plural effusion"])
    mapped = {"Infiltration": "Lung Opacity", "Lung Opacity": "Lung Opacity"}
    table = loaded(copies, "chexpert", "nih14", labels=["Lung Opacity"], label_map=mapped).table
    assert table["Lung Opacity"].notna().all()
    with pytest.raises(InputError, match=r"data.label_map: no copy has a label 'Infilt'.*mean"):
        loaded(copies, "chexpert", "nih14", labels=["Edema"], label_map={"Infilt": "Edema"})


def test_a_copy_and_a_copy_of_it_know_what_their_labels_mean(copies, tmp_path):
    words = ["data=prepared", "data.labels=[Infiltration,Mass]"]
    first = [
        *words,
        f"data.root={copies['nih14']}",
        "++data.label_map={Infiltration: Lung Opacity}",
    ]
    once = prepare(*first, f"out={tmp_path}/once")
    again = prepare("data=prepared", f"data.root={once}", f"out={tmp_path}/again")
    for copy in (once, again):
        table = sources.load("prepared", copy, ["airspace opacity", "pulmonary mass"]).table
        assert label_columns(table) == ["Infiltration", "Mass"]


def test_roots_that_are_refused(copies, tmp_path):
    with pytest.raises(InputError, match=r"data.root must list one or more copies, each once"):
        loaded(copies, "nih14", "nih14")
    with pytest.raises(InputError, match=r"must be one directory with data=nih14; to use several"):
        sources.load("nih14", [str(tmp_path)])
    with pytest.raises(InputError, match=r"data.root must be a directory, or a list of directori"):
        config("data=prepared", "data.root={a: 1}")
    with pytest.raises(InputError, match=r"data.root: a copy is made of one collection"):
        prepare("data=prepared", f"data.root=[{copies['nih14']},{copies['chexpert']}]")


def test_each_collection_keeps_its_official_splits_and_draws_the_others(copies):
    found = studies(copies, "chexpert", "nih14", labels=["Pleural Effusion"])
    table = found.table
    for name in ("chexpert", "nih14"):
        splits = table[table[COLLECTION] == name]["split"]
        given = sources.load("prepared", copies[name]).table["split"].eq("test").tolist()
        assert splits.eq("test").tolist() == given
        assert {*splits} == {"train", "val", "test"}
        alone = studies(copies, name, labels=["Pleural Effusion"]).table
        assert splits.tolist() == alone["split"].tolist()


def test_a_patient_of_two_collections_has_one_split(copies):
    for words in ([], ["data.splits=own"], ["data.fold=1/3"]):
        found = studies(copies, "nih14", "shared", labels=["effusion"], words=words)
        table = found.table
        assert table.groupby("patient")["split"].nunique().max() == 1
        told = {decision.policy: decision.counts for decision in found.decisions}
        assert told["patients in several collections: kept"] == {"patients": 10}
        assert told["images that several collections share: kept"] == {"images": 60}
        assert {*table[COLLECTION]} == {"nih14 1", "nih14 2"}


def test_a_collection_that_follows_wholly_draws_nothing():
    frame = pd.DataFrame({"path": [f"/x/{i}" for i in range(60)], "view": None, "split": None})
    frame["patient"] = [f"r\t{i % 40}" for i in range(60)]
    frame["Edema"] = [float(i % 2) for i in range(60)]
    frame[COLLECTION] = ["a"] * 40 + ["b"] * 20
    drawn = assign_splits(frame, ["Edema"])
    assert drawn.groupby("patient")["split"].nunique().max() == 1
    first = assign_splits(frame[:40].drop(columns=COLLECTION), ["Edema"])["split"]
    assert drawn["split"][:40].tolist() == first.tolist()


def test_the_fingerprint_does_not_depend_on_where_the_copies_lie(copies, tmp_path):
    before = loaded(copies, "chexpert", "nih14", labels=["Edema"]).table
    shutil.copytree(copies["nih14"], tmp_path / "deep/er/nih")
    moved = {**copies, "nih14": tmp_path / "deep/er/nih"}
    after = loaded(moved, "chexpert", "nih14", labels=["Edema"]).table
    assert fingerprint(before, ["Edema"]) == fingerprint(after, ["Edema"])


def evaluate_again(folder):
    """The predictions of an evaluation of the run in the folder, as text."""
    evaluated(folder / "again", f"checkpoint={folder}/run/checkpoints/best.ckpt")
    return pd.read_csv(folder / "again/predictions/test.csv", dtype=str)


def test_a_run_on_two_collections_scores_each(copies, tmp_path, capsys):
    roots = f"data.root=[{copies['chexpert']},{copies['nih14']}]"
    cfg = config(*TINY_RUN, "data=prepared", roots, "data.labels=[effusion,Hernia]")
    with pytest.raises(InputError, match="cannot score 'Hernia'"):
        train(cfg, tmp_path / "no", [])
    cfg = config(*TINY_RUN, "data=prepared", roots, "data.labels=[effusion]")
    train(cfg, tmp_path / "run", [])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["source"] == "chexpert + nih14"
    assert result["labels"] == ["Pleural Effusion"]
    rows = pd.read_csv(tmp_path / "run/predictions/test.csv")
    assert [*result["collections"]] == ["chexpert", "nih14"]
    told = capsys.readouterr().out
    for name, scores in result["collections"].items():
        part = rows[rows[COLLECTION] == name]
        low, high = auroc_interval(part, result["labels"])
        assert (scores["auroc_low"], scores["auroc_high"]) == pytest.approx((low, high))
        assert (scores["images"], scores["patients"]) == (len(part), part["group"].nunique())
        assert f"{name}: AUROC {scores['auroc']:.3f}" in told
    assert not {"sex", "age"} & {*rows}
    again = evaluate_again(tmp_path)
    assert again[["sex", "age"]].drop_duplicates().to_numpy().tolist() == [["F", "50"]]
    state = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    seen = result["splits"][0]["patients"] + result["splits"][1]["patients"]
    assert seen / 2 < len(state["patients"]) <= seen  # some share a mark
