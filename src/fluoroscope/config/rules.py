"""Rules of single keys that are more than a range or a choice of words."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fluoroscope.choices import COUNT, FINITE, POSITIVE, PROFILERS, is_number, parse_fold
from fluoroscope.errors import InputError, check_choice, shown
from fluoroscope.own_code import is_path

NOT_IN_PROJECT = "/\\#?%:"  # W&B refuses these characters in the name of a project


def _check_approximate(key: str, value: Any) -> None:
    check_choice(key, value, ("none", "tanh"))


def _check_flag(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false; got {shown(value)}")


# Checks of the arguments of activations; PyTorch alone checks arguments that are not listed.
ARGUMENTS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("alpha", "init", "negative_slope", "threshold"), FINITE.check),
    **dict.fromkeys(("celu.alpha", "beta"), POSITIVE.check),  # they are divisors
    "approximate": _check_approximate,
    "inplace": _check_flag,
    "num_parameters": COUNT.check,
}


def check_arguments(activation: str, arguments: Mapping[str, Any]) -> None:
    """Check the values in `head.activation_args`, except of an activation of the user's own.

    Raises:
        InputError: an argument does not accept its value.
    """
    for name, value in () if is_path(activation) else arguments.items():
        check = ARGUMENTS.get(f"{activation}.{name}") or ARGUMENTS.get(name)
        if check is not None:
            check(f"head.activation_args.{name}", value)


# Arguments of timm's loader: they name files and addresses, or change what a model returns.
LOADING = {
    *("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
    *("pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "kwargs_filter"),
    *("model_name", "model_cls", "variant", "model_cfg", "feature_cfg", "feature_cls"),
    *("features_only", "out_indices", "scriptable", "exportable", "no_jit"),
}
PLACE = re.compile(r"path|file|url|dir|cfg|config|checkpoint|pretrained|weights")


def check_backbone_args(key: str, value: Mapping[str, Any]) -> None:
    """Check `backbone.args`: options of an architecture, and none that names a file or an address.

    A configuration may come from a stranger, and some versions of timm run code in a checkpoint.

    Raises:
        InputError: an argument of timm's loader, or a value that is not a number, true, false,
            null, one word, or a list of these.
    """
    for name, option in value.items():
        if name in LOADING or (PLACE.search(name) and not _is_option(option, words=False)):
            raise InputError(
                f"{key}: {shown(name)} is not an option of an architecture; weights come from "
                "backbone.weights=file backbone.file=PATH"
            )
        if not _is_option(option):
            raise InputError(
                f"{key}.{name} must be a number, true, false, null, one word, or a list of these; "
                f"got {shown(option)}"
            )


def _is_option(value: Any, words: bool = True) -> bool:
    if isinstance(value, list):
        return all(_is_option(part, words) for part in value)
    if isinstance(value, str):
        return words and re.fullmatch(r"\w*", value) is not None
    return value is None or isinstance(value, int | float)


def check_devices(key: str, value: Any) -> None:
    """Check `trainer.devices`; `2` is a number of devices, `0,1` lists devices.

    Raises:
        InputError: the value is not `auto`, -1 (all), a whole number above 0, or a list of numbers.
    """
    listed = value.split(",") if isinstance(value, str) and "," in value else value
    if isinstance(listed, list | tuple):
        numbers = [str(number).strip() for number in listed if str(number).strip()]
        right = bool(numbers) and all(re.fullmatch(r"\d+", number) for number in numbers)
    else:
        right = re.fullmatch(r"auto|-1|0*[1-9]\d*", str(value).strip()) is not None
    if not right:
        raise InputError(
            f"{key} must be auto, a number of devices, -1 for all, or a list of device numbers "
            f"such as [0,1]; got {shown(value)}"
        )


def check_limit(key: str, value: Any) -> None:
    """Check `trainer.limit_*_batches`, a number of batches or a share of them.

    Raises:
        InputError: the value is not None, a whole number above 0, or a share in (0, 1].
    """
    if value is not None and not (is_number(value) and (0 < value <= 1 or value % 1 == 0 < value)):
        raise InputError(
            f"{key} must be a whole number above 0, a share in (0, 1], or null; got {shown(value)}"
        )


def check_fast_dev_run(key: str, value: Any) -> None:
    """Check `trainer.fast_dev_run`.

    Raises:
        InputError: the value is neither true nor false nor a number of batches.
    """
    if not isinstance(value, bool) and not (isinstance(value, int) and value >= 1):
        raise InputError(
            f"{key} must be true, false or a number of batches of at least 1; got {shown(value)}"
        )


def check_profiler(key: str, value: Any) -> None:
    """Check `trainer.profiler`.

    Raises:
        InputError: the value is neither null nor the name of a profiler.
    """
    if value is not None:
        check_choice(key, value, PROFILERS)


def check_milestones(key: str, value: Any) -> None:
    """Check `schedule.milestones`.

    Raises:
        InputError: if it is not a list of rising shares in (0, 1).
    """
    listed: list[Any] = list(value) if isinstance(value, list | tuple) else [None]
    right = all(is_number(share) and 0 < share < 1 for share in listed)
    if not right or sorted(set(listed)) != listed:
        raise InputError(
            f"{key} must be a list of rising shares of the run in (0, 1), such as [0.5, 0.75]; got "
            f"{shown(value)}"
        )


def check_wandb_name(key: str, value: Any) -> None:
    """Check a W&B project or entity.

    Raises:
        InputError: the value is neither None nor a name that W&B accepts.
    """
    if value is not None and (not 0 < len(value) <= 128 or set(value) & set(NOT_IN_PROJECT)):
        section = key[: key.rfind(".") + 1]
        raise InputError(
            f"{key} must be 1 to 128 characters without any of {' '.join(NOT_IN_PROJECT)}; got "
            f"{shown(value)} (write ENTITY/PROJECT as {section}entity=ENTITY "
            f"{section}project=PROJECT)"
        )


def check_wandb_tags(key: str, value: Any) -> None:
    """Check `logger.tags`.

    Raises:
        InputError: W&B does not accept a tag.
    """
    for tag in value:
        if not 0 < len(tag) <= 64:
            raise InputError(f"{key} must be texts of 1 to 64 characters; got {shown(tag)}")


def check_fold(key: str, value: str | None) -> None:
    """As `parse_fold`; None means no folds."""
    if value is not None:
        parse_fold(key, value)
