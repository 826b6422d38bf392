"""Which images come when: an epoch's draws, and every image once where it is scored."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

from fluoroscope.errors import InputError

Draw = tuple[int, int, int]  # position in the split, epoch, how often drawn before in the epoch


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
        order, repeat = self._order()
        used = self.batches * self.world_size * self.batch_size
        shape = (self.batches, self.world_size, self.batch_size)
        done = self.first[1] if self.epoch == self.first[0] else 0
        mine = np.arange(used).reshape(shape)[done:, self.rank].ravel()
        return _draws(order[mine], self.epoch, repeat[mine])

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of all processes in their order, and how often each came before, `[N]`."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            return rng.permutation(self.size), np.zeros(self.size, np.int64)
        order = rng.choice(self.size, self.size, p=self.weights / self.weights.sum())
        return order, pd.Series(order).groupby(order).cumcount().to_numpy()


def _draws(positions: np.ndarray, epoch: int, repeats: np.ndarray) -> Iterator[Draw]:
    """One after the other: a list of them all would hold millions of Python objects."""
    for position, repeat in zip(positions, repeats, strict=True):
        yield int(position), epoch, int(repeat)


class ShardBatches:
    """Evaluation batches of one process: every image once, equally many batches on every process.

    Equal counts keep the processes in step (DDP broadcasts buffers at every forward pass) without
    the duplicates by which `DistributedSampler` evens out a split.

    >>> list(ShardBatches(7, batch_size=2, rank=1, world_size=2))
    [[(1, 0, 0), (3, 0, 0)], [(5, 0, 0)]]

    Raises:
        InputError: fewer images than processes.
    """

    def __init__(self, size: int, batch_size: int, rank: int, world_size: int) -> None:
        if size < world_size:
            raise InputError(f"{size} images cannot be scored by {world_size} processes")
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
