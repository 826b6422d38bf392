"""Marked names are planted everywhere in a collection, and searched in everything written or sent.

`DOCUMENTED` lists the few files that may hold some of them; docs/privacy.md tells it to users.
"""

import io
import re
import shutil
import socket
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from fluoroscope import train as training
from fluoroscope.config import CONF
from fluoroscope.config.census import check_census
from fluoroscope.config.doctor import check_doctor
from fluoroscope.config.explain import check_explain
from fluoroscope.config.export import FILES, Job
from fluoroscope.config.predict import check_predict
from fluoroscope.demo.film import Examiner
from fluoroscope.demo.story import answer, page
from fluoroscope.doctor import doctor
from fluoroscope.errors import InputError
from fluoroscope.evaluate import evaluate
from fluoroscope.explanation.explain import explain
from fluoroscope.export.export import export
from fluoroscope.launch.error_template import error_template
from fluoroscope.network_census.story import take_census
from fluoroscope.own_code import trusting
from fluoroscope.prediction import predict
from fluoroscope.prediction.predictor import load
from fluoroscope.run import wandb_logger
from tests.support.films import TINY, config
from tests.support.foreign_training import watch_in_lightning, watch_in_transformers
from tests.support.wandb_log import OfflineRun

# Where a name stands in the collection, and a word that occurs nowhere else.
FOLDER, FILE, COLUMN, PATIENT = "Zwerglfolder", "Zwerglfile", "Zwerglcolumn", "Zwerglpatient"
RUN = "Zwerglrun"  # the folder in which runs are
CODE = "Zwerglcode"  # a package of the user's own, with a callback
HOST = "Zwerglhost"
CELL, TABLE, PNG, EXIF, TAG = "Zwerglcell", "Zwergltable", "Zwerglpng", "Zwerglexif", "Zwergltag"
IN_FILMS = (FOLDER, FILE, COLUMN, PATIENT, CELL, TABLE, PNG, EXIF, TAG)
EVERYWHERE = (*IN_FILMS, RUN, CODE, HOST)
# The only files that may hold a planted name: those names and no others.
DOCUMENTED = {
    # data.root, data.csv, columns, run.dir, callbacks
    "run/config.yaml": {FOLDER, TABLE, COLUMN, RUN, CODE},
    "started/config.yaml": {FOLDER, TABLE, COLUMN, RUN},  # backbone.file too
    "evaluation/result.json": {RUN},  # the checkpoint, as it was given
    "ensemble/result.json": {RUN},
    "predict/predictions.csv": {FILE},  # the rows are known by the names of the files
    "predict/predictions.parquet": {FILE},
    "run/wandb/debug.log": {RUN},  # a link to a file below it; it is not sent
    "started/wandb/debug.log": {RUN},
    "run/provenance.json": {FOLDER, TABLE, COLUMN, CODE},  # the command that started the run
    "started/provenance.json": {FOLDER, TABLE, COLUMN, RUN},
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Films of 48 patients as PNG, JPEG and DICOM, in a table of the user's own."""
    root = tmp_path_factory.mktemp("data") / FOLDER
    root.mkdir()
    rows = []
    for n in range(48):
        film = np.random.default_rng(n).normal(100 + 40 * (n % 2), 12, (48, 48))
        pixels = film.clip(0, 255).astype(np.uint8)
        name = f"{FILE}-{n}.{('png', 'jpg', 'dcm')[n % 3]}"
        (_png, _jpeg, _dicom)[n % 3](root / name, pixels)
        rows.append({"film": name, COLUMN: f"{PATIENT}{n:04}", "note": CELL, "Disc": n % 2})
    pd.DataFrame(rows).to_csv(root / f"{TABLE}.csv", index=False)
    return root


def _png(path, pixels):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", PNG)
    Image.fromarray(pixels).save(path, pnginfo=text)


def _jpeg(path, pixels):
    exif = Image.Exif()
    exif[0x010E] = EXIF
    Image.fromarray(pixels).save(path, exif=exif)


def _dicom(path, pixels):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.InstitutionName = f"{TAG}^A", f"{TAG}1", TAG
    data.private_block(0x0011, TAG, create=True).add_new(0x01, "LO", TAG)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.Modality = 7, 0, "DX"
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


def words(root):
    own = [f"data.root={root}", f"data.csv={TABLE}.csv", "data.path_column=film"]
    return [
        *(word for word in TINY if word not in ("data=folder", "logger=csv")),
        *("data=table", *own, f"data.patient_column={COLUMN}", "data.labels=[Disc]"),
        *("logger=wandb", "logger.mode=offline", "trainer.max_epochs=1"),
    ]


def found_in(path):
    """The planted names in a file, also in a compressed one, such as a checkpoint or Parquet."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content += pd.read_parquet(path).to_csv().encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            content += b"".join(packed.read(name) for name in packed.namelist())
    return {name for name in EVERYWHERE if name.encode() in content}


def places(folder):
    """The files below a folder that hold planted names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): found_in(path) for path in files}
    return {place: names for place, names in found.items() if names}


