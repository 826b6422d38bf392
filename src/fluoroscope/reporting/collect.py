"""Find and read run folders; folders that hold no finished run are named with the reason."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.config.loaded import Loaded, load_file
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError, plural
from fluoroscope.escaping import csv_cell
from fluoroscope.launch.run_status import CONFIG, FAILED, RESULT

METRICS, TEST = "metrics.csv", "predictions/test.csv"
LEAVE_OUT = "incomplete=true leaves it out"


def activation_name(head: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str:
    """A head's activation: `relu`, or `leaky_relu(negative_slope=0.1)` if it has arguments.

    Args:
        head: section `head` of a configuration.
        shown: what to show in place of some names.
    """
    name = str(head["activation"])
    name = (shown or {}).get(name, name)
    arguments = sorted((head.get("activation_args") or {}).items())
    listed = ", ".join(f"{key}={value}" for key, value in arguments)
    return f"{name}({listed})" if listed else name


@dataclass(frozen=True)
class Run:
    """A finished run as its folder describes it.

    Attributes:
        folder: None if the run was not read from a folder.
        name: of the run, e.g. `relu-s1`.
        config: `config.yaml`, nested.
        result: `result.json`, nested; null is NaN in its scores, units and gradients.
        metrics: `metrics.csv`: one sparse row per log call; columns `step`, `epoch` (from 0), keys.
        predictions: by split, at least `test`: columns `row`, `group` (a patient's running number),
            and per label `<label>` (1, 0, NaN unknown) and `<label>_probability`; sorted by `row`.
        row: name of its row in a comparison, from `rows.in_rows`.
        notes: on keys that the configuration lacked.
    """

    folder: Path | None
    name: str
    config: dict[str, Any]
    result: dict[str, Any]
    metrics: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    row: str = ""
    notes: tuple[str, ...] = ()

    @property
    def activation(self) -> str:
        return activation_name(self.config["head"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def place(self) -> str:
        """The folder, or the name if there is none, for messages."""
        return self.name if self.folder is None else str(self.folder)


@dataclass(frozen=True)
class Collection:
    """The runs that were found.

    Attributes:
        runs: finished runs, in the order of their folders' names.
        left_out: one line for each folder without a finished run, with the reason.
    """

    runs: list[Run]
    left_out: list[str]


class _UnfinishedError(Exception):
    """A run without a result to compare; the message gives the reason."""


def collect(places: Sequence[Path], incomplete: bool = False) -> Collection:
    """Read the finished runs in and below some folders.

    Args:
        places: run folders, folders of a sweep or an ablation, or any folders above them.
        incomplete: leave out runs that failed, are still running or cannot be read.

    Raises:
        InputError: a place does not exist or holds no run; without `incomplete` also if a run
            failed, is still running or cannot be read.
    """
    folders = list(dict.fromkeys(folder for place in places for folder in _runs_below(place)))
    runs, passed_over, unfinished = [], [], []
    for folder in folders:
        try:
            if "checkpoint" in (result := _result(folder)):
                passed_over.append(f"{folder} is an evaluation, not a run: left out")
            else:
                runs.append(_read(folder, result))
        except _UnfinishedError as why:
            unfinished.append(f"{folder} {why}")
    check_finished(unfinished, incomplete)
    if not runs:
        reasons = "; ".join([*unfinished, *passed_over][:3])
        raise InputError(f"there is no finished run to compare: {reasons}")
    for note, count in Counter(note for run in runs for note in run.notes).items():
        print(f"{plural(count, 'run')}: {note}")
    return Collection(runs, [*passed_over, *(f"{line}: left out" for line in unfinished)])


def check_finished(unfinished: Sequence[str], incomplete: bool) -> None:
    """Raise an error for runs without a result, unless they may be left out."""
    if unfinished and not incomplete:
        more = f" (and {len(unfinished) - 1} more like it)" if len(unfinished) > 1 else ""
        raise InputError(f"{unfinished[0]}; {LEAVE_OUT}{more}")


def _runs_below(place: Path) -> list[Path]:
    """Run folders below a place, sorted by name; each path begins as the user wrote it."""
    if not place.is_dir():
        raise InputError(f"runs: there is no folder {place}")
    folders = list(_walk(place))
    if not folders:
        what = "holds no run" if any(place.iterdir()) else "is empty"
        raise InputError(f"runs: {place} {what}; give the folder of a run, a sweep or an ablation")
    return folders


def _walk(place: Path) -> Iterator[Path]:
    for here, below, files in os.walk(place):
        if {CONFIG, RESULT, FAILED} & set(files):
            below.clear()  # folders inside a run folder belong to that run
            yield Path(here)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _result(folder: Path) -> dict[str, Any]:
    """`result.json` of a finished run."""
    if not (folder / RESULT).is_file():
        if (folder / FAILED).is_file():
            raise _UnfinishedError(
                f"failed ({_json(folder / FAILED).get('error', 'no reason given')})"
            )
        raise _UnfinishedError(f"is still running, or was killed (it has no {RESULT})")
    result = _json(folder / RESULT)
    if "failed" in result:
        raise _UnfinishedError(f"failed ({result['failed']})")
    return result


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise _UnfinishedError(f"has a {file.name} that cannot be read (incomplete or damaged)")
    return values


def _read(folder: Path, result: dict[str, Any]) -> Run:
    loaded, labels = _config(folder / CONFIG), result.get("labels") or []
    named = isinstance(labels, list) and all(isinstance(name, str) for name in labels)
    if (
        not (labels and named)
        or not isinstance(result.get("test"), dict)
        or "split_fingerprint" not in result
    ):
        raise _UnfinishedError(f"has a {RESULT} without labels, test scores or split_fingerprint")
    for section in ("val", "test", "units", "grad"):
        result[section] = _numbers(result.get(section) or {})
        if not isinstance(result[section], dict):
            raise _UnfinishedError(f"has a {RESULT} whose {section} is no table of numbers")
    return Run(
        folder=folder,
        name=str(result.get("name", folder.name)),
        config=loaded.config,
        notes=loaded.lines,
        result=result,
        metrics=_metrics(folder / METRICS),
        predictions={"test": _predictions(folder / TEST, labels)},
    )


def _config(file: Path) -> Loaded:
    try:
        loaded = load_file(file, Train, checked=False)
    except InputError as refusal:
        raise _UnfinishedError(f"has no readable {CONFIG} of a training run ({refusal})") from None
    seed, head = loaded.config["seed"], loaded.config["head"]
    kinds = ((seed, int), (head["activation"], str), (head["activation_args"], dict))
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise _UnfinishedError(f"has a {CONFIG} with a seed or an activation that cannot be read")
    return loaded


def _metrics(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        raise _UnfinishedError(f"has no readable {METRICS}") from None
    if not {"step", "epoch"} <= set(table):
        raise _UnfinishedError(f"has a {METRICS} without the columns step and epoch")
    if not all(dtype.kind in "iuf" for dtype in table.dtypes):
        raise _UnfinishedError(f"has a {METRICS} with cells that are no numbers (damaged)")
    return table


def _predictions(file: Path, labels: Sequence[str]) -> pd.DataFrame:
    """The predictions, without paths of images and ids of patients."""
    values = [column for label in labels for column in (label, f"{label}_probability")]
    # The precision they were computed in, so that ties stay ties at half the memory of float64.
    types = {"row": np.int64, "group": np.int64, **dict.fromkeys(values, np.float32)}
    names = {csv_cell(name): name for name in types}
    names |= {name: name for name in types if name.isprintable()}  # runs of earlier versions
    kinds = {name: types[names[name]] for name in names}
    try:
        table = pd.read_csv(file, usecols=names.__contains__, dtype=kinds).rename(columns=names)
        table = table[list(types)]
    except (OSError, ValueError, KeyError):
        raise _UnfinishedError(f"has no readable {TEST}") from None
    probability = table[values[1::2]].to_numpy()
    if not len(table) or not np.isfinite(probability).all():
        raise _UnfinishedError(f"has a {TEST} without images, or without probabilities")
    return table.sort_values("row", ignore_index=True)


def _numbers(value: Any) -> Any:
    """Null becomes NaN: JSON has no NaN, so a run writes null."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    return math.nan if value is None else value
