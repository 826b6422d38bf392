"""An x-ray of your x-ray classifier: what the head's activation does to the gradient."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from fluoroscope.instrument.watching import Units
    from fluoroscope.prediction.predictor import Predictor

__version__ = "0.1.0"


def load(
    run_or_checkpoint: "str | Path",
    point: str = "youden",
    accelerator: str = "auto",
    trust: Sequence[str] = (),
) -> "Predictor":
    """Open a trained model to predict films; see `prediction.predictor.load`.

    >>> fluoroscope.load("RUN").predict("film.dcm").probability  # doctest: +SKIP
    {'Pneumonia': 0.81}
    """
    from fluoroscope.prediction.predictor import load as open_predictor  # torch is slow to import

    return open_predictor(run_or_checkpoint, point, accelerator, trust)


def watch(
    model: "nn.Module",
    layers: str | Sequence[str] = "*",
    every_n_calls: int = 1,
    tolerance: float = 1e-6,
    channel_dims: Mapping[str, int] | None = None,
) -> "Units":
    """Count the dead, linear and nonlinear units of any network while it trains or evaluates.

    Every call of the network is counted, in a window `train` or `eval` by `model.training`. Modules
    that compute elementwise activations are watched, and functions such as `F.relu`; `unseen` of
    the result says what could not be. Weights and random numbers stay as they are without it.

    >>> with fluoroscope.watch(model) as units:  # doctest: +SKIP
    ...     train(model)
    ...     print(units.table())

    Args:
        layers: names of layers, with the wildcards `*`, `?` and `[...]`. A module has its qualified
            name (`layer1.0.act`), a function that of the module that calls it (`layer1.0/relu`); in
            the second call of one pass it is `layer1.0.act#2`.
        every_n_calls: in training, counts the first of so many calls.
        tolerance: gates at or below it count as closed.
        channel_dims: dimension of the channels by layer name, with wildcards; the other layers have
            them where the last layer before had them.

    Raises:
        InputError: not a network, one whose calls cannot be followed, or a pattern without match.
    """
    from fluoroscope.instrument.watching import Units  # torch is slow to import

    return Units(model, layers, every_n_calls, tolerance, channel_dims)
