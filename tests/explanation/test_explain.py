"""The command on a tiny run: what it writes, says and refuses."""

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

from fluoroscope.config import CONF
from fluoroscope.config.explain import check_explain
from fluoroscope.errors import InputError
from fluoroscope.explanation.explain import check_labels, explain
from fluoroscope.model.backbone import Backbone
from fluoroscope.model.head import Head
from fluoroscope.trained.loading import Network, open_trained
from tests.support.films import SIDE_PX
from tests.support.trained_run import write_run


def job(*overrides):
    keys = ["steps=8", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_explain(compose("explain", keys), keys)


@pytest.fixture(scope="module")
def made(trained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "out"
    explain(job(f"checkpoint={trained_run}", f"run.dir={folder}", "films=3", "units=31"))
    return folder


def test_it_writes_pictures_tables_and_a_summary(made):
    names = {str(path.relative_to(made)) for path in made.rglob("*.png")}
    assert len(names) == 1 + 3 * 2
    assert {"contact_sheet.png"} < names
    assert cv2.imread(str(made / "contact_sheet.png")).shape[0] > 300
    summary = json.loads((made / "explanation.json").read_text())
    assert (summary["films"], summary["labels"], summary["split"]) == (3, {}, "test")
    assert summary["map_layer"] == "forward_features"
    assert any("of 31 units open on the median film" in sentence for sentence in summary["said"])


def test_its_rows_are_those_of_the_predictions(made, trained_run):
    predictions = pd.read_csv(trained_run / "predictions/test.csv").set_index("row")
    rows = pd.read_csv(made / "explanations.csv")
    assert len(rows) == 3
    for row in rows.to_dict("records"):
        same = predictions.loc[row["row"]]
        probability = 1 / (1 + np.exp(-row["logit"]))
        assert probability == pytest.approx(same[f"{row['label']}_probability"], abs=1e-5)
        assert row["truth"] == same[row["label"]]


def test_its_units_add_up_to_the_logit(made):
    rows = pd.read_csv(made / "explanations.csv").set_index("row")
    units = pd.read_csv(made / "units.csv")
    listed = units.groupby("row")["contribution"].sum()
    assert (units.groupby("row").size() == 31).all()
    np.testing.assert_allclose(rows["base"] + listed[rows.index], rows["logit"], atol=1e-5)
    np.testing.assert_allclose(
        rows["base"] + rows["raising"] + rows["lowering"], rows["logit"], atol=1e-5
    )


def test_nothing_names_a_film_unless_it_is_asked_for(made, films):
    names = {path.stem for path in films.rglob("*.png")} | {str(films)}
    for file in made.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(name.encode() in content for name in names), file


def boxes_of_discs(films, file):
    """The disc of each film of `BLOB` as a table of boxes, found by template matching."""
    disc = cv2.circle(np.zeros((17, 17), np.float32), (8, 8), 8, 1, -1)
    rows = ["image,label,x,y,width,height"]
    for path in sorted((films / "BLOB").glob("*.png")):
        film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        score = cv2.filter2D(film, -1, disc - disc.mean())
        y, x = np.unravel_index(score.argmax(), score.shape)
        left, top = min(max(x - 8, 0), SIDE_PX - 17), min(max(y - 8, 0), SIDE_PX - 17)
        rows.append(f"{path.name},BLOB,{left},{top},17,17")
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="module")
def discs(films, tmp_path_factory):
    return boxes_of_discs(films, tmp_path_factory.mktemp("boxes") / "boxes.csv")


def test_boxes_give_scores_with_intervals_over_patients(trained_run, discs, tmp_path):
    keys = [f"checkpoint={trained_run}", f"boxes={discs}", "methods=[gradcam]"]
    result = explain(job(*keys, f"run.dir={tmp_path / 'out'}", "run.name_images=true", "films=2"))
    rows = pd.read_csv(tmp_path / "out/explanations.csv")
    found = result["labels"]["BLOB"]
    assert found["films"] == len(rows) == result["films"]
    assert found["patients"] == rows["patient"].nunique() < len(rows)
    pointing = found["maps"]["gradcam"]["pointing"]
    assert pointing["value"] == pytest.approx(rows["pointing/gradcam"].mean())
    assert pointing["low"] <= pointing["value"] < pointing["high"]
    # A box of 17 of 48 pixels.
    assert rows["chance"].to_numpy() == pytest.approx((17 / 48) ** 2, rel=0.15)
    difference = found["maps"]["gradcam"]["energy_above_chance"]["value"]
    assert difference == pytest.approx((rows["energy/gradcam"] - rows["chance"]).mean())
    assert any("Grad-CAM: pointing score" in sentence for sentence in result["said"])
    assert any(
        "sanity check, Grad-CAM of random weights" in sentence for sentence in result["said"]
    )


class DiscFinder(torch.nn.Module):
    """A network of timm's form whose only feature is the brightest disc of 17 pixels."""

    num_features = 1

    def __init__(self):
        super().__init__()
        disc = cv2.circle(np.zeros((17, 17), np.float32), (8, 8), 8, 1, -1)
        self.conv = torch.nn.Conv2d(1, 1, 17, padding=8, padding_mode="reflect")
        self.conv.weight.data[0, 0] = torch.from_numpy(disc / disc.sum() - 1 / 289)
        self.conv.bias.data[0] = -0.05

    def forward_features(self, x):
        return torch.relu(self.conv(x))

    def forward_head(self, x):
        return x.mean((2, 3))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def test_a_network_that_looks_at_discs_is_seen_to_look_at_discs(
    trained_run, discs, tmp_path, monkeypatch
):
    """The planted truth; its weights in random order look elsewhere."""
    backbone = Backbone(DiscFinder(), (0.0,), (1.0,))
    head = Head(1, 1, width=3, activation="identity", norm="none").eval()
    for layer in (head.dense, head.out):
        torch.nn.init.ones_(layer.weight)
    planted = open_trained(trained_run, "cpu")._replace(network=Network(backbone, head))
    monkeypatch.setattr("fluoroscope.explanation.explain.open_trained", lambda *_: planted)
    keys = [f"checkpoint={trained_run}", f"boxes={discs}", "films=1"]
    result = explain(job(*keys, f"run.dir={tmp_path / 'out'}", "steps=16"))
    maps = result["labels"]["BLOB"]["maps"]
    for method in ("gradcam", "integrated_gradients"):
        assert maps[method]["pointing"]["value"] == 1
        assert maps[f"random_{method}"]["pointing"]["value"] < 0.6
        assert maps[method]["energy"]["value"] > 2 * maps[f"random_{method}"]["energy"]["value"]


def test_films_of_a_folder_are_explained_without_a_collection(trained_run, films, discs, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((films / "BLOB").glob("*.png"))[:5]:
        (folder / path.name).symlink_to(path)
    keys = [f"checkpoint={trained_run}", f"images={folder}", "labels=[BLOB]"]
    more = [f"boxes={discs}", "methods=[gradcam]", f"run.dir={tmp_path / 'out'}", "films=2"]
    result = explain(job(*keys, *more))
    assert result["films"] == 5
    assert "5 films with boxes, each counted as a separate patient" in " ".join(result["said"])
    assert len([*(tmp_path / "out/overlays").iterdir()]) == 2


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (["labels=[BLOP]"], r"labels must be one of BLOB.*; got 'BLOP' \(did you mean 'BLOB'"),
        (["boxes=auto"], "boxes=auto: data=folder has no boxes; give boxes=FILE"),
        (["boxes={films}/BLOB"], "there are boxes of Pneumothorax and none of BLOB"),
        (["images={films}/BLOB/p001_0.png", "boxes={outside}"], r"does not lie on a film of 48 x"),
        (["images={empty}"], "there is no image in"),
        (["images={broken}"], "cannot read image"),
        (["data.root={empty}"], "needs two or more class folders"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    keys, complaint, trained_run, films, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/film.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    outside = tmp_path / "outside.csv"
    outside.write_text("image,label,x,y,width,height\np001_0.png,BLOB,40,40,100,9\n")
    places = {name: tmp_path / name for name in ("empty", "broken")}
    given = [key.format(films=films, outside=outside, **places) for key in keys]
    with pytest.raises(InputError, match=complaint) as raised:
        explain(job(f"checkpoint={trained_run}", f"run.dir={tmp_path / 'out'}", *given))
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([], "checkpoint is not set; add checkpoint=RUN"),
        (["checkpoint=[]"], "checkpoint must be a run folder"),
        (["checkpoint={run}", "methods=[gradcam,gradcam]"], "methods must list one or both"),
        (["checkpoint={run}", "methods=[gradcamm]"], "did you mean 'gradcam'"),
        (["checkpoint={run}", "images=nowhere.png"], "there is no file or folder nowhere.png"),
        (["checkpoint=[{run},{run}]"], "lists .* more than once"),
        (["checkpoint={run}", "labels=[]"], r"labels must list labels, or be null; got \[\]"),
        (["checkpoint=[{run},{run}/checkpoints/best.ckpt]", "images={run}"], "by one model"),
        (["checkpoint={run}", "images={run}", "boxes=auto"], "boxes=auto reads"),
        (["checkpoint={run}", "boxes=nowhere.csv"], "boxes: there is no file or folder"),
        (
            ["checkpoint={run}", "++data.label_map={{a: b}}"],
            "names labels of boxes; add boxes=auto",
        ),
        (["checkpoint={run}", "steps=1"], r"steps must be in \[2, 1000\]"),
    ],
)
def test_keys_are_checked_before_anything_heavy_is_imported(keys, complaint, trained_run):
    with pytest.raises(InputError, match=complaint):
        job(*(key.format(run=trained_run) for key in keys))


def test_models_with_inputs_of_different_sizes_are_refused():
    """Their maps and boxes cannot be compared place by place."""
    models = [SimpleNamespace(place=f"m{px}", labels=("BLOB",), image_px=px) for px in (96, 64)]
    with pytest.raises(InputError, match="m96 and m64 read images of 96 and 64 px"):
        check_labels(SimpleNamespace(labels=None), models)


def test_a_folder_with_explanations_is_not_overwritten(made, trained_run):
    with pytest.raises(InputError, match="already holds explanations"):
        job(f"checkpoint={trained_run}", f"run.dir={made}")


def test_without_captum_the_extra_is_named(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(InputError, match=r"pip install 'fluoroscope\[explain\]'"):
        explain(job(f"checkpoint={trained_run}", f"run.dir={tmp_path / 'out'}"))


@pytest.mark.whole
def test_each_film_of_all_folds_is_explained_by_the_model_that_has_not_seen_it(
    films, discs, tmp_path
):
    runs = [write_run(films, tmp_path / f"{k}", f"data.fold={k}/3") for k in (1, 2, 3)]
    places = ",".join(map(str, runs))
    keys = [f"checkpoint=[{places}]", f"boxes={discs}", "methods=[gradcam]"]
    result = explain(job(*keys, f"run.dir={tmp_path / 'out'}", "films=1"))
    rows = pd.read_csv(tmp_path / "out/explanations.csv")
    assert result["films"] == len(rows) == len([*(films / "BLOB").glob("*.png")])
    for model, of_model in rows.groupby("model"):
        tested = pd.read_csv(runs[model] / "predictions/test.csv")
        assert {*of_model["row"]} == {*tested["row"][tested["BLOB"] == 1]}
