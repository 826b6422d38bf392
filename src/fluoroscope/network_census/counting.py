"""Count the units of a network on films."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd
from torch import nn

from fluoroscope.config.census import Job
from fluoroscope.diagnostics.census import CONFIDENCE
from fluoroscope.errors import InputError
from fluoroscope.instrument.discovery import KNOWN, names_of
from fluoroscope.instrument.watching import Units
from fluoroscope.network_census.films import Films, read
from fluoroscope.network_census.subject import Subject, compute

WINDOW = "census"
SHARES = ("dead_frac", "linear_frac", "nonlinear_frac", "gate_open_frac", "blackout_frac")
UNIT_COLUMNS = ("dead", "linear", "gate_open_share")


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes:
        layers: one row per layer in the order of the first calls: `depth` from 1, `layer`,
            `activation`, `units`, `dead` and `linear` units, `SHARES`, and `nonfinite_frac`.
        units: one row per layer and unit: `depth`, `layer`, `unit`, `UNIT_COLUMNS`.
        unseen: activations that were not counted, by name, and why.
        images: that were counted.
        unreadable: films that could not be read.
    """

    layers: pd.DataFrame
    units: pd.DataFrame
    unseen: dict[str, str]
    images: int
    unreadable: int

    @property
    def bound(self) -> float:
        """A unit that opens on a smaller share of images may be counted as dead (95 %)."""
        return float(1 - (1 - CONFIDENCE) ** (1 / self.images))


def count(subject: Subject, films: Films, job: Job) -> Counted:
    """The census of the network on the films.

    Raises:
        InputError: no film can be read, no activation is seen, or a pattern matches none.
    """
    images = unreadable = 0
    with Units(subject.network, job.layers) as units, units.window(WINDOW):
        for image, failed in read(films, job, subject.image_px):
            images, unreadable = images + len(image), unreadable + failed
            if len(image):
                compute(subject, image)
        if not images:
            raise InputError(f"no film can be read, of {unreadable:,}; check the files")
        layers = _layers(units, subject.network)
        channels = _channels(units, layers)
        return Counted(layers, channels, _unseen(units, subject.network), images, unreadable)


def _layers(units: Units, network: nn.Module) -> pd.DataFrame:
    frame = units.frame(WINDOW).droplevel("window").reset_index()
    found = units.channels(WINDOW).groupby("layer", sort=False)[["dead", "linear"]].sum()
    modules = {name: module for module, name in names_of(network).items()}
    kinds = [_kind(str(name), modules) for name in frame["layer"]]
    numbers = frame[["units", *SHARES, "nonfinite_frac"]]
    first = {"depth": range(1, len(frame) + 1), "layer": frame["layer"], "activation": kinds}
    counts = found.loc[frame["layer"]].reset_index(drop=True)
    return pd.concat([pd.DataFrame(first), counts, numbers], axis=1)


def _channels(units: Units, layers: pd.DataFrame) -> pd.DataFrame:
    frame = units.channels(WINDOW).droplevel("window").reset_index()
    frame.insert(0, "depth", frame["layer"].map(layers.set_index("layer")["depth"]))
    return frame[["depth", "layer", "unit", *UNIT_COLUMNS]]


def _kind(name: str, modules: dict[str, nn.Module]) -> str:
    """The class of a layer's activation, or the name of its function."""
    base = name.partition("#")[0]
    caller, slash, function = base.rpartition("/")
    return function if slash else type(modules[caller or base]).__name__


def _unseen(units: Units, network: nn.Module) -> dict[str, str]:
    """What was not counted: what `watch` names, and activations that nothing called."""
    seen = {str(name).partition("#")[0] for name in units.frame(WINDOW).index.get_level_values(1)}
    found = dict(units.unseen)
    for module, name in names_of(network).items():
        wanted = any(fnmatchcase(name, pattern) for pattern in units.patterns)
        if wanted and type(module) in KNOWN and seen.isdisjoint(_above(name)):
            found.setdefault(name, "no call of it was counted")
    return found


def _above(name: str) -> Iterator[str]:
    """A module and those that hold it: `a.b` is in `a`."""
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))
