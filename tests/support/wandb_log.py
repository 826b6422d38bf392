"""What an offline W&B run holds, read back from its record log without a network."""

import json
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MAGIC, BLOCK, HEADER = b":W&B", 32768, 7
FULL, LAST = 1, 4


def wandb_config(mode: str = "offline", share: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """The part of a run's configuration that its W&B run is made with, and more sections."""
    keys = {"mode": mode, "project": "p", "entity": None, "group": "g", "tags": []}
    return {"logger": {**keys, "share": list(share)}, "run": {"name": "n"}} | more


def end_wandb() -> None:
    """End the client of this process, where there is one; until then it may still write."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        wandb.teardown()


class OfflineRun:
    """The one offline run below a run folder, of which this process's client has let go.

    `history` is a dict per logged row, `definitions` the summaries a metric was defined with,
    `exit_code` None for a run that never ended, `text` every record in readable form.
    """

    def __init__(self, folder: Path) -> None:
        end_wandb()
        (self.folder,) = folder.glob("wandb/offline-run-*")
        (self.file,) = self.folder.glob("*.wandb")
        self.records = [parse(data) for data in blobs(self.file.read_bytes())]
        self.text = "\n".join(map(str, self.records))
        self.identity = next(self._of("run"))
        self.history = [unpack(record.item) for record in self._of("history")]
        self.config: dict[str, Any] = {}
        for config in (self.identity.config, *self._of("config")):
            self.config |= unpack(config.update)
        self.definitions = {
            record.name: {part for part in ("min", "max", "mean", "last") if summary(record, part)}
            for record in self._of("metric")
            if record.name
        }
        ends = [record.exit_code for record in self._of("exit")]
        self.exit_code = ends[-1] if ends else None

    def kinds(self) -> set[str]:
        return {record.WhichOneof("record_type") for record in self.records}

    def _of(self, kind: str) -> Iterator[Any]:
        return (getattr(r, kind) for r in self.records if r.WhichOneof("record_type") == kind)


def summary(record: Any, part: str) -> bool:
    return getattr(record.summary, part)


def parse(data: bytes) -> Any:
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    record.ParseFromString(data)
    return record


def unpack(items: Any) -> dict[str, Any]:
    """Key and JSON pairs as a nested dict."""
    found: dict[str, Any] = {}
    for item in items:
        *parents, key = item.nested_key or [item.key]
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = json.loads(item.value_json)
    return found


def blobs(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 KiB, and in them chunks with a header of
    checksum, length and kind; a record that does not fit is split over chunks.
    """
    assert data.startswith(MAGIC)
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if kind == 0 or at + HEADER + length > len(data):
            return  # padding, or an end that was cut off
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield record
            record = b""
