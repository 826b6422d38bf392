import csv
import json
import re
import resource
import shutil

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from fluoroscope import build
from fluoroscope.config import CONF
from fluoroscope.data.patient_marks import patient_marks
from fluoroscope.data.study_table import Decision
from fluoroscope.errors import InputError
from fluoroscope.evaluate import evaluate
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from fluoroscope.run import run_folder
from fluoroscope.train import train
from tests.support.films import TINY, config, tiny_config, write_films


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    """A finished tiny run: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(tiny_config(films, "run.name_images=true"), folder, ["seed=1"])


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder, key):
    return [float(row[key]) for row in rows(folder) if row.get(key)]


def test_the_run_folder_is_complete(run):
    folder, result = run
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "result.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "predictions/val.csv",
        "predictions/test.csv",
        "postmortem.csv",
        *("gate_open.npy", "grad_score.npy"),
        "gate_open.png",
    }
    assert OmegaConf.load(folder / "config.yaml").head.width == 31
    assert run_folder.read_json(folder / "result.json")["test"]["auroc"] == result["test"]["auroc"]
    provenance = run_folder.read_json(folder / "provenance.json")
    assert provenance["overrides"] == ["seed=1"]
    assert provenance["split_fingerprint"] == result["split_fingerprint"]


def test_what_was_decided_about_the_data_is_told_and_kept(films, tmp_path, capsys):
    cfg = tiny_config(films, "data.patient_pattern=null", "trainer.max_epochs=1")
    result = train(cfg, tmp_path / "run", [])
    kept, pattern = run_folder.read_json(tmp_path / "run/provenance.json")["decisions"]
    assert (kept["counts"], pattern["counts"]) == ({"images": 120}, {"patients": 40})
    told = capsys.readouterr().out
    assert Decision(**kept).describe() in told
    assert " ".join(told.split()).count("warning: patients are unknown") == 1
    assert "on 18 x-rays the model has not seen" in told
    assert ", too narrow (BLOB)" in told
    assert "BLOB has 9 positive images and 9 negative images" in told
    assert run_folder.read_json(tmp_path / "run/result.json")["test"]["patients"] is None
    assert (result["patients_known"], result["test"]["interval_too_narrow"]) == ("none", True)


def test_the_scores_are_those_of_the_predictions(run):
    folder, result = run
    for split in ("val", "test"):
        table = pd.read_csv(folder / "predictions" / f"{split}.csv")
        expected = roc_auc_score(table["BLOB"], table["BLOB_probability"])
        assert result[split]["auroc"] == pytest.approx(expected, abs=1e-6)
    assert list(table["patient"]) == [p.split("/")[-1].split("_")[0] for p in table["path"]]
    assert table["group"].nunique() == table["patient"].nunique() == result["test"]["patients"]


def test_a_run_and_the_report_give_the_same_interval(run):
    folder, result = run
    (row,) = compare(collect([folder])).settings[0].rows.to_dict("records")
    bounds = result["test"]["auroc_low"], result["test"]["auroc_high"]
    assert bounds == (row["auroc_low"], row["auroc_high"])
    assert bounds[0] < result["test"]["auroc"] < bounds[1]


def test_the_last_census_stands_in_the_result(run):
    folder, result = run
    units = result["units"]
    assert units["val/dead_frac"] == pytest.approx(column(folder, "units/val/dead_frac")[-1])
    total = sum(units[f"val/{kind}_frac"] for kind in ("dead", "linear", "nonlinear"))
    assert total == pytest.approx(1)
    assert units["val/dead_max"] == pytest.approx(max(column(folder, "units/val/dead_frac")))


def test_the_best_checkpoint_is_the_best_epoch(run):
    folder, result = run
    aurocs = column(folder, "val/auroc")
    assert result["val"]["auroc"] == pytest.approx(max(aurocs))
    assert result["best_epoch"] == aurocs.index(max(aurocs)) + 1


def test_images_that_come_out_black_stop_the_run_before_a_step(films, tmp_path):
    black = "{name: RandomBrightnessContrast, brightness_limit: [-1, -1], p: 1}"
    cfg = tiny_config(films, f"data.augment=[{black}]", f"run.dir={tmp_path}/run")
    with pytest.raises(InputError, match=r"^first training batch: all pixels lie between 0 and 0"):
        train(cfg, tmp_path / "run", [])
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))


def test_checkpoints_open_without_running_code(run):
    folder, _ = run
    for name in ("best", "last"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["config"]["head"]["activation"] == "relu"
        assert checkpoint["thresholds"].shape == (1,)
    assert (checkpoint["epochs"], checkpoint["batches"]) == (2, 0)


def evaluation(*overrides):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("evaluate", [*overrides])


def test_evaluation_gives_the_same_numbers_to_the_last_digit(run, tmp_path):
    folder, result = run
    cfg = evaluation(f"checkpoint={folder}/checkpoints/best.ckpt", "run.name_images=true")
    again = evaluate(cfg, tmp_path / "again")
    assert again["test"] == result["test"]
    files = (folder / "predictions/test.csv", tmp_path / "again/predictions/test.csv")
    assert files[0].read_bytes() == files[1].read_bytes()


def own_table(films, csv):
    """Overrides for the films as a CSV of one's own, of half the images of each class."""
    studies = pd.DataFrame(
        {"file": str(p), "BLOB": int(p.parent.name == "BLOB")}
        for p in sorted(films.rglob("*.png"))[10:110:2]
    )
    studies.to_csv(csv, index=False)
    return ["data=table", f"data.root={films}", f"data.csv={csv}", "data.path_column=file"]


