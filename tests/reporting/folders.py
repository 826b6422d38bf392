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


def metrics(dead=(0.05, 0.1, 0.25), blackout=(0.0, 0.0, 0.0), auroc=(0.6, 0.7, 0.72)):
    """A training row, then a validation row, for each epoch."""
    rows = []
    for epoch, (d, b, a) in enumerate(zip(dead, blackout, auroc, strict=True)):
        rows.append({"step": 10 * epoch, "epoch": epoch, "grad/l2/total": 1.0})
        window = {"units/val/dead_frac": d, "units/val/blackout_frac": b, "val/auroc": a}
        rows.append({"step": 10 * epoch + 9, "epoch": epoch, **window})
    return pd.DataFrame(rows)


def write_run(
    folder: Path, activation="relu", seed=1, table=None, logged=None, fingerprint="f00d", **keys
):
    """A finished run.

    Args:
        table: its test predictions; None for those of `predictions(seed)`.
        logged: its metrics; None for those of `metrics()`.
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
    units = {
        "val/dead_frac": last["units/val/dead_frac"],
        "val/blackout_frac": last["units/val/blackout_frac"],
        "val/dead_max": logged["units/val/dead_frac"].max(),
        "val/dead_expected_frac": None,
    }
    result = {
        **{"name": cfg["run"]["name"], "seed": seed, "source": cfg["data"]["source"]},
        **{"labels": LABELS, "split_fingerprint": fingerprint, "fit_s": 10.0 + seed},
        "splits": [{"split": "test", "images": len(table), "patients": 23}],
        "val": {"auroc": float(logged["val/auroc"].max())},
        "test": {"auroc": None},
        "units": units,
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
