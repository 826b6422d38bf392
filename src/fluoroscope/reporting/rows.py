"""The rows of a comparison: activations, remedies, or the values of one key."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fluoroscope.config.report import ACTIVATION, REMEDY
from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Run, activation_name

# Short names of keys, and the row that the others are compared with unless the user names one.
KEYS = {ACTIVATION: "head.activation", REMEDY: "run.remedy"}
REFERENCES = {ACTIVATION: "relu", REMEDY: "none"}


def key_of(by: str) -> str:
    """The dotted key whose values are the rows."""
    return KEYS.get(by, by)


def title_of(by: str) -> str:
    """The heading of the rows.

    >>> title_of("remedy"), title_of("optimizer.lr")
    ('Remedy', 'optimizer.lr')
    """
    return by.capitalize() if by in KEYS else by


def plural_of(by: str) -> str:
    return {ACTIVATION: "Activations", REMEDY: "Remedies"}.get(by, by)


def heading(by: str) -> str:
    """The title of a report.

    >>> heading("remedy")
    'Remedies, compared'
    """
    return f"{plural_of(by)}{' of the head' if by == ACTIVATION else ''}, compared"


def in_rows(runs: Sequence[Run], by: str) -> list[Run]:
    """The runs, each with the name of its row.

    Raises:
        InputError: a run has no value of the key.
    """
    if by == ACTIVATION:
        short = _short_names({run.config["head"]["activation"] for run in runs})
        return [replace(run, row=activation_name(run.config["head"], short)) for run in runs]
    return [replace(run, row=_row(run, by)) for run in runs]


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without the modules of its import path, unless two would be alike.

    >>> _short_names(["relu", "mypkg.acts.Snake"])["mypkg.acts.Snake"]
    'Snake'
    """
    last = {name: name.rpartition(".")[2] for name in names}
    alike = Counter(last.values())
    return {name: word if alike[word] == 1 else name for name, word in last.items()}


def _row(run: Run, by: str) -> str:
    value: Any = run.config
    for part in key_of(by).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is not None and not isinstance(value, Mapping):
        return str(value)
    advice = "give runs of experiment=remedies" if by == REMEDY else "give another key as by=KEY"
    raise InputError(f"by={by}: {run.place} has no value of {key_of(by)}; {advice}")


def reference_row(runs: Iterable[Run], name: str | None, by: str) -> str:
    """The row that the others are compared with.

    Args:
        runs: of `in_rows`.
        name: of a row, or the whole name of an activation of the user's own; None for relu, no
            remedy, or the value of the first run.
    """
    if name is None:
        return REFERENCES.get(by) or next(run.row for run in runs)
    whole = {run.activation: run.row for run in runs} if by == ACTIVATION else {}
    return whole.get(name, name)


def keys_of_rows(runs: Sequence[Run], flat: Sequence[Mapping[str, Any]], by: str) -> set[str]:
    """Keys that the rows stand for, and that therefore define no setting.

    A remedy stands for every key that has one value in all of its runs. The value of a key also
    stands for the momentum of batch norm that `head.norm_momentum=auto` took from it.

    Args:
        flat: the configurations of the runs, by dotted key.
    """
    if by == ACTIVATION:
        return {key_of(by), "head.activation_args"}
    settled = _one_value_per_row(runs, flat)
    return settled if by == REMEDY else {key_of(by), *({"head.norm_momentum"} & settled)}


def _one_value_per_row(runs: Sequence[Run], flat: Sequence[Mapping[str, Any]]) -> set[str]:
    values: dict[tuple[str, str], list[Any]] = {}
    for run, config in zip(runs, flat, strict=True):
        for key, value in config.items():
            known = values.setdefault((run.row, key), [])
            known += [value] if value not in known else []
    several = {key for (_, key), known in values.items() if len(known) > 1}
    return {key for _, key in values} - several
