"""What a model has seen is not scored again, under whatever name; older runs still are."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope.config import CONF
from fluoroscope.config.train import check_train
from fluoroscope.data.lookalikes import ALIKE_BITS, alike_frac, pictures
from fluoroscope.data.survey import survey_images
from fluoroscope.errors import InputError
from fluoroscope.evaluate import evaluate
from fluoroscope.files.images import read_image
from fluoroscope.prepare import prepare_jobs
from fluoroscope.train import train
from tests.prepare.test_copying import checked
from tests.support.films import TINY, config

SHORT = [word for word in TINY if not word.startswith("data=")] + ["trainer.max_epochs=1"]
LATER = ("fold", "on_missing", "on_duplicate", "follow_links", "label_map")


def films(root, count=60, suffix="png", seed=0):
    """Films that look like nothing else: smooth noise, half of them with a bright disc."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    rows = []
    for number in range(count):
        film = cv2.resize(rng.normal(size=(9, 9)), (96, 96), interpolation=cv2.INTER_CUBIC)
        film = 100 + 30 * film + 60 * (number % 2) * (np.hypot(*np.mgrid[-48:48, -48:48]) < 20)
        film[80:] = 0  # a margin that all share
        pixels = film.clip(0, 255).astype(np.uint8)
        name = f"{number:05}.{suffix}"
        np.save(root / name, pixels) if suffix == "npy" else cv2.imwrite(str(root / name), pixels)
        rows.append({"path": name, "patient": f"{number:05}", "Disc": number % 2})
    pd.DataFrame(rows).to_csv(root / "studies.csv", index=False)
    return root


def table(root, *more):
    return ["data=table", f"data.root={root}", "data.csv=studies.csv", "data.labels=[Disc]", *more]


def trained(folder, *words):
    """A run of one epoch; its checkpoint."""
    train(config(*SHORT, *words, f"run.dir={folder}"), folder, [])
    return f"checkpoint={folder}/checkpoints/best.ckpt"


def evaluated(folder, *words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [*words])
    return evaluate(cfg, folder)["test"]


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """A collection without patients, and a model of it."""
    root = tmp_path_factory.mktemp("nameless")
    films(root / "films")
    return root, trained(root / "run", *table(root / "films"))


def test_a_resized_copy_of_the_training_is_refused_though_nothing_names_it(nameless, tmp_path):
    root, checkpoint = nameless
    words = [*table(root / "films"), "size=64", f"out={tmp_path}/copy", "audit=false"]
    prepare_jobs.main(checked(*words))
    copy = [checkpoint, "data=prepared", f"data.root={tmp_path}/copy"]
    for split in ("all", "test"):
        with pytest.raises(InputError, match=r"images that look like \d+% of the images to score"):
            evaluated(tmp_path / "no", *copy, f"split={split}", "data.fold=2/5")
    assert evaluated(tmp_path / "yes", *copy, "split=all", "already_seen=allow")["images"] == 60


def test_other_films_are_scored(nameless, tmp_path, capsys):
    other = films(tmp_path / "other", seed=1)
    result = evaluated(tmp_path / "run", nameless[1], *table(other)[:3], "split=all")
    assert result["images"] == 60
    told = " ".join(capsys.readouterr().out.split())
    assert "warning: patients are unknown: images of one person may be in training" in told
    assert ", too narrow (" in told
    assert "on 60 x-rays the model has not seen" in told
    assert "patients the model has not seen" not in told
    assert (result["patients"], result["interval_too_narrow"]) == (None, True)
    named = [*table(other, "data.patient_column=patient")[:3], "data.patient_column=patient"]
    evaluated(tmp_path / "named", nameless[1], *named, "split=all")
    told = " ".join(capsys.readouterr().out.split())
    assert "warning" not in told
    assert "on 60 x-rays of 60 patients, images the model has not seen" in told


@pytest.mark.parametrize(
    ("splits", "images"), [(["test"] * 60, 60), (["test", "test", "val"] * 20, 40)]
)
def test_a_collection_without_training_images_is_scored(nameless, tmp_path, splits, images):
    """As CheXlocalize is, and the panel of VinDr-CXR."""
    other = films(tmp_path / "other", seed=1)
    studies = pd.read_csv(other / "studies.csv").assign(split=splits)
    studies.loc[studies["split"] == "val", "Disc"] = 0  # val is not scored
    studies.to_csv(other / "studies.csv", index=False)
    words = [nameless[1], *table(other)[:3], "data.split_column=split"]
    assert evaluated(tmp_path / "run", *words)["images"] == images
    studies.assign(Disc=0).to_csv(other / "studies.csv", index=False)
    with pytest.raises(InputError, match=r"the test split cannot score 'Disc': positive images 0"):
        evaluated(tmp_path / "no", *words)
    studies.assign(split="val").to_csv(other / "studies.csv", index=False)
    with pytest.raises(InputError, match="the test split has no images"):
        evaluated(tmp_path / "none", *words)


