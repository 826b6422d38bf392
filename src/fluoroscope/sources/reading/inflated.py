"""A bound on what a compressed table inflates to: a file of a megabyte can hold gigabytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from fluoroscope.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


MOST = "FLUOROSCOPE_TABLE_MIB"  # environment variable
DEFAULT_MIB = 1024  # ten times the largest table of a public collection, PadChest's
CELL_BYTES = 8  # at least, of a cell in memory
BATCH_ROWS = 1024


class Inflated(io.BufferedIOBase):
    """A packed stream that stops with an error when it inflates to more than the bound.

    Raises:
        ValueError: when a byte beyond the bound is read.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        self.packed, self.most = packed, _most_bytes()

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, or all bytes for a negative size."""
        data = self.packed.read(self.most + 1 if size is None or size < 0 else size)
        if self.packed.tell() > self.most:
            raise _too_large(self.most)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.packed.seek(offset, whence)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def read_batches(
    parquet: pq.ParquetFile, schema: pa.Schema, convert: Callable[[pa.Array], pa.Array]
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file in the columns of a schema, each column converted to its type.

    Raises:
        ValueError: when they take more memory than the bound.
    """
    import pyarrow as pa

    most, size = _most_bytes(), 0
    if parquet.metadata.num_rows * len(schema.names) * CELL_BYTES > most:
        raise _too_large(most)
    for batch in parquet.iter_batches(BATCH_ROWS, columns=schema.names):
        columns = [convert(batch[name]) for name in schema.names]
        size += sum(column.nbytes for column in columns)
        if size > most:
            raise _too_large(most)
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _most_bytes() -> int:
    """The bound.

    Raises:
        InputError: the environment variable is not a whole number above 0.
    """
    text = os.environ.get(MOST, str(DEFAULT_MIB))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{MOST} must be a whole number of MiB above 0; got {text!r}")
    return int(text) * 2**20


def _too_large(most: int) -> ValueError:
    mib = most // 2**20
    return ValueError(
        f"it inflates to more than {mib:,} MiB; if it is a table of this size, set the environment "
        f"variable {MOST} to more than {mib}"
    )
