"""The order of images: an epoch's draws for training, and every image once for scoring."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

from fluoroscope.errors import InputError

Draw = tuple[int, int, int]  # position in the split, epoch, number of earlier draws in the epoch


class TrainSampler(Sampler[Draw]):
    """The draws of one process in an epoch, in whole batches.

    The batches i of all processes together are batch i of a single process with batches
    `world_size` times as large. The incomplete last batch is dropped; its images change each epoch.

    Args:
        weights: weights `[N]` of draws with replacement; None shuffles.
        known: number of known labels of each image, `[N]`; None is one.
        same: whether every epoch has the draws of the first one.

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
        known: np.ndarray | None = None,
        same: bool = False,
    ) -> None:
        self.size, self.batch_size, self.seed, self.weights = size, batch_size, seed, weights
        self.known = np.ones(size, np.int64) if known is None else known
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.first, self.same = (0, 0), same
        self.batches = size // (batch_size * world_size)
        if self.batches == 0:
            raise InputError(
                f"data.batch_size={batch_size} times the number of processes ({world_size}) is "
                f"larger than the training split ({size} images); lower data.batch_size"
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def start_at(self, epoch: int, batch: int) -> None:
        """Start the next epoch, which is `epoch`, at `batch`; earlier batches are left out."""
        self.epoch, self.first = epoch, (epoch, batch)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:
        order, repeat = self._order()
        used = self.batches * self.world_size * self.batch_size
        shape = (self.batches, self.world_size, self.batch_size)
        done = self.first[1] if self.epoch == self.first[0] else 0
        mine = np.arange(used).reshape(shape)[done:, self.rank].ravel()
        return _draws(order[mine], self._drawn(), repeat[mine])

    def known_labels(self, accumulated: int, batches: int) -> tuple[np.ndarray, np.ndarray]:
        """Number of known labels that all processes see in each batch, and in its optimizer step.

        Args:
            accumulated: batches of an optimizer step; the last step of an epoch may have fewer.
            batches: those of the epoch, B; at most `self.batches`.

        Returns:
            Two arrays `[B]`; batches of one step share its number.
        """
        order = self._order()[0][: batches * self.world_size * self.batch_size]
        in_batch = self.known[order].reshape(batches, -1).sum(1)
        steps = np.arange(batches) // accumulated
        return in_batch, np.bincount(steps, in_batch)[steps]

    def _drawn(self) -> int:
        return 0 if self.same else self.epoch

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions for all processes in order, and the number of earlier draws of each, `[N]`."""
        rng = np.random.default_rng((self.seed, self._drawn()))
        if self.weights is None:
            return rng.permutation(self.size), np.zeros(self.size, np.int64)
        order = rng.choice(self.size, self.size, p=self.weights / self.weights.sum())
        return order, pd.Series(order).groupby(order).cumcount().to_numpy()


def _draws(positions: np.ndarray, epoch: int, repeats: np.ndarray) -> Iterator[Draw]:
    """Yield one draw at a time: a list would hold millions of Python objects."""
    for position, repeat in zip(positions, repeats, strict=True):
        yield int(position), epoch, int(repeat)


class ShardBatches:
    """Evaluation batches of one process: every image once, as many batches on every process.

    Equal counts keep the processes in step (DDP broadcasts buffers at every forward pass), without
    the duplicates that `DistributedSampler` adds to a split.

    >>> list(ShardBatches(7, batch_size=2, rank=1, world_size=2))
    [[(1, 0, 0), (3, 0, 0)], [(5, 0, 0)]]

    Raises:
        InputError: fewer images than processes.
    """

    def __init__(self, size: int, batch_size: int, rank: int, world_size: int) -> None:
        if size < world_size:
            raise InputError(
                f"too few images to score ({size}) for {world_size} processes; lower "
                "trainer.devices"
            )
        self.size, self.rank, self.world_size = size, rank, world_size
        largest, smallest = -(-size // world_size), size // world_size
        self.batches = min(-(-largest // batch_size), smallest)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Draw]]:
        mine = np.arange(self.rank, self.size, self.world_size)
        for part in np.array_split(mine, self.batches):
            yield [(int(i), 0, 0) for i in part]


def balanced_weights(target: np.ndarray) -> np.ndarray:
    """Weights `[N]` with which rare classes are drawn more often.

    A label with N known images gives each image of a class the weight N / (2 n), if n images are in
    the class: with a single label, both classes are drawn equally often. An image's weight is the
    mean over its known labels. The mean limits the weight of rare combinations of labels, which
    would fill the epoch if they were drawn by their inverse frequency. A label with one class, and
    an image without known labels, have weight 1, the mean weight of every label.

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
