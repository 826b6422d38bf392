"""Features computed once: of a frozen backbone nothing else ever reaches the head."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fluoroscope.console import show_progress
from fluoroscope.data.datamodule import Draw, XrayDataModule, XrayDataset
from fluoroscope.data.transforms import Augmentation
from fluoroscope.model.backbone import Backbone
from fluoroscope.run.input_check import look_at


@torch.no_grad()
def extract(
    backbone: nn.Module,
    data: XrayDataModule,
    device: torch.device | None = None,
    *,
    view: int | None = None,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Features float32 `[N, F]` of the study table, in its order; NaN for images left out.

    Args:
        device: where they are computed, None for where the backbone is; it comes back from there.
        view: None for all images as they are; else the training images, augmented as in epoch
            `view` of a run.
        rows: of the study table, without `view`: only these.

    Raises:
        InputError: the images of the first batch came out wrong, see `firstbatch`.
    """
    home = next(backbone.parameters()).device
    device = device or home
    backbone.eval()
    backbone.to(device)
    features = torch.empty(0)
    told = "features" if view is None else f"features, view {view + 1}"
    loader = _loader(data, view, rows)
    for batch in show_progress(loader, f"{told}, batches", len(loader)):
        image = batch["image"].to(device)
        if not len(features) and isinstance(backbone, Backbone):
            look_at(image, backbone)
        f = backbone(image).float().cpu()
        if not len(features):
            features = torch.full((len(data.table), f.shape[1]), float("nan"))
        features[batch["index"]] = f
    backbone.to(home)
    return features


def _loader(data: XrayDataModule, view: int | None, rows: Sequence[int] | None) -> DataLoader:
    if view is not None:
        draws = [(i, view, 0) for i in range(len(data.target("train")))]
        return data.drawn_dataloader("train", draws, augmented=True)
    draws = [(i, 0, 0) for i in (rows if rows is not None else range(len(data.table)))]
    return data.drawn_dataloader("all", draws)


class CachedFeatures(nn.Module):
    """Stands in for the backbone where the batches hold features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class _FeatureDataset(XrayDataset):
    """Rows of the features `[1 + V, N, F]` in place of images."""

    features: Tensor
    augmented = False

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        position, epoch, repeat = draw
        row, views = int(self.index[position]), len(self.features) - 1
        view = 1 + (epoch + repeat) % views if self.augmented and views else 0
        target = torch.from_numpy(self.target[position])
        return {"image": self.features[view, row], "target": target, "index": torch.tensor(row)}


class FeatureDataModule(XrayDataModule):
    """The batches of an `XrayDataModule`, each image replaced by its features.

    Order, splits and labels are those of the data module it is made from, so that a head sees what
    it would see behind the frozen backbone. With V augmented views an epoch e trains on view
    e modulo V: with as many views as epochs, and the order seed they were made with, that is the
    augmentation of an ordinary run.

    Args:
        data: where the images come from.
        features: `[N, F]` of `extract`, or `[1 + V, N, F]` with the augmented views behind.
    """

    def __init__(self, data: XrayDataModule, features: Tensor) -> None:
        super().__init__(
            data.table,
            data.labels,
            image_px=data.image_px,
            batch_size=data.batch_size,
            num_workers=0,
            sampler=data.sampler,
            seed=data.seed,
            augmentation=data.augmentation,
        )
        self.features = features if features.ndim == 3 else features[None]

    def _dataset(self, split: str, augmentation: Augmentation | None = None) -> XrayDataset:
        rows: pd.DataFrame = self._rows(split)
        index = rows.index.to_numpy(np.int64)
        dataset = _FeatureDataset(
            rows["path"].tolist(), self.target(split), index, self.image_px, None, self.seed
        )
        dataset.features, dataset.augmented = self.features, augmentation is not None
        return dataset
