"""Activations of the user's own in a report: by their short names where these say which."""

import pytest

from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import collect
from fluoroscope.reporting.comparison import compare
from tests.reporting.folders import write_grid

SEEDS = (1, 2, 3)


def rows(root, *names, reference=None):
    collection = collect([write_grid(root, {name: {} for name in names}, SEEDS)])
    comparison = compare(collection, reference)
    return comparison.reference, sorted(comparison.settings[0].rows["activation"])


def test_a_name_is_short_where_it_is_alone(tmp_path):
    names = "relu", "mypkg.acts.Snake", "mypkg.acts.swish"
    assert rows(tmp_path, *names) == ("relu", ["Snake", "relu", "swish"])


@pytest.mark.parametrize("reference", ["Snake", "mypkg.acts.Snake"])
def test_the_reference_is_named_either_way(tmp_path, reference):
    found, _ = rows(tmp_path, "relu", "mypkg.acts.Snake", reference=reference)
    assert found == "Snake"


def test_two_that_are_alike_keep_their_whole_names(tmp_path):
    names = "relu", "a.acts.Snake", "b.acts.Snake", "a.acts.relu", "a.acts.swish"
    whole = ["a.acts.Snake", "a.acts.relu", "b.acts.Snake", "relu", "swish"]
    assert rows(tmp_path, *names)[1] == whole


def test_an_unknown_reference_lists_the_rows(tmp_path):
    with pytest.raises(InputError, match=r"reference must be one of Snake, relu; got 'Snak'"):
        rows(tmp_path, "relu", "mypkg.acts.Snake", reference="Snak")
