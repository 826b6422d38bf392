"""The keys of each data source, checked before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fluoroscope.config.schema import number, one_of


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
    fold: str | None = MISSING
    on_missing: str = one_of("stop", "skip")
    on_unreadable: str = one_of("stop", "skip")
    on_duplicate: str = one_of("stop", "drop", "keep")
    follow_links: bool = MISSING
    image_px: int = number(32)
    batch_size: int = number(1)
    num_workers: int | None = number(0)
    sampler: str = one_of("shuffle", "balanced")
    order_seed: int | None = number(0, 2**32 - 1)
    augment: list[dict[str, Any]] = MISSING
    features: str = one_of("live", "cached")
    feature_views: int | None = number(1)


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
class KagglePneumonia(Folder):
    official_test: bool = MISSING


@dataclass
class SiimPneumothorax(Data):
    pass


@dataclass
class Covid(Data):
    pass


@dataclass
class Medmnist(Data):
    flag: str = one_of("pneumoniamnist", "chestmnist")
    size_px: int = number(28, 224)


@dataclass
class Shenzhen(Data):
    hospital: str = one_of("both", "shenzhen", "montgomery")


@dataclass
class Table(Data):
    csv: str = MISSING
    path_column: str = MISSING
    patient_column: str | None = MISSING
    split_column: str | None = MISSING
    view_column: str | None = MISSING
    on_missing_patient: str = one_of("stop", "own")
    uncertain: str = one_of("refuse", "zeros", "ones", "ignore", "soft")
    blank: str = one_of("ignore", "zero")
    soft_target: float = number(0, 1, "()")


@dataclass
class Nih14(Data):
    pass


@dataclass
class Chexpert(Data):
    uncertain: str = one_of("zeros", "ones", "ignore", "soft")
    blank: str = one_of("zero", "ignore")
    soft_target: float = number(0, 1, "()")


@dataclass
class MimicCxr(Chexpert):
    labeler: str = one_of("chexpert", "negbio")


@dataclass
class Padchest(Data):
    leave_out: list[str] = MISSING
    unchanged: str = one_of("ignore", "zero")
    labelled_by: str = one_of("anyone", "physician")


@dataclass
class Vindr(Data):
    votes: str = one_of("majority", "any", "mean")


@dataclass
class Rsna(Data):
    pass


@dataclass
class Prepared(Data):
    pass


SOURCES: dict[str, type[Data]] = {
    "prepared": Prepared,
    "phantom": Phantom,
    "folder": Folder,
    "kaggle_pneumonia": KagglePneumonia,
    "siim_pneumothorax": SiimPneumothorax,
    "covid": Covid,
    "medmnist": Medmnist,
    "shenzhen": Shenzhen,
    "table": Table,
    "nih14": Nih14,
    "chexpert": Chexpert,
    "mimic_cxr": MimicCxr,
    "padchest": Padchest,
    "vindr": Vindr,
    "rsna": Rsna,
}


# Keys that came later, with what a run did before it had them.
LATER = {
    **{"fold": None, "on_missing": "stop", "on_duplicate": "keep", "follow_links": True},
    **{"features": "live", "feature_views": None},
}
LATER_OF = {
    "table": {
        **{"on_missing_patient": "stop", "uncertain": "refuse", "blank": "ignore"},
        "soft_target": 0.7,
    }
}


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data section of a run, which may be older than some keys."""
    return {**LATER, **LATER_OF.get(str(data.get("source")), {}), **data}