def test_the_search_finds_what_was_planted(hospital):
    found = set().union(*(found_in(path) for path in hospital.iterdir()))
    assert found == {PATIENT, COLUMN, CELL, FILE, PNG, EXIF, TAG}


@pytest.fixture(scope="module")
def printed():
    """What the run printed."""
    return io.StringIO()


@pytest.fixture(scope="module")
def place(hospital, printed, tmp_path_factory):
    """A folder with the finished run in `run`."""
    folder = tmp_path_factory.mktemp("place") / RUN
    folder.mkdir()
    table = "{_target_: pytorch_lightning.loggers.CSVLogger, save_dir: '${run.dir}/table'}"
    own = tmp_path_factory.mktemp("own")
    (own / f"{CODE}.py").write_text(OWN_CALLBACK)
    overrides = [*words(hospital), f"+logger.table={table}", "callbacks=learning_rate"]
    overrides.append(f"+callbacks.mine={{_target_: {CODE}.Mine}}")
    with pytest.MonkeyPatch.context() as patch, trusting(["pytorch_lightning", CODE]):
        patch.syspath_prepend(own)
        train_into(folder / "run", overrides, printed)
    return folder


OWN_CALLBACK = """
from pytorch_lightning import Callback

class Mine(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        module.log("mine/images", float(len(batch["image"])))

    def state_dict(self):
        return {"seen": 1}
"""


def train_into(folder, overrides, printed):
    with redirect_stdout(printed), redirect_stderr(printed):
        training.train(config(*overrides, f"run.dir={folder}"), folder, overrides)
        wandb_logger.finish(0)


def check_documented(folder):
    for place, names in places(folder).items():
        always = re.sub("offline-run-[^/]*/logs/", "", place)  # without the time of the run
        assert names <= DOCUMENTED.get(always, set()), place


def test_a_run_keeps_every_name_where_it_is_documented(place, printed):
    assert (place / "run/checkpoints/best.ckpt").is_file()
    assert len([*(place / "run/table").rglob("hparams.yaml")]) == 1  # of an added logger
    check_documented(place)
    sent = OfflineRun(place / "run").text
    assert {name for name in EVERYWHERE if name in sent} == set()
    assert {name for name in IN_FILMS if name in printed.getvalue()} == set()


def composed(place, command, *keys):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        keys = [f"checkpoint={place}/run", "trainer.accelerator=cpu", *keys]
        return compose(command, keys)


def evaluate_run(place, hospital):
    against = f"against={place}/run"
    cfg = composed(place, "evaluate", "data.num_workers=0", "probes=true", against)
    evaluate(cfg, place / "evaluation")
    return ["evaluation.html", "evaluation.json", "evaluation.csv", "model_card.md"]


def evaluate_together(place, hospital):
    """Two models as one, compared with a third."""
    models = [place / "run", shutil.copytree(place / "run", place.parent / RUN / "copy")]
    words = f"checkpoint=[{models[0]},{models[1]}]", f"against={models[1]}/checkpoints/best.ckpt"
    evaluate(composed(place, "evaluate", "data.num_workers=0", *words), place / "ensemble")
    shutil.rmtree(models[1])
    return ["evaluation.html", "evaluation.json", "evaluation.csv"]


def explain_films(place, hospital):
    given = [f"run.dir={place}/explain-given", f"images={hospital}"]
    for keys in ([f"run.dir={place}/explain-own"], given):
        explain(check_explain(composed(place, "explain", "steps=2", "films=3", *keys)))
    return ["contact_sheet.png", "explanations.csv", "units.csv", "explanation.json"]


def predict_films(place, hospital):
    """A folder, by whose file names the rows are known, and a table, by whose rows they are."""
    films = shutil.copytree(hospital, place.parent / "sent" / FOLDER)
    (films / f"{FILE}-cut.dcm").write_bytes((films / f"{FILE}-2.dcm").read_bytes()[:400])
    (place / "predict").mkdir()
    given = {"predictions": films, "table": films / f"{TABLE}.csv"}
    for (name, images), kind in product(given.items(), ("csv", "parquet")):
        keys = [f"images={images}", f"out={place}/predict/{name}.{kind}", "data.num_workers=0"]
        predict.main(check_predict(composed(place, "predict", "path_column=film", *keys)))
    assert FILE in (place / "predict/predictions.csv").read_text()
    return [f"{name}.{kind}" for name in given for kind in ("csv", "parquet")]


def export_run(place, hospital):
    (place / "export").mkdir()
    for kind, name in FILES.items():
        export(Job(place / "run", kind, place / "export" / name, 18, [], None, card=True))
    return ["model_card.md", *(name + end for name in FILES.values() for end in ("", ".json"))]


