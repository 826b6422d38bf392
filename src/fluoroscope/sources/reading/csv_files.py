"""Read CSV and Parquet files as columns of text; their format is recognised by their content."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast
from zipfile import BadZipFile, ZipFile

from fluoroscope.errors import InputError
from fluoroscope.sources.reading.inflated import Inflated, read_batches

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
HEADER_BYTES = 1 << 20
ROW_BYTES = 1 << 22
MAX_COLUMNS = 10_000
UNDECODED = "\ufffd"
GZIP, ZIP, PARQUET, OLD_EXCEL = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"
EXCEL = "it is an Excel workbook; save it as CSV UTF-8"
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Layout(NamedTuple):
    """The format of a CSV, and the names of its columns."""

    names: list[str]
    separator: str
    encoding: str


def read_csv(file: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns as text; an empty cell is "".

    Reads Parquet files, and CSV files in UTF-8 or UTF-16 that are separated by commas, semicolons
    or tabs, plain or packed by gzip or zip.

    Args:
        columns: the wanted columns; unknown ones are ignored. None means all that have a name.

    Raises:
        InputError: for a file that cannot be opened, decoded or parsed, a wanted column that occurs
            twice, a header with an ambiguous separator, and a packed file that inflates beyond a
            bound.
    """
    return _read(file, columns, rows=True)


def read_header(file: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All columns that have a name, without rows; arguments and errors as in `read_csv`."""
    return _read(file, columns, rows=False)


def read_text(file: Path) -> str:
    """The content of a text file, in the encodings of `read_csv`.

    Raises:
        InputError: for a file that cannot be decoded.
    """
    content = file.read_bytes()
    try:
        return content.decode(_encoding(content))
    except UnicodeError as error:
        raise InputError(f"cannot read {file}: it is not UTF-8; save it as UTF-8") from error


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith(UTF_16_MARKS) else "utf-8-sig"


def _read(file: Path, columns: Sequence[str] | None, rows: bool) -> pd.DataFrame:
    import pyarrow as pa

    try:
        with file.open("rb") as stream:
            if stream.read(4) == PARQUET:
                return _from_parquet(file, columns, rows)
            stream.seek(0)
            return _from_csv(_unpacked(stream), columns, rows)
    except UnicodeError as error:
        raise InputError(f"cannot read {file}: it is not UTF-8; save it as CSV UTF-8") from error
    except pa.ArrowException as error:
        raise InputError(f"cannot read {file}: {_reason(str(error))}") from error
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read {file}: {reason}") from error


def _unpacked(stream: BinaryIO) -> BinaryIO:
    start = stream.read(4)
    stream.seek(0)
    if start.startswith(GZIP):
        return cast(BinaryIO, Inflated(cast(BinaryIO, gzip.open(stream))))
    if start == OLD_EXCEL:
        raise ValueError(EXCEL)
    if start != ZIP:
        return stream
    packed = ZipFile(stream)
    names = [name for name in packed.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise ValueError(EXCEL)
    if len(names) != 1:
        raise ValueError(f"it is a zip of {len(names)} files; unpack it and choose one")
    return cast(BinaryIO, Inflated(packed.open(names[0])))


def _from_csv(stream: BinaryIO, columns: Sequence[str] | None, rows: bool) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.csv

    layout = _layout(stream, columns)
    wanted = _wanted(layout.names, columns)
    if not (rows and wanted):
        return pd.DataFrame(columns=[name for name in layout.names if name], dtype=str)
    stream.seek(0)
    table = pyarrow.csv.read_csv(
        stream,
        # With one thread, an error message contains the number of the row.
        pyarrow.csv.ReadOptions(use_threads=False, block_size=ROW_BYTES, encoding=layout.encoding),
        pyarrow.csv.ParseOptions(delimiter=layout.separator, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted
        ),
    )
    return _frame(table)


def _from_parquet(file: Path, columns: Sequence[str] | None, rows: bool) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        wanted = _wanted(names, columns)
        if not rows:
            return pd.DataFrame(columns=names, dtype=str)
        schema = pa.schema([(name, pa.string()) for name in wanted])
        return _frame(pa.Table.from_batches(read_batches(parquet, schema, _text), schema))


def _text(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return column.cast(pa.string()).fill_null("")


def _frame(table: pa.Table) -> pd.DataFrame:
    import pyarrow.compute as pc

    for name in table.column_names:
        if pc.any(pc.match_substring(table[name], "\0")).as_py():
            raise ValueError(f"column {name!r} holds NUL characters; save it as CSV UTF-8")
    return table.to_pandas()


def _layout(stream: BinaryIO, columns: Sequence[str] | None) -> Layout:
    """The layout by the first row only: the other rows may hold any text."""
    head = stream.read(HEADER_BYTES)
    encoding = _encoding(head)
    # Bytes that cannot be decoded matter only in the first row: in other rows they may lie in
    # columns that are not wanted.
    text = head.decode(encoding, "replace").lstrip("\r\n")
    first = cast(re.Match[str], re.match(r'(?:"[^"]*"|[^"\r\n])*', text)).group()
    if not first.strip():
        raise ValueError("it is empty" if not text else "its first row names no column")
    if "\0" in first:
        raise ValueError("it holds NUL characters, so it is not text; save it as CSV UTF-8")
    if UNDECODED in first:
        raise UnicodeError
    if text[len(first) :].startswith('"'):
        raise ValueError("a quotation mark in its first row is not closed")
    if len(first) == len(text) and stream.read(1):
        raise ValueError(f"its first row is longer than {HEADER_BYTES:,} bytes; is it a table?")
    separator = _separator(first, columns)
    return Layout(_cells(first, separator), separator, encoding.removesuffix("-sig"))


def _separator(header: str, columns: Sequence[str] | None) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    used = [separator for separator in SEPARATORS if separator in bare]
    if len(used) > 1 and columns:
        fitting = [s for s in used if set(columns) <= set(_cells(header, s))]
        used = fitting if len(fitting) == 1 else used
    if len(used) > 1:
        raise ValueError(
            f"its first row holds {' and '.join(SEPARATORS[s] for s in used)}; put the names that "
            "contain one of them in quotation marks"
        )
    return used[0] if used else ","


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(line, newline=""), delimiter=separator))


def _wanted(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it has {len(names):,} columns; at most {MAX_COLUMNS:,} are supported")
    wanted = [name for name in dict.fromkeys(names) if name and (not columns or name in columns)]
    counts = Counter(names)
    if repeated := [name for name in wanted if counts[name] > 1]:
        raise ValueError(f"{counts[repeated[0]]} columns are called {repeated[0]!r}; rename one")
    return wanted


def _reason(message: str) -> str:
    """A sentence without the cells of the row, which may name a patient."""
    if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        row, expected, got = found.groups()
        return (
            f"row {row} has {got} cells, but the header has {expected}; "
            "look for a missing quotation mark or separator"
        )
    if "UTF8" in message:
        row = re.search(r"Row #(\d+)", message)
        return f"{f'row {row[1]}' if row else 'it'} is not UTF-8; save it as CSV UTF-8"
    if "straddl" in message:
        return f"a row is longer than {ROW_BYTES:,} bytes; look for a missing quotation mark"
    return " ".join(message.split())
