"""Synthetic chest films, and collections of them, so that a clone runs without patient data."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fluoroscope.atomic_write import write_atomically
from fluoroscope.choices import COUNT, IMAGE_PX, NOT_NEGATIVE, SHARE
from fluoroscope.console import show_progress
from fluoroscope.errors import InputError, check_choice
from fluoroscope.phantom import radiograph
from fluoroscope.phantom.lesions import FINDINGS, enlarge_heart, find_lesions
from fluoroscope.phantom.thorax import Anatomy, Canvas

__all__ = ["FINDINGS", "contact_sheet", "draw", "write_collection"]

# Increase it when the pixels change for the same arguments: older collections are then refused.
DRAWING = 1
DISTRACTOR_PREVALENCE = 0.15
CHANGE_FRAC = 0.15  # how often a finding is drawn anew for the next image of a patient
# Independent random streams per patient, so that a finding changes neither body nor noise.
BODY, TEXTURE, FINDING, POSE, FILM, LABELS = range(6)
NOTICE = (
    "These images are synthetic. They were drawn by fluoroscope from geometry and attenuation "
    "coefficients, show no patient and derive from no patient's data; they serve to try the "
    "software, not to learn radiology. "
)
# Patients of the contact sheet, by finding.
SHEET = {"": 3, "Nodule": 6, "Consolidation": 11, "Effusion": 2, "Cardiomegaly": 5}
SHEET |= {"Pneumothorax": 1}


def draw(
    patient: int,
    image: int,
    findings: Collection[str] = (),
    subtlety: float = 0.3,
    size_px: int = 320,
    seed: int = 0,
) -> np.ndarray:
    """One frontal chest film, `uint8 [size_px, size_px]`, 0 air and 255 bone.

    The arguments determine every pixel. Body, vessels and the site of each finding depend on the
    patient; breath, pose, exposure and noise depend on the image, not on the findings.

    Args:
        patient: number of the patient, from 0.
        image: number of the patient's image, from 0.
        findings: any of `FINDINGS`; empty for a normal film.
        subtlety: 0 for obvious to 1 for nearly invisible findings.
        size_px: side of the image, which always shows 400 mm.
        seed: another seed gives other patients.

    Raises:
        InputError: an unknown finding, or a number outside its range.
    """
    for finding in findings:
        check_choice("findings", finding, FINDINGS)
    for name, number in (("patient", patient), ("image", image), ("seed", seed)):
        NOT_NEGATIVE.check(name, number)
    SHARE.check("subtlety", subtlety)
    IMAGE_PX.check("size_px", size_px)
    canvas, film = Canvas(size_px), stream(seed, patient, FILM, image)
    body = anatomy(patient, image, findings, subtlety, seed)
    rngs = {f: _finding_stream(seed, patient, f) for f in FINDINGS if f in findings}
    lesions = find_lesions(body, canvas, rngs, subtlety)
    integral = radiograph.line_integral(body, canvas, lesions, stream(seed, patient, TEXTURE))
    matrix = radiograph.pose(canvas, stream(seed, patient, POSE, image))
    density = radiograph.expose(integral, canvas, matrix, film)
    return radiograph.mark(radiograph.develop(density, body, canvas, film))


def anatomy(
    patient: int, image: int, findings: Collection[str], subtlety: float, seed: int
) -> Anatomy:
    """The body that `draw` projects, before its pose."""
    body = Anatomy.sample(stream(seed, patient, BODY))
    # + 1: a key that ends in 0 gives the same stream as the key without the 0.
    body = body.breathe(stream(seed, patient, BODY, image + 1))
    if "Cardiomegaly" not in findings:
        return body
    return enlarge_heart(body, _finding_stream(seed, patient, "Cardiomegaly"), subtlety)


def stream(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _finding_stream(seed: int, patient: int, finding: str) -> np.random.Generator:
    return stream(seed, patient, FINDING, FINDINGS.index(finding))


def write_collection(
    root: Path,
    patients: int = 250,
    images_per_patient: int = 3,
    size_px: int = 320,
    subtlety: float = 0.3,
    prevalence: float = 0.4,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw a collection under `root` unless it exists already, and return its table.

    Writes `README.txt`, `images/*.png`, `phantom.json` with the parameters and, last,
    `studies.csv` with the columns `file` (relative to root), `patient`, `view` and one 0/1 column
    per finding. A folder with `studies.csv` is therefore complete.

    Args:
        root: folder of the collection; created if needed.
        patients: number of patients.
        images_per_patient: mean number n of images; a patient has 1 to 2 n - 1.
        size_px: side of the images.
        subtlety: of all findings, as in `draw`.
        prevalence: share of images with Consolidation; the other findings have 0.15 each.
        seed: as in `draw`.

    Raises:
        InputError: a number outside its range, or `root` holds anything but this collection.
    """
    recipe = Recipe(patients, images_per_patient, size_px, subtlety, prevalence, seed)
    table = root / "studies.csv"
    if table.exists():
        _check_stored(root, recipe)
        return pd.read_csv(table)
    _check_free(root)
    studies = sample_studies(recipe)
    (root / "images").mkdir(parents=True, exist_ok=True)
    # Written first, so that an interrupted drawing can be recognised.
    _replace(root / "README.txt", (NOTICE + f"Parameters: {asdict(recipe)}.\n").encode())
    for study in show_progress(studies.to_dict("records"), "drawing films", len(studies)):
        _write_film(root, study, recipe)
    _replace(root / "phantom.json", json.dumps(asdict(recipe), indent=2).encode())
    _replace(table, studies.drop(columns="image").to_csv(index=False).encode())
    return pd.read_csv(table)


