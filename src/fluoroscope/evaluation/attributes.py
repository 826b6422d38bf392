"""Divide the images of an evaluation into groups: by sex, age, view, collection or other columns.

The values of a column of the user's own may identify people: a column with many different values is
refused, and values of few patients are counted without their names.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fluoroscope.data.study_table import COLLECTION, label_columns, people_columns
from fluoroscope.errors import InputError, nearest, plural
from fluoroscope.sources.reading.further_columns import column_names, further_columns
from fluoroscope.sources.reading.people import read_ages, read_sexes

AGES = (0, 18, 40, 60, 80)  # the first year of each band
OWN = ("sex", "age", "view", COLLECTION)  # columns of a study table, in the order of the results
MANY = 20  # different values of a column of the user's own
FEW_NUMBERS = 10  # a column of numbers with more different values is divided by its quartiles
FEWEST = 10  # patients with one value, for its name to be shown


class Attribute(NamedTuple):
    """A property of images that divides them into groups.

    Attributes:
        name: of the column.
        of: the group of each image [N], a number; -1 if it is unknown.
        groups: their names, in the order in which they are shown.
        hidden: number of values that were left out because they have few patients.
        hidden_patients: who have such a value; they are counted as unknown.
    """

    name: str
    of: np.ndarray
    groups: tuple[str, ...]
    hidden: int = 0
    hidden_patients: int = 0


def find_attributes(
    table: pd.DataFrame, chosen: Sequence[str] | None, data: Mapping[str, Any]
) -> list[Attribute]:
    """The chosen attributes of the images.

    Args:
        table: the rows of the study table that are scored, [N].
        chosen: sex, age, view, collection, a label, or a column of the table that `data.csv` names;
            None means sex, age, view and collection, as far as they are known and have few values.
        data: the data section of the configuration.

    Raises:
        InputError: the collection does not have an attribute, or it has too many values.
    """
    known = _known(table)
    if chosen is None:
        return [known[name] for name in OWN if name in known and not _has_many(known[name])]
    names = list(dict.fromkeys(chosen))
    missing = [name for name in names if name not in known]
    available = column_names(data) if missing else []
    for name in missing:
        if name not in available:
            has = list(dict.fromkeys([*known, *available]))
            raise InputError(
                f"subgroups: the collection has no {name!r}{nearest(name, has)}; it has "
                f"{', '.join(has) or 'nothing that divides its images'}"
            )
    if many := next((known[n] for n in names if n in known and _has_many(known[n])), None):
        raise _too_many(many.name, len(many.groups))
    cells = further_columns(data, table["path"].tolist(), missing) if missing else pd.DataFrame()
    patient = table["patient"].to_numpy()
    return [known.get(name) or _of_column(cells[name], name, patient) for name in names]


def _known(table: pd.DataFrame) -> dict[str, Attribute]:
    """The attributes that the study table has, if any image has a value."""
    people = people_columns(table)
    found = {}
    if "sex" in people:
        found["sex"] = _by_name("sex", table["sex"])
    if "age" in people:
        found["age"] = _by_age(table["age"])
    for name in ("view", COLLECTION):
        if name in table and table[name].dtype != "float64":
            found[name] = _by_name(name, table[name])
    for label in label_columns(table):
        found.setdefault(label, _by_label(label, table[label]))
    return {name: attribute for name, attribute in found.items() if (attribute.of >= 0).any()}


def _by_name(name: str, values: pd.Series) -> Attribute:
    numbers, groups = pd.factorize(values, sort=True)
    return Attribute(name, numbers, tuple(map(str, groups)))


def _by_age(values: pd.Series) -> Attribute:
    ages = pd.to_numeric(values).astype(float).to_numpy()
    names = [f"{low} to {high - 1}" for low, high in pairwise(AGES)]
    band = np.searchsorted(AGES, ages, "right") - 1
    return _present("age", np.where(np.isnan(ages), -1, band), (*names, f"{AGES[-1]} and over"))


def _by_label(name: str, values: pd.Series) -> Attribute:
    return _present(name, values.map({0: 0, 1: 1}).fillna(-1).to_numpy(int), ("absent", "present"))


def _present(name: str, numbers: np.ndarray, groups: Sequence[str]) -> Attribute:
    """An attribute of the groups that have images."""
    used = np.unique(numbers[numbers >= 0])
    of = np.where(numbers >= 0, np.searchsorted(used, numbers), -1)
    return Attribute(name, of, tuple(groups[number] for number in used))


def _of_column(cells: pd.Series, name: str, patient: np.ndarray) -> Attribute:
    """A column of the user's own: words, few numbers, or quarters of many numbers."""
    words = cells.str.strip()
    words = words.mask(words == "")
    if name.casefold() == "sex":
        return _by_name(name, pd.Series(read_sexes(words.fillna(""))))
    if name.casefold() == "age":
        return _by_age(pd.Series(read_ages(words.fillna("")), dtype="Int16"))
    numbers = pd.to_numeric(words, errors="coerce")
    if (numbers.notna() | words.isna()).all() and numbers.nunique() > FEW_NUMBERS:
        return _quarters(name, numbers)
    if words.nunique() > MANY:
        raise _too_many(name, words.nunique())
    return _without_rare(_by_name(name, words), patient)


def _has_many(attribute: Attribute) -> bool:
    return len(attribute.groups) > MANY


def _too_many(name: str, count: int) -> InputError:
    return InputError(
        f"subgroups: {name!r} has {count} different values; at most {MANY} groups can be compared, "
        "and such values may name people"
    )


def _quarters(name: str, numbers: pd.Series) -> Attribute:
    cuts = np.unique(numbers.quantile([0, 0.25, 0.5, 0.75, 1]))
    quarter = np.where(numbers.isna(), -1, np.searchsorted(cuts[1:-1], numbers, "left"))
    names = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return _present(name, quarter, names)


def _without_rare(attribute: Attribute, patient: np.ndarray) -> Attribute:
    """The attribute without values of few patients, which might tell who somebody is."""
    counts = [len(np.unique(patient[attribute.of == g])) for g in range(len(attribute.groups))]
    rare = [g for g, count in enumerate(counts) if count < FEWEST]
    kept = np.where(np.isin(attribute.of, rare), -1, attribute.of)
    hidden = len(np.unique(patient[np.isin(attribute.of, rare)]))
    shown = _present(attribute.name, kept, attribute.groups)
    return shown._replace(hidden=len(rare), hidden_patients=hidden)


def hidden_text(attribute: Attribute) -> str:
    """What was left out, as a sentence without its full stop; "" if nothing was."""
    if not attribute.hidden:
        return ""
    return (
        f"{attribute.name}: {plural(attribute.hidden, 'value')} with fewer than {FEWEST} patients "
        f"(together {attribute.hidden_patients}) not shown"
    )
