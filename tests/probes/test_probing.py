"""Models that read one known thing, probed on phantom films with a planted marker."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fluoroscope import build
from fluoroscope.errors import InputError
from fluoroscope.evaluation.contents import as_json
from fluoroscope.probes.judgement import CALLED
from fluoroscope.probes.masks import Lungs, match_masks
from fluoroscope.probes.probing import find_lungs, probe
from tests.support import planted
from tests.support.films import config

BOX = slice(28, 55), slice(16, 38)  # of the right lung, clear of the heart


class Reads(nn.Module):
    """The logit is the brightness of the corner, or the difference between the lungs, or both."""

    def __init__(self, corner, lungs):
        super().__init__()
        self.corner, self.lungs = corner, lungs

    def forward(self, image):
        image = image[:, 0].float()
        marker = image[:, *planted.MARKER].mean((1, 2))
        left, right = image[:, *BOX], image.flip(2)[:, *BOX]
        apart = (left.mean((1, 2)) - right.mean((1, 2))).abs()
        return (self.corner * marker + self.lungs * apart)[:, None]


def model(corner=0.0, lungs=0.0):
    network = SimpleNamespace(backbone=Reads(corner, lungs), head=nn.Identity())
    return SimpleNamespace(
        labels=("Consolidation",), network=network, device=torch.device("cpu"), image_px=planted.PX
    )


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    """By agreement of the marker with the label: loaders and studies."""
    root = tmp_path_factory.mktemp("planted")
    drawn, found = planted.draw(root / "drawn"), {}
    for agreement in (0.5, 0.95):
        folder = planted.plant(drawn, root / str(agreement), agreement)
        cfg = config("backbone=lite0", *planted.words(folder), "data.num_workers=0")
        studies = build.build_studies(cfg)
        found[agreement] = build.build_data(cfg, studies), studies
    return found


def probed(collection, network, masks=None, labels=("Consolidation",)):
    data, studies = collection
    rows = np.arange(len(studies.table))
    lungs = find_lungs(studies, rows, planted.PX, masks)
    return probe(network, data, rows, lungs, dict.fromkeys(labels, ""))


def called(found, label="Consolidation"):
    return {n for n, p in found.labels[label].probes.items() if p.verdict == CALLED}


def test_a_model_that_reads_the_planted_marker_is_caught(collections):
    found = probed(collections[0.95], model(corner=1))
    assert {"corners_masked", "lungs_hidden"} <= called(found)
    assert found.summary == "1 of 1 label is called out"
    assert any("without the four corners" in words for words in found.called_out)
    assert any("keeps 100 % of its score without the lungs" in words for words in found.called_out)
    probes = found.labels["Consolidation"].probes
    assert probes["corners_masked"].auroc.value < 0.6
    assert probes["lungs_hidden"].auroc == found.labels["Consolidation"].auroc


@pytest.mark.parametrize("agreement", [0.5, 0.95])
def test_a_model_that_reads_the_lungs_is_not_whatever_the_marker(collections, agreement):
    found = probed(collections[agreement], model(lungs=1))
    assert called(found) == set()
    assert found.called_out == []
    probes = found.labels["Consolidation"].probes
    assert probes["corners_masked"].change == (0, 0, 0)
    assert probes["lungs_hidden"].auroc.value < 0.6
    unchanged = found.labels["Consolidation"].auroc.value
    assert probes["lungs_only"].auroc.value == pytest.approx(unchanged, abs=0.02)


def test_a_model_that_reads_both_is_caught_by_what_it_keeps(collections):
    found = probed(collections[0.95], model(corner=0.3, lungs=1))
    assert "lungs_hidden" in called(found)


def test_the_marker_is_found_with_the_ellipse_and_with_masks(collections, tmp_path):
    data, studies = collections[0.95]
    other = studies._replace(source="table")
    found = probed((data, other), model(corner=1))
    assert found.lungs == "ellipse"
    assert "lungs_hidden" in called(found)
    own = find_lungs(studies, np.arange(len(studies.table)), planted.PX, None)
    for row, path in own.paths.items():
        name = path.split("/")[-1].replace(".png", "_mask.png")
        cv2.imwrite(str(tmp_path / name), 255 * own.region(row).astype(np.uint8))
    with_masks = probed((data, other), model(corner=1), str(tmp_path))
    assert with_masks.lungs == "masks"
    # The hull of a hull is the same hull, but for its margin.
    assert "lungs_hidden" in called(with_masks)


def test_other_labels_are_scored_by_their_own_logits(collections):
    network = model(corner=1)
    network.labels = ("Nodule", "Consolidation")
    network.network.head = lambda z: torch.cat([-z, z], 1)
    data, studies = collections[0.95]
    found = probed((data, studies), network)
    assert "corners_masked" in called(found)
    assert found.labels["Consolidation"].auroc.value > 0.9


def test_the_content_is_json(collections):
    content = as_json(probed(collections[0.95], model(corner=1)))
    probes = content["labels"]["Consolidation"]["probes"]
    assert set(probes["flipped"]["auroc"]) == {"value", "low", "high"}
    assert list(content["labels"]["Consolidation"]["views"]) == ["PA"]


# ------------------------------------------------------------------------------------- the masks
def images(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.eye(40, dtype=np.uint8) * 255)
    return [str(root / name) for name in names]


def test_masks_belong_to_images_by_their_names_and_folders(tmp_path):
    images(tmp_path, ["m/a/1.png", "m/b/1_mask.png", "2.jpg", "unused.png"])
    paths = ["/data/x/a/1.dcm", "/data/x/b/1.png", "/data/x/c/2.png"]
    found = [str(mask.relative_to(tmp_path)) for mask in match_masks(paths, tmp_path)]
    assert found == ["m/a/1.png", "m/b/1_mask.png", "2.jpg"]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["/x/1.png", "/x/Mueller.png"], "1 of 2 images have no mask in .*; a mask has the name"),
        (["/x/1.png", "/y/1.png"], "1 image would get the mask of another image"),
    ],
)
def test_masks_that_do_not_fit_are_refused_without_a_name(tmp_path, paths, reason):
    images(tmp_path, ["1.png", "2.png"])
    with pytest.raises(InputError, match=reason) as refusal:
        Lungs(dict(enumerate(paths)), 32, tmp_path)
    assert "Mueller" not in str(refusal.value)


def lungs_of(tmp_path, *masks, shape=(40, 60)):
    """The lungs of films of one shape from masks of any."""
    for number, mask in enumerate(masks):
        cv2.imwrite(str(tmp_path / f"{number}.png"), mask)
    paths = {number: f"/x/{number}.dcm" for number in range(len(masks))}
    return Lungs(paths, 32, tmp_path, ratios=dict.fromkeys(paths, shape[0] / shape[1]))


def drawn_mask(shape=(40, 60)):
    mask = np.zeros(shape, np.uint8)
    mask[10:30, 8:24] = mask[10:30, 36:52] = 255
    return mask


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (drawn_mask((40, 40)), "another shape than its image .height by width 1.00 and 0.67"),
        (b"no image", "a mask in masks=.* cannot be read"),
    ],
)
def test_a_mask_that_does_not_fit_is_found_before_anything_is_scored(tmp_path, mask, reason):
    good = [drawn_mask()] * 3
    lungs = lungs_of(tmp_path, *good, mask if isinstance(mask, np.ndarray) else drawn_mask())
    if isinstance(mask, bytes):
        (tmp_path / "3.png").write_bytes(mask)
    with pytest.raises(InputError, match=reason) as refusal:
        lungs.check()
    assert "3.png" not in str(refusal.value)


@pytest.mark.parametrize("useless", [0 * drawn_mask(), ~drawn_mask(), ~(0 * drawn_mask())])
def test_a_mask_that_hides_nothing_or_everything_is_no_mask(tmp_path, useless):
    """A model would keep, or lose, its whole score without the lungs for no reason of its own."""
    lungs = lungs_of(tmp_path, drawn_mask(), useless, drawn_mask())
    lungs.check()
    np.testing.assert_array_equal(lungs.region(1), lungs.ellipse)
    assert 0 < lungs.region(0).sum() < lungs.region(0).size
    assert "1 mask with nothing inside or nothing outside" in lungs.words
    with pytest.raises(InputError, match=r"2 of 3 masks .* bright in the lungs and dark elsewhere"):
        lungs_of(tmp_path, drawn_mask(), useless, useless).check()


def test_a_mask_of_ones_is_a_mask(tmp_path):
    """Masks are stored as 0 and 1 too."""
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:30] = 1
    cv2.imwrite(str(tmp_path / "1.png"), mask)
    region = Lungs({0: "/x/1.dcm"}, 40, tmp_path).region(0)
    assert 200 <= region.sum() < 400
