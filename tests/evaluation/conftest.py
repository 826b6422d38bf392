"""A second tiny run on the films of `trained_run`: the same split, other weights."""

import pytest


@pytest.fixture(scope="session")
def second_run(tmp_path_factory, films):
    from tests.support.trained_run import write_run

    # `seed` alone would split the films in another way; see `data.splits`.
    return write_run(films, tmp_path_factory.mktemp("second") / "run", "head.activation=gelu")


@pytest.fixture(scope="session")
def fold_run(tmp_path_factory, films):
    """A run on another split of the same films."""
    from tests.support.trained_run import write_run

    return write_run(films, tmp_path_factory.mktemp("fold") / "run", "data.fold=1/4")
