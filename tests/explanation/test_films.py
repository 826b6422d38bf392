"""Which films are explained, and whose the regions are."""

import cv2
import numpy as np
import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.explanation.explain import explain
from tests.explanation.test_explain import job
from tests.support.films import SIDE_PX


def test_a_film_whose_mask_is_empty_has_no_region(trained_run, films, tmp_path):
    """Some collections have a mask for every film, black if nothing is found."""
    for folder in ("films", "png_masks"):
        (tmp_path / folder).mkdir()
    for number, path in enumerate(sorted((films / "BLOB").glob("*.png"))[:3]):
        (tmp_path / "films" / path.name).symlink_to(path)
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        mask[:6, :6] = 255 * (number > 0)
        cv2.imwrite(str(tmp_path / "png_masks" / path.name), mask)
    keys = [f"checkpoint={trained_run}", f"images={tmp_path}/films", f"boxes={tmp_path}/png_masks"]
    more = ["++data.label_map={Pneumothorax: BLOB}", "methods=[gradcam]"]
    result = explain(job(*keys, *more, f"run.dir={tmp_path}/out"))
    assert result["films"] == result["labels"]["BLOB"]["films"] == 2
    assert {*pd.read_csv(tmp_path / "out/explanations.csv")["row"]} == {1, 2}
    for path in (tmp_path / "png_masks").iterdir():
        cv2.imwrite(str(path), np.zeros((SIDE_PX, SIDE_PX), np.uint8))
    with pytest.raises(InputError, match="the masks of 3 films are all empty"):
        explain(job(*keys, *more, f"run.dir={tmp_path}/none"))


def test_films_of_one_name_are_refused_if_boxes_are_given_by_name(trained_run, films, tmp_path):
    path = sorted((films / "BLOB").glob("*.png"))[0]
    for patient in ("p1", "p2"):
        (tmp_path / "films" / patient).mkdir(parents=True)
        (tmp_path / "films" / patient / "frontal.png").symlink_to(path)
    (tmp_path / "boxes.csv").write_text("image,label,x,y,width,height\nfrontal.png,BLOB,4,4,9,9\n")
    keys = [f"checkpoint={trained_run}", f"images={tmp_path}/films", f"boxes={tmp_path}/boxes.csv"]
    with pytest.raises(InputError, match="1 of 2 films with boxes have the name of another film"):
        explain(job(*keys, f"run.dir={tmp_path}/out"))
