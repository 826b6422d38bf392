import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.errors import InputError
from fluoroscope.model.backbone import Backbone
from fluoroscope.run.input_check import check_batch, look_at
from tests.support.dicoms import write_dicom

B, H, W = 6, 17, 23
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def image():
    return torch.randint(0, 256, (B, 1, H, W), generator=torch.manual_seed(0)).to(torch.uint8)


def seen(image, scale=255):
    """What ImageNet weights see."""
    return (image.float() / scale - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(
        1, 3, 1, 1
    )


def test_a_good_batch(image):
    assert check_batch(image, seen(image)) == []
    assert check_batch(image // 4 + 90, seen(image // 4 + 90)) == []  # little contrast
    assert check_batch(image[:1], seen(image[:1])) == []


def test_what_the_backbone_sees_is_good(image):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network.num_features = 3
    seen_by = []
    network.register_forward_pre_hook(lambda module, inputs: seen_by.append(inputs[0]))
    Backbone(network, MEAN, STD)(image)
    assert check_batch(image, seen_by[0]) == []


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda i: i // 255, r"all pixels lie between 0 and 1 of 0 to 255"),
        (lambda i: torch.full_like(i, 7), r"all pixels lie between 7 and 7"),
        (lambda i: torch.cat([i[:4], torch.zeros_like(i[:2])]), r"2 of 6 images have the same"),
        (lambda i: i[:1].expand_as(i), r"all 6 images are the same"),
        (lambda i: i.float(), r"images are torch.float32 \[6, 1, 17, 23\], not uint8"),
        (lambda i: i.expand(B, 3, H, W), r"images are torch.uint8 \[6, 3, 17, 23\], not uint8"),
    ],
)
def test_harmed_pixels(image, harm, sentence):
    harmed = harm(image)
    good = seen(image)
    (told, *more) = check_batch(harmed, good)
    assert torch.is_tensor(good)
    assert told.startswith("first training batch: ")
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(told)
    assert len(more) == (harmed.float().std() == 0)  # a constant batch is also all the same


def test_scaled_twice(image):
    (told,) = check_batch(image, seen(image, 255 * 255))
    assert "values between -2.12 and -1.79" in told
    assert "standard deviation of 0.00492" in told


def test_not_scaled(image):
    (told,) = check_batch(image, seen(image, 1))
    assert "values between -2.12 and 1.14e+03" in told


def test_not_finite(image):
    (told,) = check_batch(image, seen(image) / 0)
    assert "not finite" in told


class Seen(nn.Module):
    """A backbone that only normalises."""

    scale = 1.0

    def normalise(self, image):
        return seen(image)


@pytest.mark.parametrize("augmented", [lambda i: i // 26, lambda i: i // 20 * (i > 99)])
@pytest.mark.parametrize(
    ("brightest", "sentence"),
    [
        ([11] * 6, "6 of 6 files have 95% .* gray levels: .*0.dcm, .*1.dcm, .*2.dcm, ...; check"),
        ([15, 255, 9, 0, 3, 255], "4 of 6 files have .*: .*0.dcm, .*2.dcm, .*3.dcm, ...; check"),
        ([255] * 4 + [3] * 2, "augmentation darkens or bleaches|pixels lie between"),
    ],
)
def test_dark_files_are_not_blamed_on_the_augmentation(
    tmp_path, image, augmented, brightest, sentence
):
    paths = [tmp_path / f"{number}.dcm" for number in range(B)]
    for path, top in zip(paths, brightest, strict=True):
        write_dicom(path, np.linspace(0, top, H * W).astype(np.uint8).reshape(H, W))
    data = XrayDataModule(pd.DataFrame({"path": [*map(str, paths)]}), [])
    batch = {"image": augmented(image), "index": torch.arange(B)}
    with pytest.raises(InputError, match=sentence) as told:
        look_at(batch, data, Seen())
    assert ("augment" in str(told.value)) == (brightest[0] == 255)
    look_at(batch | {"image": image}, data, Seen())
