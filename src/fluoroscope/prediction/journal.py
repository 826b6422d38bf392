"""Rows of a table, kept as they are computed, so that an interrupted job continues."""

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fluoroscope.atomic_write import write_atomically

BLOCK_BYTES = 1 << 22  # of a batch of Parquet rows; a row is shorter
CODEC = "utf-8"


class Journal:
    """A hidden file beside `out` that becomes `out` at the end.

    Its first line names the job, and a CSV follows. Rows of another job are dropped, and so is the
    last row if it is torn.

    Args:
        out: the table, `.csv` or `.parquet`.
        job: digest of all that the rows depend on.
        columns: names of the columns, and their types in Parquet, in pyarrow's words.
        batch: rows are kept in multiples of it, so that a job that continues computes the same
            batches as one that was not interrupted.

    Attributes:
        done: number of rows.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, out: Path, job: str, columns: Mapping[str, str], batch: int) -> None:
        self.out, self.columns = out, dict(columns)
        self.path = out.with_name(f".{out.name}.rows")
        self._start = f"# {job}\n".encode()
        self.done, end = _whole_rows(self.path, self._start, list(columns), batch)
        self._file = self.path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(self._start)
            self._add([list(columns)])

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows; they survive a kill of this process."""
        self._add(rows)
        self.done += len(rows)

    def _add(self, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode(CODEC))
        self._file.flush()

    def records(self) -> Iterator[list[str]]:
        """All rows as text, in the order of `columns`."""
        with self.path.open(encoding=CODEC, newline="") as file:
            file.readline()
            records = csv.reader(file)
            next(records)
            yield from records

    def finish(self) -> None:
        """Write `out` and remove the rows."""
        with write_atomically(self.out) as part, self.path.open("rb") as rows:
            rows.seek(len(self._start))
            if self.out.suffix == ".parquet":
                _write_parquet(rows, part, self.columns)
            else:
                with part.open("wb") as table:
                    shutil.copyfileobj(rows, table)
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Keep the rows for another process."""
        self._file.close()


def _whole_rows(path: Path, start: bytes, columns: list[str], batch: int) -> tuple[int, int]:
    """The number of rows of the same job in whole batches, and the byte at which they end.

    Both are 0 for rows of another job.
    """
    if not path.is_file():
        return 0, 0
    rows = kept = end = at = 0
    is_whole = True
    with path.open("rb") as file:
        if file.readline() != start:
            return 0, 0

        def lines() -> Iterator[str]:
            nonlocal at, is_whole
            for line in file:
                at, is_whole = at + len(line), line.endswith(b"\n")
                yield line.decode(CODEC, "replace")

        with suppress(csv.Error):  # the file ends within quotation marks
            for record in csv.reader(lines(), strict=True):
                if not is_whole or len(record) != len(columns) or (not end and record != columns):
                    break
                rows += bool(end)
                if rows % batch == 0:
                    kept, end = rows, at
    return kept, len(start) + end if end else 0


def _write_parquet(rows: BinaryIO, file: Path, columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    reader = pyarrow.csv.open_csv(
        rows,
        pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
        pyarrow.csv.ConvertOptions(column_types=schema),
    )
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
