"""Tiny runs on the same films. An evaluation writes a calibration into them, so they are copies."""

import shutil

import pytest


@pytest.fixture(scope="session")
def trained_run(trained_run, tmp_path_factory):
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture(scope="session")
def second_run(tmp_path_factory, films):
    """The same split, other weights."""
    from tests.support.trained_run import write_run

    # `seed` alone would split the films in another way; see `data.splits`.
    return write_run(films, tmp_path_factory.mktemp("second") / "run", "head.activation=gelu")


@pytest.fixture(scope="session")
def fold_run(tmp_path_factory, films):
    """A run on another split of the same films."""
    from tests.support.trained_run import write_run

    return write_run(films, tmp_path_factory.mktemp("fold") / "run", "data.fold=1/4")
