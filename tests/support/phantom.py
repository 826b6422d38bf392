"""Small phantom films and what a finding changes in them."""

import numpy as np

from fluoroscope.phantom.render import draw
from fluoroscope.phantom.thorax import APEX_BELOW_TOP_MM, FIELD_MM

SIZE = 160
# Millimetres at the centre of each pixel: x to image right of the midline, y below the lung's apex.
STEPS_MM = (np.arange(SIZE) + 0.5) * FIELD_MM / SIZE
X_MM, Y_MM = STEPS_MM[None, :] - FIELD_MM / 2, STEPS_MM[:, None] - APEX_BELOW_TOP_MM


def film(patient=1, image=0, *findings, subtlety=0.0, seed=0):
    return draw(patient, image, findings, subtlety, SIZE, seed).astype(float)


def change(finding, patient, subtlety=0.0):
    """What a finding alone does to a film; values under the spread of the noise are set to zero."""
    difference = film(patient, 0, finding, subtlety=subtlety) - film(patient, 0)
    return np.where(np.abs(difference) > 8, difference, 0)


def share(weights, where):
    return (weights * where).sum() / weights.sum()
