import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
from tests.support.collections import policies, touch

CLASSES = {"COVID": 3, "Lung_Opacity": 2, "Normal": 4, "Viral Pneumonia": 1}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for name, count in CLASSES.items():
        for number in range(1, count + 1):
            touch(root / name / f"images/{name}-{number}.png", root / name / f"masks/{name}-1.png")
        touch(root / f"{name}.metadata.xlsx")
    touch(root / "README.md.txt")
    return root


def test_each_class_but_normal_is_a_label(root):
    collection = sources.load("covid", root)
    labels = label_columns(collection.table)
    assert labels == ["COVID", "Lung_Opacity", "Viral Pneumonia"]
    names = collection.table["path"].str.extract(r"/images/(.*)-\d+\.png$")[0]
    assert names.value_counts().to_dict() == CLASSES
    for label in labels:
        assert (collection.table[label] == (names == label)).all()
    assert [decision.counts for decision in policies(collection)] == [{"images": 10}]
    assert collection.table["patient"].nunique() == 10


def test_the_folder_above_and_the_older_tree_do_as_well(root, tmp_path):
    assert len(sources.load("covid", root.parent).table) == 10
    old = tmp_path / "old"
    touch(old / "COVID/COVID (1).png", old / "Normal/Normal (1).png", old / "Normal/2.png")
    touch(old / "Viral Pneumonia/Viral Pneumonia (1).png")
    table = sources.load("covid", old).table
    assert label_columns(table) == ["COVID", "Viral Pneumonia"]
    assert table["COVID"].sum() == table["Viral Pneumonia"].sum() == 1
    assert len(table) == 4


def test_refuses_another_tree_and_a_label_that_is_not_there(root, tmp_path_factory):
    with pytest.raises(InputError, match=r"lacks the folders COVID and Normal.*data=folder"):
        sources.load("covid", tmp_path_factory.mktemp("empty"))
    with pytest.raises(InputError, match=r"must be one of COVID.*did you mean 'COVID'"):
        sources.load("covid", root, ["Covidd"])
