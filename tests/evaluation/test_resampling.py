"""All images of a drawn patient are drawn, and sums over draws are those of repeated rows."""

import numpy as np
import pytest

from fluoroscope.evaluation.resampling import BLOCK, Patients
from tests.evaluation.cases import predictions, resampled


@pytest.fixture(scope="module")
def table():
    return predictions(images=61, patients=17)


def test_each_draw_has_as_many_patients(table):
    patients = Patients(table["group"] * 7 + 3, draws=BLOCK + 5)
    assert patients.count == table["group"].nunique()
    assert (patients.drawn.sum(1, dtype=int) == patients.count).all()
    assert len(np.unique(patients.drawn, axis=0)) > BLOCK


def test_sums_are_those_of_the_repeated_rows(table):
    patients = Patients(table["group"], draws=BLOCK + 5)
    rows = (table["row"] % 3 > 0).to_numpy()
    own = patients.per_patient(rows, table["Disc_probability"][rows])
    cells = patients.cells(rows, (table["row"] % 4).to_numpy()[rows], 4, np.ones(rows.sum()))
    found = patients.sums(np.concatenate([own, cells], 1))
    again = [part[part["row"] % 3 > 0] for part in resampled(table, patients)]
    assert found[:, 0] == pytest.approx([part["Disc_probability"].sum() for part in again])
    for k in range(4):
        assert found[:, 1 + k].tolist() == [(part["row"] % 4 == k).sum() for part in again]


def test_the_same_table_has_the_same_draws(table):
    first, second = (Patients(table["group"], draws=5) for _ in range(2))
    assert (first.drawn == second.drawn).all()
    assert (Patients(table["group"], draws=5, seed=1).drawn != first.drawn).any()
