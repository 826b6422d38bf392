"""The collections that weights were trained on, by the names of their sources."""

from collections.abc import Mapping, Sequence
from typing import Any

from fluoroscope.model.contracts import contract_of

# Each group holds copies of the same films: a model trained on one has seen films of the others.
SAME_FILMS = (
    # RSNA's and SIIM's challenges and ChestMNIST took their films from NIH ChestX-ray14.
    {"nih14", "rsna", "siim_pneumothorax", "medmnist"},
    {"kaggle_pneumonia", "medmnist"},  # PneumoniaMNIST
    {"covid", "rsna", "kaggle_pneumonia"},  # its normal films and other pneumonias
)


def trained_on(backbone: Mapping[str, Any]) -> tuple[str, ...]:
    """The sources with the images on which weights were trained; ImageNet's have none.

    Args:
        backbone: that section of a configuration.
    """
    contract = contract_of(backbone["name"], backbone["contract"])
    return () if backbone["weights"] == "none" or contract is None else contract.trained_on


def shared_with(source: str, collections: Sequence[str]) -> list[str]:
    """The collections that are this source or hold films of it.

    >>> shared_with("rsna", ["nih14", "padchest"])
    ['nih14']
    """
    return [
        other
        for other in collections
        if other == source or any({source, other} <= group for group in SAME_FILMS)
    ]
