import sys
from types import ModuleType

import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.studies import label_columns
from fluoroscope.errors import InputError
from fluoroscope.sources.settings import SOURCES
from tests.support.collections import touch


def load_table(*args, **keys):
    return sources.load(*args, **keys).table


# ------------------------------------------------------------------------------ phantom, common
def test_phantom_becomes_a_study_table(tmp_path, monkeypatch):
    def write_collection(root, patients=250, seed=0):
        files = [f"images/{i}.png" for i in range(patients)]
        touch(*(root / file for file in files))
        frame = pd.DataFrame({"file": files, "patient": range(patients), "view": "PA"})
        return frame.assign(Nodule=[i % 2 for i in range(patients)], Effusion=0)

    stub = ModuleType("fluoroscope.data.phantom")
    stub.write_collection, stub.FINDINGS = write_collection, ("Nodule", "Effusion")
    monkeypatch.setitem(sys.modules, "fluoroscope.data.phantom", stub)
    table = load_table("phantom", tmp_path / "new", patients=5)
    assert label_columns(table) == ["Nodule", "Effusion"]
    assert table["Nodule"].tolist() == [0, 1, 0, 1, 0]
    assert table["patient"].tolist() == ["0", "1", "2", "3", "4"]
    assert table["path"][4] == str(tmp_path / "new/images/4.png")
    assert label_columns(load_table("phantom", tmp_path / "new", ["Effusion"])) == ["Effusion"]
    with pytest.raises(InputError, match="did you mean 'Nodule'"):
        load_table("phantom", tmp_path / "new", ["Nodul"])


@pytest.mark.parametrize("source", sorted({*SOURCES} - {"table"}))
def test_root_is_required(source):
    with pytest.raises(InputError, match=r"data.root is not set: .*data.root=DIR"):
        load_table(source, None)


def test_unknown_source():
    with pytest.raises(InputError, match=r"one of .*nih14, .*table.*did you mean 'nih14'"):
        load_table("nih4", "x")
