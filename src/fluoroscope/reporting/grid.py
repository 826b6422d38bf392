"""Which runs can be compared: the same data and backbone, sorted into a grid of cells.

A cell is one activation in one setting with one seed, or one fold of it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Run
from fluoroscope.reporting.folds import FOLD, by_fold, fold_of, refuse, settle_momentum
from fluoroscope.reporting.rows import ACTIVATION, keys_of_rows

Setting = dict[str, Any]

# Keys of `data` that change how a model is trained, but not on which images.
TRAINING_DATA = (
    *("data.augment", "data.batch_size", "data.sampler", "data.order_seed"),
    "data.feature_views",
)
# Paths, ways to compute and to report. The images themselves are compared by their fingerprint.
INDIFFERENT = (
    *("data.root", "data.csv", "data.num_workers", "data.labels", "data.label_map"),
    *("data.on_missing", "data.on_unreadable", "data.on_duplicate", "data.follow_links"),
    "data.features",
    *("backbone.channels_last", "backbone.compile", "backbone.grad_checkpointing"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.log_every_n_steps", "trainer.deterministic", "trainer.benchmark"),
)
# Keys that change the result, in sections that otherwise do not.
EXCEPTIONS = (
    *("run.patience", "diagnostics.revive_every_n_epochs", "diagnostics.revive_by"),
    "diagnostics.tolerance",
)
SAME_SECTIONS = ("data", "backbone")
OF_FOLD = (FOLD, "split_fingerprint")  # differ between folds
SAME = ("trainer.limit_val_batches", "trainer.limit_test_batches")


def check_comparable(runs: Sequence[Run], by: str = ACTIVATION) -> None:
    """Check that all runs have the same data, split, backbone and test images.

    Folds of a cross-validation have a split each; see also `folds.join_folds`.

    Raises:
        InputError: names the first key that differs and its values.
    """
    own = _own_keys(runs, by)
    folds = [list(runs)] if FOLD in own else list(by_fold(runs).values())
    for members in folds:
        _check_same(members[0], members[1:], own)
    first, *others = (members[0] for members in folds)
    _check_same(first, others, own, OF_FOLD)


def _check_same(
    first: Run, others: Sequence[Run], own: set[str], passed_over: Collection[str] = ()
) -> None:
    fixed = _fixed(first, own)
    for run in others:
        other = _fixed(run, own)
        for key in sorted({*fixed, *other} - {*passed_over}, key=list(fixed | other).index):
            if fixed.get(key) != other.get(key):
                first_value, second = fixed.get(key), other.get(key)
                refuse(
                    first, run, f"{key} is {first_value} in the first and {second} in the second"
                )
        if not passed_over and not _same_images(first, run):
            refuse(
                *(first, run),
                "their predictions/test.csv list different images, patients or labels",
            )


def _own_keys(runs: Sequence[Run], by: str) -> set[str]:
    """Keys of the rows; activations are compared only on one backbone and the same data."""
    return keys_of_rows(runs, _configs(runs), by)


def _configs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The configurations by dotted key."""
    flat = [_flat(run.config) for run in runs]
    settle_momentum(runs, flat, _may_vary)
    return flat


def _fixed(run: Run, own: set[str]) -> dict[str, Any]:
    """Keys that all compared runs share."""
    keys = _flat(run.config)
    # Before the fingerprint, which also differs between folds, but says nothing to a reader.
    result = {"source": run.result.get("source"), FOLD: keys.get(FOLD)}
    result |= {key: run.result.get(key) for key in ("labels", "split_fingerprint")}
    return result | {key: value for key, value in keys.items() if _is_fixed(key) and key not in own}


def _is_fixed(key: str) -> bool:
    if key in TRAINING_DATA or key in INDIFFERENT:
        return False
    return key in SAME or key.partition(".")[0] in SAME_SECTIONS


