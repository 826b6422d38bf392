"""The keys of each data source, checked before anything heavy is imported."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fluoroscope.schema import number, one_of


@dataclass
class Data:
    """Keys that every source has."""

    source: str = MISSING
    root: str | None = MISSING
    labels: list[str] | None = MISSING
    views: list[str] | None = MISSING
    splits: str = one_of("given", "own")
    val_frac: float = MISSING
    test_frac: float = MISSING
    on_missing: str = one_of("stop", "skip")
    on_unreadable: str = one_of("stop", "skip")
    follow_links: bool = MISSING
    image_px: int = number(32)
    batch_size: int = number(1)
    num_workers: int | None = number(0)
    sampler: str = one_of("shuffle", "balanced")
    order_seed: int | None = number(0, 2**32 - 1)
    augment: list[dict[str, Any]] = MISSING


@dataclass
class Phantom(Data):
    patients: int = number(1)
    images_per_patient: int = number(1)
    film_px: int = number(32)
    subtlety: float = number(0, 1)
    prevalence: float = number(0, 1)


@dataclass
class Folder(Data):
    patient_pattern: str | None = MISSING


@dataclass
class Table(Data):
    csv: str = MISSING
    path_column: str = MISSING
    patient_column: str | None = MISSING
    split_column: str | None = MISSING
    view_column: str | None = MISSING


@dataclass
class Nih14(Data):
    pass


SOURCES: dict[str, type[Data]] = {
    "phantom": Phantom,
    "folder": Folder,
    "table": Table,
    "nih14": Nih14,
}
