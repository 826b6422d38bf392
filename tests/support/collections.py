"""The films once more, laid out as the other sources expect them; `WRITERS` by source."""

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from fluoroscope.data.study_table import Collection, Decision
from fluoroscope.sources.chexpert import FINDINGS as REPORTED
from tests.support.dicoms import write_dicom

TEST_FROM = 34  # number of the first patient of official test sets
VAL_FROM = 28  # and of official validation sets


class Film(NamedTuple):
    """One of `films.write_films`."""

    path: Path
    patient: int
    image: int
    blob: int

    @property
    def split(self) -> str:
        if self.patient >= TEST_FROM:
            return "test"
        return "val" if self.patient >= VAL_FROM else "train"

    def pixels(self) -> np.ndarray:
        pixels = cv2.imread(str(self.path), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        return pixels


def touch(*paths: Path) -> None:
    """Empty files, and the folders they lie in."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def policies(collection: Collection) -> list[Decision]:
    """The decisions of a collection without the account of its files."""
    account = ("images that no row of the table names", "other files below data.root")
    return [d for d in collection.decisions if not d.policy.startswith(account)]


def write_table(films: Path, root: Path) -> Path:
    """A CSV of one's own beside its images, and a second one with the labels of its studies.

    It has both names that the pages give the paths.
    """
    rows = [
        {"path": str(f.path.relative_to(films)), "patient": f"p{f.patient}", "Effusion": f.blob}
        for f in _films(films)
    ]
    shutil.copytree(films, root)
    table = pd.DataFrame(rows)
    more = {"file": table["path"], "study": table.index.astype(str)}
    more["finding"] = table["Effusion"].map({1: "Edema", 0: "normal"})
    table.assign(**more).to_csv(root / "studies.csv", index=False)
    labels = pd.DataFrame({"study": more["study"], "Edema": table["Effusion"]})
    labels.to_csv(root / "labels.csv", index=False)
    return root


def write_kaggle(films: Path, root: Path) -> Path:
    """`{NORMAL,PNEUMONIA}` with the file names of the Kaggle pneumonia set."""
    for film in _films(films):
        _copy(film, root / _kaggle_name(film))
    return root


def write_kaggle_pneumonia(films: Path, root: Path) -> Path:
    """`chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}`; one patient is in train and in test."""
    for film in _films(films):
        split = "test" if film.patient == 1 and film.image else film.split
        _copy(film, root / "chest_xray" / split / _kaggle_name(film))
    return root


def write_nih14(films: Path, root: Path) -> Path:
    """`Data_Entry_2017_v2020.csv` and `images/`, the blob as Pneumonia."""
    rows = []
    for film in _films(films):
        name = f"{film.patient:08d}_{film.image:03d}.png"
        _copy(film, root / "images" / name)
        finding = "Pneumonia|Infiltration" if film.blob else "No Finding"
        rows.append([name, finding, film.image, film.patient, 50, "F", "PA", 48, 48, 0.1, 0.1])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    header += "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    _write_csv(root / "Data_Entry_2017_v2020.csv", header.split(","), rows)
    return root


def write_chexpert(films: Path, root: Path) -> Path:
    """`train.csv` and `valid.csv` of CheXpert-v1.0-small, the blob as Pleural Effusion."""
    rows: dict[str, list[list[object]]] = {"train": [], "valid": []}
    for film in _films(films):
        split = "valid" if film.split == "test" else "train"
        name = f"{split}/patient{film.patient:05d}/study1/view{film.image + 1}_frontal.jpg"
        _copy(film, root / name)
        view = ["Female", 50, "Frontal", "PA"]
        rows[split].append([f"CheXpert-v1.0-small/{name}", *view, *_reported(film)])
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *REPORTED]
    for split, lines in rows.items():
        _write_csv(root / f"{split}.csv", header, lines)
    return root


def write_mimic_cxr(films: Path, root: Path) -> Path:
    """The tables of MIMIC-CXR-JPG and `files/`, the blob as Pleural Effusion."""
    keys, splits, views = [], [], []
    for film in _films(films):
        patient, study = f"{10_000_000 + film.patient}", f"{50_000_000 + film.patient}"
        image = f"{film.patient:04d}-{film.image}"
        _copy(film, root / f"files/p10/p{patient}/s{study}/{image}.jpg")
        splits.append([image, study, patient, film.split.replace("val", "validate")])
        views.append([image, patient, study, "AP" if film.image == 1 else "PA"])
        keys.append([patient, study, *_reported(film)])
    studies = list({row[1]: row for row in keys}.values())
    tables: dict[str, tuple[list[str], list[Any]]] = {
        "split": (["dicom_id", "study_id", "subject_id", "split"], splits),
        "metadata": (["dicom_id", "subject_id", "study_id", "ViewPosition"], views),
        "chexpert": (["subject_id", "study_id", *REPORTED], studies),
    }
    for name, (header, rows) in tables.items():
        _write_csv(root / f"mimic-cxr-2.0.0-{name}.csv.gz", header, rows)
    return root


def write_padchest(films: Path, root: Path) -> Path:
    """The table of PadChest and folders of images, the blob as pneumonia."""
    rows = []
    for film in _films(films):
        name, folder = f"{film.patient}_{film.image}.png", str(film.patient % 3)
        _copy(film, root / folder / name)
        found = "['pneumonia', 'infiltrates']" if film.blob else "['normal']"
        rows.append([name, folder, film.patient, "PA", f'"{found}"', "Physician"])
    header = ["ImageID", "ImageDir", "PatientID", "Projection", "Labels", "MethodLabel"]
    _write_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)
    return root


def write_vindr(films: Path, root: Path) -> Path:
    """`train.csv` and `train/` of Kaggle's VinBigData, three readers who agree on the blob."""
    rows = []
    for film in _films(films):
        name = f"{film.patient:04d}{film.image}"
        write_dicom(_below(root / f"train/{name}.dicom"), film.pixels())
        found = "Pleural effusion" if film.blob else "No finding"
        rows += [[name, found, f"R{reader}"] for reader in (8, 9, 10)]
    _write_csv(root / "train.csv", ["image_id", "class_name", "rad_id"], rows)
    return root


def write_rsna(films: Path, root: Path) -> Path:
    """`stage_2_train_labels.csv` and its DICOM files, the blob in two boxes."""
    rows: list[list[object]] = []
    for film in _films(films):
        name = f"{film.patient:04d}-{film.image}"
        write_dicom(_below(root / f"stage_2_train_images/{name}.dcm"), film.pixels())
        boxes = [[3, 4, 8, 8], [20, 4, 8, 8]] if film.blob else [["", "", "", ""]]
        rows += [[name, *box, film.blob] for box in boxes]
    header = ["patientId", "x", "y", "width", "height", "Target"]
    _write_csv(root / "stage_2_train_labels.csv", header, rows)
    return root


def write_siim_pneumothorax(films: Path, root: Path) -> Path:
    """`train-rle.csv` and its tree of DICOM files, the blob under a mask of two parts."""
    rows: list[list[object]] = []
    for film in _films(films):
        uid = f"1.2.276.0.{film.patient}.{film.image}"
        patient = {"PatientID": f"p{film.patient}", "ViewPosition": "PA"}
        path = _below(root / f"dicom-images-train/{uid}.1/{uid}.2/{uid}.dcm")
        write_dicom(path, film.pixels(), **patient)
        rows += [[uid, run] for run in (["3 4", "9 2"] if film.blob else ["-1"])]
    _write_csv(root / "train-rle.csv", ["ImageId", " EncodedPixels"], rows)
    return root


def write_covid(films: Path, root: Path) -> Path:
    """The class folders of the COVID-19 Radiography Database; every blob is COVID."""
    for number, film in enumerate(_films(films)):
        name = "COVID" if film.blob else "Normal"
        _copy(film, root / name / f"images/{name}-{number}.png")
        _copy(film, root / name / f"masks/{name}-{number}.png")
    return root


def write_medmnist(films: Path, root: Path) -> Path:
    """`pneumoniamnist_64.npz`, every blob a pneumonia."""
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        kept = [film for film in _films(films) if film.split == split]
        images = [cv2.resize(film.pixels(), (64, 64)) for film in kept]
        arrays[f"{split}_images"] = np.array(images, np.uint8)
        arrays[f"{split}_labels"] = np.array([[film.blob] for film in kept], np.uint8)
    np.savez(_below(root / "pneumoniamnist_64.npz"), **arrays)
    return root


def write_shenzhen(films: Path, root: Path) -> Path:
    """`ChinaSet_AllFiles/CXR_png`, every blob a tuberculosis."""
    for number, film in enumerate(_films(films), start=1):
        _copy(film, root / f"ChinaSet_AllFiles/CXR_png/CHNCXR_{number:04d}_{film.blob}.png")
    return root


WRITERS: dict[str, Callable[[Path, Path], Path]] = {
    "table": write_table,
    "folder": write_kaggle,
    "kaggle_pneumonia": write_kaggle_pneumonia,
    "nih14": write_nih14,
    "chexpert": write_chexpert,
    "mimic_cxr": write_mimic_cxr,
    "padchest": write_padchest,
    "vindr": write_vindr,
    "rsna": write_rsna,
    "siim_pneumothorax": write_siim_pneumothorax,
    "covid": write_covid,
    "medmnist": write_medmnist,
    "shenzhen": write_shenzhen,
}


def _films(films: Path) -> Iterator[Film]:
    for path in sorted(films.rglob("*.png")):
        patient, image = (int(part) for part in path.stem[1:].split("_"))
        yield Film(path, patient, image, int(path.parent.name == "BLOB"))


def _kaggle_name(film: Film) -> str:
    if film.blob:
        return f"PNEUMONIA/person{film.patient}_virus_{film.image}.png"
    return f"NORMAL/IM-{film.patient:04d}-{film.image:04d}.png"


def _reported(film: Film) -> list[object]:
    """A report's 14 findings: one that is seen, or the note that there is none."""
    seen = {"Pleural Effusion": film.blob, "No Finding": 1 - film.blob}
    return [float(seen[finding]) if finding in seen else "" for finding in REPORTED]


def _below(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(film: Film, path: Path) -> None:
    """The film in the format that the suffix tells."""
    if path.suffix == film.path.suffix:
        shutil.copy(film.path, _below(path))
    else:
        cv2.imwrite(str(_below(path)), film.pixels())


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = [header, *(map(str, row) for row in rows)]
    text = "".join(",".join(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
