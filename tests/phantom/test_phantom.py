import itertools
import json

import cv2
import numpy as np
import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.phantom import radiograph, render
from fluoroscope.phantom.render import FINDINGS, contact_sheet, draw, write_collection
from tests.support.phantom import X_MM, Y_MM, film


def test_film_is_uint8_of_the_asked_size_and_repeats():
    first, again = draw(3, 1, {"Nodule"}, size_px=97), draw(3, 1, ["Nodule"], size_px=97)
    assert first.dtype == np.uint8
    assert first.shape == (97, 97)
    np.testing.assert_array_equal(first, again)


def test_patients_images_and_seeds_differ():
    films = {
        "first": film(1, 0),
        "next image": film(1, 1),
        "next patient": film(2, 0),
        "seed": film(1, 0, seed=1),
    }
    for a, b in itertools.combinations(films, 2):
        assert np.abs(films[a] - films[b]).mean() > 3, (a, b)


def test_images_of_a_patient_resemble_each_other_more_than_other_patients():
    own = [np.abs(film(p, 0) - film(p, 1)).mean() for p in range(12)]
    other = [np.abs(film(p, 0) - film(p + 1, 0)).mean() for p in range(12)]
    assert np.mean(own) < 0.8 * np.mean(other)


def measured_dome_mm(patient, image):
    """Height of the steepest step from dark to bright under the middle of the right lung."""
    column = film(patient, image)[:, (X_MM[0] > -78) & (X_MM[0] < -58)].mean(1)
    steps = np.convolve(np.diff(column), np.ones(3), "same")
    lower_chest = (Y_MM[:-1, 0] > 150) & (Y_MM[:-1, 0] < 280)
    return Y_MM[np.where(lower_chest, steps, -np.inf).argmax(), 0]


def test_breath_and_pose_move_the_diaphragm_between_images_of_a_patient():
    drawn = np.array([[render.anatomy(p, i, (), 0, 0).dome_mm for i in range(5)] for p in range(6)])
    seen = np.array([[measured_dome_mm(p, i) for i in range(5)] for p in range(6)])
    assert np.abs(seen - drawn).max() < 15
    assert drawn.std(1).mean() > 3
    assert (seen - drawn).std() > 3  # the pose comes on top


def test_resolution_does_not_change_the_anatomy():
    small = draw(4, 0, FINDINGS, 0.3, 160).astype(float)
    large = draw(4, 0, FINDINGS, 0.3, 480).astype(np.float32)
    reduced = cv2.resize(large, (160, 160), interpolation=cv2.INTER_AREA)
    below_marks = slice(20, None)
    assert np.corrcoef(small[below_marks].ravel(), reduced[below_marks].ravel())[0, 1] > 0.995


@pytest.mark.parametrize("patient", range(6))
def test_air_lung_and_mediastinum_have_the_grey_levels_of_a_film(patient):
    image = film(patient)
    air = image[(np.abs(X_MM) > 170) & (Y_MM < -35) & (Y_MM > -42)]
    lung = image[(np.abs(np.abs(X_MM) - 80) < 20) & (np.abs(Y_MM - 110) < 40)]
    mediastinum = image[(np.abs(X_MM) < 15) & (np.abs(Y_MM - 160) < 30)]
    assert np.median(air) < 5
    assert 30 < np.median(lung) < 120
    assert np.median(mediastinum) > 190


def test_marks_are_the_same_in_every_image():
    ink = radiograph.mark(np.zeros((320, 320), np.uint8)).astype(int)
    assert (ink[:, 160:] > 100).sum() > 20  # the L on image right, the patient's left
    assert (ink[:, :160] > 100).sum() > 100
    for patient, findings in ((1, ()), (2, FINDINGS), (3, ("Effusion",))):
        assert (draw(patient, 0, findings) >= ink - 2).all()


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match=r"findings must be one of .*did you mean 'Nodule'"):
        draw(1, 0, ["Nodul"])
    with pytest.raises(InputError, match=r"subtlety must be in \[0, 1\]; got 1\.5"):
        draw(1, 0, subtlety=1.5)
    with pytest.raises(InputError, match="size_px must be at least 32; got 8"):
        draw(1, 0, size_px=8)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return root, write_collection(root, patients=8, images_per_patient=2, size_px=64, subtlety=0.1)


