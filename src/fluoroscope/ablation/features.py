"""Features computed once: of a frozen backbone nothing else ever reaches the head."""

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor, nn

from fluoroscope.data.datamodule import Draw, XrayDataModule, XrayDataset
from fluoroscope.data.transforms import Augmentation


@torch.no_grad()
def extract(
    backbone: nn.Module, data: XrayDataModule, device: torch.device | None = None
) -> Tensor:
    """Features float32 `[N, F]` of all images of the study table, in its order, unaugmented.

    Args:
        device: where they are computed, None for where the backbone is; it comes back from there.
    """
    home = next(backbone.parameters()).device
    device = device or home
    backbone.eval()
    backbone.to(device)
    features = torch.empty(0)
    for batch in track(data.evaluation_dataloader("all"), "features", transient=True):
        f = backbone(batch["image"].to(device)).float().cpu()
        if not len(features):
            features = torch.full((len(data.table), f.shape[1]), float("nan"))
        features[batch["index"]] = f
    backbone.to(home)
    return features


class CachedFeatures(nn.Module):
    """Stands in for the backbone where the batches hold features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class _FeatureDataset(XrayDataset):
    """Rows `[F]` of the features in place of images."""

    features: Tensor

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        position = draw[0]
        row = int(self.index[position])
        target = torch.from_numpy(self.target[position])
        return {"image": self.features[row], "target": target, "index": torch.tensor(row)}


class FeatureDataModule(XrayDataModule):
    """The batches of an `XrayDataModule`, each image replaced by its features.

    Order, splits and labels are those of the data module it is made from, so that a head sees what
    it would see behind the frozen backbone, without augmentation.

    Args:
        data: where the images come from.
        features: `[N, F]`, of `extract`.
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
        )
        self.features = features

    def _dataset(self, split: str, augmentation: Augmentation | None = None) -> XrayDataset:
        rows: pd.DataFrame = self._rows(split)
        index = rows.index.to_numpy(np.int64)
        dataset = _FeatureDataset(
            rows["path"].tolist(), self.target(split), index, self.image_px, None, self.seed
        )
        dataset.features = self.features
        return dataset
