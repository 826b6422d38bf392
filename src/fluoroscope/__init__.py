"""An x-ray of your x-ray classifier: what the head's activation does to the gradient."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fluoroscope.prediction.predictor import Predictor

__version__ = "0.1.0"


def load(
    run_or_checkpoint: "str | Path", point: str = "youden", accelerator: str = "auto"
) -> "Predictor":
    """Open a trained model to predict films; see `prediction.predictor.load`.

    >>> fluoroscope.load("RUN").predict("film.dcm").probability  # doctest: +SKIP
    {'Pneumonia': 0.81}
    """
    from fluoroscope.prediction.predictor import load as open_predictor  # torch is slow to import

    return open_predictor(run_or_checkpoint, point, accelerator)
