"""The study table of a copy, and what it was made of."""

import platform
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from omegaconf import OmegaConf

from fluoroscope.atomic_write import write_atomically
from fluoroscope.config.prepare import Copy
from fluoroscope.data.splits import fingerprint
from fluoroscope.data.study_table import TABLE_COLUMNS, Collection, label_columns
from fluoroscope.errors import InputError
from fluoroscope.prepare.images import JPEG_QUALITY
from fluoroscope.prepare.manifest import write_json
from fluoroscope.prepare.reading import collection_mark
from fluoroscope.sources.prepared import ABOUT, TABLE, VERSION
from fluoroscope.sources.settings import Data

SOURCE = "source"
PACKAGES = ("fluoroscope", "opencv-python-headless", "pydicom", "numpy", "pandas", "pyarrow")
UNNAMED = ("root", "csv")  # keys that lead to a place on this machine


def write(job: Copy, kept: Collection, names: list[str], left_out: int) -> None:
    """`studies.parquet`, then `prepared.json`, by which the copy is finished.

    Args:
        kept: the rows that have a copy.
        names: of their copies, below the folder.
        left_out: images that could not be used.

    Raises:
        InputError: a label that is called like a column.
    """
    labels = label_columns(kept.table)
    if SOURCE in labels:
        raise InputError(f"a label of a copy cannot be called {SOURCE!r}; give it another name")
    columns = kept.table.assign(path=names, **{SOURCE: job.train.data.source})
    with write_atomically(job.out / TABLE) as part:
        columns[[*TABLE_COLUMNS, SOURCE, *labels]].to_parquet(
            part, engine="pyarrow", compression="zstd", index=False
        )
        digest = sha256(part.read_bytes()).hexdigest()
    about = describe(job, kept, labels, left_out)
    write_json(job.out / ABOUT, about | {"studies_sha256": digest, "finished": True})


def describe(job: Copy, kept: Collection, labels: list[str], left_out: int) -> dict[str, Any]:
    """What a copy is of and how it was made; nothing that names a person or a machine."""
    table = kept.table
    return {
        "version": VERSION,
        "source": kept.source or job.train.data.source,
        "collection": collection_mark(job.train.data),
        "patients_of": kept.patients_of,
        "keys": table_keys(job.train.data),
        "size": job.size,
        "format": job.format,
        "quality": JPEG_QUALITY if job.format == "jpeg" else None,
        "labels": labels,
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "left_out": left_out,
        "decisions": [decision._asdict() for decision in kept.decisions],
        "fingerprint": fingerprint(table, labels),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def table_keys(data: Data) -> dict[str, Any]:
    """The keys of `data` that decide on rows and cells, places excepted."""
    keys: Any = OmegaConf.to_container(data)
    of_runs = {*Data.__dataclass_fields__, *UNNAMED} - {"labels", "views"}
    return {key: value for key, value in keys.items() if key not in of_runs}
