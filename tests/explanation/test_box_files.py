"""Boxes and masks as the public collections write them, and the lesions of the phantom."""

import cv2
import numpy as np
import pytest

from fluoroscope.errors import InputError
from fluoroscope.explanation.box_files import find_boxes, read_boxes, run_length_mask
from fluoroscope.explanation.regions import Box
from fluoroscope.phantom.render import FINDINGS, Recipe, draw, write_collection
from fluoroscope.phantom.truth import StoredFilm

NIH = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000001_000.png,Infiltrate,633.17,416.75,271.93,221.87
00000001_000.png,Effusion,863.0,693.2,72.8,112.6,,,
"""
RSNA = "patientId,x,y,width,height,Target\na,264.0,152.0,213.0,379.0,1\nb,,,,,0\n"
VINDR = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
c,Cardiomegaly,3,R1,10,20,110,220
c,Cardiomegaly,3,R2,12,20,110,220
d,No finding,14,R1,,,,
"""
OWN = "image;label;x;y;width;height\nsub/e.dcm;Mass;1;2;3;4\n"


def written(tmp_path, text, name="boxes.csv"):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        (
            NIH,
            "nih14",
            {
                "00000001_000": {
                    "Infiltration": [Box(633.17, 416.75, 271.93, 221.87, (1024, 1024))],
                    "Effusion": [Box(863.0, 693.2, 72.8, 112.6, (1024, 1024))],
                }
            },
        ),
        (RSNA, "rsna", {"a": {"Lung Opacity": [Box(264, 152, 213, 379, (1024, 1024))]}}),
        (
            VINDR,
            "vindr",
            {"c": {"Cardiomegaly": [Box(10, 20, 100, 200), Box(12, 20, 98, 200)]}},
        ),
        (OWN, "table", {"e": {"Mass": [Box(1, 2, 3, 4)]}}),
    ],
    ids=["nih14", "rsna", "vindr", "table"],
)
def test_a_table_is_recognised_by_its_columns(tmp_path, text, source, expected):
    assert read_boxes(written(tmp_path, text)) == (expected, source)


def test_masks_of_siim_run_down_the_columns_from_the_end_of_the_last_run():
    """As the challenge's own `rle2mask` reads them."""
    text, frame = "5 3 4 2", (4, 6)
    mask, position = np.zeros(24), 0
    for gap, length in ((5, 3), (4, 2)):
        position += gap
        mask[position : position + length] = 1
        position += length
    np.testing.assert_array_equal(run_length_mask(text, frame), mask.reshape(6, 4).T)
    with pytest.raises(InputError, match="does not fit 4 x 6"):
        run_length_mask("20 5", frame)


def test_the_two_copies_of_siim(tmp_path):
    runs = written(tmp_path / "dicom", "ImageId, EncodedPixels\nf, 2048 8192\ng, -1\n")
    drawn = read_boxes(runs)
    assert drawn.source == "siim_pneumothorax"
    assert [*drawn.regions] == ["f"]
    (mask,) = drawn.regions["f"]["Pneumothorax"]
    painted = mask.paint((512, 512), 128)  # columns 2 to 9 of 1,024
    assert painted[:, 0].all()
    assert painted.sum() == 128
    folder = tmp_path / "png_masks"
    folder.mkdir()
    cv2.imwrite(str(folder / "h.png"), np.eye(64, dtype=np.uint8) * 255)
    for drawn in (find_boxes("siim_pneumothorax", tmp_path), read_boxes(folder)):
        (mask,) = drawn.regions["h"]["Pneumothorax"]
        np.testing.assert_array_equal(mask.paint((64, 64), 64), np.eye(64, dtype=bool))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n", "has the columns a, b, but one of these sets is needed"),
        (RSNA.replace("264.0", "x"), "column 'x' holds 'x' in row 2"),
        (NIH.replace(",112.6,,,", ""), "row 3 has fewer than 6 cells"),
        ("ImageId,EncodedPixels\nf,1 2 x\n", "a mask is pairs of numbers, or -1"),
        (OWN + "other/e.png;Mass;1;2;3;4\n", "films of different folders have the same name"),
        (OWN + "e.png;;1;2;3;4\n", "'' in row 3 .*; a box needs an image and a label"),
        (OWN.splitlines()[0] + "\n", "holds no boxes; give another table"),
        (NIH.splitlines()[0], "holds no boxes; give another table"),
        ("ImageId,EncodedPixels\nf,-1\n", "holds no boxes; give another table"),
        (f"ImageId,EncodedPixels\nf,1 2 {'9' * 30} 4\n", "a mask is pairs of numbers, or -1"),
    ],
)
def test_a_damaged_table_is_refused_in_one_sentence(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint):
        read_boxes(written(tmp_path, text))


def test_boxes_are_found_where_a_collection_keeps_them(tmp_path):
    written(tmp_path, VINDR, "annotations/annotations_train.csv")
    written(tmp_path, VINDR.replace("c,", "z,"), "annotations/annotations_test.csv")
    assert {*find_boxes("vindr", tmp_path).regions} == {"c", "z"}
    with pytest.raises(InputError, match=r"no BBox_List_2017.csv in .*; give boxes=FILE"):
        find_boxes("nih14", tmp_path)
    with pytest.raises(InputError, match="data=chexpert has no boxes; give boxes=FILE"):
        find_boxes("chexpert", tmp_path)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_phantoms_finding_lies_in_its_area_and_nowhere_else(finding):
    """Nearly all of the change is inside, and the finding alone is what makes it."""
    with_it, without = (draw(7, 1, shown, size_px=128).astype(float) for shown in ([finding], []))
    recipe = Recipe(8, 2, 128, 0.3, 0.4, 0)
    area = StoredFilm(recipe, 7, 1, (finding,)).lesion(finding)
    change = np.abs(with_it - without)
    assert 0 < area.mean() < 0.35
    assert change[area].min() > change[~area].mean() * 3


def test_the_areas_of_a_collection_follow_its_films(tmp_path):
    table = write_collection(tmp_path, patients=3, images_per_patient=2, size_px=64)
    drawn = find_boxes("phantom", tmp_path).regions
    assert len(drawn) == table[list(FINDINGS)].any(axis=1).sum()
    for study in table.to_dict("records"):
        stem = study["file"].removeprefix("images/").removesuffix(".png")
        present = [finding for finding in FINDINGS if study[finding]]
        assert [*drawn.get(stem, {})] == present
        for finding in present[:1]:
            film = StoredFilm.find(tmp_path / study["file"])
            (mask,) = drawn[stem][finding]
            np.testing.assert_array_equal(mask.paint((64, 64), 64), film.lesion(finding))
    with pytest.raises(InputError, match="is not a complete phantom collection"):
        find_boxes("phantom", tmp_path / "images")