def _same_images(one: Run, other: Run) -> bool:
    if "test" not in one.predictions or "test" not in other.predictions:
        return True  # runs read from W&B have no predictions; the fingerprint decides
    a, b = one.predictions["test"], other.predictions["test"]
    known = ["row", "group", *one.result["labels"]]
    return len(a) == len(b) and all(
        np.array_equal(a[column], b[column], equal_nan=True) for column in known
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as `section.key: value`."""
    flat: dict[str, Any] = {}
    for section, values in config.items():
        if isinstance(values, Mapping):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    return flat


def settings(runs: Sequence[Run], by: str = ACTIVATION) -> list[Setting]:
    """The setting of each run: its values of all keys that vary and can change the result.

    The keys of the rows, the seed and the keys of `check_comparable` are left out.
    """
    own = _own_keys(runs, by) | {"seed"}
    flat = [
        {k: v for k, v in config.items() if _may_vary(k) and k not in own}
        for config in _configs(runs)
    ]
    keys = dict.fromkeys(key for values in flat for key in values)
    varying = [key for key in keys if any(v.get(key) != flat[0].get(key) for v in flat)]
    return [{key: values.get(key) for key in varying} for values in flat]


def _may_vary(key: str) -> bool:
    """Whether a key can define a setting."""
    if key in EXCEPTIONS:
        return True
    only_reports = key.partition(".")[0] in ("run", "logger", "diagnostics")
    return not (only_reports or key in INDIFFERENT or _is_fixed(key))


def by_setting(runs: Sequence[Run], by: str = ACTIVATION) -> list[tuple[Setting, list[Run]]]:
    """The runs of each setting, with the settings in the order of their values.

    Raises:
        InputError: two runs have the same activation, setting and seed.
    """
    groups: list[tuple[Setting, list[Run]]] = []
    for run, setting in zip(runs, settings(runs, by), strict=True):
        match = next((group for known, group in groups if known == setting), None)
        if match is None:
            groups.append((setting, match := []))
        twin = next((r for r in match if _cell(r) == _cell(run)), None)
        if twin is not None:
            raise InputError(
                f"{twin.place} and {run.place} are both {_cell_name(*_cell(run))} in the same "
                "setting; name only one of them"
            )
        match.append(run)
    return sorted(groups, key=lambda group: [_order(value) for value in group[0].values()])


def _cell(run: Run) -> tuple[str, int, tuple[int, int] | None]:
    return run.row, run.seed, fold_of(run)


def _cell_name(row: str, seed: int, fold: tuple[int, int] | None) -> str:
    return f"{row} with seed {seed}" + (f" and {FOLD}={fold[0]}/{fold[1]}" if fold else "")


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not number, value if number else 0, str(value))


def label(setting: Setting) -> str:
    """A setting as text.

    >>> label({"head.order": "norm-activation", "optimizer.lr": 1e-4, "run.patience": None})
    'head.order=norm-activation, optimizer.lr=0.0001, run.patience=null'
    """
    return ", ".join(f"{k}={'null' if v is None else v}" for k, v in setting.items())


def check_complete(
    groups: Sequence[tuple[Setting, list[Run]]], incomplete: bool = False
) -> list[str]:
    """Check that every activation was run with every seed, in every setting and fold.

    Args:
        groups: from `by_setting`.
        incomplete: accept missing runs.

    Returns:
        One line that names the missing runs; empty if there are none.

    Raises:
        InputError: a run is missing.
    """
    missing = list(_missing(groups))
    if not missing:
        return []
    first = missing[0] + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    runs_are = "run is" if len(missing) == 1 else "runs are"
    if not incomplete:
        raise InputError(
            f"the grid is incomplete, {len(missing)} {runs_are} missing: {first}; train them, "
            "or compare the others with incomplete=true"
        )
    return [
        f"{len(missing)} {runs_are} missing ({first}): each difference to the reference is over "
        "the seeds that both have"
    ]


def _missing(groups: Sequence[tuple[Setting, list[Run]]]) -> Iterator[str]:
    everything = [run for _, runs in groups for run in runs]
    activations = dict.fromkeys(run.row for run in everything)
    seeds = sorted({run.seed for run in everything})
    folds = list(dict.fromkeys(map(fold_of, everything)))
    if len(folds) > 1 and folds[0] is not None:
        folds = [(k, folds[0][1]) for k in range(1, folds[0][1] + 1)]
    for setting, runs in groups:
        existing = {_cell(run) for run in runs}
        where = f" at {label(setting)}" if setting else ""
        for cell in product(activations, seeds, folds):
            if cell not in existing:
                yield f"{_cell_name(*cell)}{where}"
