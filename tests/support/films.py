"""A folder of small films on which a tiny network learns something within seconds."""

from pathlib import Path

import cv2
import numpy as np
from hydra import compose, initialize_config_dir

from fluoroscope.command.run_one import register_resolvers
from fluoroscope.config import CONF
from fluoroscope.config.train import check_train

PATIENTS, IMAGES, SIDE_PX = 40, 3, 48

# The smallest of timm's networks, no weights, two passes over the films.
TINY = [
    "backbone=lite0",
    "data=folder",
    "data.image_px=48",
    "data.batch_size=8",
    "data.num_workers=0",
    "backbone.name=test_efficientnet",
    "backbone.weights=none",
    "head.width=31",
    "head.norm_momentum=0.1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    "diagnostics.every_n_steps=2",
    "logger=csv",
    "run.progress=quiet",
]
# Splits that divide neither by two processes nor by a batch.
UNEVEN = ["data.val_frac=0.175", "data.test_frac=0.125"]


def write_films(root: Path, seed: int = 0) -> Path:
    """`NORMAL` and `BLOB` folders; a blob is a bright disc somewhere in the noise."""
    rng = np.random.default_rng(seed)
    for patient in range(PATIENTS):
        name = "BLOB" if patient % 2 else "NORMAL"
        (root / name).mkdir(parents=True, exist_ok=True)
        for image in range(IMAGES):
            film = rng.normal(100, 12, (SIDE_PX, SIDE_PX))
            if patient % 2:
                centre = tuple(int(c) for c in rng.integers(12, 36, 2))
                film += cv2.circle(np.zeros_like(film), centre, 8, 60.0, -1)
            path = root / name / f"p{patient:03d}_{image}.png"
            cv2.imwrite(str(path), film.clip(0, 255).astype(np.uint8))
    return root


def write_uneven(root: Path) -> Path:
    """`write_films` but one: with `UNEVEN` 84, 21 and 14 of 119 films."""
    write_films(root)
    (root / "BLOB/p001_0.png").unlink()
    return root


def config(*overrides: str):
    """The checked configuration of a run with these overrides."""
    register_resolvers()  # of processes that know nothing of conftest.py
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_train(compose("train", [*overrides]))


def tiny_config(films: Path, *overrides: str):
    """The checked configuration of a tiny run on the films."""
    pattern = r"data.patient_pattern='(p\d+)_'"
    return config(*TINY, f"data.root={films}", pattern, *overrides)
