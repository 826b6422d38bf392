"""A collection as a run would read it."""

import os
from hashlib import sha256
from typing import Any

from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.data.study_table import Collection
from fluoroscope.sources.settings import Data


def read(data: Data) -> Collection:
    """The collection, before images are looked at and splits are drawn."""
    keys: Any = OmegaConf.to_container(data)
    return sources.load_section(keys)


def collection_mark(data: Data) -> str:
    """Which collection it is, without saying where: 16 hex digits of the root and of the keys that
    name a part of what lies there.
    """
    keys: Any = OmegaConf.to_container(data)
    named = [keys.get(key) for key in ("csv", "flag", "size_px", "hospital", "path_column")]
    place = os.path.realpath(os.path.expanduser(str(keys["root"] or keys.get("csv"))))
    return sha256(repr([place, named]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
