"""Run folders of a made-up study, written within seconds: nobody trained anything."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from tests.support.films import config

ACTIVATIONS = (
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "tanh",
    "sigmoid",
    "identity",
)
EPOCHS, STEPS, WIDTH = 7, 15, 57
VAL, TEST = (109, 73), (112, 72)  # images, patients
# What ends as a linear unit, and as a dead one, of each activation; others have neither.
LINEAR = {"identity": 1.0, "leaky_relu": 0.5, "prelu": 0.45, "tanh": 0.3, "sigmoid": 0.6}
DEAD = {"relu": 0.26}
SETTINGS = tuple(
    {"head.order": order, "optimizer.lr": lr}
    for order in ("activation-norm", "norm-activation")
    for lr in (1e-3, 1e-4)
)


def write_study(
    root: Path,
    activations: Sequence[str] = ACTIVATIONS,
    seeds: int = 2,
    settings: Sequence[Mapping[str, Any]] = ({},),
    gates: bool = False,
) -> Path:
    """A run folder for each activation, seed and setting, with numbers that hang together.

    Args:
        settings: dotted keys that differ from the default configuration.
        gates: write `gate_open.npy` too.
    """
    for s, setting in enumerate(settings):
        base: Any = OmegaConf.to_container(config("data=nih14", "data.root=films"))
        base["data"]["labels"] = ["Pneumonia"]
        base["head"]["width"], base["trainer"]["max_epochs"] = WIDTH, EPOCHS
        for key, value in setting.items():
            _set(base, key, value)
        for a, activation in enumerate(activations):
            for seed in range(1, seeds + 1):
                rng = np.random.default_rng([s, a, seed])
                _set(base, "seed", seed)
                _set(base, "head.activation", activation)
                _set(base, "run.name", f"{activation}-s{seed}")
                folder = root / f"{s}-{activation}-s{seed}"
                _write_run(folder, base, a, float(setting.get("optimizer.lr", 1e-3)), rng, gates)
    return root


def _set(nodes: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        nodes = nodes[section]
    nodes[last] = value


def _write_run(folder: Path, cfg: Any, a: int, lr: float, rng: Any, gates: bool) -> None:
    folder.joinpath("predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(cfg))  # JSON is YAML, and written faster
    epochs = _epochs(cfg["head"]["activation"], a, lr, rng)
    auroc = 0.0
    for split, (images, patients) in {"val": VAL, "test": TEST}.items():
        auroc = _write_predictions(folder, split, images, patients, 0.004 * a, rng)
    _write_metrics(folder, epochs)
    result = _result(cfg, epochs, auroc, rng)
    (folder / "result.json").write_text(json.dumps(result))
    if gates:
        shares = rng.random((EPOCHS, WIDTH)).astype(np.float32)
        shares[:, : round(epochs["units/val/dead_frac"][-1] * WIDTH)] = 0
        np.save(folder / "gate_open.npy", shares)


def _epochs(activation: str, a: int, lr: float, rng: Any) -> dict[str, np.ndarray]:
    """Values of each logged key at the end of every epoch `[EPOCHS]`."""
    t = 1 - np.exp(-np.arange(1, EPOCHS + 1) / 2)
    noise = rng.normal(0, 0.01, (4, EPOCHS))
    dead = DEAD.get(activation, 0) * min(lr / 1e-3, 3) * t * rng.uniform(0.8, 1.2)
    linear = LINEAR.get(activation, 0.05) * (1 - dead)
    return {
        "val/auroc": 0.6 + (0.28 + 0.003 * a) * t + noise[0],
        "val/loss": 0.7 - 0.3 * t + 0.01 * a * t**2 + noise[1],
        "train/loss": 0.7 - 0.5 * t + noise[2],
        "units/val/dead_frac": dead,
        "units/val/linear_frac": linear,
        "units/val/nonlinear_frac": 1 - dead - linear,
        "units/val/blackout_frac": 0 * t,
        "units/val/gate_open_frac": 1 - dead * 2,
        "units/val/dead_expected_frac": 0 * t + 0.003,
        "units/train/blackout_frac": 0 * t,
        "grad/l2/head": (7 + a / 3) * np.exp(-t + noise[3]),
        "grad/l2/head_dense": (6 + a / 3) * np.exp(-t + noise[3]),
        "grad/l2/backbone": (40 + a) * np.exp(-t + noise[3]),
        "grad/features_l2": 0.4 * np.exp(-t / 3 + noise[3]),
        "grad/features_zero_frac": 0 * t,
        "grad/gate_transmission": 0.67 + noise[0],
        "grad/gate_cosine": 0.8 + noise[1],
        "grad/starved_frac": dead / 2,
        "grad/update_ratio": lr * np.exp(-3 * t),
    }


def _write_predictions(
    folder: Path, split: str, images: int, patients: int, skill: float, rng: Any
) -> float:
    """The file and the AUROC of what it holds; the truth is the same in every run."""
    fixed = np.random.default_rng(images)
    truth = fixed.permutation(np.arange(images) % 2)
    group = np.sort(fixed.integers(0, patients, images))
    shared = fixed.normal(size=images)  # images are hard or easy for every model
    z = (1.6 + skill * 3) * truth + shared + 0.4 * rng.normal(size=images)
    probability = 1 / (1 + np.exp(-z))
    rows = zip(range(images), group, truth, probability, strict=True)
    text = "".join(f"{i},{g},{t:.1f},{p:.7f}\n" for i, g, t, p in rows)
    header = "row,group,Pneumonia,Pneumonia_probability\n"
    (folder / f"predictions/{split}.csv").write_text(header + text)
    pairs = probability[truth == 1][:, None] > probability[truth == 0]
    return float(pairs.mean())


def _write_metrics(folder: Path, epochs: Mapping[str, np.ndarray]) -> None:
    """As a run logs: gradients in the middle of an epoch, the rest at its end."""
    gradients = [key for key in epochs if key.startswith("grad/")]
    others = [key for key in epochs if key not in gradients]
    lines = [",".join(["step", "epoch", *gradients, *others])]
    for e in range(EPOCHS):
        early = [f"{epochs[key][e]:.8g}" for key in gradients] + [""] * len(others)
        late = [""] * len(gradients) + [f"{epochs[key][e]:.8g}" for key in others]
        lines.append(",".join([str(e * STEPS), f"{e}.0", *early]))
        lines.append(",".join([str(e * STEPS + STEPS - 1), f"{e}.0", *late]))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def _result(cfg: Any, epochs: Mapping[str, np.ndarray], auroc: float, rng: Any) -> dict[str, Any]:
    def part(prefix: str, epoch: int) -> dict[str, float]:
        chosen = (key for key in epochs if key.startswith(prefix))
        return {key.removeprefix(prefix): float(epochs[key][epoch]) for key in chosen}

    best = int(epochs["val/auroc"].argmax())
    units = part("units/", -1) | {"val/dead_max": float(epochs["units/val/dead_frac"].max())}
    return {
        "name": cfg["run"]["name"],
        "seed": cfg["seed"],
        "source": "nih14",
        "labels": ["Pneumonia"],
        "backbone": cfg["backbone"]["name"],
        "image_px": cfg["data"]["image_px"],
        "activation": cfg["head"]["activation"],
        "width": WIDTH,
        "head": cfg["head"],
        "split_fingerprint": "0123456789abcdef",
        "splits": [
            {"split": "train", "images": 511, "patients": 336, "Pneumonia": 257},
            {"split": "val", "images": VAL[0], "patients": VAL[1], "Pneumonia": 54},
            {"split": "test", "images": TEST[0], "patients": TEST[1], "Pneumonia": 56},
        ],
        "skipped_images": 0,
        "epochs": EPOCHS,
        "steps": EPOCHS * STEPS,
        "val": {"auroc": float(epochs["val/auroc"][best]), "loss": float(epochs["val/loss"][best])},
        "test": {
            "auroc": auroc,
            "auroc_low": auroc - 0.06,
            "auroc_high": auroc + 0.05,
            "images": TEST[0],
            "patients": TEST[1],
        },
        "units": units,
        "grad": {"first": part("grad/", 0), "last": part("grad/", -1)},
        "postmortem": "",
        "best_epoch": best,
        "fit_s": float(rng.uniform(100, 200)),
        "total_s": 210.0,
    }
