"""The table of the metrics, and what repeats it."""

import re
import subprocess
import sys
from pathlib import Path

from fluoroscope.diagnostics import keys

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `((?:units|grad)/\S+)` \| (?:(window|step) \| )?([^|]+) \|$", re.MULTILINE)


def documented(page):
    """Key: when (None where the table has no such column) and meaning, of a page's tables."""
    found = ROW.findall((ROOT / page).read_text())
    return {key: (when or None, meaning) for key, when, meaning in found}


def test_a_key_is_declared_once():
    patterns = [metric.pattern for metric in keys.METRICS]
    assert len(set(patterns)) == len(patterns) > 0
    columns = [metric.column for metric in keys.METRICS if metric.column]
    assert len(set(columns)) == len(columns) > 0


def test_each_meaning_is_one_sentence_that_a_table_can_hold():
    for metric in keys.METRICS:
        assert re.fullmatch(r"[A-Z0-9][^|\n]*\.", metric.meaning), metric.name
        assert len(metric.meaning) <= 95, metric.name


def test_the_diagnostics_page_has_the_whole_table():
    assert keys.table() in (ROOT / "docs/diagnostics.md").read_text()


def test_the_readme_repeats_the_meanings_of_the_keys_it_names():
    meanings = {metric.pattern: metric.meaning for metric in keys.METRICS}
    found = documented("README.md")
    assert found
    for key, (_, meaning) in found.items():
        assert meaning == meanings[key]


def test_the_table_can_be_read_without_torch():
    code = (
        "import sys, fluoroscope.diagnostics.keys; "
        "print({'torch', 'pandas', 'numpy', 'pytorch_lightning'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
