"""Each thing that can be wrong is found, and nothing else."""

import cv2
import numpy as np
import pytest

from fluoroscope import audit
from fluoroscope.audit.findings import LOOKED_FOR
from tests.audit.collection import Studies, chest, surveyed, write_clean

TRAIN, VAL, TEST = 0, 80, 120  # first rows, all of one kind of labels


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def clean(root):
    table = write_clean(root)
    surveyed(table, root)
    return table


@pytest.fixture
def table(clean):
    return clean.copy()


@pytest.fixture
def put(table, tmp_path):
    """Put other pixels in the place of an image."""

    def put(row, pixels, suffix=".png", *options):
        path = tmp_path / f"{row}{suffix}"
        cv2.imwrite(str(path), pixels, list(options))
        table.loc[row, "path"] = str(path)

    return put


def found(table, root, **options):
    findings = audit.inspect(Studies(table), surveyed(table, root), **options)
    assert {finding.name for finding in findings.found} <= set(LOOKED_FOR)
    return {finding.name: finding for finding in findings.found}


def test_nothing_is_found_in_a_clean_collection(table, root):
    findings = audit.inspect(Studies(table), surveyed(table, root), image_px=224)
    assert findings.found == ()
    assert (findings.images, findings.patients) == (160, 80)
    assert findings.splits[["split", "images", "patients"]].to_numpy().tolist() == [
        ["train", 80, 40],
        ["val", 40, 20],
        ["test", 40, 20],
    ]


def test_a_patient_in_two_splits(table, root):
    table.loc[[TRAIN, TRAIN + 1], "patient"] = table.loc[TEST, "patient"]
    names = found(table, root)
    assert set(names) == {"patients-in-two-splits"}
    (finding,) = names.values()
    assert finding.hard
    assert finding.count == 1
    assert "1 in train and test" in finding.sentence
    assert {row for (row,) in finding.examples} == {0, 1, 120, 121}


def test_copies_across_splits(table, root, put):
    put(TRAIN, chest(TEST))
    names = found(table, root)
    assert set(names) == {"copies-across-splits", "copies-of-two-patients"}
    assert names["copies-across-splits"].hard
    assert names["copies-across-splits"].examples == ((TRAIN, TEST),)
    assert names["copies-across-splits"].count == 2


def test_copies_within_a_split_and_contradicting(table, root, put):
    put(TRAIN + 1, chest(TRAIN))
    put(TRAIN + 2, chest(TRAIN + 4), ".bmp")  # patients 1 and 2
    names = found(table, root)
    assert {name: finding.examples for name, finding in names.items()} == {
        "copies-within-a-split": ((0, 1), (2, 4)),
        "copies-of-two-patients": ((2, 4),),
        "copies-with-other-labels": ((2, 4),),
    }


def test_an_unknown_label_contradicts_none(table, root, put):
    put(TRAIN + 1, chest(TRAIN))
    table.loc[TRAIN + 1, "Edema"] = np.nan
    assert set(found(table, root)) == {"copies-within-a-split"}


def framed(film):
    return cv2.copyMakeBorder(film, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=0)


def recompressed(film):
    return cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda film: cv2.resize(film, (97, 97), interpolation=cv2.INTER_AREA), "copy"),
        (recompressed, "copy"),
        (lambda film: film // 2 + 50, "copy"),
        (framed, "copy"),
        (lambda film: cv2.resize(film[:, ::-1], (224, 224)), "mirror image"),
    ],
)
def test_near_duplicates_across_splits(table, root, put, change, kind):
    put(TRAIN, np.ascontiguousarray(change(chest(TEST))))
    names = found(table, root)
    assert set(names) == {"near-duplicates-across-splits"}
    (finding,) = names.values()
    assert not finding.hard
    assert finding.examples == ((TRAIN, TEST),)
    assert f"(1 as {kind})" in finding.sentence


