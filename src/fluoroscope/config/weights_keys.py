"""The keys of a backbone's weights: what the user says about them."""

import re
from collections.abc import Mapping
from typing import Any

from fluoroscope import sources
from fluoroscope.config.library_names import check_network
from fluoroscope.errors import InputError, check_choice, shown
from fluoroscope.model.contracts import check_contract


def check_weights_contract(key: str, value: Mapping[str, Any]) -> None:
    """Check `backbone.contract`, whose collections are sources of data.

    Raises:
        InputError: see `contracts.check_contract`; an unknown collection or architecture.
    """
    check_contract(key, value)
    trained_on = value.get("trained_on") or []
    if not isinstance(trained_on, list):
        raise InputError(f"{key}.trained_on must be a list of sources; got {shown(trained_on)}")
    for source in trained_on:
        check_choice(f"{key}.trained_on", source, sources.names())
    if (architecture := value.get("architecture")) is not None:
        if not re.fullmatch(r"\w+", str(architecture)):  # hf-hub: would be fetched
            raise InputError(
                f"{key}.architecture must be a network of timm without a weight tag, such as "
                f"densenet121; got {shown(architecture)}"
            )
        check_network(f"{key}.architecture", str(architecture))
