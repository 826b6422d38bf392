"""What a run is compared by, besides its test AUROC."""

import math
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from fluoroscope.reporting.collect import Run

# Column: where `result.json` has it.
PLACES = {
    "val_auroc": ("val", "auroc"),
    "dead": ("units", "val/dead_frac"),
    "linear": ("units", "val/linear_frac"),
    "nonlinear": ("units", "val/nonlinear_frac"),
    "blackout": ("units", "val/blackout_frac"),
    "gate_open": ("units", "val/gate_open_frac"),
    "dead_expected": ("units", "val/dead_expected_frac"),
    "dead_max": ("units", "val/dead_max"),
    "grad_head_dense": ("grad", "last", "l2/head_dense"),
    "grad_backbone": ("grad", "last", "l2/backbone"),
    "features_l2": ("grad", "last", "features_l2"),
    "features_zero": ("grad", "last", "features_zero_frac"),
    "gate_transmission": ("grad", "last", "gate_transmission"),
    "gate_cosine": ("grad", "last", "gate_cosine"),
    "starved": ("grad", "last", "starved_frac"),
    "update_ratio": ("grad", "last", "update_ratio"),
    "fit_s": ("fit_s",),
}
BLACKOUTS = ("units/val/blackout_frac", "units/train/blackout_frac")


def measure(run: Run) -> dict[str, float]:
    """The columns of `PLACES`, and those that come out of `metrics.csv`; NaN what is not there."""
    values = {column: _at(run.result, path) for column, path in PLACES.items()}
    dead, auroc = (_logged(run, key) for key in ("units/val/dead_frac", "val/auroc"))
    blackouts = [values["blackout"], *(_logged(run, key).max() for key in BLACKOUTS)]
    return values | {
        "dead_first": float(dead.iloc[0]) if len(dead) else math.nan,
        "blackout_max": float(np.fmax.reduce(blackouts)),
        "epochs_to_95": epochs_to(auroc),
    }


def epochs_to(auroc: pd.Series, share: float = 0.95) -> float:
    """The first epoch, from 1, that reaches the share of the best epoch's value; NaN without any.

    Args:
        auroc: by epoch, from 0.
    """
    reached = auroc.index[auroc >= share * auroc.max()]
    return float(reached[0] + 1) if len(reached) else math.nan


def _at(result: dict[str, Any], path: tuple[str, ...]) -> float:
    value = reduce(lambda part, key: part.get(key, {}), path, result)
    return math.nan if value is None or isinstance(value, dict) else float(value)


def _logged(run: Run, key: str) -> pd.Series:
    """What was logged under a key, by epoch."""
    if key not in run.metrics:
        return pd.Series(dtype=np.float64)
    epoch, values = (run.metrics[column].to_numpy(dtype=float) for column in ("epoch", key))
    known = ~np.isnan(values) & ~np.isnan(epoch)
    return pd.Series(values[known], index=epoch[known].astype(int))
