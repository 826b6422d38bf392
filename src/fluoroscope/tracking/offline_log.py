"""W&B's local log of a run, `run-ID.wandb`: read, and written again without some of its records.

The client cannot do this: it stops at a record that was cut off and uploads rows that were
rewound. The format is LevelDB's log: blocks of 32 KiB with chunks that have a header of checksum,
length and kind; a record that does not fit is split over chunks.

Source: https://github.com/google/leveldb/blob/main/doc/log_format.md; W&B's differs by 7 bytes at
the start of the file and a plain CRC-32 over kind and data.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAGIC, START, BLOCK = b":W&B", 7, 32768
CHUNK = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
STEP = "trainer/global_step"
RESUMED_AT = "resumed_at_step"


class Log(NamedTuple):
    """What was read of a log.

    Attributes:
        start: the first bytes of the file, which say what it is.
        records: W&B's records, serialised.
        torn: it goes on behind them with something that cannot be read.
    """

    start: bytes
    records: list[bytes]
    torn: bool


class Entry(NamedTuple):
    """A record's kind, and of a logged row the optimizer step."""

    kind: str
    step: int | None


def read_log(path: Path) -> Log:
    """The records up to the end, or up to where the log was cut off."""
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < START:
        return Log(data[:START], [], torn=bool(data))
    records, end = [], START
    for record, after in _records(data):
        records.append(record)
        end = after
    return Log(data[:START], records, torn=any(data[end:]))  # zeros fill up a block


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each record and where it ends."""
    record = b""
    for kind, chunk, after in _chunks(data):
        record = chunk if kind in (FULL, FIRST) else record + chunk
        if kind in (FULL, LAST):
            yield record, after


def _chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Kind, data and end of each chunk, up to the first that is not whole."""
    at = START
    while at + CHUNK.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < CHUNK.size:
            at += left
            continue
        checksum, length, kind = CHUNK.unpack_from(data, at)
        chunk = data[at + CHUNK.size : at + CHUNK.size + length]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or checksum != _checksum(kind, chunk):
            return
        at += CHUNK.size + length
        yield kind, chunk, at


def _checksum(kind: int, chunk: bytes) -> int:
    return zlib.crc32(chunk, zlib.crc32(bytes([kind])))


def write_log(path: Path, start: bytes, records: Iterable[bytes]) -> None:
    """A log of these records, as W&B would have written it."""
    data = bytearray(start)
    for record in records:
        _append(data, record)
    path.write_bytes(data)


def _append(data: bytearray, record: bytes) -> None:
    at, first = 0, True
    while first or at < len(record):
        left = BLOCK - len(data) % BLOCK
        if left < CHUNK.size:
            data += bytes(left)
            continue
        chunk = record[at : at + left - CHUNK.size]
        at += len(chunk)
        last = at == len(record)
        kind = (FULL if last else FIRST) if first else (LAST if last else MIDDLE)
        data += CHUNK.pack(_checksum(kind, chunk), len(chunk), kind) + chunk
        first = False


def parse(record: bytes) -> Any:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    parsed = Record()
    parsed.ParseFromString(record)
    return parsed


def entry(record: bytes) -> Entry:
    """What a record is, without what it holds."""
    parsed = parse(record)
    for item in parsed.history.item:
        if STEP in (item.key, ".".join(item.nested_key)):
            return Entry("history", int(json.loads(item.value_json)))
    return Entry(parsed.WhichOneof("record_type"), None)


def resumed_at(record: bytes) -> int | None:
    """The optimizer step at which a run went on, as a record of the kind `run` tells it."""
    config = parse(record).run.config.update
    told = [item.value_json for item in config if RESUMED_AT in (item.key, *item.nested_key)]
    return int(json.loads(told[0])) if told else None
