"""Batches from a study table: seeded, divided among processes, each image scored once."""

from collections.abc import Sequence
from os.path import commonprefix

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fluoroscope.choices import SAMPLERS
from fluoroscope.data.loader import Loader
from fluoroscope.data.prefetch import DevicePrefetch, loading
from fluoroscope.data.samplers import Draw, ShardBatches, TrainSampler, balanced_weights
from fluoroscope.data.transforms import Augmentation
from fluoroscope.errors import check_choice
from fluoroscope.files.images import fit_square, read_image

CODEC = ("utf-8", "surrogateescape")  # a file name may be invalid UTF-8


class XrayDataset(Dataset):
    """Images of a split as `{"image": uint8 [1, S, S], "target": float32 [K], "index": int64}`.

    Items are indexed by `Draw`, so that augmentation depends only on the run's seed, the epoch and
    the image, not on the worker that loads it.

    Args:
        paths: of the split's images.
        target: float32 `[N, K]`, NaN where unknown.
        index: the images' rows in the study table.
        augmentation: None leaves the images unchanged.
    """

    def __init__(
        self,
        paths: Sequence[str],
        target: np.ndarray,
        index: np.ndarray,
        image_px: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        # Tensors are shared by all workers, forked or spawned.
        self.paths = Texts(paths)
        self._target, self._index = torch.from_numpy(target), torch.tensor(index)
        self.image_px, self.augmentation, self.seed = image_px, augmentation, seed

    @property
    def target(self) -> np.ndarray:
        return self._target.numpy()

    @property
    def index(self) -> np.ndarray:
        return self._index.numpy()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        position, epoch, repeat = draw
        image = fit_square(read_image(self.paths[position]), self.image_px)
        index = int(self.index[position])
        if self.augmentation is not None:
            image = self.augmentation(image, (self.seed, epoch, index, repeat))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image))[None],
            "target": torch.from_numpy(self.target[position]),
            "index": torch.tensor(index),
        }


class XrayDataModule(pl.LightningDataModule):
    """Data loaders for a study table with splits.

    Args:
        table: the study table; its row numbers become the batches' `index`.
        labels: K label columns.
        image_px: S, side of the square input of the network.
        batch_size: images per process and step.
        num_workers: number of loader processes; None means one per core available to this process,
            at most 8.
        augmentation: for training only.
        sampler: `shuffle` or `balanced` (draws rare classes more often, see `balanced_weights`).
        same_draws: whether every epoch has the batches of the first one, with their augmentation.

    Raises:
        InputError: the training split does not fill a batch, see `TrainSampler`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        labels: Sequence[str],
        image_px: int = 224,
        batch_size: int = 32,
        num_workers: int | None = None,
        augmentation: Augmentation | None = None,
        sampler: str = "shuffle",
        seed: int = 0,
        same_draws: bool = False,
    ) -> None:
        super().__init__()
        check_choice("data.sampler", sampler, SAMPLERS)
        self.table, self.labels = table.reset_index(drop=True), list(labels)
        self.image_px, self.batch_size = image_px, batch_size
        self.num_workers = num_workers
        self.augmentation, self.sampler, self.seed = augmentation, sampler, seed
        self.same_draws = same_draws
        self.first = (0, 0)  # epoch and batch at which a resumed run continues
        self.tested = "test"  # the split that `Trainer.test` scores

    def target(self, split: str) -> np.ndarray:
        """float32 `[N, K]` of a split."""
        rows = self._is_in(split)
        target = np.empty((int(rows.sum()), len(self.labels)), np.float32)
        for k, label in enumerate(self.labels):  # all columns at once would be copied in float64
            target[:, k] = self.table[label].to_numpy()[rows]
        return target

    def _rows(self, split: str) -> pd.DataFrame:
        return self.table[self._is_in(split)]

    def _is_in(self, split: str) -> np.ndarray:
        if split == "all":
            return np.ones(len(self.table), bool)
        return (self.table["split"] == split).to_numpy(bool)

    def _dataset(self, split: str, augmentation: Augmentation | None = None) -> XrayDataset:
        rows = self._is_in(split)
        paths, index = self.table["path"][rows].tolist(), np.flatnonzero(rows)
        return XrayDataset(paths, self.target(split), index, self.image_px, augmentation, self.seed)

    def train_sampler(self, rank: int = 0, world_size: int = 1) -> TrainSampler:
        size, weights = int(self._is_in("train").sum()), None
        if self.sampler == "balanced":
            weights = balanced_weights(self.target("train"))
        known = (~np.isnan(self.target("train"))).sum(1)
        place = rank, world_size, known, self.same_draws
        return TrainSampler(size, self.batch_size, self.seed, weights, *place)

    def train_dataloader(self) -> DataLoader:
        sampler = self.train_sampler(*self._place())
        # Workers request the first batches of a resumed run before Lightning sets the epoch.
        sampler.start_at(*self.first)
        loader = Loader(
            self._dataset("train", self.augmentation),
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=True,
            **self._loading(),
        )
        return self._to_device(loader)

    def evaluation_dataloader(self, split: str) -> DataLoader:
        """Every image of a split (`train`, `val`, `test` or `all`) once, without augmentation."""
        dataset = self._dataset(split)
        batches = ShardBatches(len(dataset), self.batch_size, *self._place())
        return self._to_device(Loader(dataset, batch_sampler=batches, **self._loading()))

    def drawn_dataloader(
        self, split: str, draws: Sequence[Draw], augmented: bool = False
    ) -> DataLoader:
        """The given draws of a split, in this order, in batches, on one process."""
        dataset = self._dataset(split, self.augmentation if augmented else None)
        return Loader(dataset, batch_size=self.batch_size, sampler=list(draws), **self._loading())

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader(self.tested)

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loading(self) -> dict:
        processes = 1 if self.trainer is None else self.trainer.num_devices
        return loading(self.num_workers, processes)

    def _to_device(self, loader: DataLoader) -> DataLoader:
        """On a GPU, copy each batch ahead of the step that needs it."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type != "cuda":
            return loader
        return DevicePrefetch(loader, device)  # type: ignore[return-value]


class Texts:
    """Strings as one tensor of UTF-8 bytes and one tensor of their ends.

    A list would need one Python object per string, which every worker that reads it would copy.
    Tensors are shared with forked and with spawned workers.

    >>> texts = Texts(["films/a.png", "films/ü/b.png"])
    >>> len(texts), texts[1]
    (2, 'films/ü/b.png')
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # The first and the last in alphabetical order have the common prefix of all.
        self._start = commonprefix([min(texts), max(texts)]) if texts else ""  # noqa: RUF071
        data, common = bytearray(), len(self._start)

        def end(text: str) -> int:
            data.extend(text[common:].encode(*CODEC))
            return len(data)

        self._ends = torch.from_numpy(np.fromiter(map(end, texts), np.int64, len(texts)))
        data.append(0)  # `frombuffer` needs at least one byte
        self._bytes = torch.frombuffer(data, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: int) -> str:
        ends = self._ends.numpy()
        start = int(ends[position - 1]) if position else 0
        rest = self._bytes.numpy()[start : int(ends[position])].tobytes()
        return self._start + rest.decode(*CODEC)
