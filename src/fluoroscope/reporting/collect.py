"""Run folders to read: which there are, and which cannot be compared and why."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fluoroscope.errors import InputError
from fluoroscope.launch.run_status import CONFIG, FAILED, RESULT

METRICS, TEST = "metrics.csv", "predictions/test.csv"
# libyaml's loader, where there is one, reads a configuration ten times faster.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
GO_ON = "incomplete=true goes on without it"


def shown(head: Mapping[str, Any]) -> str:
    """A head's activation: `relu`, or `leaky_relu(negative_slope=0.1)` where it has arguments.

    Args:
        head: of a configuration.
    """
    arguments = sorted((head.get("activation_args") or {}).items())
    told = ", ".join(f"{key}={value}" for key, value in arguments)
    return f"{head['activation']}({told})" if told else str(head["activation"])


@dataclass(frozen=True)
class Run:
    """A finished run, read.

    Attributes:
        folder: None where a run was made in memory.
        name: of the run, e.g. `relu-s1`.
        config: `config.yaml`, nested.
        result: `result.json`, nested; null is NaN in its scores, units and gradients.
        metrics: `metrics.csv`: a row a log call, sparse; columns `step`, `epoch` (from 0) and keys.
        predictions: by split, at least `test`: columns `row`, `group` (a patient's running number),
            and per label `<label>` (1, 0, NaN unknown) and `<label>_probability`; sorted by `row`.
        row: name of its row in a comparison, from `rows.in_rows`.
    """

    folder: Path | None
    name: str
    config: dict[str, Any]
    result: dict[str, Any]
    metrics: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    row: str = ""

    @property
    def activation(self) -> str:
        return shown(self.config["head"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def place(self) -> str:
        """Where it lies, for a line to a person; its name where it lies nowhere."""
        return self.name if self.folder is None else str(self.folder)


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        runs: finished ones, in the order of their folders' names.
        left_out: a line for each folder that holds no finished run, and why.
    """

    runs: list[Run]
    left_out: list[str]


class _UnfinishedError(Exception):
    """A folder of a run that has no result to compare; the sentence says why."""


def collect(places: Sequence[Path], incomplete: bool = False) -> Collection:
    """The finished runs in and below some folders.

    Args:
        places: run folders, folders of a sweep or a study, or any folders above them.
        incomplete: leave out runs that failed, are still going or cannot be read, and say so.

    Raises:
        InputError: a place that is not there or holds no run; without `incomplete` also a run that
            failed, is still going or cannot be read.
    """
    folders = list(dict.fromkeys(folder for place in places for folder in _runs_below(place)))
    runs, passed_over, unfinished = [], [], []
    for folder in folders:
        try:
            if "checkpoint" in (result := _result(folder)):
                passed_over.append(f"{folder} is an evaluation, not a run: passed over")
            else:
                runs.append(_read(folder, result))
        except _UnfinishedError as why:
            unfinished.append(f"{folder} {why}")
    check_finished(unfinished, incomplete)
    if not runs:
        told = "; ".join([*unfinished, *passed_over][:3])
        raise InputError(f"there is no finished run to compare: {told}")
    return Collection(runs, [*passed_over, *(f"{line}: left out" for line in unfinished)])


def check_finished(unfinished: Sequence[str], incomplete: bool) -> None:
    """Refuse runs without a result, a sentence each, unless they may be left out."""
    if unfinished and not incomplete:
        more = f" (and {len(unfinished) - 1} more like it)" if len(unfinished) > 1 else ""
        raise InputError(f"{unfinished[0]}; {GO_ON}{more}")


def _runs_below(place: Path) -> list[Path]:
    """Folders of runs, by name; one place names each once, by the path that the user gave."""
    if not place.is_dir():
        raise InputError(f"runs: there is no folder {place}")
    folders = list(_walk(place))
    if not folders:
        what = "holds no run" if any(place.iterdir()) else "is empty"
        raise InputError(
            f"runs: {place} {what}; give a folder that scripts/train.py or scripts/ablate.py left"
        )
    return folders


def _walk(place: Path) -> Iterator[Path]:
    for here, below, files in os.walk(place):
        if {CONFIG, RESULT, FAILED} & set(files):
            below.clear()  # what lies in a run folder belongs to that run
            yield Path(here)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run that reached its end."""
    if not (folder / RESULT).is_file():
        if (folder / FAILED).is_file():
            raise _UnfinishedError(
                f"failed ({_json(folder / FAILED).get('error', 'no reason given')})"
            )
        raise _UnfinishedError(f"is still going, or was killed (it has no {RESULT})")
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
        raise _UnfinishedError(f"has a {file.name} that cannot be read (half-written or damaged)")
    return values


def _read(folder: Path, result: dict[str, Any]) -> Run:
    config, labels = _config(folder / CONFIG), result.get("labels")
    if not labels or not isinstance(result.get("test"), dict) or "split_fingerprint" not in result:
        raise _UnfinishedError(f"has a {RESULT} without labels, test scores or split_fingerprint")
    for section in ("val", "test", "units", "grad"):
        result[section] = _numbers(result.get(section) or {})
    return Run(
        folder=folder,
        name=str(result.get("name", folder.name)),
        config=config,
        result=result,
        metrics=_metrics(folder / METRICS),
        predictions={"test": _predictions(folder / TEST, labels)},
    )


def _config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.load(file.read_bytes(), LOADER)
        if "activation" in config["head"] and "seed" in config:
            return config
    except (OSError, TypeError, KeyError, yaml.YAMLError):
        pass
    raise _UnfinishedError(f"has no {CONFIG} of a training run that can be read")


def _metrics(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        raise _UnfinishedError(f"has no {METRICS} that can be read") from None
    if not {"step", "epoch"} <= set(table):
        raise _UnfinishedError(f"has a {METRICS} without the columns step and epoch")
    return table


def _predictions(file: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Without what names an image or a patient."""
    values = [column for label in labels for column in (label, f"{label}_probability")]
    # As they were computed; a float64 would keep the ties too, at twice the memory.
    types = {"row": np.int64, "group": np.int64, **dict.fromkeys(values, np.float32)}
    try:
        table = pd.read_csv(file, usecols=list(types), dtype=types)
    except (OSError, ValueError):
        raise _UnfinishedError(f"has no {TEST} that can be read") from None
    probability = table[values[1::2]].to_numpy()
    if not len(table) or not np.isfinite(probability).all():
        raise _UnfinishedError(f"has a {TEST} without images, or without probabilities")
    return table[list(types)].sort_values("row", ignore_index=True)


def _numbers(value: Any) -> Any:
    """JSON has no NaN, and a run writes null for it."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    return math.nan if value is None else value
