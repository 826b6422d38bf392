"""What the page shows of one film: findings, warnings, pictures, and the head's activity."""

import base64
from math import isnan
from typing import NamedTuple

import cv2
import numpy as np
import torch

from fluoroscope.commands import called
from fluoroscope.errors import InputError, check_choice
from fluoroscope.explanation import maps
from fluoroscope.explanation.head_units import head_units, units_for_half
from fluoroscope.explanation.map_layer import Differentiable, find_map_layer
from fluoroscope.explanation.pictures import gray, overlay
from fluoroscope.explanation.regions import film_area
from fluoroscope.files.colours import colour_frac
from fluoroscope.files.images import decode_data
from fluoroscope.files.pixels import UnreadableError
from fluoroscope.prediction.predictor import Prediction, Predictor
from fluoroscope.reporting.tables import Table
from fluoroscope.trained.film_loader import film as film_input
from fluoroscope.trained.forward import predict_batches

UNITS = 8  # of the head that are listed
WARNINGS = {
    "not_chest": "This does not look like a chest film of the training",
    "inverted": "The film looks inverted: bone dark and air bright",
    "lateral": "The film looks lateral, and training had no lateral films",
    "constant": "The film has hardly any contrast",
    "tiny": "The film is much smaller than the network's input",
    "colour": "The file has colours; a chest film is gray",
    "unusual": "The network's features of this film are far from those of the training's films",
}
UNFLAGGED = "Nothing unusual was found about the film"
UNMEASURED = (
    "The film was not compared with those of the training, since the checkpoint has no statistics "
    f"of them; run {called('evaluate')} on it first"
)
PLACES = (("upper", "middle", "lower"), ("left", "middle", "right"))


class Shown(NamedTuple):
    """The texts and pictures of one film.

    Attributes:
        warnings: what is unusual about the film; sentences without full stops.
        unflagged: what to say if there is none.
        headline: probability and decision of the explained label.
        findings: one row per label.
        label: the one that is explained.
        picture, overlay: data URIs of PNGs; `overlay` is empty if there is none.
        no_overlay: why there is none, or why it shows nothing.
        strongest: the strongest place of the overlay in words.
        head: sentences on the head, without full stops.
        units: the units that contribute most.
        side_px: side of the network's input.
    """

    warnings: list[str]
    unflagged: str
    headline: str
    findings: Table
    label: str
    picture: str
    overlay: str
    no_overlay: str
    strongest: str
    head: list[str]
    units: Table
    side_px: int


