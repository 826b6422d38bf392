import cv2
import numpy as np
import pytest

from fluoroscope.phantom import render, thorax
from fluoroscope.phantom.render import FINDINGS
from fluoroscope.phantom.thorax import FIELD_MM, Canvas
from tests.support.phantom import SIZE, X_MM, Y_MM, change, film, share


def measured_heart_ratio(patient, findings, subtlety):
    body = render.anatomy(patient, 0, findings, subtlety, 0)
    canvas = Canvas(500)
    heart = thorax.heart_chord(body, canvas).max(0) > 0
    chest = sum(thorax.cavity_chord(body, canvas, side) for side in thorax.SIDES).max(0) > 0
    return np.ptp(np.flatnonzero(heart)) / np.ptp(np.flatnonzero(chest))


@pytest.mark.parametrize("subtlety", [0.0, 0.3, 1.0])
def test_cardiothoracic_ratio_crosses_a_half_with_cardiomegaly_only(subtlety):
    normal = [measured_heart_ratio(p, (), subtlety) for p in range(20)]
    large = [measured_heart_ratio(p, ("Cardiomegaly",), subtlety) for p in range(20)]
    assert min(normal) > 0.36
    assert max(normal) < 0.5
    assert min(large) > 0.51
    assert max(large) < 0.68


def test_cardiothoracic_ratio_is_the_one_the_anatomy_states():
    for patient in range(10):
        body = render.anatomy(patient, 0, (), 0.0, 0)
        assert measured_heart_ratio(patient, (), 0.0) == pytest.approx(body.heart_frac, abs=0.006)


@pytest.mark.parametrize("patient", range(5))
def test_consolidation_brightens_part_of_one_lung(patient):
    difference = change("Consolidation", patient)
    brighter = np.maximum(difference, 0)
    right = share(brighter, X_MM < 0)
    assert max(right, 1 - right) > 0.97
    assert share(brighter, (np.abs(X_MM) < 150) & (Y_MM > 0) & (Y_MM < 270)) > 0.99
    assert brighter.sum() > 10 * -np.minimum(difference, 0).sum()
    assert 0.01 < (brighter > 0).mean() < 0.10


@pytest.mark.parametrize("patient", range(5))
def test_nodule_is_small_round_and_bright(patient):
    spot = change("Nodule", patient) > 0
    count, _, boxes, _ = cv2.connectedComponentsWithStats(spot.astype(np.uint8))
    width, height, area = boxes[1:, 2:][boxes[1:, 4].argmax()]
    assert count >= 2
    assert 15 < max(width, height) * FIELD_MM / SIZE < 40
    assert area > 0.6 * width * height
    assert area > 0.9 * spot.sum()


@pytest.mark.parametrize("patient", range(5))
def test_effusion_brightens_a_costophrenic_angle(patient):
    brighter = np.maximum(change("Effusion", patient), 0)
    right = share(brighter, X_MM < 0)
    assert max(right, 1 - right) > 0.97
    assert share(brighter, (np.abs(X_MM) > 40) & (Y_MM > 130)) > 0.85
    row, column = np.unravel_index(brighter.argmax(), brighter.shape)
    assert Y_MM[row, 0] > 150
    assert abs(X_MM[0, column]) > 70


@pytest.mark.parametrize("patient", range(5))
def test_pneumothorax_darkens_the_apex_of_one_side(patient):
    difference = change("Pneumothorax", patient)
    darker = np.maximum(-difference, 0)
    right = share(darker, X_MM < 0)
    assert max(right, 1 - right) > 0.97
    assert share(darker, Y_MM < 90) > 0.8
    free_air = difference < -8
    assert film(patient, 0, "Pneumothorax")[free_air].mean() < film(patient)[free_air].mean() - 10


@pytest.mark.parametrize("patient", range(5))
def test_cardiomegaly_brightens_beside_the_mediastinum(patient):
    brighter = np.maximum(change("Cardiomegaly", patient), 0)
    assert share(brighter, (np.abs(X_MM) < 110) & (Y_MM > 40) & (Y_MM < 260)) > 0.97
    assert 0.3 < share(brighter, X_MM > 0) < 0.95


@pytest.mark.parametrize("finding", FINDINGS)
def test_subtlety_lowers_the_contrast(finding):
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    total = np.zeros(len(levels))
    for patient in range(4):
        normal = film(patient)
        for i, level in enumerate(levels):
            total[i] += np.abs(film(patient, 0, finding, subtlety=level) - normal).sum()
    assert (np.diff(total) < 0).all()
    assert total[-1] < 0.5 * total[0]


@pytest.mark.parametrize("patient", range(5))
def test_pleural_line_is_brighter_than_the_lung_was(patient):
    difference = film(patient, 0, "Pneumothorax") - film(patient, 0)
    line = np.maximum(difference - 5, 0)
    assert (line > 0).sum() > 15
    assert share(line, (Y_MM > 0) & (Y_MM < 170)) > 0.9


def test_a_finding_leaves_the_other_side_of_the_film_alone():
    normal, ill = film(2), film(2, 0, "Pneumothorax", "Nodule", "Effusion")
    assert np.median(np.abs(ill - normal)) <= 1