def test_collection_is_described_by_its_table(collection):
    root, table = collection
    assert list(table.columns) == ["file", "patient", "view", *FINDINGS]
    assert sorted(table["file"]) == sorted(f"images/{f.name}" for f in root.glob("images/*"))
    assert set(table["view"]) == {"PA"}
    assert table["patient"].nunique() == 8
    assert table.groupby("patient").size().between(1, 3).all()
    assert "synthetic" in (root / "README.txt").read_text()
    pd.testing.assert_frame_equal(table, pd.read_csv(root / "studies.csv"))


def test_labels_reproduce_the_pixels(collection):
    root, table = collection
    for study in table.to_dict("records"):
        stored = cv2.imread(str(root / study["file"]), cv2.IMREAD_UNCHANGED)
        image = int(study["file"][-6:-4])
        findings = [finding for finding in FINDINGS if study[finding]]
        np.testing.assert_array_equal(stored, draw(study["patient"], image, findings, 0.1, 64))


def test_collection_is_drawn_once_and_finished_after_a_break(collection):
    root, table = collection
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = write_collection(root, patients=8, images_per_patient=2, size_px=64, subtlety=0.1)
    pd.testing.assert_frame_equal(again, table)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    (root / "studies.csv").unlink()
    (root / table["file"][0]).unlink()
    again = write_collection(root, patients=8, images_per_patient=2, size_px=64, subtlety=0.1)
    pd.testing.assert_frame_equal(again, table)
    assert (root / table["file"][0]).exists()


def test_other_parameters_and_foreign_folders_are_refused(collection, tmp_path):
    root, _ = collection
    with pytest.raises(InputError, match=r"subtlety=0\.1 \(now 0\.9\); choose another data\.root"):
        write_collection(root, patients=8, images_per_patient=2, size_px=64, subtlety=0.9)
    stored = json.loads((root / "phantom.json").read_text())
    assert stored["drawing"] == render.DRAWING
    (tmp_path / "studies.csv").write_text("file,patient\n")
    with pytest.raises(InputError, match=r"choose another data\.root"):
        write_collection(tmp_path)
    with pytest.raises(InputError, match=r"prevalence must be in \[0, 1\]; got 40"):
        write_collection(tmp_path / "new", prevalence=40)


def test_labels_have_the_asked_prevalence_and_mostly_stay():
    recipe = render.Recipe(3000, 3, 64, 0.3, 0.4, 0)
    studies = render.sample_studies(recipe)
    assert len(studies) / 3000 == pytest.approx(3, abs=0.08)
    for finding in FINDINGS:
        expected = 0.4 if finding == "Consolidation" else 0.15
        assert studies[finding].mean() == pytest.approx(expected, abs=0.03), finding
        assert studies[studies["image"] == 4][finding].mean() == pytest.approx(expected, abs=0.06)
    # Drawn anew with probability 0.15, so it changes with 0.15 * 2 * 0.4 * 0.6 = 0.072.
    steps = studies.groupby("patient")["Consolidation"].diff().dropna()
    assert steps.abs().mean() == pytest.approx(0.072, abs=0.015)
    assert abs(studies["Consolidation"].corr(studies["Effusion"])) < 0.05


def test_contact_sheet_holds_six_captioned_films():
    sheet = contact_sheet(size_px=128)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (13 + 2 * (128 + 13), 3 * 128)
    patient = render.SHEET[""]
    np.testing.assert_array_equal(sheet[13:141, :128], draw(patient, 0, size_px=128))
    captions = sheet[141:154].reshape(13, 3, 128)
    assert (captions.max((0, 2)) > 150).all()
    assert set(render.SHEET) == {"", *FINDINGS}


def test_phantoms_are_not_drawn_among_the_films_of_somebody_else(tmp_path):
    (tmp_path / "film.png").write_bytes(b"somebody's")
    with pytest.raises(
        InputError, match="holds other files; phantoms need a new or an empty folder"
    ):
        write_collection(tmp_path, patients=2)
    assert [path.name for path in tmp_path.iterdir()] == ["film.png"]