class Examiner:
    """A trained model that looks at one film at a time.

    Args:
        predictor: of `prediction.predictor.load`.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.labels = predictor, predictor.labels
        trained = predictor.trained
        self.network, self.no_overlay = None, ""
        try:
            maps.check_captum()
            layer = find_map_layer(trained.network, trained.image_px)
            self.network = Differentiable(trained.network, layer)
        except InputError as error:
            self.no_overlay = f"There is no overlay: {error}"

    def examine(self, data: bytes, label: str | None = None) -> Shown:
        """Look at the content of a file.

        Args:
            label: the one to explain; None: that with the highest probability.

        Raises:
            InputError: the file cannot be read, or there is no such label.
        """
        if label is not None:
            check_choice("label", label, self.labels)
        size_px = self.predictor.trained.image_px
        try:
            pixels = decode_data(data).pixels
        except UnreadableError as error:
            raise InputError(f"the file cannot be read as a film: {error}") from None
        given = film_input(pixels, colour_frac(data), size_px)
        (prediction,) = self.predictor.predict_films(given)
        probability = prediction.probability
        chosen = label or max(self.labels, key=lambda name: probability[name])
        heat = self._heat(given.image, chosen)
        area = film_area(pixels.shape, size_px)
        square = given.image[0, 0].numpy()
        head, units = self._head(given.image, chosen)
        return Shown(
            warnings=[WARNINGS[flag] for flag in prediction.flags],
            unflagged=UNFLAGGED if self.predictor.is_measured else UNMEASURED,
            headline=self._headline(prediction, chosen),
            findings=self._findings(prediction),
            label=chosen,
            picture=data_uri(gray(square)),
            overlay="" if heat is None else data_uri(overlay(square, heat, area)),
            no_overlay=self.no_overlay or no_place(heat, chosen),
            strongest="" if heat is None else strongest_place(np.where(area, heat, 0)),
            head=head,
            units=units,
            side_px=size_px,
        )

    def _headline(self, prediction: Prediction, label: str) -> str:
        said = f"{label}: probability {shown_number(prediction.probability[label])}"
        if prediction.decision[label] is None:
            return f"{said}; its operating point is not known"
        side = "above" if prediction.decision[label] else "below"
        cut = shown_number(self.predictor.thresholds[label])
        return f"{said}, {side} the operating point {cut} ({self.predictor.point})"

    def _findings(self, prediction: Prediction) -> Table:
        rows = []
        for label, probability in prediction.probability.items():
            threshold = self.predictor.thresholds[label]
            decided = {True: "above", False: "below", None: "not known"}[prediction.decision[label]]
            cut = "not known" if isnan(threshold) else shown_number(threshold)
            rows.append([label, shown_number(probability), cut, decided])
        kind = "Probability" if self.predictor.calibration else "Probability, not calibrated"
        titles = ["Finding", kind, f"Operating point ({self.predictor.point})", "Decision"]
        return Table.of(titles, rows)

    def _heat(self, image: torch.Tensor, label: str) -> np.ndarray | None:
        if self.network is None:
            return None
        return maps.grad_cam(self.network, image, self.labels.index(label)).heat

    def _head(self, image: torch.Tensor, label: str) -> tuple[list[str], Table]:
        """Sentences on the head, and its units that contribute most to the label's logit."""
        trained, k = self.predictor.trained, self.labels.index(label)
        ((logits, features),) = predict_batches(trained, [image])
        found = head_units(trained.network.head, features)
        contribution, opened = found.contribution[0, k], found.open[0]
        up, down = (
            float(part.sum()) for part in (contribution.clamp(0), contribution.clamp(max=0))
        )
        shift = float(found.blackout_shift[0])
        lines = [
            f"{int(opened.sum()):,} of {len(opened):,} units are open for this film",
            f"{int(units_for_half(contribution)):,} units make half of all contributions",
            f"The logit is {signed(float(logits[0, k]))}: {signed(float(found.base[k]))} without "
            f"any contribution, {signed(up)} from units that raise it and {signed(down)} from "
            "units that lower it",
            "No fall of the pre-activations closes all units of this activation"
            if isnan(shift)
            else f"The film is {shift:.1f} standard deviations of its pre-activations away from a "
            "blackout, in which every unit is closed",
        ]
        order = contribution.abs().argsort(descending=True)[:UNITS].tolist()
        rows = [
            [f"unit {u}", signed(float(contribution[u]), 3), "open" if opened[u] else "closed"]
            for u in order
        ]
        return lines, Table.of(["Unit", "Contribution to the logit", "Gate"], rows)


def shown_number(value: float) -> str:
    """Three decimals; small values with two digits, so that a threshold is never 0.000.

    >>> shown_number(0.8124), shown_number(0.00034)
    ('0.812', '0.00034')
    """
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.2g}"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign.

    >>> signed(-5.284), signed(0.1136, 3)
    ('−5.28', '+0.114')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def data_uri(rgb: np.ndarray) -> str:
    """A picture uint8 RGB [H, W, 3] as a PNG within a page."""
    png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(png).decode()


def no_place(heat: np.ndarray | None, label: str) -> str:
    """What to say of a map that is zero everywhere; else nothing."""
    if heat is None or heat.any():
        return ""
    return f"Grad-CAM finds no place of this film that raises {label}"


def strongest_place(heat: np.ndarray) -> str:
    """The ninth of the image with the highest value; for those who do not see the picture.

    >>> strongest_place(np.eye(9)[::-1] * np.arange(9))
    'in the upper right of the image'
    """
    if not heat.max() > 0:
        return "nowhere: nothing raises it"
    place = np.unravel_index(int(heat.argmax()), heat.shape)
    down, across = (
        names[3 * int(at) // side]
        for names, at, side in zip(PLACES, place, heat.shape, strict=True)
    )
    return f"in the {down} {across} of the image".replace("middle middle", "middle")
