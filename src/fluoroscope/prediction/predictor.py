"""A trained model that predicts films: probabilities, decisions, and warnings of the input."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from fluoroscope.commands import called
from fluoroscope.errors import InputError, check_choice
from fluoroscope.files.arrays import gray_array
from fluoroscope.files.colours import array_colour_frac, colour_frac
from fluoroscope.files.images import decode_data, read_file
from fluoroscope.files.pixels import UnreadableError
from fluoroscope.own_code import trusting
from fluoroscope.trained.calibration import calibrated, sigmoid
from fluoroscope.trained.film_loader import Films, film, stack, unreadable
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.inputs import flags, read_inputs
from fluoroscope.trained.loading import Trained, open_trained
from fluoroscope.trained.stored_calibration import load_calibration

YOUDEN = "youden"  # the only operating point of a checkpoint without calibration


class Prediction(NamedTuple):
    """What a model says about one film.

    Attributes:
        probability: by label; calibrated, if the model is.
        decision: by label, whether the probability reaches the operating point; None if the point
            is not known, as one class was missing in validation.
        flags: names of `trained.inputs`: reasons to doubt that the model knows such films.
        error: why the file cannot be read, without its path; then probabilities are NaN.
    """

    probability: dict[str, float]
    decision: dict[str, bool | None]
    flags: tuple[str, ...]
    error: str = ""


class Predictor:
    """A trained model with its calibration, operating point and input statistics.

    Args:
        trained: of `open_trained`.
        point: operating point of the decisions, such as `youden` or `sensitivity_90`.

    Attributes:
        labels: K names.
        calibration: None if there is none: probabilities are then not calibrated.
        is_measured: whether films are compared with those of training; else only `constant`, `tiny`
            and `colour` are flagged.
        thresholds: by label, on `Prediction.probability`; NaN if not known.

    Raises:
        InputError: the point is not known, or `calibration.json` is damaged.
    """

    def __init__(self, trained: Trained, point: str = YOUDEN) -> None:
        self.trained, self.labels, self.point = trained, trained.labels, point
        self.calibration = load_calibration(trained)
        self.thresholds = self._thresholds(point)
        measured = self.calibration.inputs if self.calibration else {}
        self.is_measured = bool(measured)
        self.inputs = read_inputs(measured, trained.image_px)

    def _thresholds(self, point: str) -> dict[str, float]:
        if self.calibration is None:
            if point != YOUDEN:
                raise InputError(
                    f"point={point} needs a calibration; run {called('evaluate')} checkpoint=RUN "
                    f"first, or use point={YOUDEN}"
                )
            chosen = self.trained.checkpoint["thresholds"].tolist()
            return dict(zip(self.labels, map(float, chosen), strict=True))
        of_labels = self.calibration.labels
        check_choice("point", point, next(iter(of_labels.values())).points)
        return {label: of_labels[label].points[point] for label in self.labels}

    @overload
    def predict(self, film: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    @overload
    def predict(self, film: Any) -> Prediction: ...
    def predict(self, film: Any) -> Prediction | list[Prediction]:
        """Predict one film, or each of a list.

        Args:
            film: a file of any format that training reads, its content as bytes, or an array:
                [H, W], or [H, W, 3] in colours; 0 is dark (air). 8-bit values are used as they are,
                deeper ones are scaled by their own range.

        Returns:
            One prediction; for a list one of each, in which a film that cannot be read has an
            `error`.

        Raises:
            InputError: the film is not in a list and cannot be read.
        """
        if isinstance(film, list | tuple):
            size = self.trained.config.data.batch_size
            parts = [film[start : start + size] for start in range(0, len(film), size)]
            return [each for part in parts for each in self.predict_films(self._films(part))]
        (prediction,) = self.predict_films(self._films([film]))
        if prediction.error:
            name = f" {film}" if isinstance(film, str | Path) else ""
            raise InputError(f"cannot read image{name}: {prediction.error}")
        return prediction

    def _films(self, films: Sequence[Any]) -> Films:
        return stack([read_film(each, self.trained.image_px) for each in films])

    def predict_films(self, films: Films) -> list[Prediction]:
        """Predict a batch."""
        ((logits, features),) = predict_batches(self.trained, [films.image])
        wide = logits.double().numpy()
        known = self.calibration
        probability = sigmoid(wide) if known is None else calibrated(known, wide)
        found = flags(self.inputs, films.facts.numpy(), features.numpy())
        return [
            self._prediction(*each) for each in zip(probability, found, films.errors, strict=True)
        ]

    def _prediction(self, probability: np.ndarray, flags: list[str], error: str) -> Prediction:
        if error:
            probability = np.full(len(self.labels), nan)
        by_label = dict(zip(self.labels, probability.tolist(), strict=True))
        decided = {name: _decide(p, self.thresholds[name]) for name, p in by_label.items()}
        return Prediction(by_label, decided, tuple(flags), error)


def _decide(probability: float, threshold: float) -> bool | None:
    return None if isnan(probability) or isnan(threshold) else probability >= threshold


def read_film(film_: Any, image_px: int) -> Films:
    """One film of `Predictor.predict` as the model's input."""
    try:
        if isinstance(film_, str | Path | bytes):
            data = film_ if isinstance(film_, bytes) else read_file(film_)
            return film(decode_data(data).pixels, colour_frac(data), image_px)
        array = np.asarray(film_)
        return film(gray_array(array), array_colour_frac(array), image_px)
    except UnreadableError as error:
        return unreadable(str(error), image_px)


def load(
    run_or_checkpoint: str | Path,
    point: str = YOUDEN,
    accelerator: str = "auto",
    trust: Sequence[str] = (),
) -> Predictor:
    """Open a trained model to predict films; nothing in the checkpoint is executed.

    Args:
        run_or_checkpoint: the folder of a run, or a checkpoint.
        point: operating point of the decisions.
        accelerator: auto (a GPU if there is one), cpu or gpu.
        trust: packages of your own that the model may import, such as `["mypkg"]`.

    Raises:
        InputError: there is no checkpoint, a file is damaged, the model needs code that is not
            trusted, or the point is not known.
    """
    with trusting(trust):
        return Predictor(open_trained(run_or_checkpoint, accelerator), point)
