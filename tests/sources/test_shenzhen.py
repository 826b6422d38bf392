import pytest

from fluoroscope import sources
from fluoroscope.errors import InputError
from tests.support.collections import touch


@pytest.fixture
def root(tmp_path):
    china, us = tmp_path / "ChinaSet_AllFiles", tmp_path / "Montgomery/MontgomerySet"
    touch(
        china / "CXR_png/CHNCXR_0001_0.png",
        china / "CXR_png/CHNCXR_0327_1.png",
        china / "CXR_png/CHNCXR_0328_1.png",
        china / "CXR_png/Thumbs.db",
        china / "ClinicalReadings/CHNCXR_0001_0.txt",
        china / "mask/CHNCXR_0001_0_mask.png",
        us / "CXR_png/MCUCXR_0001_0.png",
        us / "CXR_png/MCUCXR_0104_1.png",
        us / "ManualMask/leftMask/MCUCXR_0001_0.png",
        us / "ManualMask/rightMask/MCUCXR_0001_0.png",
        us / "ClinicalReadings/MCUCXR_0001_0.txt",
    )
    return tmp_path


def rows(table):
    return list(zip(table["patient"], table["Tuberculosis"], strict=True))


def test_names_tell_patients_and_labels(root):
    china = [("CHNCXR_0001", 0.0), ("CHNCXR_0327", 1.0), ("CHNCXR_0328", 1.0)]
    us = [("MCUCXR_0001", 0.0), ("MCUCXR_0104", 1.0)]
    for hospital, expected in {"both": china + us, "shenzhen": china, "montgomery": us}.items():
        assert rows(sources.load("shenzhen", root, hospital=hospital).table) == expected
    assert rows(sources.load("shenzhen", root / "ChinaSet_AllFiles/CXR_png").table) == china


def test_a_set_that_is_named_must_be_there(root):
    with pytest.raises(InputError, match=r"has no images with names such as MCUCXR_0001_0.png"):
        sources.load("shenzhen", root / "ChinaSet_AllFiles", hospital="montgomery")


def test_a_set_that_was_unpacked_twice_is_refused(root):
    touch(root / "ChinaSet_AllFiles/ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png")
    with pytest.raises(
        InputError, match=r"contains 1 of the films twice: CHNCXR_0001; set data.root"
    ):
        sources.load("shenzhen", root)
