"""The files that a model card is made from."""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluoroscope.commands import called
from fluoroscope.config.shareable import for_checkpoint
from fluoroscope.errors import InputError
from fluoroscope.evaluation.contents import VERSION
from fluoroscope.evaluation.wording import Values
from fluoroscope.run import run_folder
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.loading import Trained

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Sources:
    """What a card is made from; empty or None where a file is missing.

    Attributes:
        config: as checkpoints hold it, without text that may name a place.
        parameters: number of weights of the network.
        run: content of `result.json` of the training; null became NaN.
        provenance: content of `provenance.json` of the training.
        evaluation: content of `evaluation.json`.
    """

    labels: tuple[str, ...]
    fingerprint: str
    config: Values
    parameters: int
    calibration: Calibration | None = None
    run: Values = field(default_factory=dict)
    provenance: Values = field(default_factory=dict)
    evaluation: Values | None = None


def sources_of(
    trained: Trained, calibration: Calibration | None, evaluation: Values | None
) -> Sources:
    """The sources of a trained model; a file of its run that is missing or damaged is left out."""
    run, provenance = ({}, {}) if trained.folder is None else _files(trained)
    return Sources(
        trained.labels,
        trained.fingerprint,
        for_checkpoint(trained.config),
        sum(weight.numel() for weight in trained.network.parameters()),
        *(calibration, run, provenance, evaluation),
    )


def _files(trained: Trained) -> tuple[Values, Values]:
    found: dict[str, Values] = {run_folder.RESULT: {}, run_folder.PROVENANCE: {}}
    for name in found:
        with suppress(InputError):
            assert trained.folder
            found[name] = run_folder.read_json(trained.folder / name)
    return _numbers(found[run_folder.RESULT]), found[run_folder.PROVENANCE]


def _numbers(value: Any) -> Any:
    """Null becomes NaN: JSON has no NaN, so a run writes null."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    return math.nan if value is None else value


def read_evaluation(folder: Path, fingerprint: str) -> Values:
    """The content of an `evaluation.json`.

    Args:
        folder: of the evaluation.
        fingerprint: of the weights that it must be of.

    Raises:
        InputError: it is missing, damaged, or of other weights.
    """
    file = folder / EVALUATION
    found = run_folder.read_json(file, f"run {called('evaluate')} again")
    if found.get("version") != VERSION:
        raise InputError(f"{file} is of another version; run {called('evaluate')} again")
    if found.get("fingerprint") != fingerprint:
        raise InputError(f"{file} is of other weights; give the evaluation of this checkpoint")
    return found
