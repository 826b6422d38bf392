"""Study table to batches: seeded, sharded, each image once where it is scored."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fluoroscope.data.images import fit_square, read_image
from fluoroscope.data.loader import Loader
from fluoroscope.data.prefetch import DevicePrefetch, loading
from fluoroscope.data.transforms import Augmentation
from fluoroscope.errors import InputError, check_choice

Draw = tuple[int, int, int]  # position in the split, epoch, how often drawn before in the epoch


class XrayDataset(Dataset):
    """Images of a split as `{"image": uint8 [1, S, S], "target": float32 [K], "index": int64}`.

    Items are asked for by `Draw`, so that an augmentation depends on the run's seed, the epoch and
    the image alone, not on which worker serves it.

    Args:
        paths: of the split's images.
        target: float32 `[N, K]`, NaN where unknown.
        index: the images' rows in the study table.
        augmentation: None leaves the images as they are.
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
        # Arrays, not Python objects: a worker's touch would copy each object's memory page.
        self.paths = np.array(paths, dtype=np.str_)
        self.target, self.index = target, index
        self.image_px, self.augmentation, self.seed = image_px, augmentation, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        position, epoch, repeat = draw
        image = fit_square(read_image(str(self.paths[position])), self.image_px)
        index = int(self.index[position])
        if self.augmentation is not None:
            image = self.augmentation(image, (self.seed, epoch, index, repeat))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image))[None],
            "target": torch.from_numpy(self.target[position]),
            "index": torch.tensor(index),
        }


class TrainSampler(Sampler[Draw]):
    """An epoch's draws of one process: whole batches, of which every process gets its share.

    The concatenation over processes of batch i is batch i of a single process with batches
    `world_size` times as large. The incomplete last batch is dropped, others each epoch.

    Args:
        weights: draw with replacement by these, `[N]`; None shuffles.

    Raises:
        InputError: the split does not fill one batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed, self.weights = size, batch_size, seed, weights
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.first = (0, 0)
        self.batches = size // (batch_size * world_size)
        if self.batches == 0:
            raise InputError(
                f"data.batch_size={batch_size} on {world_size} process(es) is larger than the "
                f"training split ({size} images); choose a smaller one"
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def start_at(self, epoch: int, batch: int) -> None:
        """Of this epoch, the next one to be asked for, leave out the batches before this one."""
        self.epoch, self.first = epoch, (epoch, batch)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            order = rng.permutation(self.size)
        else:
            order = rng.choice(self.size, self.size, p=self.weights / self.weights.sum())
        repeat = pd.Series(order).groupby(order).cumcount().to_numpy()
        used = self.batches * self.world_size * self.batch_size
        shape = (self.batches, self.world_size, self.batch_size)
        done = self.first[1] if self.epoch == self.first[0] else 0
        mine = np.arange(used).reshape(shape)[done:, self.rank].ravel()
        return iter([(int(order[i]), self.epoch, int(repeat[i])) for i in mine])


def shard_batches(size: int, batch_size: int, rank: int, world_size: int) -> list[list[Draw]]:
    """Evaluation batches of one process: every image once, equally many batches on every process.

    Equal counts keep the processes in step (DDP broadcasts buffers at every forward pass) without
    the duplicates by which `DistributedSampler` evens out a split.

    Raises:
        InputError: fewer images than processes.
    """
    if size < world_size:
        raise InputError(f"{size} images cannot be scored by {world_size} processes")
    mine = np.arange(rank, size, world_size)
    largest, smallest = -(-size // world_size), size // world_size
    batches = min(-(-largest // batch_size), smallest)
    return [[(int(i), 0, 0) for i in part] for part in np.array_split(mine, batches)]


def balanced_weights(target: np.ndarray) -> np.ndarray:
    """Weights `[N]` under which rare classes are drawn more often: the mean over the known labels.

    A label gives an image of a class with n of its N known images N / (2 n), so that one label
    alone draws both classes equally often. The mean bounds what a rare combination of labels gets:
    under its inverse frequency the images that are alone in theirs fill the epoch. A label with one
    class, and an image without known labels, count 1, the mean of every label's weights.

    Args:
        target: `[N, K]` of 0 and 1, NaN where unknown.

    Source: per label, the "balanced" heuristic of scikit-learn's `compute_class_weight`.
    """
    is_class = np.stack([target == 0, target == 1])  # [2, N, K]
    count = is_class.sum(1)  # [2, K]
    classes = (count > 0).sum(0)  # [K]
    class_weight = count.sum(0) / np.maximum(classes * count, 1)  # [2, K]
    total = (is_class * class_weight[:, None]).sum((0, 2))  # [N]
    known = is_class.sum((0, 2))
    return np.where(known > 0, total / np.maximum(known, 1), 1.0)


class XrayDataModule(pl.LightningDataModule):
    """Loaders over a study table whose splits are assigned.

    Args:
        table: the study table; its row numbers become the batches' `index`.
        labels: K label columns.
        image_px: S, side of the square the network sees.
        batch_size: images per process and step.
        num_workers: loader processes; None takes one per core that this process has to itself,
            at most 8.
        augmentation: for training alone.
        sampler: `shuffle` or `balanced` (rare classes more often, see `balanced_weights`).

    Raises:
        InputError: a batch size that cannot train, see `TrainSampler`.
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
    ) -> None:
        super().__init__()
        check_choice("data.sampler", sampler, ("shuffle", "balanced"))
        self.table, self.labels = table.reset_index(drop=True), list(labels)
        self.image_px, self.batch_size = image_px, batch_size
        self.num_workers = num_workers
        self.augmentation, self.sampler, self.seed = augmentation, sampler, seed
        self.first = (0, 0)  # epoch and batch at which a resumed run goes on
        self.tested = "test"  # the split that `Trainer.test` scores

    def target(self, split: str) -> np.ndarray:
        """float32 `[N, K]` of a split."""
        return self._rows(split)[self.labels].to_numpy(np.float32, copy=True)

    def _rows(self, split: str) -> pd.DataFrame:
        return self.table if split == "all" else self.table[self.table["split"] == split]

    def _dataset(self, split: str, augmentation: Augmentation | None = None) -> XrayDataset:
        rows = self._rows(split)
        paths, index = rows["path"].tolist(), rows.index.to_numpy(np.int64)
        return XrayDataset(paths, self.target(split), index, self.image_px, augmentation, self.seed)

    def train_sampler(self, rank: int = 0, world_size: int = 1) -> TrainSampler:
        target = self.target("train")
        weights = balanced_weights(target) if self.sampler == "balanced" else None
        return TrainSampler(len(target), self.batch_size, self.seed, weights, rank, world_size)

    def train_dataloader(self) -> DataLoader:
        sampler = self.train_sampler(*self._place())
        # Workers ask for the first batches of a resumed run before Lightning tells the epoch.
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
        batches = shard_batches(len(dataset), self.batch_size, *self._place())
        return self._to_device(Loader(dataset, batch_sampler=batches, **self._loading()))

    def drawn_dataloader(
        self, split: str, draws: Sequence[Draw], augmented: bool = False
    ) -> DataLoader:
        """These draws of a split, in batches and in order, on one process."""
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
        """For a trainer on a GPU, ahead of the step that needs the batch."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type != "cuda":
            return loader
        return DevicePrefetch(loader, device)  # type: ignore[return-value]