def test_files_that_are_not_compressed_are_told_apart(tmp_path):
    """All of them end in the same margin."""
    root = films(tmp_path / "films", suffix="npy")
    checkpoint = trained(tmp_path / "run", *table(root))
    assert evaluated(tmp_path / "again", checkpoint)["images"] == 9
    with pytest.raises(InputError, match=r"trained or validated on 51 of the 60 images"):
        evaluated(tmp_path / "all", checkpoint, *table(root)[:3], "split=all")


def test_patients_after_whom_files_are_named_are_patients(tmp_path):
    root = films(tmp_path / "films")
    checkpoint = trained(tmp_path / "run", *table(root, "data.patient_column=patient"))
    follow_up = films(tmp_path / "later", seed=1)
    words = [checkpoint, *table(follow_up, "data.patient_column=patient")[:3], "split=all"]
    with pytest.raises(InputError, match=r"trained or validated on about (49|5\d) of the 60"):
        evaluated(tmp_path / "again", *words, "data.patient_column=patient")


def test_runs_before_some_keys_are_evaluated_and_resumed(nameless, tmp_path):
    checkpoint = nameless[1]
    state = torch.load(checkpoint.partition("=")[2], weights_only=True)
    state["config"] = OmegaConf.to_container(OmegaConf.load(nameless[0] / "run/config.yaml"))
    for key in (*LATER, "uncertain", "blank", "soft_target", "on_missing_patient"):
        del state["config"]["data"][key]
    torch.save(
        {k: v for k, v in state.items() if k not in ("pictures", "patients", "source")},
        tmp_path / "old.ckpt",
    )
    scores = evaluated(tmp_path / "again", f"checkpoint={tmp_path}/old.ckpt")
    assert scores == evaluated(tmp_path / "now", checkpoint)
    other = films(tmp_path / "other", seed=1)
    elsewhere = [f"checkpoint={tmp_path}/old.ckpt", *table(other)[:3], "split=all"]
    assert evaluated(tmp_path / "other_run", *elsewhere)["images"] == 60

    (tmp_path / "run").mkdir()
    OmegaConf.save(OmegaConf.create(state["config"]), tmp_path / "run/config.yaml")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        resumed = check_train(compose("train", [f"run.resume={tmp_path}/run"]))
    assert (resumed.data.fold, resumed.data.on_duplicate) == (None, "keep")


def test_alike_is_what_is_a_few_bits_away():
    rng = np.random.default_rng(0)
    seen = rng.integers(-(2**62), 2**62, (70, 4))
    flip = [
        (1 << rng.choice(62, bits, replace=False)).sum() for bits in (ALIKE_BITS, ALIKE_BITS + 1)
    ]
    near, far = seen[:30].copy(), seen[:10].copy()
    near[:, 1] ^= flip[0]
    far[:, 2] ^= flip[1]
    assert alike_frac(near, seen) == 1
    assert alike_frac(far, seen) == 0
    assert alike_frac(np.concatenate([near, far]), seen) == 0.75
    assert alike_frac(seen[:0], seen) == alike_frac(seen, seen[:0]) == 0


def test_a_resized_film_looks_the_same(tmp_path):
    paths = sorted(films(tmp_path / "films").glob("*.png"))
    for path in paths:
        small = cv2.resize(read_image(path), (64, 64), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / path.name), small)
    found, seen = (
        pictures(survey_images([f / p.name for p in paths])) for f in (tmp_path, tmp_path / "films")
    )
    assert alike_frac(found, seen) > 0.9
    assert alike_frac(found[:20], seen[20:]) == 0


def test_a_checkpoint_that_was_moved_asks_for_the_places_that_it_does_not_hold(nameless, tmp_path):
    root, checkpoint = nameless
    moved = tmp_path / "elsewhere/checkpoints/best.ckpt"
    moved.parent.mkdir(parents=True)
    moved.write_bytes((root / "run/checkpoints/best.ckpt").read_bytes())
    assert str(root).encode() not in moved.read_bytes()
    with pytest.raises(InputError, match=r"does not hold data\.root and data\.csv, which may name"):
        evaluated(tmp_path / "no", f"checkpoint={moved}")
    (tmp_path / "elsewhere/config.yaml").write_bytes((root / "run/config.yaml").read_bytes())
    assert evaluated(tmp_path / "a", f"checkpoint={moved}") == evaluated(tmp_path / "b", checkpoint)