def test_a_negative_of_another_splits_film(table, root, put):
    put(TRAIN, 255 - chest(TEST))
    names = found(table, root)
    assert set(names) == {"near-duplicates-across-splits", "inverted-looking"}
    assert "(1 as negative)" in names["near-duplicates-across-splits"].sentence


def test_near_duplicates_within_a_split_are_no_leak(table, root, put):
    put(TRAIN, cv2.resize(chest(TRAIN + 1), (97, 97)))
    assert found(table, root) == {}


@pytest.mark.parametrize(
    ("pixels", "name", "hard"),
    [
        (np.full((90, 90), 7, np.uint8), "constant-images", True),
        (255 - chest(TRAIN), "inverted-looking", False),
        (cv2.resize(chest(TRAIN), (50, 50), interpolation=cv2.INTER_AREA), "tiny-images", False),
        (
            cv2.resize(chest(TRAIN), (80, 80), interpolation=cv2.INTER_AREA),
            "enlarged-images",
            False,
        ),
        (np.pad(chest(TRAIN), ((0, 0), (400, 400))), "mostly-black", False),
        (np.maximum(chest(TRAIN), 255 * (np.mgrid[:160, :160][1] < 130)), "mostly-white", False),
    ],
)
def test_images(table, root, put, pixels, name, hard):
    put(TRAIN, pixels.astype(np.uint8))
    names = found(table, root, image_px=224)
    assert set(names) - {"inverted-looking"} == {name} - {"inverted-looking"}
    assert (names[name].hard, names[name].count, names[name].examples) == (hard, 1, ((TRAIN,),))


def test_an_unreadable_image(table, root, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    table.loc[TRAIN, "path"] = str(tmp_path / "bad.png")
    names = found(table, root)
    assert set(names) == {"unreadable-images"}
    assert names["unreadable-images"].hard


def test_side_views_have_no_polarity(table, root, put):
    put(TRAIN, 255 - chest(TRAIN))
    table["view"] = "PA"
    table.loc[TRAIN, "view"] = "LATERAL"
    assert found(table, root) == {}


def test_splits_that_cannot_be_scored(table, root):
    rest = table[table["split"] != "val"].reset_index(drop=True)
    assert set(found(rest, root)) == {"empty-split"}
    tests_alone = found(table[table["split"] == "test"].reset_index(drop=True), root)
    assert not tests_alone["empty-split"].hard
    assert "scripts/evaluate.py split=all" in tests_alone["empty-split"].advice
    table.loc[table["split"] == "val", "Mass"] = 0
    names = found(table, root)
    assert names["label-without-both-classes"].sentence == (
        "the val split cannot score 'Mass' (0 with it, 40 without)"
    )
    assert {finding.name for finding in names.values() if finding.hard} == {
        "label-without-both-classes"
    }
    assert not any(finding.hard for finding in found(table, root, chosen=False).values())


def test_splits_that_cannot_be_drawn_are_a_hard_finding(table, root):
    names = found(table, root, undrawn="too few patients")
    assert names["no-splits"].hard
    assert names["no-splits"].sentence == "no splits can be drawn: too few patients"


def test_images_without_a_split(table, root):
    table.loc[TRAIN, "split"] = None
    names = found(table, root)
    assert names["images-without-split"].examples == ((TRAIN,),)
    table["split"] = None
    findings = audit.inspect(Studies(table), surveyed(table, root))
    assert findings.found == ()
    assert findings.splits["split"].tolist() == ["no split"]


def test_patients(table, root):
    table.loc[table["split"] == "val", "patient"] = [
        "p40" if n < 11 else f"p{n}x" for n in range(40)
    ]
    names = found(table, root)
    assert set(names) == {"patient-dominates"}
    assert "1 of 30 patients of the val split has" in names["patient-dominates"].sentence
    assert "up to 11" in names["patient-dominates"].sentence
    table["patient"] = [f"i{n}" for n in range(160)]
    assert set(found(table, root)) == {"no-patient-twice"}
