"""Build networks whose weights others have published, as their contracts say."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import timm

from fluoroscope.commands import called
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.model.contracts import HUB, Contract, check_source, contract_of, unknown_contract

CHANNELS = "in_chans"  # timm's argument


def timm_call(
    name: str, weights: str, contract: Mapping[str, Any], args: Mapping[str, Any]
) -> tuple[str, dict[str, Any], Contract]:
    """Name and arguments of `timm.create_model`, and what the weights expect.

    Args:
        name: `backbone.name`.
        weights: `backbone.weights`.
        contract: `backbone.contract`.
        args: `backbone.args`.

    Raises:
        InputError: the arguments and the contract disagree, or only the hub knows the network or
            its contract.
    """
    check_source(name, weights, contract)
    agreed = contract_of(name, contract)
    channels = args.get(CHANNELS, 3 if agreed is None else agreed.channels)
    if channels not in (1, 3) or (agreed is not None and channels != agreed.channels):
        wanted = f"{agreed.channels}, as backbone.contract says" if agreed else "1 or 3"
        raise InputError(f"backbone.args.{CHANNELS} must be {wanted}; got {channels}")
    called = name if weights == "hub" or agreed is None else agreed.architecture or name
    return called, {**args, CHANNELS: channels}, agreed or _gray(name, channels)


def _gray(name: str, channels: int) -> Contract:
    """The contract of timm's weights in one channel.

    timm adds the filters of the three colours, so that the network sees what it would see of a
    picture whose channels are equal; mean and std are the averages of the colours'.
    """
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        raise unknown_contract(f"backbone.name={name}")
    sides = tuple(cfg.mean), tuple(cfg.std)
    if channels == 1:
        sides = (fmean(cfg.mean),), (fmean(cfg.std),)
    return Contract(channels, *sides, range=(0.0, 1.0))


def no_weights(name: str, error: Exception) -> InputError:
    """The refusal of weights that the hub does not provide, with a way to fetch them."""
    fetched_by = f"{called('prepare')} weights={name}"
    if name.startswith(HUB):
        fetched_by = f"hf download {name.removeprefix(HUB).partition('@')[0]}"
    return InputError(
        f"backbone.weights=hub: no weights for {name} ({first_sentence(error)}); if the hub cannot "
        f"be reached, fetch them on another machine ({fetched_by}) and set backbone.weights=file "
        "backbone.file=PATH, or backbone.weights=none"
    )
