"""What a census says, in sentences without full stops."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from fluoroscope.errors import plural
from fluoroscope.instrument.shares import share
from fluoroscope.network_census.counting import Counted

WORST = 10
MOSTLY = 0.5  # share of linear units from which a layer counts as linear
NAMED = 5
FEW = 10  # images; through two points goes a straight line, and near a few more by chance


def headline(counted: Counted) -> tuple[str, str]:
    """The dead units of the network, and on what: two parts of a sentence."""
    layers = counted.layers
    dead, linear, every = (int(layers[name].sum()) for name in ("dead", "linear", "units"))
    lead = f"{dead:,} of {plural(every, 'unit')} are dead ({share(dead / every)})"
    rest = f"and {linear:,} are linear ({share(linear / every)})"
    return lead, f"{rest}, in {plural(len(layers), 'layer')} on {plural(counted.images, 'image')}"


def findings(counted: Counted) -> list[str]:
    """Where the network has dead units, and where it is linear."""
    return [*_dead(counted.layers), *_linear(counted.layers), *_silent(counted.layers)]


def warnings(counted: Counted) -> list[str]:
    """What limits the numbers."""
    said = []
    if counted.unreadable:
        films, was = (
            plural(counted.unreadable, "film"),
            "was" if counted.unreadable == 1 else "were",
        )
        said.append(f"{films} cannot be read and {was} not counted")
    if counted.bound > 0.01:
        chance = ", and one with few positions per image as linear" if counted.images < FEW else ""
        said.append(
            f"{plural(counted.images, 'image')} {'is' if counted.images == 1 else 'are'} few: a "
            f"unit that opens on less than {share(counted.bound)} of such images may be counted as "
            f"dead{chance}"
        )
    bad = counted.layers[counted.layers["nonfinite_frac"] > 0]
    if len(bad):
        said.append(
            f"{plural(len(bad), 'layer')} had values that are NaN or infinite, which were left "
            f"out: {_names(bad)}"
        )
    return said


def worst(counted: Counted) -> list[str]:
    """The layers with the largest shares of dead units, and of linear units if these are equal."""
    ranked = counted.layers.sort_values(
        ["dead_frac", "linear_frac"], ascending=False, kind="stable"
    )
    ranked = ranked[ranked[["dead", "linear"]].sum(axis=1) > 0]
    return [_layer(row, len(counted.layers)) for _, row in ranked.head(WORST).iterrows()]


def _layer(row: Any, depth: int) -> str:
    units = plural(row["units"], "unit")
    said = f"{row['layer']} ({row['activation']}, layer {row['depth']} of {depth}, {units}): "
    parts = [_count(row, kind) for kind in ("dead", "linear") if row[kind]]
    if row["blackout_frac"] > 0:
        parts.append(f"on {share(row['blackout_frac'])} of the images all units are closed")
    return said + ", ".join(parts)


def _count(row: Any, kind: str) -> str:
    if row[kind] == row["units"]:
        return f"all {kind}"
    return f"{row[kind]:,} {kind} ({share(row[f'{kind}_frac'])})"


def _dead(layers: pd.DataFrame) -> Iterator[str]:
    some = layers[layers["dead"] > 0]
    if some.empty:
        yield "no layer has a dead unit"
        return
    yield (
        f"{len(some)} of {plural(len(layers), 'layer')} {'has' if len(some) == 1 else 'have'} dead "
        "units: "
        f"{_names(some.sort_values('dead_frac', ascending=False, kind='stable'), 'dead_frac')}"
    )


def _linear(layers: pd.DataFrame) -> Iterator[str]:
    most = layers[layers["linear_frac"] >= MOSTLY]
    if most.empty:
        yield "in no layer are half of the units linear"
        return
    yield (
        f"the network is linear, in at least half of the units, in {len(most)} of "
        f"{plural(len(layers), 'layer')}: "
        f"{_names(most.sort_values('linear_frac', ascending=False, kind='stable'), 'linear_frac')}"
    )


def _silent(layers: pd.DataFrame) -> Iterator[str]:
    black = layers[layers["blackout_frac"] > 0]
    if len(black):
        yield (
            f"{plural(len(black), 'layer')} had images on which all units were closed at all "
            f"positions: {_names(black, 'blackout_frac')}"
        )


def _names(rows: pd.DataFrame, column: str | None = None) -> str:
    """The first layers with their share, and the number of the others."""
    shown = [
        str(row["layer"]) + (f" ({share(row[column])})" if column else "")
        for _, row in rows.head(NAMED).iterrows()
    ]
    more = [f"and {len(rows) - NAMED} more"] if len(rows) > NAMED else []
    return ", ".join([*shown, *more])
