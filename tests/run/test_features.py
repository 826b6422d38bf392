import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluoroscope import build
from fluoroscope.config.schema import plain
from fluoroscope.errors import InputError
from fluoroscope.run.features import _write, cached_features, extract, fingerprint
from tests.support.films import tiny_config

CPU = torch.device("cpu")
KEYS = ["backbone.frozen=true", "data.batch_size=32"]


@pytest.fixture
def parts(films):
    cfg = tiny_config(films, *KEYS)
    data = build.build_data(cfg, build.build_studies(cfg))
    return build.build_backbone(cfg), data, plain(cfg)["data"]["augment"]


def read(parts, folder, views=0):
    backbone, data, augment = parts
    return cached_features(backbone, data, views, augment, CPU, folder)


def test_what_was_kept_is_what_comes_back(parts, tmp_path):
    first, told = read(parts, tmp_path)
    again, told_again = read(parts, tmp_path)
    assert "stored in" in told
    assert "from" in told_again
    assert torch.equal(first, again)
    assert first.shape == (1, len(parts[1].table), parts[0].num_features)


@pytest.mark.parametrize("flaw", ["half", "changed", "of another backbone"])
def test_a_damaged_file_is_told_and_replaced(flaw, parts, tmp_path, capsys):
    right, _ = read(parts, tmp_path)
    (path,) = tmp_path.iterdir()
    if flaw == "half":
        path.write_bytes(path.read_bytes()[:1000])
    elif flaw == "changed":
        content = bytearray(path.read_bytes())
        content[-5] ^= 64
        path.write_bytes(content)
    else:
        _write(path, right + 1)
    again, _ = read(parts, tmp_path)
    assert torch.equal(again, right)
    assert "computed again" in capsys.readouterr().out
    assert torch.equal(load_file(path)["features"], right)


def test_features_of_another_machine_are_used(parts, tmp_path, capsys):
    """A GPU computes them with TF32, which the noise stands for."""
    right, _ = read(parts, tmp_path)
    (path,) = tmp_path.iterdir()
    torch.manual_seed(0)
    other = right + 0.01 * right.std() * torch.randn(right.shape)
    _write(path, other)
    again, told = read(parts, tmp_path)
    assert torch.equal(again, other)
    assert "from" in told
    assert "computed again" not in capsys.readouterr().out


def test_what_changes_the_features_changes_the_name(films, parts):
    backbone, data, augment = parts
    names = {fingerprint(backbone, data, 0, augment), fingerprint(backbone, data, 2, augment)}
    names.add(fingerprint(backbone, data, 2, augment[:1]))
    other = build.build_backbone(tiny_config(films, *KEYS, "seed=2"))
    names.add(fingerprint(other, data, 0, augment))
    first = data.table["path"][0]
    before = os.stat(first)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    names.add(fingerprint(backbone, data, 0, augment))
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    backbone.mean += 0.1
    names.add(fingerprint(backbone, data, 0, augment))
    cfg = tiny_config(films, *KEYS, "data.image_px=40")
    data = build.build_data(cfg, build.build_studies(cfg))
    names.add(fingerprint(backbone, data, 0, augment))
    assert len(names) == 7


def test_the_augmentation_does_not_change_the_images_as_they_are(films, parts):
    backbone, data, augment = parts
    assert fingerprint(backbone, data, 0, augment) == fingerprint(backbone, data, 0, [])


def test_views_are_the_training_images_as_an_epoch_of_a_run_augments_them(parts):
    backbone, data, _ = parts
    features, _ = read(parts, None, views=2)
    train = torch.from_numpy((data.table["split"] == "train").to_numpy())
    assert features[0].isfinite().all()
    assert features[1:, train].isfinite().all()
    assert features[1:, ~train].isnan().all()
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        with torch.no_grad():
            for batch in loader:
                f = backbone.eval()(batch["image"])
                kept = features[1 + epoch, batch["index"]]
                torch.testing.assert_close(kept, f, rtol=1e-4, atol=1e-5)


def test_a_full_disk_is_one_sentence(parts, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("fluoroscope.run.features.save_file", full)
    with pytest.raises(InputError, match="cannot store the features"):
        read(parts, tmp_path)
    assert not list(tmp_path.iterdir())
    assert save_file


def test_features_are_those_of_each_image_in_the_order_of_the_table(films):
    cfg = tiny_config(films, *KEYS, "data.batch_size=7")  # the last batch is another size
    data = build.build_data(cfg, build.build_studies(cfg))
    backbone = build.build_backbone(cfg)
    features = extract(backbone, data)
    dataset = data.evaluation_dataloader("all").dataset
    for row in (0, 6, 7, len(data.table) - 1):
        with torch.no_grad():
            alone = backbone(dataset[row, 0, 0]["image"][None])[0]
        torch.testing.assert_close(features[row], alone, rtol=1e-4, atol=1e-5)
    assert not features.isnan().any()


class Recorded(torch.nn.Module):
    """Notes where it is put and where its images lie."""

    def __init__(self):
        super().__init__()
        self.weight, self.places = torch.nn.Parameter(torch.ones(1)), []

    def to(self, device):
        self.places.append(torch.device(device).type)
        return self

    def forward(self, image):
        self.places.append(image.device.type)
        return torch.ones(len(image), 5)


def test_features_are_computed_on_the_device_that_is_asked_for(films):
    cfg = tiny_config(films, *KEYS, "data.batch_size=120")
    data = build.build_data(cfg, build.build_studies(cfg))
    backbone = Recorded()
    assert extract(backbone, data, torch.device("meta")).shape == (120, 5)
    assert backbone.places == ["meta", "meta", "cpu"]
