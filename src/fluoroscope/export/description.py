"""What an exported file says about itself."""

from typing import Any

import torch

from fluoroscope import __version__
from fluoroscope.run.run_folder import finite
from fluoroscope.trained.calibration import Calibration
from fluoroscope.trained.loading import Trained

# How a film becomes the input; docs/export.md gives the numbers of one film.
INTENSITY = {
    "input": "uint8 [B, 1, S, S], S = image_px",
    "range": [0, 255],
    "dark": "0 is air, 255 is bone",
    "dicom": "Modality LUT, VOI LUT or window, then MONOCHROME1 inverted",
    "depth": "8 bits unchanged; more are scaled from their own minimum and maximum to 0 ... 255",
    "colour": "luma, ITU-R BT.601",
    "fit": "longer side to S: area average if larger, bilinear if smaller; centred on 0",
    "inside": "the file itself scales to [0, 1] and normalises as the backbone needs",
}


def describe(trained: Trained, calibration: Calibration) -> dict[str, Any]:
    """Metadata of the exported file: plain values, None for a threshold that does not exist."""
    own = calibration.labels
    values = {
        "labels": list(trained.labels),
        "operating_points": {label: own[label].points for label in trained.labels},
        "temperature": {label: own[label].temperature for label in trained.labels},
        "uncalibrated": uncalibrated(calibration),
        "image_px": trained.image_px,
        "intensity": INTENSITY,
        "fingerprints": {
            "weights": trained.fingerprint,
            "split": trained.checkpoint["split_fingerprint"],
            "calibration_split": calibration.split_fingerprint,
        },
        "version": __version__,
        "backbone": trained.config.backbone.name,
        "torch": torch.__version__,
    }
    return finite(values)


def uncalibrated(calibration: Calibration) -> list[str]:
    """Labels of which the validation split has only one class, so that their temperature is 1."""
    known = calibration.labels.items()
    return [name for name, own in known if own.positives in (0, own.images)]
