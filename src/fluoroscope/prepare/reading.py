"""A collection as a run would read it."""

from typing import Any

from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.studies import Collection
from fluoroscope.sources.settings import Data

READING = ("source", "root", "labels", "views", "on_missing", "follow_links")


def read(data: Data) -> Collection:
    """The collection, before images are looked at and splits are drawn."""
    keys: Any = OmegaConf.to_container(data)
    common = Data.__dataclass_fields__
    return sources.load(**{k: v for k, v in keys.items() if k in READING or k not in common})
