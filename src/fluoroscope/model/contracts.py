"""Contracts of pretrained weights: what they expect of an image, and what they were trained on.

Weights only work on images like those of their training, and nothing in a file of weights says how
these looked. So a contract is always known before weights are used; it comes from

| `backbone.name` | its contract |
|---|---|
| a network of timm | the mean and std of timm's weight tag, pixels 0 to 1 |
| `xrv/NAME`, a network of torchxrayvision | `PUBLISHED` |
| `hf-hub:OWNER/NAME` | `config.json` of this repository, see `hub_networks` |
| any | `backbone.contract`, which is the user's own and counts before the others |

The module imports nothing heavy: names and contracts are checked before PyTorch is imported.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fluoroscope.choices import FINITE, IMAGE_PX, POSITIVE, is_number
from fluoroscope.errors import InputError, check_choice, nearest, shown

HUB, XRV = "hf-hub:", "xrv/"
REPOSITORY = re.compile(rf"{HUB}[\w.-]+/[\w.-]+(@[\w.-]+)?")
NEEDED = ("channels", "mean", "std", "range")
EXAMPLE = "backbone.contract={channels: 1, mean: 0, std: 1, range: [-1024, 1024]}"


class Contract(NamedTuple):
    """What weights expect of an image.

    Attributes:
        channels: of the first layer, 1 or 3; a gray image is repeated.
        mean, std: that are subtracted and divided by, one per channel, in the units of `range`.
        range: values of a black and of a white pixel, before mean and std.
        image_px: side of the images of the training; None if it is not known.
        trained_on: sources of `data` with the images of the training.
        architecture: timm's name of the network, if `backbone.name` is not that name.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float]
    image_px: int | None = None
    trained_on: tuple[str, ...] = ()
    architecture: str | None = None

    @property
    def of_unit(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of pixels between 0 and 1, which give the same network input.

        >>> Contract(1, (0.0,), (1.0,), (-1024.0, 1024.0)).of_unit  # x -> 2048 x - 1024
        ((0.5,), (0.00048828125,))
        """
        low, high = self.range
        mean = tuple((value - low) / (high - low) for value in self.mean)
        return mean, tuple(value / (high - low) for value in self.std)

    @property
    def scale(self) -> float:
        """Half the distance between black and white, as the network sees them."""
        return (self.range[1] - self.range[0]) / (2 * max(self.std))

    @property
    def sizes(self) -> list[int]:
        """Sides of the images of the training, as far as they are known."""
        return [] if self.image_px is None else [self.image_px]

    def as_keys(self) -> dict[str, Any]:
        """The value of `backbone.contract`, of plain lists and numbers."""
        found = {key: value for key, value in self._asdict().items() if value not in (None, ())}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def _xrv(architecture: str, image_px: int, *trained_on: str) -> Contract:
    """Source: torchxrayvision 1.5.7, `models.py` and `utils.normalize`."""
    gray = (1, (0.0,), (1.0,), (-1024.0, 1024.0))
    return Contract(*gray, image_px, trained_on, architecture)


_ALL = ("nih14", "padchest", "chexpert", "mimic_cxr", "rsna")
PUBLISHED = {
    "xrv/densenet121-res224-all": _xrv("densenet121", 224, *_ALL),  # and Open-I
    "xrv/densenet121-res224-nih": _xrv("densenet121", 224, "nih14"),
    "xrv/densenet121-res224-pc": _xrv("densenet121", 224, "padchest"),
    "xrv/densenet121-res224-chex": _xrv("densenet121", 224, "chexpert"),
    "xrv/densenet121-res224-rsna": _xrv("densenet121", 224, "rsna"),
    "xrv/densenet121-res224-mimic_nb": _xrv("densenet121", 224, "mimic_cxr"),
    "xrv/densenet121-res224-mimic_ch": _xrv("densenet121", 224, "mimic_cxr"),
    "xrv/resnet50-res512-all": _xrv(
        *("resnet50", 512), "padchest", "nih14", "rsna", "siim_pneumothorax", "vindr"
    ),
}


def architecture_of(name: str) -> str:
    """The architecture of a name with a slash; a repository of the hub is returned as it is.

    Raises:
        InputError: torchxrayvision has no such network, or the name is no repository.
    """
    if name in PUBLISHED:
        return str(PUBLISHED[name].architecture)
    if name.startswith(XRV):
        raise InputError(
            f"backbone.name: torchxrayvision has no {name!r}{nearest(name, PUBLISHED)}; it has "
            f"{', '.join(PUBLISHED)}"
        )
    if not REPOSITORY.fullmatch(name):
        raise InputError(
            f"backbone.name: {shown(name)} names no network; write a name of timm, {HUB}OWNER/NAME "
            f"for a repository, or {XRV}NAME for a network of torchxrayvision"
        )
    return name


def contract_of(name: str, keys: Mapping[str, Any]) -> Contract | None:
    """The contract of a network by its name, changed by the user's keys.

    None for a network of timm without keys, and of the hub before it was asked.

    Args:
        keys: `backbone.contract`.

    Raises:
        InputError: an unknown name, or keys that `check_contract` refuses.
    """
    known = PUBLISHED.get(name)
    if not keys:
        return known
    check_contract("backbone.contract", keys)
    sides = {key: _listed(keys[key], int(keys["channels"])) for key in ("mean", "std")}
    low, high = keys["range"]
    return Contract(
        keys["channels"],
        **sides,
        range=(float(low), float(high)),
        image_px=keys.get("image_px"),
        trained_on=tuple(keys.get("trained_on") or (known.trained_on if known else ())),
        architecture=keys.get("architecture") or (known.architecture if known else None),
    )


def check_source(name: str, weights: str, keys: Mapping[str, Any]) -> None:
    """Refuse weights that no place provides.

    Args:
        name, weights, keys: `backbone.name`, `backbone.weights` and `backbone.contract`.

    Raises:
        InputError: torchxrayvision's from the hub, or a network of the hub that is not read there.
    """
    if weights == "hub" and name.startswith(XRV):
        raise InputError(
            "backbone.weights=hub: torchxrayvision's own files hold code, which is not run; "
            f"{save_advice(name)}"
        )
    if weights != "hub" and name.startswith(HUB) and not keys.get("architecture"):
        raise InputError(
            f"backbone.name={name}: only the hub knows this network; set backbone.weights=hub, or "
            "add its architecture to backbone.contract"
        )


def check_contract(key: str, value: Mapping[str, Any]) -> None:
    """Check `backbone.contract`; {} means that the network's own contract counts.

    Raises:
        InputError: a key is missing or unknown, or its value is of another kind.
    """
    if not value:
        return
    for name in value:
        check_choice(f"a key of {key}", name, Contract._fields)
    if missing := [name for name in NEEDED if value.get(name) is None]:
        raise InputError(f"{key} lacks {', '.join(missing)}; write, for example, {EXAMPLE}")
    check_choice(f"{key}.channels", value["channels"], (1, 3))
    for name, limits in (("mean", FINITE), ("std", POSITIVE)):
        for number in _listed(value[name], value["channels"], f"{key}.{name}"):
            limits.check(f"{key}.{name}", number)
    ends = value["range"]
    if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_number, ends))):
        raise InputError(f"{key}.range must be two numbers, black and white; got {shown(ends)}")
    for end in ends:
        FINITE.check(f"{key}.range", end)
    if not ends[0] < ends[1]:
        raise InputError(f"{key}.range must rise from black to white; got {shown(ends)}")
    if (px := value.get("image_px")) is not None:
        if not isinstance(px, int):
            raise InputError(f"{key}.image_px must be a whole number of pixels; got {shown(px)}")
        IMAGE_PX.check(f"{key}.image_px", px)


def _listed(value: Any, channels: int, key: str = "") -> tuple[float, ...]:
    """One number per channel, from one number or a list."""
    numbers = list(value) if isinstance(value, list | tuple) else [value] * channels
    if len(numbers) != channels:
        raise InputError(
            f"{key} must be one number, or one for each of {channels} channels; got {shown(value)}"
        )
    return tuple(numbers)


def unknown_contract(what: str) -> InputError:
    """The refusal of weights that nobody says how to feed."""
    return InputError(
        f"{what}: nothing says which channels, mean, std and range of pixels these weights expect; "
        f"set {EXAMPLE} with the values of their training"
    )


def save_advice(name: str) -> str:
    """How to write the weights of a network of torchxrayvision without the code in its files."""
    kind = "DenseNet" if "densenet" in name else "ResNet"
    return (
        'write the weights alone with python -c "import torch, torchxrayvision as x; torch.save('
        f"x.models.{kind}(weights='{name.removeprefix(XRV)}').state_dict(), 'xrv.pth')\", and set "
        "backbone.weights=file backbone.file=xrv.pth"
    )
