"""Tables that inflate to far more than their file."""

import bz2
import gzip
import io
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fluoroscope.errors import InputError
from fluoroscope.sources.reading.csv_files import read_csv, read_header
from fluoroscope.sources.reading.inflated import DEFAULT_MIB, MOST

ROW = b"a.png,p1,1\n"
HEADER = b"file,who,Edema\n"


def rows(mib):
    return HEADER + ROW * (mib * 2**20 // len(ROW))


def zipped(data, kind):
    packed = io.BytesIO()
    with ZipFile(packed, "w", kind) as archive:
        archive.writestr("studies.csv", data)
    return packed.getvalue()


def parquet(**columns):
    packed = io.BytesIO()
    pq.write_table(pa.table(columns), packed, compression="zstd")
    return packed.getvalue()


def one_value(count):
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), ["x" * 50_000])


BOMBS = {
    "gzip": lambda: gzip.compress(rows(9)),
    "gzip of gzips": lambda: gzip.compress(HEADER) + gzip.compress(rows(1)[len(HEADER) :]) * 9,
    "zip": lambda: zipped(rows(9), ZIP_DEFLATED),
    "zip, LZMA": lambda: zipped(rows(9), ZIP_LZMA),
    "Parquet, many rows": lambda: parquet(file=np.zeros(3_000_000, np.int8)),
    "Parquet, one long cell": lambda: parquet(file=one_value(3000)),
}
MIB = 4


@pytest.mark.parametrize("kind", BOMBS)
def test_a_table_that_inflates_beyond_the_bound_is_refused(tmp_path, kind, monkeypatch):
    file = tmp_path / "studies.csv"
    file.write_bytes(BOMBS[kind]())
    assert file.stat().st_size < 2**20
    monkeypatch.setenv(MOST, str(MIB))
    refusal = rf"^cannot read {file}: it inflates to more than {MIB} MiB; .* {MOST} to more than 4$"
    for columns in (["file"], None):
        with pytest.raises(InputError, match=refusal):
            read_csv(file, columns)
    assert "file" in read_header(file).columns
    monkeypatch.setenv(MOST, "1000")
    assert len(read_csv(file, ["file"])) > 2000


def test_a_table_within_the_bound_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setenv(MOST, str(MIB))
    for name, pack in (("a", gzip.compress), ("b", lambda data: zipped(data, ZIP_DEFLATED))):
        (tmp_path / name).write_bytes(pack(rows(3)))
        assert len(read_csv(tmp_path / name)) == len(rows(3)) // len(ROW) - 1
    (tmp_path / "plain").write_bytes(rows(9))  # its size is no surprise
    assert len(read_csv(tmp_path / "plain", ["who"])) == len(rows(9)) // len(ROW) - 1


@pytest.mark.whole
def test_a_gigabyte_in_a_megabyte_is_stopped_without_a_setting(tmp_path):
    with gzip.open(tmp_path / "studies.csv.gz", "wb", compresslevel=1) as packer:
        packer.write(HEADER)
        block = ROW * 2**16
        for _ in range((DEFAULT_MIB + 40) * 2**20 // len(block)):
            packer.write(block)
    with pytest.raises(InputError, match="inflates to more than 1,024 MiB"):
        read_csv(tmp_path / "studies.csv.gz", ["who"])


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", ""])
def test_a_bound_that_is_no_number_is_refused(tmp_path, value, monkeypatch):
    (tmp_path / "a").write_bytes(gzip.compress(rows(1)))
    monkeypatch.setenv(MOST, value)
    with pytest.raises(InputError, match=f"{MOST} must be a whole number of MiB above 0; got"):
        read_csv(tmp_path / "a")


def test_other_packings_are_refused_as_before(tmp_path):
    (tmp_path / "a").write_bytes(bz2.compress(rows(1)))
    with pytest.raises(InputError, match="cannot read"):
        read_csv(tmp_path / "a")