def test_evaluation_on_another_collection_scores_all_of_it(run, tmp_path):
    folder, _ = run
    other = write_films(tmp_path / "films", seed=1)
    cfg = evaluation(
        f"checkpoint={folder}/checkpoints/best.ckpt",
        *own_table(other, tmp_path / "own.csv"),
        "split=all",
    )
    result = evaluate(cfg, tmp_path / "other")
    assert result["test"]["images"] == 50
    table = pd.read_csv(tmp_path / "other/predictions/all.csv")
    expected = roc_auc_score(table["BLOB"], table["BLOB_probability"])
    assert result["test"]["auroc"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("split", ["all", "test"])
def test_evaluation_refuses_images_the_model_has_seen_under_another_name(
    run, films, tmp_path, split
):
    folder, _ = run
    shutil.copytree(films, tmp_path / "copy")
    cfg = evaluation(
        f"checkpoint={folder}/checkpoints/best.ckpt",
        *own_table(tmp_path / "copy", tmp_path / "own.csv"),
        f"split={split}",
    )
    with pytest.raises(InputError, match=r"trained or validated on .* images to score"):
        evaluate(cfg, tmp_path / "other")


def test_evaluation_refuses_other_images_of_patients_the_model_has_seen(run, tmp_path):
    """Other films of the same numbers: 33 of the 40 patients were trained or chosen on."""
    folder, _ = run
    other = write_films(tmp_path / "films", seed=1)
    words = [
        f"checkpoint={folder}/checkpoints/best.ckpt",
        "data=folder",
        f"data.root={other}",
        "data.patient_pattern='(p\\d+)_'",
        "split=all",
    ]
    message = r"trained or validated on about [23]\d of the 40 patients to score"
    with pytest.raises(InputError, match=message):
        evaluate(evaluation(*words), tmp_path / "again")
    result = evaluate(evaluation(*words, "already_seen=allow"), tmp_path / "allowed")
    assert result["test"]["patients"] == 40


def test_a_checkpoint_names_no_patient(run):
    folder, _ = run
    checkpoint = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    table = pd.read_csv(folder / "predictions/val.csv")
    marks = patient_marks(table["patient"].unique(), "folder", checkpoint["patients_bits"])
    assert set(marks) <= set(checkpoint["patients"].tolist())
    assert len(set(patient_marks(["p001"], "folder") + patient_marks(["p001"], "nih14"))) == 2
    assert b"p001" not in (folder / "checkpoints/best.ckpt").read_bytes()


def test_validation_is_scored_again_by_its_name(run, tmp_path):
    folder, result = run
    cfg = evaluation(f"checkpoint={folder}/checkpoints/best.ckpt", "split=val")
    again = evaluate(cfg, tmp_path / "again")
    assert again["test"]["auroc"] == result["val"]["auroc"]


def test_evaluation_refuses_changed_data_under_the_old_name(run, films, tmp_path):
    folder, _ = run
    shutil.copytree(films, tmp_path / "films")
    next((tmp_path / "films/BLOB").iterdir()).unlink()
    cfg = evaluation(f"checkpoint={folder}/checkpoints/best.ckpt", f"data.root={tmp_path}/films")
    with pytest.raises(InputError, match="not those the checkpoint was trained with"):
        evaluate(cfg, tmp_path / "again")


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path):
    path = tmp_path / "run/checkpoints/best.ckpt"
    io = run_folder.SafeCheckpointIO()
    io.save_checkpoint({"epoch": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*the previous one is intact"):
            io.save_checkpoint({"epoch": 2, "weight": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in path.parent.iterdir()] == ["best.ckpt"]


def test_json_has_no_nan(tmp_path):
    run_folder.write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1.5, None]}


GOLDEN = [1.13688, 0.9618, 0.68832, 0.93494, 0.72972]


def test_golden_losses(films, tmp_path):
    """No change that is meant to leave the numbers alone may move these."""
    keys = ["trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
    train(tiny_config(films, *keys), tmp_path / "run", [])
    assert column(tmp_path / "run", "train/loss")[:5] == pytest.approx(GOLDEN, rel=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.ema_decay=0.9", "optimizer.layer_decay=0.8", "head.dropout=0.2"],
        [
            *("loss.name=focal", "loss.label_smoothing=0.1", "loss.pos_weight=auto"),
            *("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"),
        ],
        [
            "backbone.name=test_vit",
            "head.activation=prelu",
            "++backbone.args={img_size: 48}",
        ],
        [
            *("data.sampler=balanced", "head.prior_bias=true", "head.order=norm-activation"),
            *("backbone.channels_last=true", "++backbone.args={drop_path_rate: 0.1}"),
        ],
    ],
)
def test_switches_work(films, tmp_path, overrides):
    result = train(tiny_config(films, "trainer.max_epochs=1", *overrides), tmp_path / "run", [])
    assert 0 <= result["test"]["auroc"] <= 1
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert all(v.isfinite().all() for v in best["state_dict"].values())


def test_the_prior_is_where_the_output_starts(films):
    cfg = tiny_config(films, "head.prior_bias=true", "head.norm=none")
    data = build.build_data(cfg, build.build_studies(cfg))
    bias = build.build_classifier(cfg, data).head.out.bias
    assert bias.sigmoid().item() == pytest.approx(data.target("train").mean(), rel=1e-5)


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_ends_a_run_that_does_not_get_better(films, tmp_path, patience):
    still = ["optimizer.lr=1e-12", "backbone.frozen=true", "head.norm=none"]
    keys = ["trainer.max_epochs=6", f"run.patience={patience}", *still]
    assert train(tiny_config(films, *keys), tmp_path / "run", [])["epochs"] == 2


def test_a_backbone_that_gives_no_vector_per_image_is_refused(films):
    cfg = tiny_config(films, "++backbone.args={global_pool: ''}")
    data = build.build_data(cfg, build.build_studies(cfg))
    with pytest.raises(InputError, match="one pooled vector per image"):
        build.build_classifier(cfg, data)


def test_the_average_of_the_weights_is_what_is_validated_and_saved(films, tmp_path):
    keys = ["trainer.max_epochs=2", "optimizer.ema_decay=0.9"]
    result = train(tiny_config(films, *keys), tmp_path / "run", [])
    logged = column(tmp_path / "run", "val/auroc")
    # Scored again from the file, the best epoch gives what was logged when it was reached.
    assert result["val"]["auroc"] == pytest.approx(max(logged), abs=1e-6)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    raw = best["current_model_state"]["head.dense.weight"]
    assert not torch.equal(best["state_dict"]["head.dense.weight"], raw)


def test_the_question_is_composed_and_runs_small(films, tmp_path):
    """EfficientNet-B4 and all the question's keys, at a size that a test can pay for."""
    cfg = config("experiment=question", f"data.root={films}")
    assert (cfg.backbone.name, cfg.backbone.weights) == ("tf_efficientnet_b4.aa_in1k", "hub")
    assert (cfg.data.image_px, cfg.backbone.channels_last) == (380, True)
    assert (cfg.trainer.precision, cfg.trainer.accelerator) == ("auto", "gpu")
    assert (cfg.head.width, cfg.head.activation, cfg.head.norm_momentum) == (896, "relu", 0.01)
    small = [key for key in TINY if not key.startswith(("backbone=", "backbone.name", "head."))]
    small += ["trainer.max_epochs=1", "trainer.limit_train_batches=2", f"data.root={films}"]
    small += ["data.image_px=64", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
    result = train(config("experiment=question", *small), tmp_path / "run", [])
    assert (result["backbone"], result["width"]) == ("tf_efficientnet_b4.aa_in1k", 896)
    assert result["steps"] == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("++backbone.args={drop_pth_rate: 0.1}", "backbone.args do not fit test_efficientnet: "),
        (
            "diagnostics.layers=[head.activation,backbon.*]",
            "'backbon.*' matches no elementwise activation",
        ),
        ("diagnostics.layers=[foo]", "'foo' matches no elementwise activation"),
        ("backbone.name=vit_tiny_patch16_224", "does not accept images of data.image_px=48"),
        ("data.augment=[{name:Affine,rotate:[1,2,3]}]", "augmentation Affine: "),
        ("trainer.devices=[3]", "trainer: "),
        ("trainer.accelerator=tpu", "trainer: "),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_data_are_read(films, override, told):
    cfg = tiny_config(films, override)
    with pytest.raises(InputError, match=re.escape(told)):
        build.check_model(cfg)