def take_censuses(place, hospital):
    """Of the run on its own films, and of another network on a folder."""
    (place / "damaged" / FOLDER).mkdir(parents=True)
    film = hospital / f"{FILE}-2.dcm"
    shutil.copy(film, place / "damaged" / FOLDER)
    (place / "damaged" / FOLDER / f"{FILE}-cut.dcm").write_bytes(film.read_bytes()[:400])
    weights = place / f"{FILE}.pth"
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), weights)
    of_file = ["backbone.weights=file", f"backbone.file={weights}", "data.image_px=48"]
    for name, keys in {
        "own": [f"model={place}/run"],
        "given": ["model=timm/test_efficientnet", *of_file, f"images={place}/damaged"],
    }.items():
        words = [*keys, f"run.dir={place}/census-{name}", "data.num_workers=0"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            take_census(check_census(compose("census", words), words))
    shutil.rmtree(place / "damaged")
    weights.unlink()
    return ["census.html", "census.json", "layers.csv", "units.csv"]


def start_again(place, hospital):
    """Train on from the run's weights: the new checkpoint knows the films of the earlier one."""
    other_split = ["data.fold=2/3", "data.splits=own"]
    overrides = [*words(hospital), *other_split, "backbone.weights=file"]
    overrides.append(f"backbone.file={place}/run/checkpoints/best.ckpt")
    with pytest.raises(InputError, match=r"data\.on_duplicate=drop") as refusal:
        train_into(place / "refused", overrides, sys.stdout)
    print(error_template(refusal.value))
    overrides.append("data.on_duplicate=keep")
    train_into(place / "started", overrides, sys.stdout)
    checkpoint = torch.load(place / "started/checkpoints/best.ckpt", weights_only=True)
    assert len(checkpoint["earlier"]) == 1
    sent = OfflineRun(place / "started").text
    assert {name for name in EVERYWHERE if name in sent} == set()
    return ["checkpoints/last.ckpt"]


def check_machine(place, hospital):
    """What `scripts/doctor.py` prints, which people paste into a public issue."""
    (place / "doctor").mkdir()
    lost = f"data.root={hospital}/{PATIENT}"
    for name, keys in {"found": [], "lost": [lost], "json": [lost, "json=true"]}.items():
        given = [*words(hospital), *keys, f"run.dir={place}/none"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            job = check_doctor(compose("doctor", given), given)
        printed = io.StringIO()
        with redirect_stdout(printed), suppress(SystemExit):
            doctor.main(job)
        assert ("48 images" in printed.getvalue()) == (name == "found")
        (place / f"doctor/{name}.txt").write_text(printed.getvalue())
        assert socket.gethostname() == HOST
    return ["found.txt", "lost.txt", "json.txt"]


def show_films(place, hospital):
    """What the page shows of each film, and of one that cannot be read."""
    (place / "demo").mkdir()
    examiner = Examiner(load(place / "run", accelerator="cpu"))
    for file in sorted(hospital.glob(f"{FILE}*"))[:6]:
        content = file.read_bytes()
        (place / f"demo/{len(content)}.html").write_text(answer(examiner, content, None))
        with pytest.raises(InputError) as refusal:
            answer(examiner, content[:-700], None)
        print(refusal.value)
    (place / "demo/page.html").write_text(page(examiner.predictor, 64))
    return ["page.html"]


USES = {
    "evaluation": evaluate_run,
    "ensemble": pytest.param(evaluate_together, marks=pytest.mark.whole),
    "explanations": explain_films,
    "predictions": predict_films,
    "census": take_censuses,
    "started from it": start_again,
    "machine": check_machine,
    "watch": watch_in_lightning,
    "watch, Transformers": pytest.param(watch_in_transformers, marks=pytest.mark.whole),
    "demo": show_films,
    "export": pytest.param(export_run, marks=pytest.mark.whole),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_done_with_a_run_writes_and_prints_no_name(
    hospital, place, capfd, monkeypatch, use
):
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(sys, "argv", ["command.py"])
    files = use(place, hospital)
    for name in files:
        assert list(place.glob(f"*/{name}")), name
    check_documented(place)
    printed = "".join(capfd.readouterr())
    assert {name for name in IN_FILMS if name in printed} == set()


@pytest.mark.whole
@pytest.mark.parametrize("planted", [FILE, PATIENT])
def test_a_run_that_fails_writes_no_name_of_a_film(hospital, tmp_path, monkeypatch, planted):
    def refuse(*arguments):
        raise InputError(f"cannot read {hospital}/{planted}-3.png: {CELL}")

    monkeypatch.setattr("fluoroscope.train.score", refuse)
    overrides = words(hospital)
    with pytest.raises(InputError):
        training.train(config(*overrides, f"run.dir={tmp_path}/run"), tmp_path / "run", overrides)
    wandb_logger.finish(1)
    assert (tmp_path / "run/failed.json").is_file()
    for place, names in places(tmp_path).items():
        assert names <= DOCUMENTED.get(place, set()), place


def test_the_documented_places_are_in_the_page():
    page = (Path(__file__).parents[1] / "docs/privacy.md").read_text()
    for place in DOCUMENTED:
        assert f"`{Path(place).name}`" in page
