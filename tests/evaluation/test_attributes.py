"""The groups of an evaluation: by sex, age, view, collection, label or a column of a table."""

import numpy as np
import pandas as pd
import pytest

from fluoroscope.data.study_table import study_table
from fluoroscope.errors import InputError
from fluoroscope.evaluation.attributes import find_attributes, hidden_text

FOLDER = {"source": "folder", "root": "x"}


def studies(count=6, **people):
    labels = pd.DataFrame({"Mass": [1.0, 0, np.nan, 0.5, 0, 1][:count]})
    paths = [f"/films/{n}.png" for n in range(count)]
    return study_table(paths, labels, views=["PA", "AP", None, "PA", "PA", "AP"][:count], **people)


def names(attribute):
    return [attribute.groups[number] if number >= 0 else None for number in attribute.of]


def test_what_a_collection_knows_divides_its_images():
    table = studies(sex=["F", "M", None, "M", "F", "M"], age=[17, 18, 39, 80, None, 95])
    sex, age, view = find_attributes(table, None, FOLDER)
    assert names(sex) == ["F", "M", None, "M", "F", "M"]
    assert names(age) == [
        *("0 to 17", "18 to 39", "18 to 39", "80 and over", None, "80 and over"),
    ]
    assert age.groups == ("0 to 17", "18 to 39", "80 and over")  # none for ages that nobody has
    assert names(view) == ["PA", "AP", None, "PA", "PA", "AP"]
    (label,) = find_attributes(table, ["Mass"], FOLDER)
    assert names(label) == ["present", "absent", None, None, "absent", "present"]


def test_views_that_may_be_names_are_not_shown():
    table = studies().assign(view=[f"Zwergl {n}" for n in range(6)])
    many = pd.concat([table.assign(view=table["view"] + str(n)) for n in range(4)])
    assert find_attributes(many, None, FOLDER) == []
    with pytest.raises(InputError, match="'view' has 24 different values; at most 20") as refusal:
        find_attributes(many, ["view"], FOLDER)
    assert "Zwergl" not in str(refusal.value)


def test_a_joined_collection_is_an_attribute_and_a_column_without_values_is_none():
    table = studies(sex=[None] * 6).assign(collection=["A", "B", "A", "B", "A", "A"])
    assert [own.name for own in find_attributes(table, None, FOLDER)] == ["view", "collection"]


@pytest.fixture
def hospital(tmp_path):
    """A table with columns that the study table does not keep, in another order."""
    rng = np.random.default_rng(0)
    number = rng.permutation(120)
    pd.DataFrame(
        {
            "film": [f"{n}.png" for n in number],
            "scanner": [("GE" if n % 3 else "Philips") if n >= 4 else "Old" for n in number],
            "kv": number / 2,
            "few": number % 3,
            "name": [f"Zwergl {n}" for n in number],
            "sex": [("female", "Male", "")[n % 3] for n in number],
            "Age": [f"{n:03}Y" for n in number],
        }
    ).to_csv(tmp_path / "own.csv", index=False)
    labels = pd.DataFrame({"Mass": np.arange(120) % 2})
    table = study_table([tmp_path / f"{n}.png" for n in range(120)], labels)
    data = {"source": "table", "root": str(tmp_path), "csv": "own.csv", "path_column": "film"}
    return table, data


def test_columns_of_the_users_table_belong_to_their_images(hospital):
    table, data = hospital
    scanner, sex, few = find_attributes(table, ["scanner", "sex", "few"], data)
    assert names(scanner) == [None] * 4 + [("GE" if n % 3 else "Philips") for n in range(4, 120)]
    assert names(sex) == [("F", "M", None)[n % 3] for n in range(120)]
    assert names(few) == [str(n % 3) for n in range(120)]
    some = table.iloc[[7, 6, 30]]
    assert names(find_attributes(some, ["sex"], data)[0]) == ["M", "F", "F"]


def test_many_numbers_are_divided_by_their_quartiles(hospital):
    (kv,) = find_attributes(hospital[0], ["kv"], hospital[1])
    assert np.bincount(kv.of).tolist() == [30] * 4
    assert kv.groups[0] == "0 to 14.875"


def test_values_that_may_name_somebody_are_not_shown(hospital):
    table, data = hospital
    with pytest.raises(InputError, match="'name' has 120 different values") as refusal:
        find_attributes(table, ["name"], data)
    assert "Zwergl" not in str(refusal.value)
    (few,) = find_attributes(table.iloc[:15], ["name"], data)  # 15 patients: few enough values
    assert few.groups == ()
    assert hidden_text(few) == (
        "name: 15 values with fewer than 10 patients (together 15) not shown"
    )
    scanner = find_attributes(table, ["scanner"], data)[0]
    assert scanner.groups == ("GE", "Philips")
    assert "1 value with fewer than 10 patients (together 4)" in hidden_text(scanner)
    assert hidden_text(find_attributes(table, ["few"], data)[0]) == ""


def test_an_attribute_that_is_missing_is_refused_with_those_that_exist(hospital):
    table, data = hospital
    with pytest.raises(InputError, match=r"has no 'age'.*; it has Mass, film, scanner, kv, few, n"):
        find_attributes(table, ["age"], data)
    with pytest.raises(InputError, match=r"has no 'sex'.*; it has view, Mass$"):
        find_attributes(studies(), ["sex"], FOLDER)