def _check_free(root: Path) -> None:
    """Refuse a folder with other files: phantoms must not be mixed with films of patients."""
    note = root / "README.txt"
    is_phantom = note.is_file() and note.read_text(errors="replace").startswith(NOTICE)
    if root.exists() and any(root.iterdir()) and not is_phantom:
        raise InputError(
            f"data.root: {root} holds other files; phantoms need a new or an empty folder. To use "
            "your own x-rays, add data=nih14, data=folder or data=table"
        )


@dataclass(frozen=True)
class Recipe:
    """The arguments of `write_collection`, and the version of the drawing."""

    patients: int
    images_per_patient: int
    size_px: int
    subtlety: float
    prevalence: float
    seed: int
    drawing: int = DRAWING

    def __post_init__(self) -> None:
        COUNT.check("patients", self.patients)
        COUNT.check("images_per_patient", self.images_per_patient)
        IMAGE_PX.check("size_px", self.size_px)
        SHARE.check("subtlety", self.subtlety)
        SHARE.check("prevalence", self.prevalence)
        NOT_NEGATIVE.check("seed", self.seed)


def sample_studies(recipe: Recipe) -> pd.DataFrame:
    """The rows of `studies.csv`, with the number of each image in `image`."""
    rows = []
    for patient in range(1, recipe.patients + 1):
        rng = stream(recipe.seed, patient, LABELS)
        shares = [
            recipe.prevalence if f == "Consolidation" else DISTRACTOR_PREVALENCE for f in FINDINGS
        ]
        present = rng.random(len(FINDINGS)) < shares
        for image in range(int(rng.integers(1, 2 * recipe.images_per_patient))):
            file = f"images/phantom_{patient:04d}_{image:02d}.png"
            labels = dict(zip(FINDINGS, present.astype(int), strict=True))
            rows.append({"file": file, "patient": patient, "image": image, "view": "PA"} | labels)
            # A few findings are drawn anew, which keeps their prevalence in every image.
            anew = rng.random(len(FINDINGS)) < CHANGE_FRAC
            present = np.where(anew, rng.random(len(FINDINGS)) < shares, present)
    return pd.DataFrame(rows)


def _write_film(root: Path, study: dict, recipe: Recipe) -> None:
    findings = [finding for finding in FINDINGS if study[finding]]
    film = draw(
        study["patient"], study["image"], findings, recipe.subtlety, recipe.size_px, recipe.seed
    )
    _replace(root / study["file"], cv2.imencode(".png", film)[1].tobytes())


def _replace(path: Path, content: bytes) -> None:
    """Write a file that several processes may write at the same time."""
    with write_atomically(path, shared=True) as part:
        part.write_bytes(content)


def _check_stored(root: Path, recipe: Recipe) -> None:
    stored_path = root / "phantom.json"
    if not stored_path.exists():
        raise InputError(
            f"{root} holds a studies.csv of another collection; choose another data.root"
        )
    stored = json.loads(stored_path.read_text())
    differences = [
        f"{name}={stored.get(name)} (now {value})"
        for name, value in asdict(recipe).items()
        if stored.get(name) != value
    ]
    if differences:
        raise InputError(
            f"{root} holds phantom films drawn with {', '.join(differences)};"
            " choose another data.root"
        )


def contact_sheet(size_px: int = 256, subtlety: float = 0.3, seed: int = 0) -> np.ndarray:
    """A captioned 2 x 3 sheet of a normal film and the five findings, `uint8 [H, W]`."""
    tiles = []
    for finding, patient in SHEET.items():
        film = draw(patient, 0, [finding] if finding else [], subtlety, size_px, seed)
        tiles.append(np.vstack([film, _caption(finding or "normal", size_px, size_px)]))
    rows = [np.hstack(tiles[:3]), np.hstack(tiles[3:])]
    title = "synthetic phantom: drawn by fluoroscope, no patients"
    return np.vstack([_caption(title, 3 * size_px, size_px), *rows])


def _caption(text: str, width_px: int, size_px: int) -> np.ndarray:
    bar = np.full((round(0.1 * size_px), width_px), 24, np.uint8)
    scale = 0.0021 * size_px
    (length, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    origin = ((width_px - length) // 2, (bar.shape[0] + height) // 2)
    return cv2.putText(bar, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 235, 1, cv2.LINE_AA)
