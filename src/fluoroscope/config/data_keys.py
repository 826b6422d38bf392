"""The keys of the data section that every source has."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fluoroscope.choices import (
    FEATURES,
    ON_DUPLICATE,
    ON_MISSING,
    ON_UNREADABLE,
    PROPER_SHARE,
    SAMPLERS,
    SEED,
)
from fluoroscope.config.library_names import check_transforms
from fluoroscope.config.rules import check_fold
from fluoroscope.config.schema import number, one_of, ruled


@dataclass
class Data:
    """Keys that every source has; a source adds more keys in a subclass."""

    source: str = MISSING
    root: str | None = MISSING
    labels: list[str] | None = MISSING
    label_map: dict[str, str] = MISSING
    views: list[str] | None = MISSING
    splits: str = one_of("given", "own")
    val_frac: float = number(*PROPER_SHARE)
    test_frac: float = number(*PROPER_SHARE)
    fold: str | None = ruled(check_fold)
    on_missing: str = one_of(*ON_MISSING)
    on_unreadable: str = one_of(*ON_UNREADABLE)
    on_duplicate: str = one_of(*ON_DUPLICATE)
    follow_links: bool = MISSING
    image_px: int = number(32)
    batch_size: int = number(1)
    num_workers: int | None = number(0)
    sampler: str = one_of(*SAMPLERS)
    order_seed: int | None = number(*SEED)
    augment: list[dict[str, Any]] = ruled(check_transforms)  # noqa: RUF009
    features: str = one_of(*FEATURES)
    feature_views: int | None = number(1)
