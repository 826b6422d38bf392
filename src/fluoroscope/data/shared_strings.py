"""Many strings in little memory, the same memory in every process."""

from collections.abc import Sequence
from os.path import commonprefix

import numpy as np
import torch

CODEC = ("utf-8", "surrogateescape")  # file names may be no text at all


class Texts:
    """Strings as one tensor of UTF-8 bytes and one of the places where each ends.

    A list would cost a Python object a string, each of which a worker's touch copies. Tensors are
    shared with forked workers as they are, and with spawned ones when they are sent to them.

    >>> texts = Texts(["films/a.png", "films/ü/b.png"])
    >>> len(texts), texts[1]
    (2, 'films/ü/b.png')
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # The first and the last by alphabet share what all of them share.
        self._start = commonprefix([min(texts), max(texts)]) if texts else ""  # noqa: RUF071
        data, common = bytearray(), len(self._start)

        def end(text: str) -> int:
            data.extend(text[common:].encode(*CODEC))
            return len(data)

        self._ends = torch.from_numpy(np.fromiter(map(end, texts), np.int64, len(texts)))
        data.append(0)  # else there might be nothing to take
        self._bytes = torch.frombuffer(data, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: int) -> str:
        ends = self._ends.numpy()
        start = int(ends[position - 1]) if position else 0
        rest = self._bytes.numpy()[start : int(ends[position])].tobytes()
        return self._start + rest.decode(*CODEC)
