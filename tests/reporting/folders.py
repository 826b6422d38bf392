"""Run folders as `scripts/train.py` leaves them, made in milliseconds."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.random import default_rng

LABELS = ["Nodule", "Mass"]


def config(activation="relu", seed=1, **keys):
    """A run's configuration; dotted keys by `section__key`."""
    values = {
        "seed": seed,
        "data": {
            **{"source": "table", "root": "films", "labels": LABELS, "image_px": 64},
            **{"batch_size": 16, "augment": [], "num_workers": 1, "views": None},
        },
        "backbone": {"name": "tiny", "weights": "none", "file": None, "frozen": False, "args": {}},
        "head": {
            **{"width": 40, "activation": activation, "activation_args": {}},
            **{"order": "activation-norm", "init": "keras", "bias_init": None},
        },
        "optimizer": {"lr": 0.001, "backbone_lr": 0.0001},
        "diagnostics": {"enabled": True, "revive_every_n_epochs": None},
        "trainer": {"max_epochs": 3, "devices": 1, "limit_test_batches": None},
        "logger": {"mode": "off"},
        "run": {"name": f"{activation}-s{seed}", "dir": "outputs", "patience": None},
    }
    for key, value in keys.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return values


def predictions(seed=0, images=60, patients=23, separation=1.0, noise=0, spread=0.3):
    """Test images whose truth and difficulty do not depend on the seed.

    Args:
        separation: of the classes, in standard deviations of the difficulty.
        noise: of a model; what it adds to every image's score.
        spread: standard deviation of that noise.
    """
    rng, model = default_rng(0), default_rng([seed, noise])
    table = {"row": np.arange(images) + 5, "group": rng.integers(0, patients, images) + 100}
    for label in LABELS:
        truth = (rng.random(images) < 0.4).astype(float)
        logit = separation * truth + rng.normal(size=images) + spread * model.normal(size=images)
        truth[rng.random(images) < 0.1] = np.nan
        table |= {label: truth, f"{label}_probability": (1 / (1 + np.exp(-logit))).astype("f4")}
    return pd.DataFrame(table)


def metrics(
    dead=(0.05, 0.1, 0.25), blackout=(0.0, 0.0, 0.0), auroc=(0.6, 0.7, 0.72), train_blackout=None
):
    """A training row, then a validation row, for each epoch.

    Args:
        train_blackout: of the training windows; None leaves them out.
    """
    rows = []
    for epoch, (d, b, a) in enumerate(zip(dead, blackout, auroc, strict=True)):
        own = {"units/train/blackout_frac": train_blackout[epoch]} if train_blackout else {}
        rows.append({"step": 10 * epoch, "epoch": epoch, "grad/l2/total": 1.0, **own})
        window = {"units/val/dead_frac": d, "units/val/blackout_frac": b, "val/auroc": a}
        rows.append({"step": 10 * epoch + 9, "epoch": epoch, **window})
    return pd.DataFrame(rows)


def write_run(
    folder: Path,
    activation="relu",
    seed=1,
    table=None,
    logged=None,
    fingerprint="f00d",
    splits=None,
    units=None,
    **keys,
):
    """A finished run.

    Args:
        splits: of its result; None for the test split alone.
        table: its test predictions; None for those of `predictions(seed)`.
        logged: its metrics; None for those of `metrics()`.
        units: more entries of `units` in its result.
        keys: of `config`.
    """
    table = predictions(seed) if table is None else table
    logged = metrics() if logged is None else logged
    cfg = config(activation, seed, **keys)
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
    table.to_csv(folder / "predictions/test.csv", index=False)
    logged.to_csv(folder / "metrics.csv", index=False)
    last = logged.dropna(subset=["val/auroc"]).iloc[-1]
    own_units = {
        "val/dead_frac": last["units/val/dead_frac"],
        "val/blackout_frac": last["units/val/blackout_frac"],
        "val/dead_max": logged["units/val/dead_frac"].max(),
        "val/dead_expected_frac": None,
    }
    result = {
        **{"name": cfg["run"]["name"], "seed": seed, "source": cfg["data"]["source"]},
        **{"labels": LABELS, "split_fingerprint": fingerprint, "fit_s": 10.0 + seed},
        "splits": splits or [{"split": "test", "images": len(table), "patients": 23}],
        "val": {"auroc": float(logged["val/auroc"].max())},
        "test": {"auroc": None},
        "units": own_units | (units or {}),
        "grad": {"last": {"l2/head_dense": 2.5, "l2/backbone": None}},
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_grid(root: Path, activations, seeds=(1, 2, 3), **same):
    """A run for each activation and seed.

    Args:
        activations: name to keywords of `write_run`, each a value or a function of the seed.
        same: keywords of all.
    """
    for name, own in activations.items():
        for seed in seeds:
            keys = {k: v(seed) if callable(v) else v for k, v in {**same, **own}.items()}
            write_run(root / f"{name}-s{seed}", name, seed, **keys)
    return root


def fold_of(table, k, n):
    """The rows of the patients whom fold k of n tests, and the sizes of its splits."""
    tested = table["group"] % n == k - 1
    parts = {"test": table[tested], "val": table[:5], "train": table[~tested][5:]}
    counts = {"train": len(table) - int(tested.sum()) - 5, "val": 5, "test": int(tested.sum())}
    splits = [
        {"split": name, "images": counts[name], "patients": parts[name]["group"].nunique()}
        for name in ("train", "val", "test")
    ]
    return table[tested], splits


def write_cross_validation(root: Path, activations, seeds=(1, 2, 3), folds=3, **same):
    """A run for each activation, seed and fold.

    Args:
        activations: name to a function of the seed, which gives the predictions of all images.
        folds: their number.
        same: keywords of `write_run`.
    """
    for name, predict in activations.items():
        for seed in seeds:
            whole = predict(seed)
            for k in range(1, folds + 1):
                tested, splits = fold_of(whole, k, folds)
                keys = {"table": tested, "splits": splits, "fingerprint": f"f{k}", **same}
                folder = root / f"{name}-s{seed}-{k}"
                write_run(folder, name, seed, data__fold=f"{k}/{folds}", **keys)
    return root
