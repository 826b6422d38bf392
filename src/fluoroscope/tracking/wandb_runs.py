"""Read the finished runs of a W&B project as the report reads run folders."""

import math
from functools import reduce
from operator import getitem
from typing import Any

import pandas as pd

from fluoroscope.config.dashboard import check_project
from fluoroscope.config.loaded import known_part, load
from fluoroscope.config.train import Train
from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Collection, Run, check_finished
from fluoroscope.tracking.wandb_project import open_project, refusals

STEP = "trainer/global_step"
# Parts of `result.json` that a comparison needs.
NEEDED = ("labels", "test", "split_fingerprint")
STATES = {"running": "is still running", "pending": "is still running"}


class _Unfinished(Exception):  # noqa: N818
    """A run without a result to compare; the message says why."""


def collect(project: str, entity: str | None = None, incomplete: bool = False) -> Collection:
    """Collect the finished runs of a project; they have no folder and no predictions.

    Args:
        project: name of the project.
        entity: of the owner; None is the account's own.
        incomplete: leave out runs that failed, still run or hold no result, and name them.

    Raises:
        InputError: see `wandb_project.open_project`; no finished run; without `incomplete` also a
            run that failed, still runs or holds no result.
    """
    check_project(project, entity)
    source = open_project(project, entity)
    runs, unfinished = [], []
    with refusals():
        found = list(source.api.runs(source.place, lazy=False))
    for run in found:
        try:
            runs.append(_read(run))
        except _Unfinished as why:
            unfinished.append(f"run {run.name} ({source.place}/{run.id}) {why}")
    check_finished(unfinished, incomplete)
    if not runs:
        raise InputError(f"there is no finished run to compare: {'; '.join(unfinished[:3])}")
    return Collection(
        sorted(runs, key=lambda run: run.name), [f"{line}: left out" for line in unfinished]
    )


def _read(run: Any) -> Run:
    """Convert a run of the client to one of the report."""
    if run.state != "finished":
        raise _Unfinished(STATES.get(run.state, f"did not finish: it is {run.state}"))
    result = run.summary_metrics.get("result")
    if not isinstance(result, dict) or not all(key in result for key in NEEDED):
        raise _Unfinished(
            "has no result in its summary: it is not a training run, or is of an earlier version"
        )
    result = result | {"run_id": run.id}
    for section in ("val", "test", "units", "grad"):
        result[section] = _numbers(result.get(section) or {})
    with refusals():
        rows = list(run.scan_history())
    return Run(
        folder=None,
        name=str(result.get("name", run.name)),
        config=_config(run.config),
        result=result,
        metrics=table(rows),
        predictions={},
    )


def _config(stored: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the keys that W&B lacks: newer ones, and empty mappings.

    Text that may name a place never went there, so that keys of text and lists stay as they are.
    """
    try:
        loaded = load(known_part(stored, Train), Train, "its configuration", checked=False)
    except InputError as refusal:
        raise _Unfinished(f"has no usable configuration ({refusal})") from None
    for key, value in loaded.added.items():
        *above, name = key.split(".")
        if value is None or isinstance(value, str | list):
            del reduce(getitem, above, loaded.config)[name]
    return loaded.config


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of a run's history as in `metrics.csv`: numbers only, by `step`.

    A resumed run logged the steps after its checkpoint twice; the earlier rows are dropped.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        values = {key: _number(value) for key, value in row.items() if _is_metric(key, value)}
        step = values.pop(STEP, None)
        if step is None or not values:  # a row of W&B's own, or of a histogram alone
            continue
        while kept and kept[-1]["step"] > step:
            kept.pop()
        kept.append({"step": int(step)} | values)
    return pd.DataFrame(kept)


def _is_metric(key: str, value: Any) -> bool:
    return not key.startswith("_") and isinstance(value, int | float | str)


def _number(value: float | str) -> float:
    """The number; W&B writes NaN and infinity as text, since JSON has neither."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _numbers(value: Any) -> Any:
    """A run writes null for NaN, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    return math.nan if value is None else value
