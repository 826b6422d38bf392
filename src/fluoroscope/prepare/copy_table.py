"""The study table of a copy, and the description of its origin."""

import os
import platform
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from omegaconf import OmegaConf

from fluoroscope.atomic_write import write_atomically
from fluoroscope.config.data_keys import Data
from fluoroscope.config.prepare import Copy
from fluoroscope.data.splits import fingerprint
from fluoroscope.data.study_table import (
    TABLE_COLUMNS,
    Collection,
    label_columns,
    people_columns,
)
from fluoroscope.errors import InputError
from fluoroscope.prepare.copy_manifest import write_json
from fluoroscope.prepare.image_copy import JPEG_QUALITY
from fluoroscope.sources.prepared import ABOUT, TABLE, VERSION
from fluoroscope.sources.reading.spelling import origin_of

SOURCE = "source"
PACKAGES = ("fluoroscope", "opencv-python-headless", "pydicom", "numpy", "pandas", "pyarrow")
UNNAMED = ("root", "csv")  # keys that hold a path on this machine


def write(job: Copy, kept: Collection, names: list[str], left_out: int) -> None:
    """Write `studies.parquet`, then `prepared.json`, which marks the copy as finished.

    Args:
        kept: the rows that have a copy.
        names: paths of the copies below the folder.
        left_out: number of images that cannot be used.

    Raises:
        InputError: a label has the name of a column.
    """
    labels = label_columns(kept.table)
    if SOURCE in labels:
        raise InputError(f"a label of a copy cannot be called {SOURCE!r}; rename it")
    columns = kept.table.assign(path=names, **{SOURCE: job.train.data.source})
    with write_atomically(job.out / TABLE) as part:
        columns[[*TABLE_COLUMNS, SOURCE, *people_columns(kept.table), *labels]].to_parquet(
            part, engine="pyarrow", compression="zstd", index=False
        )
        digest = sha256(part.read_bytes()).hexdigest()
    about = describe(job, kept, labels, left_out)
    write_json(job.out / ABOUT, about | {"studies_sha256": digest, "finished": True})


def describe(job: Copy, kept: Collection, labels: list[str], left_out: int) -> dict[str, Any]:
    """Origin of a copy and how it was made, without names of persons or machines."""
    table, data = kept.table, job.train.data
    _, label_map = origin_of(data.source, data.root, data.label_map)
    return {
        "version": VERSION,
        "source": kept.source or job.train.data.source,
        "collection": collection_mark(job.train.data),
        "patients_of": kept.patients_of,
        "label_map": dict(label_map),
        "keys": table_keys(job.train.data),
        "size": job.size,
        "format": job.format,
        "quality": JPEG_QUALITY if job.format == "jpeg" else None,
        "labels": labels,
        "images": len(table),
        "patients": int(table["patient"].nunique()) if kept.patients_of else None,
        "left_out": left_out,
        "decisions": [decision._asdict() for decision in kept.decisions],
        "fingerprint": fingerprint(table, labels),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def table_keys(data: Data) -> dict[str, Any]:
    """The keys of `data` that determine rows and cells of the table, except paths."""
    keys: Any = OmegaConf.to_container(data)
    run_keys = {*Data.__dataclass_fields__, *UNNAMED} - {"labels", "views"}
    return {key: value for key, value in keys.items() if key not in run_keys}


def collection_mark(data: Data) -> str:
    """Identifies a collection without its path: 16 hex digits of a hash of the root and of the keys
    that select a part of it.
    """
    keys: Any = OmegaConf.to_container(data)
    selected = [keys.get(key) for key in ("csv", "flag", "size_px", "hospital", "path_column")]
    place = os.path.realpath(os.path.expanduser(str(keys["root"] or keys.get("csv"))))
    return sha256(repr([place, selected]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
