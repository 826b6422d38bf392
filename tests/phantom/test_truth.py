"""The truth about a stored film agrees with its pixels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.files.images import read_image
from fluoroscope.phantom.lesions import FINDINGS
from fluoroscope.phantom.render import write_collection
from fluoroscope.phantom.truth import StoredFilm
from tests.support.phantom import change


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_collection(folder, patients=6, images_per_patient=2, size_px=160, seed=4)
    return folder


def test_lungs_are_where_the_film_is_dark(root):
    for path in sorted((root / "images").iterdir()):
        lungs, film = StoredFilm.find(path).lungs(), read_image(path)
        assert lungs.shape == film.shape
        assert 0.12 < lungs.mean() < 0.45
        y, x = np.nonzero(lungs)
        body = film[y.min() : y.max(), x.min() : x.max()]
        beside = body[~lungs[y.min() : y.max(), x.min() : x.max()]]
        assert np.median(film[lungs]) < np.median(beside) - 40
        left, right = lungs[:, : film.shape[1] // 2], lungs[:, film.shape[1] // 2 :]
        assert 0.7 < left.sum() / right.sum() < 1.8  # the heart lies in the left lung's half


@pytest.mark.parametrize("finding", ["Nodule", "Consolidation"])
def test_lesions_of_the_lungs_lie_in_the_lungs(root, finding):
    recipe = StoredFilm.find(next((root / "images").iterdir())).recipe
    for patient in range(3):
        lungs = StoredFilm(replace(recipe, seed=0), patient, 0, ()).lungs()
        difference = np.abs(change(finding, patient))
        assert (difference * lungs).sum() > 0.9 * difference.sum()


def test_the_findings_are_those_of_the_table(root):
    table = pd.read_csv(root / "studies.csv").set_index("file")
    for file, row in table.iterrows():
        film = StoredFilm.find(root / file)
        assert film.findings == tuple(f for f in FINDINGS if row[f])
        assert film.patient == row["patient"]


def test_other_files_are_no_films_of_a_phantom(root, tmp_path):
    for path in (tmp_path / "images/phantom_0001_00.png", root / "images/other.png"):
        with pytest.raises(InputError, match="is not a complete phantom collection"):
            StoredFilm.find(path)
