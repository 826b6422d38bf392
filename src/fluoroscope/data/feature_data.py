"""Batches of features instead of images, for a head on a frozen backbone."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fluoroscope.data.datamodule import XrayDataModule, XrayDataset
from fluoroscope.data.samplers import Draw
from fluoroscope.data.transforms import Augmentation


class _FeatureDataset(XrayDataset):
    """Items hold features from `[1 + V, N, F]` instead of images."""

    features: Tensor
    augmented = False

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        position, epoch, repeat = draw
        row, views = int(self.index[position]), len(self.features) - 1
        view = 1 + (epoch + repeat) % views if self.augmented and views else 0
        target = torch.from_numpy(self.target[position])
        return {"image": self.features[view, row], "target": target, "index": torch.tensor(row)}


class FeatureDataModule(XrayDataModule):
    """The batches of an `XrayDataModule`, each image replaced by its features, float32 `[B, F]`.

    Order, splits and labels are those of `data`, so that the head gets the same inputs as on the
    frozen backbone. With V augmented views, epoch e trains on view e modulo V. With as many views
    as epochs and the same order seed, the augmentation equals that of a run with live features.

    Args:
        data: the datamodule of the images.
        features: of all images `[N, F]`, or with V augmented views `[1 + V, N, F]`.
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
            same_draws=data.same_draws,
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
