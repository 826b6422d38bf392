"""The bootstrap over patients: all images of a drawn patient count as often as the patient.

All scores of an evaluation share the same draws, so that a mean over labels has an interval too.
Arrays: N images, G patients, B draws, S quantities.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fluoroscope.statistics import Floats

DRAWS = 2000
BLOCK = 64  # draws at a time: 25,000 images in float32 then stay in the cache
Ints = NDArray[np.int64]


class Patients:
    """The patients of N images, and how often each is drawn.

    Attributes:
        number: [N], of the image's patient, from 0 to G - 1.
        count: G.
        drawn: uint8 [B, G].
    """

    def __init__(self, group: ArrayLike, draws: int = DRAWS, seed: int = 0) -> None:
        self.number: Ints = pd.factorize(np.asarray(group))[0].astype(np.int64)
        self.count = int(self.number.max()) + 1 if len(self.number) else 0
        rng = np.random.default_rng(seed)
        self.drawn = np.empty((draws, self.count), np.uint8)
        for row in self.drawn:
            row[:] = np.bincount(rng.integers(0, self.count, self.count), minlength=self.count)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Some draws at a time, [b, G]; float32 counts exactly up to 16 million images."""
        for start in range(0, len(self.drawn), BLOCK):
            yield self.drawn[start : start + BLOCK].astype(np.float32)

    def sums(self, quantity: ArrayLike) -> Floats:
        """The sum over the patients of each draw, [B, S], of quantities of the patients [G, S]."""
        columns = np.asarray(quantity, np.float32)
        return np.concatenate([block @ columns for block in self.blocks()]).astype(float)

    def per_patient(self, rows: NDArray[np.bool_], values: ArrayLike) -> Floats:
        """Sums of image values over each patient, [G, 1].

        Args:
            rows: [N], the images that count, n of them.
            values: [n].
        """
        return np.bincount(self.number[rows], values, self.count).astype(float)[:, None]

    def cells(self, rows: NDArray[np.bool_], cell: Ints, count: int, weight: Floats) -> Floats:
        """Sums of weights by patient and cell, [G, count].

        Args:
            rows: [N], the images that count, n of them.
            cell: [n], from 0 to count - 1.
            weight: [n].
        """
        place = self.number[rows] * count + cell
        sums = np.bincount(place, weight, self.count * count).astype(float)
        return sums.reshape(self.count, count)
