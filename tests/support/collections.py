"""The films once more, laid out as the other sources expect them."""

import shutil
from pathlib import Path

import pandas as pd


def write_table(films: Path, root: Path) -> Path:
    """A CSV of one's own beside its images, under both names that the pages give the paths."""
    rows = [
        {"path": f"{p.parent.name}/{p.name}", "patient": p.stem[:4], "Effusion": _blob(p)}
        for p in sorted(films.rglob("*.png"))
    ]
    shutil.copytree(films, root)
    pd.DataFrame(rows).assign(file=lambda t: t["path"]).to_csv(root / "studies.csv", index=False)
    return root


def write_kaggle(films: Path, root: Path) -> Path:
    """`chest_xray/{NORMAL,PNEUMONIA}` with the file names of the Kaggle pneumonia set."""
    for film in sorted(films.rglob("*.png")):
        patient, image = (int(part) for part in film.stem[1:].split("_"))
        name = f"PNEUMONIA/person{patient}_virus_{image}.png"
        if not _blob(film):
            name = f"NORMAL/IM-{patient:04d}-{image:04d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, root / name)
    return root


def write_nih14(films: Path, root: Path) -> Path:
    """`Data_Entry_2017_v2020.csv` and `images/`, the blob as Pneumonia."""
    (root / "images").mkdir(parents=True)
    rows = []
    for film in sorted(films.rglob("*.png")):
        patient, image = film.stem[1:].split("_")
        name = f"{int(patient):08d}_{int(image):03d}.png"
        shutil.copy(film, root / "images" / name)
        finding = "Pneumonia|Infiltration" if _blob(film) else "No Finding"
        rows.append([name, finding, image, int(patient), 50, "F", "PA", 48, 48, 0.1, 0.1])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    header += "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    return root


def _blob(film: Path) -> int:
    return int(film.parent.name == "BLOB")
