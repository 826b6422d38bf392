"""docs/coming_from.md: the keys of its right columns exist, and take the values written there."""

import re
import shlex
from pathlib import Path

import pytest

from fluoroscope.command.command_line import spell_out
from tests.support.films import TINY, config

PAGE = (Path(__file__).parents[1] / "docs/coming_from.md").read_text()
# Commands have their own tests, in test_readme; these name a file, a folder or a run.
ELSEWHERE = ("python ", "backbone.weights=file", "run.resume=", "'data.root=[A,B]'")
ROW = re.compile(r"^\| (.*?) \| (.*) \|$", re.M)


def keys_of(cell):
    """The overrides of a cell."""
    quoted = [text for text in re.findall(r"`([^`]+)`", cell) if not text.startswith(ELSEWHERE)]
    return [word for text in quoted for word in shlex.split(text) if re.match(r"[\w.]+=", word)]


ROWS = {row[1]: keys for row in ROW.finditer(PAGE) if (keys := keys_of(row[2]))}


def test_the_tables_hold_many_keys():
    assert len(ROWS) > 30
    assert len({key for keys in ROWS.values() for key in keys}) > 40


@pytest.mark.parametrize("row", ROWS)
def test_the_keys_of_a_row_are_taken(films, row):
    own = [spell_out(key) for key in ROWS[row] if not key.startswith("data=")]
    base = [key for key in TINY if key.partition("=")[0] not in {k.partition("=")[0] for k in own}]
    config(*base, f"data.root={films}", *own)
