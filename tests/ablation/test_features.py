import pytest
import pytorch_lightning as pl
import torch

from fluoroscope import build
from fluoroscope.ablation.features import CachedFeatures, FeatureDataModule, extract
from fluoroscope.run.csv_logger import MetricsCsv
from tests.support.films import tiny_config

KEYS = ["backbone.frozen=true", "data.augment=[]", "trainer.max_epochs=2"]


def trained(cfg, folder, cached):
    data = build.build_data(cfg, build.build_studies(cfg))
    model = build.build_classifier(cfg, data)
    if cached:
        features = extract(model.backbone, data)
        model.backbone = CachedFeatures(features.shape[1])
        data = FeatureDataModule(data, features)
    folder.mkdir()
    watchers = build.build_watchers(cfg, folder)
    trainer = build.build_trainer(cfg, folder, watchers)
    trainer.callbacks = [*trainer.callbacks, *watchers]
    trainer.loggers = [MetricsCsv(folder)]
    pl.seed_everything(cfg.seed, verbose=False)
    trainer.fit(model, datamodule=data)
    return model, watchers[0].last


def test_features_are_those_of_each_image_in_the_order_of_the_table(films):
    cfg = tiny_config(films, *KEYS, "data.batch_size=7")  # the last batch is another size
    data = build.build_data(cfg, build.build_studies(cfg))
    backbone = build.build_classifier(cfg, data).backbone
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


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_a_head_on_cached_features_is_the_head_behind_the_backbone(films, tmp_path, sampler):
    cfg = tiny_config(films, *KEYS, f"data.sampler={sampler}")
    behind, seen = trained(cfg, tmp_path / "behind", cached=False)
    cached, told = trained(cfg, tmp_path / "cached", cached=True)
    assert behind.head.state_dict().keys() == cached.head.state_dict().keys()
    for key, value in behind.head.state_dict().items():
        # Convolutions round differently in batches of other images.
        torch.testing.assert_close(cached.head.state_dict()[key], value, rtol=1e-3, atol=1e-5)
    assert seen.keys() == told.keys()
    for key in ("units/val/dead_frac", "units/train/blackout_frac", "units/train/zero_frac"):
        assert told[key] == pytest.approx(seen[key], abs=2e-3), key
