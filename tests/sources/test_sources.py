import os
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from fluoroscope import sources
from fluoroscope.data.study_table import label_columns
from fluoroscope.errors import InputError
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

    stub = ModuleType("fluoroscope.phantom.render")
    stub.write_collection, stub.FINDINGS = write_collection, ("Nodule", "Effusion")
    monkeypatch.setitem(sys.modules, "fluoroscope.phantom.render", stub)
    table = load_table("phantom", tmp_path / "new", patients=5)
    assert label_columns(table) == ["Nodule", "Effusion"]
    assert table["Nodule"].tolist() == [0, 1, 0, 1, 0]
    assert table["patient"].tolist() == ["0", "1", "2", "3", "4"]
    assert table["path"][4] == str(tmp_path / "new/images/4.png")
    assert label_columns(load_table("phantom", tmp_path / "new", ["Effusion"])) == ["Effusion"]
    with pytest.raises(InputError, match="did you mean 'Nodule'"):
        load_table("phantom", tmp_path / "new", ["Nodul"])


@pytest.mark.parametrize("source", sorted({*sources.names()} - {"table"}))
def test_root_is_required(source):
    with pytest.raises(InputError, match=r"data.root is not set; add data.root=DIR"):
        load_table(source, None)


def test_unknown_source():
    with pytest.raises(InputError, match=r"one of .*nih14, .*table.*did you mean 'nih14'"):
        load_table("nih4", "x")


# ------------------------------------------------------------- places and names that cannot be used
@pytest.mark.parametrize("root", ["file", "file/new"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"data=phantom cannot use {tmp_path}/file.*: Not a dir"):
        sources.load("phantom", tmp_path / root)


@pytest.mark.parametrize("source", ["folder", "nih14", "shenzhen"])
def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch, source):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", f"{folder}/closed")

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    message = rf"^data={source} cannot use {tmp_path}/closed: Permission denied; check data.root"
    with pytest.raises(InputError, match=message):
        sources.load(source, tmp_path)


def test_what_the_system_says_without_a_path_names_the_root(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError("no space")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=rf"data=folder cannot use {tmp_path}: no space; "):
        sources.load("folder", tmp_path)


@pytest.mark.parametrize("name", [b"sick/M\xfcller.png", b"M\xfcller/1.png"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path, name):
    touch(tmp_path / "normal/1.png", tmp_path / "sick/1.png", tmp_path / os.fsdecode(name))
    with pytest.raises(InputError, match=r"M\\xfcller.*: the name is not UTF-8; rename the file"):
        sources.load("folder", tmp_path)
